//! What the log says of changes of keys, passwords and tenants, and that it says no secret.
//!
//! Invariant: one event for each change, none for a refusal.
//! Must never: look for a secret only where one expects it.

use serde_json::{Value, json};

use super::{Api, JSON, KEYS, PASSWORD_ROUTE, TENANT, TENANTS, Tenant, basic};
use crate::support::client::{Answer, Protocol};
use crate::support::server::TestServer;
use crate::support::workload::PASSWORD;

#[test]
fn each_change_is_one_event_and_no_secret_is_told() {
    let api = Api::on(TestServer::builder().flag("--log-level", "trace"));
    let passwords =
        ["A-Very-Secret-Passphrase-1", "A-Very-Secret-Passphrase-2", "A-Wrong-Secret-Passphrase-3"];
    let mut refusals = Vec::new();
    let mut ask = |method: &str, path: &str, authorization: &str, body: &Value| -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = api.ask(
            Protocol::Http2,
            method,
            path,
            &[("authorization", authorization), JSON, ("x-request-id", "audited")],
            body,
        );
        if answer.status >= 400 {
            refusals.push(answer.text());
        }
        answer
    };
    let secret = |answer: &Answer| {
        answer.json()["data"]["attributes"]["api_key"].as_str().unwrap_or_default().to_owned()
    };
    let registration = json!({ "username": "Audited", "password": passwords[0] });
    let made = ask("POST", TENANTS, "", &registration);
    let id = made.json()["data"]["id"].as_str().unwrap_or_default().to_owned();
    let first = Tenant::with_key(0, &secret(&made));
    let second = Tenant::with_key(0, &secret(&ask("POST", KEYS, &first.bearer, &Value::Null)));
    let third = Tenant::with_key(
        0,
        &secret(&ask("POST", KEYS, &basic("audited", passwords[0]), &Value::Null)),
    );
    ask("DELETE", &format!("{KEYS}/{}", second.key_id()), &first.bearer, &Value::Null);
    // Refusals: none is an event of a change.
    ask("POST", TENANTS, "", &registration);
    ask("DELETE", &format!("{KEYS}/{}", second.key), &first.bearer, &Value::Null);
    ask("POST", KEYS, &first.bearer, &json!({ "label": passwords[0], "scopes": passwords[1] }));
    ask("POST", KEYS, &first.bearer, &json!({ first.key.as_str(): passwords[1] }));
    ask(
        "PUT",
        PASSWORD_ROUTE,
        &basic("audited", passwords[2]),
        &json!({ "new_password": passwords[1] }),
    );
    ask(
        "PUT",
        PASSWORD_ROUTE,
        &basic("audited", passwords[0]),
        &json!({ "new_password": passwords[1], "revoke_keys": passwords[0] }),
    );
    ask("PUT", PASSWORD_ROUTE, &first.bearer, &json!({ "new_password": passwords[1] }));
    ask("GET", TENANT, &format!("Basic {}", first.key), &Value::Null);
    ask("GET", &format!("{KEYS}?page[after]={}", first.key), &first.bearer, &Value::Null);
    ask(
        "PUT",
        PASSWORD_ROUTE,
        &basic("audited", passwords[0]),
        &json!({ "new_password": passwords[1], "revoke_keys": true }),
    );
    ask("DELETE", TENANT, &basic("audited", passwords[1]), &Value::Null);
    assert_eq!(refusals.len(), 9, "{refusals:#?}");
    refusals.push(api.server.ops_get("/metrics").1);
    let written = api.stop();
    let told = |action: &str| -> Vec<(String, String, String, u64)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = |event: &Value| {
            let revoked = event["odometer.keys_revoked"].as_u64().unwrap_or(0);
            assert_eq!(event["log.level"], "info", "{event}");
            (
                text(&event["organization.id"]),
                text(&event["odometer.key_id"]),
                text(&event["http.request.id"]),
                revoked,
            )
        };
        written.actions(action).iter().map(one).collect()
    };
    let event = |key: &str, revoked| (id.clone(), key.to_owned(), "audited".to_owned(), revoked);
    assert_eq!(told("tenant-registered"), [event(first.key_id(), 0)]);
    assert_eq!(told("key-created"), [event(second.key_id(), 0), event(third.key_id(), 0)]);
    assert_eq!(told("key-revoked"), [event(second.key_id(), 0)]);
    assert_eq!(told("password-changed"), [event("", 2)]);
    assert_eq!(told("tenant-deleted"), [event("", 0)]);
    let all = [refusals, written.log, vec![written.stderr]].concat().join("\n").to_lowercase();
    let keys = [&first, &second, &third].map(|tenant| tenant.key[21..53].to_owned());
    let credentials = passwords.map(|password| basic("audited", password)[6..].to_lowercase());
    for secret in passwords.map(str::to_lowercase).iter().chain(&keys).chain(&credentials) {
        assert!(!all.contains(secret), "{secret} was told");
    }
    assert!(!all.contains(PASSWORD), "not used here");
}
