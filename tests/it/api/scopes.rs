//! What each scope may do: every route with every key.
//!
//! Invariant: a request that is refused for its scope changed nothing.
//! Must never: leave out a route that needs a key.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Api, BOTH, COUNTERS, INCREMENT, INTEGER, KEYS, TENANT, assert_refusal, assert_status};
use crate::support::client::Protocol;

/// Every route that takes a key, the scope that it needs, and what it answers to who has it.
fn routes() -> Vec<(&'static str, &'static str, Value, &'static str, u16)> {
    let none = Value::Null;
    vec![
        ("GET", INTEGER, none.clone(), "read", 200),
        ("HEAD", INTEGER, none.clone(), "read", 200),
        ("PUT", INTEGER, json!({ "value": 7 }), "manage", 200),
        ("PUT", INCREMENT, none.clone(), "increment", 200),
        ("GET", COUNTERS, none.clone(), "read", 200),
        ("POST", COUNTERS, json!({ "name": "fresh" }), "manage", 201),
        ("GET", "/api/v1/counters/c", none.clone(), "read", 200),
        ("PUT", "/api/v1/counters/c", json!({ "value": 9, "rewind": true }), "manage", 200),
        ("POST", "/api/v1/counters/c/increment", none.clone(), "increment", 200),
        ("DELETE", "/api/v1/counters/fresh", none.clone(), "manage", 204),
        ("GET", KEYS, none.clone(), "manage", 200),
        ("POST", KEYS, json!({ "scopes": "read" }), "manage", 201),
        ("DELETE", "/api/v1/keys/0123456789abcdef", none, "manage", 404),
    ]
}

/// A route that is added to the table is to be added here.
#[test]
fn no_route_is_left_out() {
    let pattern = |path: &str| match path {
        "/api/v1/counters/c" | "/api/v1/counters/fresh" => "/api/v1/counters/{name}".to_owned(),
        "/api/v1/counters/c/increment" => "/api/v1/counters/{name}/increment".to_owned(),
        path if path.starts_with("/api/v1/keys/") => "/api/v1/keys/{id}".to_owned(),
        path => path.to_owned(),
    };
    let asked: BTreeSet<_> = routes()
        .into_iter()
        .filter(|route| route.0 != "HEAD")
        .map(|(method, path, _, scope, _)| (pattern(path), method, scope.to_owned()))
        .collect();
    let asked: BTreeSet<_> =
        asked.into_iter().map(|(path, method, scope)| (path, method.to_owned(), scope)).collect();
    // The document says of each operation which scope it needs; that this is true is the next test.
    let paths = crate::contract::document()["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| (path, method, operation))
    });
    let needed: BTreeSet<_> = operations
        .filter_map(|(path, method, operation)| {
            let about = operation["description"].as_str().unwrap();
            let scope = about.split("with the scope `").nth(1)?.split('`').next()?;
            Some((path.clone(), method.to_uppercase(), scope.to_owned()))
        })
        .collect();
    assert_eq!(asked, needed);
}

#[test]
fn each_key_may_do_what_its_scopes_say() {
    let api = Api::start();
    let tenant = api.register("scopes");
    api.create(&tenant, "c", json!({}));
    for scopes in
        ["read", "increment", "manage", "read,increment", "read,manage", "increment,manage"]
    {
        let key = api.key(&tenant, scopes);
        for protocol in BOTH {
            for (method, path, parameters, scope, status) in routes() {
                let before = (api.read(&tenant), api.value(&tenant, "c"));
                let answer = api.call(protocol, &key, (method, path), &[], &parameters);
                let case = format!("{scopes}: {method} {path}");
                if scopes.split(',').any(|has| has == scope) {
                    assert_eq!(answer.status, status, "{case}: {}", answer.text());
                    continue;
                }
                let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
                assert_eq!(
                    (answer.status, answer.header("www-authenticate")),
                    (403, &*challenge),
                    "{case}"
                );
                if method != "HEAD" {
                    assert_refusal(&answer, 403, "insufficient_scope", &case);
                    assert!(answer.text().contains(scope), "{case}: {}", answer.text());
                }
                assert_eq!((api.read(&tenant), api.value(&tenant, "c")), before, "{case}");
            }
            // Who it is may be asked with any key; what a password is needed for may be done with
            // none.
            assert_status(
                &api.call(protocol, &key, ("GET", TENANT), &[], &Value::Null),
                200,
                scopes,
            );
            for route in [("DELETE", TENANT), ("PUT", super::PASSWORD_ROUTE)] {
                let answer = api.call(
                    protocol,
                    &key,
                    route,
                    &[],
                    &json!({ "new_password": "correct-horse-9" }),
                );
                assert_refusal(&answer, 401, "unauthorized", scopes);
                assert_eq!(
                    answer.header("www-authenticate"),
                    r#"Basic realm="odometer", charset="UTF-8""#
                );
            }
        }
    }
    assert!(
        super::observability::sample(&api, r#"odometer_auth_failures_total{reason="scope"}"#)
            > 10.0
    );
    api.stop();
}

/// The body is not even read, and the key's tenant pays for the request.
#[test]
fn a_scope_is_asked_for_before_anything_else() {
    let api = Api::on(super::TestServer::builder().flag("--tenant-rate-limit", "1/h:9"));
    let tenant = api.register("order");
    let reader = api.key(&tenant, "read");
    let answer =
        api.ask(Protocol::Http1, "PUT", INTEGER, &[reader.auth(), super::JSON], "{ not JSON");
    assert_refusal(&answer, 403, "insufficient_scope", "a body that is none");
    assert!(answer.header("ratelimit").starts_with("\"tenant\";r=7;"), "{:?}", answer.headers);
    let answer = api.call(
        Protocol::Http1,
        &reader,
        ("DELETE", "/api/v1/counters/nothing"),
        &[],
        &Value::Null,
    );
    assert_refusal(&answer, 403, "insufficient_scope", "a counter that is none");
    api.stop();
}
