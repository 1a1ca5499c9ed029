//! Entity tags, and changes that are made only if nobody else made one.
//!
//! Invariant: a tag changes with every change of its counter and never comes back. After each
//! refusal tag and value are as before.
//! Must never: look into a tag.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Api, BOTH, COUNTERS, INCREMENT, INTEGER, Tenant, assert_refusal, assert_status, value_of,
};
use crate::support::client::{Answer, Protocol};

const NONE: Value = Value::Null;

/// The tag of a counter now.
#[track_caller]
fn tag(api: &Api, tenant: &Tenant, path: &str) -> String {
    let answer = api.call(Protocol::Http1, tenant, ("GET", path), &[], &NONE);
    assert_status(&answer, 200, path);
    tag_of(&answer)
}

#[track_caller]
fn tag_of(answer: &Answer) -> String {
    let tag = answer.header("etag");
    assert!(
        tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2,
        "{tag:?} {}",
        answer.text()
    );
    tag.to_owned()
}

#[test]
fn every_change_has_a_tag_that_was_never_there() {
    let api = Api::start();
    let tenant = api.register("tags");
    let mut seen = BTreeSet::new();
    for protocol in BOTH {
        for path in ["/api/v1/counters/a", INTEGER] {
            let mut change = |method: &str, path: &str, read: &str, parameters: Value| {
                let answer = api.call(protocol, &tenant, (method, path), &[], &parameters);
                let made = tag_of(&answer);
                assert_eq!(made, tag(&api, &tenant, read), "{method} {path}");
                assert!(seen.insert((read.to_owned(), made)), "a tag came back: {method} {path}");
            };
            let increment = if path == INTEGER {
                ("PUT", INCREMENT)
            } else {
                ("POST", "/api/v1/counters/a/increment")
            };
            if path != INTEGER {
                change("POST", COUNTERS, path, json!({ "name": "a" }));
            }
            change(increment.0, increment.1, path, NONE);
            change(increment.0, increment.1, path, json!({ "count": 2 }));
            change("PUT", path, path, json!({ "value": 4 }));
            change("PUT", path, path, json!({ "value": 4 }));
            if path != INTEGER {
                assert_status(
                    &api.call(protocol, &tenant, ("DELETE", path), &[], &NONE),
                    204,
                    path,
                );
            }
        }
    }
    // Both names of the one counter have one tag.
    assert_eq!(tag(&api, &tenant, INTEGER), tag(&api, &tenant, "/api/v1/counters/default"));
    api.stop();
}

#[test]
fn a_set_and_a_deletion_wait_for_the_expected_state() {
    let api = Api::start();
    let tenant = api.register("sets");
    let path = "/api/v1/counters/c";
    for protocol in BOTH {
        api.create(&tenant, "c", json!({}));
        for path in [path, INTEGER] {
            api.call(
                protocol,
                &tenant,
                ("PUT", path),
                &[],
                &json!({ "value": 50, "rewind": true }),
            );
            let (old, parameters) = (tag(&api, &tenant, path), json!({ "value": 60 }));
            let set = |tags: &[&str]| {
                let headers: Vec<_> = tags.iter().map(|tag| ("if-match", *tag)).collect();
                api.call(protocol, &tenant, ("PUT", path), &headers, &parameters)
            };
            let fresh = tag_of(&set(&[&old]));
            assert_ne!(fresh, old);
            let weak = format!("W/{fresh}");
            for tags in [
                &[&*old][..],
                &[&weak],
                &["\"x\""],
                &["nonsense"],
                &[""],
                &[&old, "\"0-0\""],
                &["*, *"],
            ] {
                let answer = set(tags);
                assert_refusal(&answer, 412, "precondition_failed", &format!("{tags:?}"));
                let error = &answer.json()["errors"][0];
                assert_eq!(
                    (&error["meta"], &error["source"]),
                    (&json!({ "value": 60 }), &json!({ "header": "If-Match" }))
                );
                assert_eq!(
                    (answer.header("etag"), tag(&api, &tenant, path)),
                    (&*fresh, fresh.clone()),
                    "{tags:?}"
                );
            }
            let several = format!("\"x\", {old} ,{fresh}");
            let fresh = tag_of(&set(&[&several]));
            let fresh = tag_of(&set(&[&old, &fresh]));
            let fresh_too = tag_of(&set(&["*"]));
            assert_ne!(fresh, fresh_too);
            assert_eq!(value_of(&api.call(protocol, &tenant, ("GET", path), &[], &NONE)), 60);
        }
        let fresh = tag(&api, &tenant, path);
        let delete =
            |tag: &str| api.call(protocol, &tenant, ("DELETE", path), &[("if-match", tag)], &NONE);
        assert_refusal(&delete("\"9-9\""), 412, "precondition_failed", "another tag");
        assert_eq!(api.value(&tenant, "c"), 60);
        assert_status(&delete(&fresh), 204, "the tag");
        for tag in ["*", &fresh, "nonsense"] {
            assert_refusal(&delete(tag), 404, "counter_not_found", tag);
            let answer = api.call(
                protocol,
                &tenant,
                ("PUT", path),
                &[("if-match", tag)],
                &json!({ "value": 1 }),
            );
            assert_refusal(&answer, 404, "counter_not_found", tag);
        }
    }
    api.stop();
}

