//! API keys: made, used, revoked, expired.
//!
//! Invariant: a key is refused by the request after its revocation was answered, on every
//! connection. A secret is in one answer.
//! Must never: wait for a while; an expiry is waited for by asking.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    Api, BOTH, FORM, INCREMENT, INTEGER, KEYS, Tenant, assert_refusal, assert_status, basic,
};
use crate::support::client::Protocol;
use crate::support::server::TestServer;
use crate::support::workload::PASSWORD;

const NONE: Value = Value::Null;
const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn a_key_is_made_shown_once_and_counts() {
    let api = Api::start();
    let tenant = api.register("maker");
    for (protocol, label) in BOTH.into_iter().zip(["build \"server\", 2nd", ""]) {
        let parameters =
            json!({ "label": label, "scopes": ["increment", "read"], "expires_in": 3600 });
        let made = api.call(protocol, &tenant, ("POST", KEYS), &[], &parameters);
        assert_status(&made, 201, label);
        let data = made.json()["data"].clone();
        let key = data["attributes"]["api_key"].as_str().expect("a key").to_owned();
        assert!(key.starts_with("odo_") && key.len() == 93);
        assert_eq!((&data["id"], &data["type"]), (&json!(key[4..20]), &json!("key")));
        assert_eq!(made.header("location"), format!("{KEYS}/{}", &key[4..20]));
        let (created, expires) =
            (&data["attributes"]["created_at"], &data["attributes"]["expires_at"]);
        assert!(
            created.is_string() && expires.is_string() && created.as_str() < expires.as_str(),
            "{data}"
        );
        let mut attributes = json!({
            "label": label, "scopes": ["read", "increment"], "created_at": created, "expires_at": expires, "last_used_on": null, "api_key": key,
        });
        assert_eq!(data["attributes"], attributes);
        // Its use is noted by the day, beside the request.
        let user = Tenant::with_key(tenant.id, &key);
        api.increment(&user);
        let listed = until(|| {
            let all = api.call(protocol, &tenant, ("GET", KEYS), &[], &NONE).json()["data"].clone();
            let mine = all
                .as_array()
                .and_then(|all| all.iter().find(|one| one["id"] == data["id"]).cloned());
            mine.filter(|mine| !mine["attributes"]["last_used_on"].is_null())
        });
        attributes.as_object_mut().expect("an object").remove("api_key");
        attributes["last_used_on"] = listed["attributes"]["last_used_on"].clone();
        assert_eq!(listed["attributes"], attributes);
        assert_eq!(attributes["last_used_on"].as_str().map(str::len), Some(10));
    }
    let all = api.ask(Protocol::Http1, "POST", KEYS, &[tenant.auth(), FORM], "scopes=read,manage");
    assert_eq!(all.json()["data"]["attributes"]["scopes"], json!(["read", "manage"]));
    let usual =
        api.call(Protocol::Http1, &tenant, ("POST", KEYS), &[], &NONE).json()["data"]["attributes"]
            .clone();
    assert_eq!(
        (&usual["scopes"], &usual["expires_at"]),
        (&json!(["read", "increment", "manage"]), &NONE)
    );
    let at = json!({ "expires_at": "2999-12-31T23:59:59Z" });
    let at =
        api.call(Protocol::Http1, &tenant, ("POST", KEYS), &[], &at).json()["data"]["attributes"]
            .clone();
    assert_eq!(at["expires_at"], "2999-12-31T23:59:59Z");
    api.stop();
}

/// Asks until there is an answer.
#[track_caller]
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "it did not come true within {DEADLINE:?}");
    }
}

