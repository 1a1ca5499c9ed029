//! `Idempotency-Key`: a change that is sent again is answered again and made once.
//!
//! Invariant: status, body and entity tag of a replay are those of the first answer, also after the
//! process was stopped or killed.
//! Must never: take a number for repeated because it looks like another; the counter is read.

use serde_json::{Value, json};

use super::{Api, BOTH, COUNTERS, INCREMENT, INTEGER, Tenant, assert_refusal, assert_status};
use crate::support::client::{Answer, Failure, Protocol};
use crate::support::server::TestServer;

const NONE: Value = Value::Null;
const IN_C: &str = "/api/v1/counters/c/increment";

fn send(
    api: &Api,
    protocol: Protocol,
    tenant: &Tenant,
    route: (&str, &str),
    key: &str,
    parameters: &Value,
) -> Answer {
    api.call(protocol, tenant, route, &[("idempotency-key", key)], parameters)
}

/// Everything that has to be the same, and whether it says that it was answered before.
fn shown(answer: &Answer) -> (u16, String, String, String) {
    let header = |name| answer.header(name).to_owned();
    (answer.status, answer.text(), header("etag"), header("location"))
}

#[track_caller]
fn assert_replay(first: &Answer, again: &Answer, case: &str) {
    assert_eq!(shown(again), shown(first), "{case}");
    assert_eq!(
        (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
        ("", "true"),
        "{case}"
    );
}

/// One request of each kind that can be sent again; each changes something.
fn kinds() -> [((&'static str, &'static str), Value); 8] {
    [
        (("PUT", INCREMENT), NONE),
        (("PUT", INCREMENT), json!({ "count": 3 })),
        (("PUT", INTEGER), json!({ "value": 90 })),
        (("POST", COUNTERS), json!({ "name": "new", "step": 2 })),
        (("POST", IN_C), NONE),
        (("POST", IN_C), json!({ "count": 4 })),
        (("PUT", "/api/v1/counters/c"), json!({ "value": 80 })),
        (("POST", "/api/v1/counters/default/increment"), json!({ "count": 1 })),
    ]
}

#[test]
fn the_same_request_is_answered_again_and_done_once_after_restarts_too() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Api::on(TestServer::builder().data_dir(folder.path().join("data")));
    let api = start();
    let tenant = api.register("again");
    let other_key = api.key(&tenant, "increment,manage");
    api.create(&tenant, "c", json!({}));
    let mut firsts = Vec::new();
    for (number, (route, parameters)) in kinds().into_iter().enumerate() {
        let first = send(&api, Protocol::Http2, &tenant, route, &format!("k{number}"), &parameters);
        assert!(matches!(first.status, 200 | 201), "{route:?} {}", first.text());
        firsts.push(first);
    }
    let values = (api.read(&tenant), api.value(&tenant, "c"), api.value(&tenant, "new"));
    let again = |api: &Api, case: &str| {
        for (number, (route, parameters)) in kinds().into_iter().enumerate() {
            for (protocol, sender) in BOTH.into_iter().zip([&tenant, &other_key]) {
                let answer = send(api, protocol, sender, route, &format!("k{number}"), &parameters);
                assert_replay(&firsts[number], &answer, &format!("{case}: {route:?}"));
            }
        }
        assert_eq!(
            (api.read(&tenant), api.value(&tenant, "c"), api.value(&tenant, "new")),
            values,
            "{case}"
        );
    };
    again(&api, "at once");
    assert_eq!(api.server.metric("odometer_idempotency_keys"), Some(8.0));
    api.stop();
    let api = start();
    again(&api, "after SIGTERM");
    let Api { server, .. } = api;
    server.kill();
    let api = start();
    again(&api, "after SIGKILL");
    // The counter went on, and the first answer stays what it was; a deleted one too.
    for (route, parameters) in
        [(("POST", "/api/v1/counters/new/increment"), NONE), (("POST", IN_C), NONE)]
    {
        assert_status(&api.call(Protocol::Http1, &tenant, route, &[], &parameters), 200, "on");
    }
    assert_status(
        &api.call(Protocol::Http1, &tenant, ("DELETE", "/api/v1/counters/new"), &[], &NONE),
        204,
        "gone",
    );
    let (route, parameters) = &kinds()[3];
    assert_replay(
        &firsts[3],
        &send(&api, Protocol::Http1, &tenant, *route, "k3", parameters),
        "of a deleted counter",
    );
    let read = api.call(Protocol::Http1, &tenant, ("GET", "/api/v1/counters/new"), &[], &NONE);
    assert_refusal(&read, 404, "counter_not_found", "a replay created it again");
    api.stop();
}

