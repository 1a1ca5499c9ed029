//! Tenants by the new routes: registered, shown, given another password, deleted.
//!
//! Invariant: what was a tenant's is out of reach after its deletion, for it and for whoever takes
//! its name.
//! Must never: leave open whether an answer came from the old tenant or the new.

use serde_json::{Value, json};

use super::{
    Api, BOTH, COUNTERS, CREATE, INTEGER, JSON, KEYS, PASSWORD_ROUTE, TENANT, TENANTS, Tenant,
    assert_refusal, assert_status, basic,
};
use crate::support::client::{Answer, Protocol};
use crate::support::server::TestServer;
use crate::support::workload::PASSWORD;

const NONE: Value = Value::Null;

fn register(api: &Api, protocol: Protocol, parameters: &Value) -> Answer {
    api.ask(protocol, "POST", TENANTS, &[JSON], parameters.to_string())
}

/// One request with name and password.
fn with_password(
    api: &Api,
    (method, path): (&str, &str),
    name: &str,
    password: &str,
    parameters: &Value,
) -> Answer {
    let credentials = basic(name, password);
    let body = if parameters.is_null() { String::new() } else { parameters.to_string() };
    api.ask(Protocol::Http2, method, path, &[("authorization", &credentials), JSON], body)
}

#[test]
fn a_tenant_registers_and_is_shown() {
    let api = Api::on(
        TestServer::builder()
            .flag("--tenant-rate-limit", "1000/s:2000")
            .flag("--counters-per-tenant", "7"),
    );
    for (protocol, name) in BOTH.into_iter().zip(["New.One", "New.Two"]) {
        let made = register(&api, protocol, &json!({ "username": name, "password": PASSWORD }));
        assert_status(&made, 201, name);
        let data = made.json()["data"].clone();
        let key = data["attributes"]["api_key"].as_str().expect("a key").to_owned();
        let created = data["attributes"]["created_at"].clone();
        let id = data["id"].as_str().and_then(|id| id.parse().ok()).expect("a number");
        let attributes = json!({ "username": name, "created_at": created, "api_key": key });
        assert_eq!(
            data,
            json!({ "id": format!("{id}"), "type": "tenant", "attributes": attributes })
        );
        assert!(
            created.as_str().is_some_and(|text| text.ends_with('Z')) && key.len() == 93,
            "{data}"
        );
        let tenant = Tenant::with_key(id, &key);
        assert_eq!(api.increment(&tenant), 2);
        api.create(&tenant, "c", json!({}));
        api.key(&tenant, "read");
        let attributes = json!({
            "username": name, "created_at": created, "counters": { "count": 1, "limit": 7 }, "keys": { "count": 2, "limit": 100 },
            "rate_limit": "1000/s:2000",
        });
        let expected = json!({ "id": id.to_string(), "type": "tenant", "attributes": attributes });
        for answer in [
            api.call(protocol, &tenant, ("GET", TENANT), &[], &NONE),
            with_password(&api, ("GET", TENANT), &name.to_uppercase(), PASSWORD, &NONE),
        ] {
            assert_eq!((answer.status, answer.json()["data"].clone()), (200, expected.clone()));
        }
        for (taken, route, status) in
            [(name, TENANTS, 409), (&*name.to_lowercase(), TENANTS, 409), (name, CREATE, 422)]
        {
            let body = json!({ "username": taken, "password": PASSWORD }).to_string();
            let answer = api.ask(protocol, "POST", route, &[JSON], body);
            assert_refusal(&answer, status, "username_taken", route);
            assert_eq!(answer.json()["errors"][0]["source"], json!({ "parameter": "username" }));
        }
        for (parameters, code) in [
            (json!({ "username": "a b", "password": PASSWORD }), "invalid_username"),
            (json!({ "username": "third", "password": "short" }), "invalid_password"),
            (
                json!({ "username": "third", "password": PASSWORD, "email": "x" }),
                "unknown_parameter",
            ),
        ] {
            assert_refusal(
                &register(&api, protocol, &parameters),
                422,
                code,
                &parameters.to_string(),
            );
        }
        let unknown = api.call(protocol, &tenant, ("GET", "/api/v1/tenant?id=2"), &[], &NONE);
        assert_refusal(&unknown, 422, "unknown_parameter", "a tenant is whoever the key says");
    }
    api.stop();
}