#[test]
fn what_is_no_key_is_not_made() {
    let api = Api::start();
    let tenant = api.register("refused");
    for protocol in BOTH {
        for (parameters, parameter, code) in [
            (json!({ "label": "x".repeat(101) }), "label", "invalid_parameter"),
            (json!({ "label": "a\nb" }), "label", "invalid_parameter"),
            (json!({ "label": 7 }), "label", "invalid_parameter"),
            (json!({ "scopes": [] }), "scopes", "invalid_parameter"),
            (json!({ "scopes": "" }), "scopes", "invalid_parameter"),
            (json!({ "scopes": ["write"] }), "scopes", "invalid_parameter"),
            (json!({ "scopes": ["read", 1] }), "scopes", "invalid_parameter"),
            (json!({ "expires_in": 0 }), "expires_in", "invalid_value"),
            (json!({ "expires_in": 315_360_001 }), "expires_in", "invalid_value"),
            (
                json!({ "expires_in": 5, "expires_at": "2999-12-31T23:59:59Z" }),
                "expires_in",
                "invalid_parameter",
            ),
            (json!({ "expires_at": "2001-01-01T00:00:00Z" }), "expires_at", "invalid_parameter"),
            (
                json!({ "expires_at": "2999-12-31T23:59:59+01:00" }),
                "expires_at",
                "invalid_parameter",
            ),
            (json!({ "expires_at": "soon" }), "expires_at", "invalid_parameter"),
            (json!({ "api_key": "mine" }), "api_key", "unknown_parameter"),
        ] {
            let answer = api.call(protocol, &tenant, ("POST", KEYS), &[], &parameters);
            assert_refusal(&answer, 422, code, &parameters.to_string());
            assert_eq!(
                answer.json()["errors"][0]["source"],
                json!({ "parameter": parameter }),
                "{parameters}"
            );
        }
        let all = api.call(protocol, &tenant, ("GET", KEYS), &[], &NONE).json();
        assert_eq!(all["data"].as_array().map(Vec::len), Some(1), "a refusal made a key");
    }
    api.stop();
}

#[test]
fn a_revoked_key_is_refused_from_the_next_request_on() {
    let api = Api::on(TestServer::builder().flag("--workers", "3"));
    let tenant = api.register("revoker");
    for protocol in BOTH {
        let key = api.key(&tenant, "increment,read");
        let before = api.increment(&key);
        let answers = api.runtime.block_on(async {
            // Connections of several workers, each of which knows the key by now.
            let mut clients = Vec::new();
            for _ in 0..6 {
                let mut client = api.endpoint.connect(protocol).await.expect("a connection");
                client.increment(&key.key).await.expect("an increment");
                clients.push(client);
            }
            let mut manager = api.endpoint.connect(protocol).await.expect("a connection");
            let path = format!("{KEYS}/{}", key.key_id());
            let revoked =
                manager.request("DELETE", &path, &[tenant.auth()], "").await.expect("an answer");
            assert_eq!((revoked.status, revoked.text()), (204, String::new()));
            let mut answers = Vec::new();
            for client in &mut clients {
                answers.push(
                    client.request("PUT", INCREMENT, &[key.auth()], "").await.expect("an answer"),
                );
                answers.push(
                    client.request("GET", INTEGER, &[key.auth()], "").await.expect("an answer"),
                );
            }
            answers
        });
        answers
            .iter()
            .for_each(|answer| assert_refusal(answer, 401, "unauthorized", "a revoked key"));
        assert_eq!(api.read(&tenant), before + 6);
        let path = format!("{KEYS}/{}", key.key_id());
        assert_refusal(
            &api.call(protocol, &tenant, ("DELETE", &path), &[], &NONE),
            404,
            "key_not_found",
            "twice",
        );
        for bad in ["x", "0123456789abcdef", "0123456789ABCDEF", "%00", &key.key] {
            let path = format!("{KEYS}/{bad}");
            assert_refusal(
                &api.call(protocol, &tenant, ("DELETE", &path), &[], &NONE),
                404,
                "key_not_found",
                bad,
            );
        }
    }
    // A key may revoke itself; the last one too, and then the password makes another.
    let path = format!("{KEYS}/{}", tenant.key_id());
    assert_status(
        &api.call(Protocol::Http1, &tenant, ("DELETE", &path), &[], &NONE),
        204,
        "itself",
    );
    assert_refusal(
        &api.call(Protocol::Http1, &tenant, ("GET", KEYS), &[], &NONE),
        401,
        "unauthorized",
        "itself",
    );
    let credentials = basic("revoker", PASSWORD);
    let made = api.ask(Protocol::Http2, "POST", KEYS, &[("authorization", &credentials)], "");
    assert_status(&made, 201, "a lost key is replaced");
    let fresh =
        Tenant::with_key(tenant.id, made.json()["data"]["attributes"]["api_key"].as_str().unwrap());
    assert_eq!(api.read(&fresh), 15);
    api.stop();
}