#[test]
fn a_key_stands_for_one_request() {
    let api = Api::start();
    let (tenant, other) = (api.register("one"), api.register("another"));
    api.create(&tenant, "c", json!({}));
    api.create(&tenant, "d", json!({}));
    for (protocol, key) in BOTH.into_iter().zip(["first", "second"]) {
        let route = ("POST", IN_C);
        assert_status(&send(&api, protocol, &tenant, route, key, &json!({ "count": 2 })), 200, key);
        let before = (api.read(&tenant), api.value(&tenant, "c"), api.value(&tenant, "d"));
        for (route, parameters) in [
            (route, json!({ "count": 3 })),
            (route, NONE),
            (("POST", "/api/v1/counters/d/increment"), json!({ "count": 2 })),
            (("PUT", INCREMENT), json!({ "count": 2 })),
            (("PUT", INCREMENT), NONE),
            (("PUT", "/api/v1/counters/c"), json!({ "value": 99 })),
            (("PUT", INTEGER), json!({ "value": 99 })),
            (("POST", COUNTERS), json!({ "name": "e" })),
        ] {
            let answer = send(&api, protocol, &tenant, route, key, &parameters);
            assert_refusal(
                &answer,
                422,
                "idempotency_key_reused",
                &format!("{route:?} {parameters}"),
            );
            assert_eq!(
                answer.json()["errors"][0]["source"],
                json!({ "header": "Idempotency-Key" })
            );
            assert_eq!(
                (api.read(&tenant), api.value(&tenant, "c"), api.value(&tenant, "d")),
                before
            );
        }
        // Another tenant's key of the same name is another key; another key of the same request is
        // another request.
        let answer = send(&api, protocol, &other, ("PUT", INCREMENT), key, &NONE);
        assert_eq!((answer.status, answer.header("idempotency-replayed")), (200, ""));
        let answer =
            send(&api, protocol, &tenant, route, &format!("{key}-b"), &json!({ "count": 2 }));
        assert_eq!((answer.status, answer.header("idempotency-replayed")), (200, ""));
    }
    // The same value with another condition is another request; the old route and the new one are
    // two.
    let set = |route: &str, headers: &[(&str, &str)]| {
        api.call(Protocol::Http1, &tenant, ("PUT", route), headers, &json!({ "value": 500 }))
    };
    assert_status(&set("/api/v1/counters/default", &[("idempotency-key", "s")]), 200, "set");
    let tag = set("/api/v1/counters/default", &[]).header("etag").to_owned();
    for headers in [
        &[("idempotency-key", "s"), ("if-match", &*tag)][..],
        &[("idempotency-key", "s"), ("if-match", "x")],
    ] {
        assert_refusal(
            &set("/api/v1/counters/default", headers),
            422,
            "idempotency_key_reused",
            "another condition",
        );
    }
    assert_refusal(
        &set(INTEGER, &[("idempotency-key", "s")]),
        422,
        "idempotency_key_reused",
        "the old route",
    );
    api.stop();
}

#[test]
fn what_is_no_key_changes_nothing() {
    let api = Api::start();
    let tenant = api.register("bad");
    let long = "x".repeat(256);
    for protocol in BOTH {
        for bad in ["", " ", "a b", "ä", &long] {
            for route in [
                ("PUT", INCREMENT),
                ("PUT", "/api/v1/integer?value=9"),
                ("POST", "/api/v1/counters?name=new"),
            ] {
                let answer = send(&api, protocol, &tenant, route, bad, &NONE);
                assert_refusal(&answer, 400, "invalid_idempotency_key", bad);
                assert_eq!(
                    answer.json()["errors"][0]["source"],
                    json!({ "header": "Idempotency-Key" })
                );
            }
        }
        let twice = [("idempotency-key", "a"), ("idempotency-key", "a")];
        let answer = api.call(protocol, &tenant, ("PUT", INCREMENT), &twice, &NONE);
        assert_refusal(&answer, 400, "invalid_idempotency_key", "two keys");
        assert_eq!(api.read(&tenant), 1);
    }
    let longest = "~".repeat(255);
    assert_eq!(
        send(&api, Protocol::Http1, &tenant, ("PUT", INCREMENT), &longest, &NONE).status,
        200
    );
    api.stop();
}

