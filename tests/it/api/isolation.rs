//! One tenant's credentials and another tenant's things.
//!
//! Invariant: what is somebody else's is as if it did not exist, in status, code and bytes.
//! Must never: change it.

use serde_json::{Value, json};

use super::{Api, BOTH, COUNTERS, KEYS, TENANT, Tenant, assert_refusal, assert_status, basic};
use crate::support::client::{Answer, Protocol};
use crate::support::workload::PASSWORD;

const NONE: Value = Value::Null;

/// An error without its id, which is the request's.
fn error(answer: &Answer) -> Value {
    let mut error = answer.json()["errors"][0].clone();
    error["id"].take();
    error
}

#[test]
fn somebody_elses_things_do_not_exist() {
    let api = Api::start();
    let (owner, thief) = (api.register("owner"), api.register("thief"));
    api.create(&owner, "secret", json!({ "start": 70 }));
    let spare = api.key(&owner, "read");
    let tag = api
        .call(Protocol::Http1, &owner, ("GET", "/api/v1/counters/secret"), &[], &NONE)
        .header("etag")
        .to_owned();
    for protocol in BOTH {
        for (method, suffix, parameters) in [
            ("GET", "", NONE),
            ("PUT", "", json!({ "value": 99 })),
            ("DELETE", "", NONE),
            ("POST", "/increment", json!({ "count": 5 })),
        ] {
            let ask = |name: &str, headers: &[(&str, &str)]| {
                api.call(
                    protocol,
                    &thief,
                    (method, &format!("{COUNTERS}/{name}{suffix}")),
                    headers,
                    &parameters,
                )
            };
            let (theirs, nobodys) = (ask("secret", &[]), ask("nothing", &[]));
            assert_refusal(&theirs, 404, "counter_not_found", method);
            assert_eq!(error(&theirs), error(&nobodys), "{method}");
            if method == "PUT" || method == "DELETE" {
                assert_refusal(
                    &ask("secret", &[("if-match", &tag)]),
                    404,
                    "counter_not_found",
                    "with its tag",
                );
            }
            assert_eq!(api.value(&owner, "secret"), 70, "{method}");
        }
        let revoke =
            |id: &str| api.call(protocol, &thief, ("DELETE", &format!("{KEYS}/{id}")), &[], &NONE);
        let theirs = revoke(spare.key_id());
        assert_refusal(&theirs, 404, "key_not_found", "another's key");
        assert_eq!(error(&theirs), error(&revoke("0123456789abcdef")));
        assert_eq!(api.read(&spare), 1, "the key was revoked");
        let lists = [COUNTERS, KEYS, "/api/v1/counters?page[after]=secres", TENANT];
        let all =
            lists.map(|path| api.call(protocol, &thief, ("GET", path), &[], &NONE).text()).concat();
        for what in ["secret", spare.key_id(), owner.key_id(), "owner"] {
            assert!(!all.contains(what), "{what}: {all}");
        }
        let cursor = api.call(
            protocol,
            &thief,
            ("GET", &format!("{KEYS}?page[after]={}", spare.key_id())),
            &[],
            &NONE,
        );
        assert_status(&cursor, 200, "another's key as a cursor is only a place in the order");
    }
    the_same_name_is_another_counter(&api, &owner, &thief);
    let crossed = basic("owner", PASSWORD).replace("Basic", "Bearer");
    let answer = api.ask(Protocol::Http1, "GET", KEYS, &[("authorization", &crossed)], "");
    assert_refusal(&answer, 401, "unauthorized", "a password is no key");
    api.stop();
}

fn the_same_name_is_another_counter(api: &Api, owner: &Tenant, thief: &Tenant) {
    api.create(thief, "secret", json!({}));
    let send = |tenant: &Tenant| {
        api.call(
            Protocol::Http2,
            tenant,
            ("POST", "/api/v1/counters/secret/increment"),
            &[("idempotency-key", "same")],
            &NONE,
        )
    };
    let (mine, theirs) = (send(thief), send(owner));
    assert_eq!((super::value_of(&mine), super::value_of(&theirs)), (1, 71));
    assert!([mine, theirs].iter().all(|answer| answer.header("idempotency-replayed").is_empty()));
    assert_status(
        &api.call(Protocol::Http1, thief, ("DELETE", "/api/v1/counters/secret"), &[], &NONE),
        204,
        "mine",
    );
    assert_eq!(api.value(owner, "secret"), 71);
}