#[test]
fn a_revoked_key_stays_revoked_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Api::on(TestServer::builder().data_dir(folder.path().join("data")));
    let api = start();
    let tenant = api.register("durable");
    let (gone, kept) = (api.key(&tenant, "read"), api.key(&tenant, "read"));
    let path = format!("{KEYS}/{}", gone.key_id());
    assert_status(
        &api.call(Protocol::Http1, &tenant, ("DELETE", &path), &[], &NONE),
        204,
        "revoke",
    );
    let Api { server, .. } = api;
    server.kill();
    let api = start();
    assert_refusal(
        &api.call(Protocol::Http1, &gone, ("GET", INTEGER), &[], &NONE),
        401,
        "unauthorized",
        "revoked",
    );
    assert_eq!(api.read(&kept), 1);
    api.stop();
}

#[test]
fn an_expired_key_is_as_an_unknown_one() {
    let api = Api::start();
    let tenant = api.register("mortal");
    let made = api.call(Protocol::Http1, &tenant, ("POST", KEYS), &[], &json!({ "expires_in": 1 }));
    let attributes = made.json()["data"]["attributes"].clone();
    let key = Tenant::with_key(tenant.id, attributes["api_key"].as_str().unwrap());
    let expires_at = attributes["expires_at"].as_str().expect("a time").to_owned();
    let refused = until(|| {
        let asked_at = now();
        let answer = api.call(Protocol::Http1, &key, ("PUT", INCREMENT), &[], &NONE);
        // RFC 3339 in UTC sorts as the times do.
        assert!(answer.status != 200 || asked_at < expires_at, "still valid at {asked_at}");
        (answer.status != 200).then_some(answer)
    });
    assert!(now() >= expires_at, "refused before {expires_at}");
    let before = api.read(&tenant);
    let unknown = api.ask(
        Protocol::Http1,
        "PUT",
        INCREMENT,
        &[("authorization", &crossed(&tenant, &key))],
        "",
    );
    for (answer, case) in [(refused, "expired"), (unknown, "unknown")] {
        assert_refusal(&answer, 401, "unauthorized", case);
        let mut error = answer.json()["errors"][0].clone();
        error["id"].take();
        assert_eq!(
            error["detail"],
            "The API key is not valid. Send your API key as: Authorization: Bearer <key>.",
            "{case}"
        );
        assert_eq!(
            answer.header("www-authenticate"),
            r#"Bearer realm="odometer", error="invalid_token""#
        );
    }
    assert_eq!(api.read(&tenant), before);
    assert!(
        super::observability::sample(&api, r#"odometer_auth_failures_total{reason="expired"}"#)
            >= 1.0
    );
    api.stop();
}

/// The time in the form of the API.
fn now() -> String {
    time::OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .ok()
        .and_then(|now| now.format(&time::format_description::well_known::Rfc3339).ok())
        .expect("a time of this century")
}

/// The id of one key and the secret of another.
fn crossed(one: &Tenant, other: &Tenant) -> String {
    let body = format!("{}{}", &one.key[..21], &other.key[21..85]);
    format!("Bearer {body}{:08x}", crc32c::crc32c(body.as_bytes()))
}

#[test]
fn no_more_than_a_hundred_keys() {
    let api = Api::start();
    let tenant = api.register("hoarder");
    let statuses: Vec<u16> = api.runtime.block_on(async {
        let mut client = api.endpoint.connect(Protocol::Http2).await.expect("a connection");
        let mut statuses = Vec::new();
        for _ in 0..100 {
            statuses.push(
                client.request("POST", KEYS, &[tenant.auth()], "").await.expect("an answer").status,
            );
        }
        statuses
    });
    assert!(
        statuses[..99].iter().all(|status| *status == 201) && statuses[99] == 409,
        "{statuses:?}"
    );
    assert_refusal(
        &api.call(Protocol::Http1, &tenant, ("POST", KEYS), &[], &NONE),
        409,
        "quota_exceeded",
        "one more",
    );
    api.stop();
}