#[test]
fn a_refusal_is_not_remembered() {
    let api = Api::start();
    let tenant = api.register("refusal");
    let refused = send(&api, Protocol::Http1, &tenant, ("POST", IN_C), "k", &NONE);
    assert_refusal(&refused, 404, "counter_not_found", "no counter yet");
    api.create(&tenant, "c", json!({ "max": 1 }));
    let first = send(&api, Protocol::Http1, &tenant, ("POST", IN_C), "k", &NONE);
    assert_eq!(super::value_of(&first), 1);
    assert_refusal(
        &send(&api, Protocol::Http2, &tenant, ("POST", IN_C), "l", &NONE),
        409,
        "counter_exhausted",
        "full",
    );
    assert_replay(
        &first,
        &send(&api, Protocol::Http2, &tenant, ("POST", IN_C), "k", &NONE),
        "full, and answered before",
    );
    api.stop();
}

#[test]
fn many_at_once_are_one() {
    let api = Api::start();
    let tenant = api.register("crowd");
    let answers: Vec<Answer> = api.runtime.block_on(async {
        let mut crowd = tokio::task::JoinSet::new();
        for number in 0..48 {
            let (endpoint, bearer) = (api.endpoint.clone(), tenant.bearer.clone());
            crowd.spawn(async move {
                let mut client = endpoint
                    .connect(BOTH[number % 2])
                    .await
                    .map_err(|e| Failure::NotSent(e.to_string()))?;
                let headers = [("authorization", &*bearer), ("idempotency-key", "crowd")];
                client.request("PUT", INCREMENT, &headers, "").await
            });
        }
        let all = crowd.join_all().await.into_iter().collect::<Result<Vec<_>, Failure>>();
        all.expect("every request is answered")
    });
    let fresh =
        answers.iter().filter(|answer| answer.header("idempotency-replayed").is_empty()).count();
    assert_eq!((answers.len(), fresh), (48, 1));
    for answer in &answers {
        assert_eq!((shown(answer), answer.json()), (shown(&answers[0]), tenant.integer(2)));
    }
    assert_eq!(api.read(&tenant), 2);
    assert_eq!(super::observability::sample(&api, "odometer_increments_total"), 1.0);
    api.stop();
}

#[test]
fn a_full_memory_refuses_and_forgets_nothing() {
    let api = Api::on(TestServer::builder().flag("--idempotency-keys", "1000"));
    let (tenant, other) = (api.register("full"), api.register("room"));
    let answers = api.runtime.block_on(async {
        let mut client = api.endpoint.connect(Protocol::Http2).await.expect("a connection");
        let mut answers = Vec::new();
        for number in 0..251 {
            let key = format!("k{number}");
            let headers = [tenant.auth(), ("idempotency-key", key.as_str())];
            answers.push(client.request("PUT", INCREMENT, &headers, "").await.expect("an answer"));
        }
        answers
    });
    assert!(answers[..250].iter().all(|answer| answer.status == 200), "a quarter of 1000 fits");
    let error = answers[250].json()["errors"][0].clone();
    assert_eq!((answers[250].status, &error["code"]), (503, &json!("idempotency_full")), "{error}");
    assert!(answers[250].header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0));
    assert_eq!(api.read(&tenant), 251, "a refused increment took a number");
    assert_replay(
        &answers[0],
        &send(&api, Protocol::Http1, &tenant, ("PUT", INCREMENT), "k0", &NONE),
        "the first key",
    );
    assert_eq!(api.increment(&tenant), 252, "without a key it goes on");
    assert_eq!(
        send(&api, Protocol::Http1, &other, ("PUT", INCREMENT), "k0", &NONE).status,
        200,
        "another tenant has room"
    );
    api.stop();
}