/// The tag of a deleted counter is not that of its successor, though both were changed as often.
#[test]
fn a_tag_of_a_deleted_counter_does_not_match_the_next_one_of_that_name() {
    let api = Api::start();
    let tenant = api.register("generations");
    let path = "/api/v1/counters/c";
    for protocol in BOTH {
        let old = tag_of(&api.create(&tenant, "c", json!({})));
        assert_status(&api.call(protocol, &tenant, ("DELETE", path), &[], &NONE), 204, "delete");
        let new = tag_of(&api.create(&tenant, "c", json!({})));
        assert_ne!(old, new);
        for (method, parameters) in [("PUT", json!({ "value": 9 })), ("DELETE", NONE)] {
            let with_old = [("if-match", &*old)];
            let answer = api.call(protocol, &tenant, (method, path), &with_old, &parameters);
            assert_refusal(&answer, 412, "precondition_failed", method);
            assert_eq!((api.value(&tenant, "c"), tag(&api, &tenant, path)), (0, new.clone()));
        }
        let with_new = [("if-match", &*new)];
        let deleted = api.call(protocol, &tenant, ("DELETE", path), &with_new, &NONE);
        assert_status(&deleted, 204, "its own tag");
    }
    api.stop();
}

#[test]
fn a_condition_that_a_route_does_not_take_is_refused() {
    let api = Api::start();
    let tenant = api.register("refused");
    api.create(&tenant, "c", json!({}));
    let json = json!({ "value": 9 });
    let name = json!({ "name": "new" });
    for protocol in BOTH {
        for (method, path, parameters, headers) in [
            ("PUT", INTEGER, &json, &["if-none-match"][..]),
            ("PUT", INCREMENT, &NONE, &["if-none-match", "if-match"]),
            ("PUT", "/api/v1/counters/c", &json, &["if-none-match"]),
            ("DELETE", "/api/v1/counters/c", &NONE, &["if-none-match", "idempotency-key"]),
            ("POST", "/api/v1/counters/c/increment", &NONE, &["if-none-match", "if-match"]),
            ("POST", COUNTERS, &name, &["if-none-match", "if-match"]),
            ("POST", super::KEYS, &NONE, &["if-none-match", "if-match", "idempotency-key"]),
            ("DELETE", "/api/v1/keys/0123456789abcdef", &NONE, &["if-match", "idempotency-key"]),
            ("POST", super::TENANTS, &NONE, &["if-match", "idempotency-key"]),
        ] {
            for header in headers {
                let answer =
                    api.call(protocol, &tenant, (method, path), &[(header, "*")], parameters);
                assert_refusal(&answer, 400, "not_supported", &format!("{method} {path} {header}"));
                assert!(answer.text().to_lowercase().contains(header), "{}", answer.text());
                assert_eq!((api.value(&tenant, "c"), api.read(&tenant)), (0, 1));
            }
        }
    }
    api.stop();
}
