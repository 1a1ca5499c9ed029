//! `Authorization: Basic`: where it is taken, and how often it may be wrong.
//!
//! Invariant: a wrong name and a wrong password are answered with the same bytes.
//! Must never: wait for a bucket to fill.

use serde_json::{Value, json};

use super::{
    Api, BOTH, COUNTERS, INCREMENT, INTEGER, KEYS, PASSWORD_ROUTE, TENANT, assert_refusal,
    assert_status, basic,
};
use crate::support::client::{Answer, Protocol};
use crate::support::server::TestServer;
use crate::support::workload::PASSWORD;

const BASIC: &str = r#"Basic realm="odometer", charset="UTF-8""#;

fn ask(api: &Api, protocol: Protocol, (method, path): (&str, &str), credentials: &str) -> Answer {
    api.ask(protocol, method, path, &[("authorization", credentials)], "")
}

fn challenges(answer: &Answer) -> Vec<&str> {
    answer
        .headers
        .get_all("www-authenticate")
        .iter()
        .map(|value| value.to_str().expect("ASCII"))
        .collect()
}

#[test]
fn a_password_opens_keys_and_tenant_and_nothing_else() {
    let api = Api::start();
    let tenant = api.register("Owner");
    let right = basic("owner", PASSWORD);
    for protocol in BOTH {
        for (scheme, name) in [("Basic", "OWNER"), ("bAsIc", "owner")] {
            let credentials = basic(name, PASSWORD).replace("Basic", scheme);
            assert_status(&ask(&api, protocol, ("GET", KEYS), &credentials), 200, scheme);
            assert_status(&ask(&api, protocol, ("GET", TENANT), &credentials), 200, scheme);
        }
        for route in [
            ("GET", INTEGER),
            ("PUT", INCREMENT),
            ("PUT", "/api/v1/integer?value=9"),
            ("GET", COUNTERS),
        ] {
            let answer = ask(&api, protocol, route, &right);
            assert_refusal(&answer, 401, "unauthorized", route.1);
            assert_eq!(challenges(&answer), [r#"Bearer realm="odometer", error="invalid_token""#]);
        }
        assert_eq!(api.read(&tenant), 1);
        for (route, bearer) in [
            (("GET", KEYS), true),
            (("POST", KEYS), true),
            (("GET", TENANT), true),
            (("DELETE", TENANT), false),
        ] {
            let answer = api.ask(protocol, route.0, route.1, &[], "");
            assert_refusal(&answer, 401, "unauthorized", route.1);
            let expected = [r#"Bearer realm="odometer""#, BASIC];
            assert_eq!(challenges(&answer), expected[usize::from(!bearer)..], "{route:?}");
        }
    }
    api.stop();
}

#[test]
fn a_wrong_name_and_a_wrong_password_are_told_alike() {
    let api = Api::start();
    api.register("known");
    let shown = |name: &str, password: &str| {
        let headers = [("authorization", &*basic(name, password)), ("x-request-id", "same")];
        let answer = api.ask(Protocol::Http2, "PUT", PASSWORD_ROUTE, &headers, "");
        assert_refusal(&answer, 401, "unauthorized", name);
        assert!(!answer.text().contains(name), "{}", answer.text());
        (answer.text(), challenges(&answer).join("; "))
    };
    let wrong = shown("known", "wrong-horse-1");
    for (name, password) in
        [("unknown", PASSWORD), ("no such name", PASSWORD), ("KNOWN", ""), ("known", "ä\u{0}:x")]
    {
        assert_eq!(shown(name, password), wrong, "{name}");
    }
    assert_eq!(
        super::observability::sample(&api, r#"odometer_auth_failures_total{reason="password"}"#),
        5.0
    );
    for bad in ["Basic", "Basic ", "Basic !", "Basic bm9jb2xvbg==", "Digest x"] {
        assert_refusal(&ask(&api, Protocol::Http1, ("GET", TENANT), bad), 401, "unauthorized", bad);
    }
    assert_eq!(
        super::observability::sample(&api, r#"odometer_auth_failures_total{reason="malformed"}"#),
        5.0
    );
    api.stop();
}

#[test]
fn ten_wrong_passwords_of_a_name_then_even_the_right_one_waits() {
    let api = Api::start();
    let (known, other) = (api.register("target"), api.register("bystander"));
    // The right one costs nothing.
    for _ in 0..12 {
        assert_status(
            &ask(&api, Protocol::Http1, ("GET", TENANT), &basic("target", PASSWORD)),
            200,
            "right",
        );
    }
    for name in ["target", "nobody"] {
        let tries = (0..11).map(|number| {
            ask(&api, BOTH[number % 2], ("GET", TENANT), &basic(name, "wrong-horse-1"))
        });
        let statuses: Vec<u16> = tries.map(|answer| answer.status).collect();
        // One more fits for each six seconds that this takes.
        let refused = statuses.iter().filter(|status| **status == 401).count();
        assert!(refused >= 10, "{name}: {statuses:?}");
        let throttled = (0..50).find_map(|_| {
            let answer = ask(
                &api,
                Protocol::Http2,
                ("GET", TENANT),
                &basic(&name.to_uppercase(), "wrong-horse-1"),
            );
            (answer.status == 429).then_some(answer)
        });
        let answer = throttled.expect("tries never end");
        assert_refusal(&answer, 429, "rate_limited", name);
        let seconds: u64 = answer.header("retry-after").parse().expect("a number of seconds");
        assert!((1..=6).contains(&seconds), "{seconds}");
        assert!(
            answer.header("ratelimit-policy").starts_with("\"name\";q=10;w=60"),
            "{:?}",
            answer.headers
        );
    }
    let right = ask(&api, Protocol::Http2, ("DELETE", TENANT), &basic("target", PASSWORD));
    assert_refusal(&right, 429, "rate_limited", "the right one, too early");
    // Its key counts on, and others have their own tries.
    assert_eq!((api.increment(&known), api.increment(&other)), (2, 2));
    assert_status(
        &ask(&api, Protocol::Http1, ("GET", TENANT), &basic("bystander", PASSWORD)),
        200,
        "another name",
    );
    assert!(
        super::observability::sample(&api, r#"odometer_rate_limited_total{scope="name"}"#) >= 3.0
    );
    api.stop();
}

#[test]
fn an_address_pays_for_every_password() {
    let api = Api::on(TestServer::builder().flag("--client-rate-limit", "1/h:5"));
    let tenant = api.register("payer");
    for (number, password) in
        [PASSWORD, "wrong-horse-1", PASSWORD, "wrong-horse-1"].into_iter().enumerate()
    {
        let answer = ask(&api, Protocol::Http1, ("GET", TENANT), &basic("payer", password));
        assert_eq!(
            answer.status,
            if password == PASSWORD { 200 } else { 401 },
            "{}",
            answer.text()
        );
        assert!(
            answer.header("ratelimit").starts_with(&format!("\"client\";r={};", 3 - number)),
            "{:?}",
            answer.headers
        );
    }
    for name in ["payer", "nobody"] {
        let answer = ask(&api, Protocol::Http2, ("GET", TENANT), &basic(name, PASSWORD));
        assert_refusal(&answer, 429, "rate_limited", name);
        assert!(
            answer.header("ratelimit-policy").starts_with("\"client\""),
            "{:?}",
            answer.headers
        );
    }
    let with_key = api.call(Protocol::Http1, &tenant, ("GET", TENANT), &[], &Value::Null);
    assert_eq!((with_key.status, api.increment(&tenant)), (200, 2));
    assert_eq!(with_key.json()["data"]["attributes"]["rate_limit"], json!(null));
    api.stop();
}