#[test]
fn another_password_with_and_without_revoked_keys() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Api::on(TestServer::builder().data_dir(folder.path().join("data")));
    let api = start();
    let tenant = api.register("changer");
    let other = api.register("bystander");
    let second = api.key(&tenant, "read");
    let change = |api: &Api, old: &str, parameters: &Value| {
        with_password(api, ("PUT", PASSWORD_ROUTE), "changer", old, parameters)
    };
    for (parameters, code) in [
        (json!({}), "invalid_password"),
        (json!({ "new_password": "short" }), "invalid_password"),
        (json!({ "new_password": "password123" }), "invalid_password"),
        (json!({ "new_password": 12_345_678 }), "invalid_parameter"),
        (
            json!({ "new_password": "another-horse-1", "revoke_keys": "perhaps" }),
            "invalid_parameter",
        ),
        (json!({ "new_password": "another-horse-1", "revoke": true }), "unknown_parameter"),
    ] {
        assert_refusal(&change(&api, PASSWORD, &parameters), 422, code, &parameters.to_string());
    }
    assert_status(
        &change(&api, PASSWORD, &json!({ "new_password": "another-horse-1" })),
        204,
        "without",
    );
    assert_refusal(
        &change(&api, PASSWORD, &json!({ "new_password": "x-horse-2" })),
        401,
        "unauthorized",
        "the old one",
    );
    assert_eq!((api.read(&tenant), api.read(&second)), (1, 1), "keys stay");
    let parameters = json!({ "new_password": "another-horse-2", "revoke_keys": true });
    assert_status(&change(&api, "another-horse-1", &parameters), 204, "with");
    let refused = |api: &Api| {
        for key in [&tenant, &second] {
            assert_refusal(
                &api.call(Protocol::Http2, key, ("GET", INTEGER), &[], &NONE),
                401,
                "unauthorized",
                "revoked",
            );
        }
        assert_eq!(api.read(&other), 1);
    };
    refused(&api);
    let Api { server, .. } = api;
    server.kill();
    let api = start();
    refused(&api);
    assert_refusal(&change(&api, "another-horse-1", &NONE), 401, "unauthorized", "an old one");
    let made = with_password(&api, ("POST", KEYS), "changer", "another-horse-2", &NONE);
    assert_status(&made, 201, "the new one");
    let shown = with_password(&api, ("GET", TENANT), "changer", "another-horse-2", &NONE);
    assert_eq!(shown.json()["data"]["attributes"]["keys"]["count"], 1);
    api.stop();
}

#[test]
fn a_deleted_tenant_is_gone_and_its_name_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Api::on(TestServer::builder().data_dir(folder.path().join("data")));
    let api = start();
    let old = api.register("Phoenix");
    let other = api.register("other");
    let second = api.key(&old, "read,increment");
    api.set(&old, 500);
    api.create(&old, "feathers", json!({ "start": 30 }));
    assert_refusal(
        &with_password(&api, ("DELETE", TENANT), "phoenix", "wrong-horse", &NONE),
        401,
        "unauthorized",
        "wrong",
    );
    let unknown =
        with_password(&api, ("DELETE", TENANT), "phoenix", PASSWORD, &json!({ "force": true }));
    assert_refusal(&unknown, 422, "unknown_parameter", "an unknown parameter");
    assert_eq!(api.read(&old), 500);
    assert_status(
        &with_password(&api, ("DELETE", TENANT), "phoenix", PASSWORD, &NONE),
        204,
        "deleted",
    );
    let refused = |api: &Api| {
        for key in [&old, &second] {
            let answer = api.call(Protocol::Http1, key, ("GET", INTEGER), &[], &NONE);
            assert_refusal(&answer, 401, "unauthorized", "a key of a deleted tenant");
        }
    };
    refused(&api);
    assert_refusal(
        &with_password(&api, ("GET", TENANT), "phoenix", PASSWORD, &NONE),
        401,
        "unauthorized",
        "its password",
    );
    let new = api.register("pHOENIX");
    assert!(new.id > other.id && new.id != old.id, "{} after {}", new.id, old.id);
    let check = |api: &Api| {
        assert_eq!((api.read(&new), api.read(&other)), (1, 1));
        let list = api.call(Protocol::Http1, &new, ("GET", COUNTERS), &[], &NONE).json();
        assert_eq!(list["data"].as_array().map(Vec::len), Some(1), "{list}");
        let read =
            api.call(Protocol::Http1, &new, ("GET", "/api/v1/counters/feathers"), &[], &NONE);
        assert_refusal(&read, 404, "counter_not_found", "of the tenant before");
        let keys = api.call(Protocol::Http1, &new, ("GET", KEYS), &[], &NONE).json();
        assert_eq!(keys["data"].as_array().map(Vec::len), Some(1), "{keys}");
        refused(api);
    };
    check(&api);
    let Api { server, .. } = api;
    server.kill();
    let api = start();
    check(&api);
    api.stop();
}
