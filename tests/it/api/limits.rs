//! Rate limits: what is told of them while they hold, and what happens beyond.
//!
//! Invariant: limits here refill so slowly that no machine is too slow or too fast for the counts.
//! Must never: wait for a bucket to fill.

use super::{Api, BOTH, CREATE, FORM, INCREMENT, INTEGER, Tenant, assert_refusal};
use crate::support::client::{Answer, Protocol};
use crate::support::server::TestServer;

#[test]
fn a_tenants_limit_is_its_own() {
    let api = Api::on(TestServer::builder().flag("--tenant-rate-limit", "1/h:4"));
    let (busy, calm) = (api.register("busy"), api.register("calm"));
    let requests = [
        ("GET", INTEGER),
        ("PUT", INCREMENT),
        ("PUT", "/api/v1/integer?value=7"),
        ("PUT", INCREMENT),
    ];
    for (remaining, (method, path)) in [3, 2, 1, 0].into_iter().zip(requests) {
        let answer = api.ask(Protocol::Http1, method, path, &[busy.auth()], "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_limit(&answer, "tenant", 4, remaining);
    }
    for protocol in BOTH {
        for (method, path) in requests {
            let answer = api.ask(protocol, method, path, &[busy.auth()], "");
            assert_refusal(&answer, 429, "rate_limited", path);
            assert_limit(&answer, "tenant", 4, 0);
            assert_retry_after(&answer);
            assert!(answer.text().contains("tenant"), "{}", answer.text());
        }
    }
    // Somebody else counts on; so does the health check, which nobody pays for.
    assert_eq!((api.increment(&calm), api.increment(&calm)), (2, 3));
    assert_eq!(api.ask(Protocol::Http1, "GET", "/readyz", &[busy.auth()], "").status, 200);
    // A bad key with this tenant's name on it does not spend the other's requests either.
    let crossed = format!("Bearer {}{}", &calm.key[..21], &busy.key[21..]);
    assert_eq!(
        api.ask(Protocol::Http1, "GET", INTEGER, &[("authorization", &crossed)], "").status,
        401
    );
    assert_eq!(api.increment(&calm), 4);
    assert_eq!(
        super::observability::sample(&api, r#"odometer_rate_limited_total{scope="tenant"}"#),
        8.0
    );
    assert_eq!(super::observability::sample(&api, "odometer_increments_total"), 5.0);
    api.stop();
}

#[test]
fn all_keys_of_a_tenant_share_its_limit() {
    let api = Api::on(TestServer::builder().flag("--tenant-rate-limit", "1/h:4"));
    let tenant = api.register("keys");
    // Making a key takes the first of the four requests.
    let other = api.key(&tenant, "read,increment");
    for (remaining, key) in [(2, &other), (1, &tenant), (0, &other)] {
        let answer = api.ask(Protocol::Http1, "PUT", INCREMENT, &[key.auth()], "");
        assert_limit(&answer, "tenant", 4, remaining);
    }
    for key in [&tenant, &other] {
        let answer = api.ask(Protocol::Http2, "PUT", INCREMENT, &[key.auth()], "");
        assert_refusal(&answer, 429, "rate_limited", "either key");
    }
    api.stop();
}

#[test]
fn strangers_share_their_addresss_limit() {
    let api = Api::on(TestServer::builder().flag("--client-rate-limit", "1/h:5"));
    let tenant = api.register("known");
    let register = |name: &str| {
        let body = format!("username={name}&password=correct-horse-battery");
        api.ask(Protocol::Http1, "POST", CREATE, &[FORM], body)
    };
    let answer = register("second");
    assert_limit(&answer, "client", 5, 3);
    let second = Tenant::of(&answer);
    // Bad keys and bad registrations are strangers too.
    assert_eq!(api.ask(Protocol::Http2, "GET", INTEGER, &[], "").status, 401);
    assert_eq!(
        api.ask(Protocol::Http1, "PUT", INCREMENT, &[("authorization", "Bearer x")], "").status,
        401
    );
    assert_eq!(register("").status, 422);
    for protocol in BOTH {
        for (method, path, headers) in [
            ("GET", INTEGER, &[][..]),
            ("PUT", INCREMENT, &[("authorization", "Bearer x")]),
            ("POST", "/users/create?username=third&password=correct-horse-battery", &[]),
        ] {
            let answer = api.ask(protocol, method, path, headers, "");
            assert_refusal(&answer, 429, "rate_limited", path);
            assert_limit(&answer, "client", 5, 0);
            assert_retry_after(&answer);
        }
    }
    // Who has a key is no stranger; an increment has no business with the address's bucket.
    assert_eq!((api.increment(&tenant), api.increment(&second)), (2, 2));
    assert_eq!(api.ask(Protocol::Http1, "GET", "/nope", &[], "").status, 404);
    assert_eq!(
        super::observability::sample(&api, r#"odometer_rate_limited_total{scope="client"}"#),
        6.0
    );
    api.stop();
}

#[test]
fn off_is_no_limit_and_no_header() {
    let api = Api::start();
    let tenant = api.register("free");
    let values: Vec<u64> = api.runtime.block_on(async {
        let mut client = api.endpoint.connect(Protocol::Http1).await.unwrap();
        let mut values = Vec::new();
        for _ in 0..100 {
            values.push(client.increment(&tenant.key).await.unwrap());
            let answer = client.request("GET", INTEGER, &[], "").await.unwrap();
            assert_eq!((answer.status, answer.header("ratelimit")), (401, ""));
        }
        values
    });
    assert!(values.into_iter().eq(2..=101));
    let answer = api.ask(Protocol::Http1, "GET", INTEGER, &[tenant.auth()], "");
    assert_eq!((answer.header("ratelimit"), answer.header("ratelimit-policy")), ("", ""));
    api.stop();
}

/// A limited route tells its limit with every answer that spent from it, a refusal too.
#[test]
fn a_refusal_that_spent_a_request_tells_the_limit() {
    let api = Api::on(
        TestServer::builder()
            .flag("--tenant-rate-limit", "1/h:9")
            .flag("--client-rate-limit", "1/h:9"),
    );
    let tenant = api.register("told");
    let answer = api.ask(Protocol::Http1, "PUT", "/api/v1/integer?value=0", &[tenant.auth()], "");
    assert_refusal(&answer, 422, "value_out_of_range", "a value of 0");
    assert_limit(&answer, "tenant", 9, 8);
    let answer = api.ask(Protocol::Http1, "GET", INTEGER, &[], "");
    assert_refusal(&answer, 401, "unauthorized", "no key");
    assert_limit(&answer, "client", 9, 7);
    api.stop();
}

#[track_caller]
fn assert_limit(answer: &Answer, scope: &str, burst: u64, remaining: u64) {
    let hours = burst * 3600;
    let state = format!("\"{scope}\";r={remaining};t={}", (burst - remaining) * 3600);
    assert_eq!(answer.header("ratelimit-policy"), format!("\"{scope}\";q={burst};w={hours}"));
    assert_eq!(answer.header("ratelimit"), state);
}

#[track_caller]
fn assert_retry_after(answer: &Answer) {
    let seconds: u64 =
        answer.header("retry-after").parse().expect("Retry-After is a number of seconds");
    assert!((1..=3600).contains(&seconds), "{seconds}");
}
