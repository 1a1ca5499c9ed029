//! Changes of credentials that meet on their way: what an owner changes holds against requests that
//! were authenticated before.
//!
//! Job: a thief who has a key and the password asks for keys and passwords without a pause, while
//! the owner changes the password. Invariant: after the owner's 204 nothing that the thief was ever
//! given is valid. Must never: depend on who is first; each answer decides what must follow.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{Api, JSON, KEYS, PASSWORD_ROUTE, TENANT, assert_status, basic};
use crate::support::client::{Answer, Client, Endpoint, Protocol};
use crate::support::workload::PASSWORD;

const ROUNDS: usize = 4;
const NEW: &str = "staple-battery-horse";

async fn change(client: &mut Client, from: (&str, &str), to: &str, revoke_keys: bool) -> Answer {
    let body = json!({ "new_password": to, "revoke_keys": revoke_keys }).to_string();
    let headers = [("authorization", &*basic(from.0, from.1)), JSON];
    client.request("PUT", PASSWORD_ROUTE, &headers, body).await.expect("an answer")
}

/// Makes keys with these credentials until the owner is done, and revokes one where there is no room
/// for another; returns all that were made.
async fn make_keys(endpoint: &Endpoint, credentials: &str, done: &AtomicBool) -> Vec<String> {
    let mut client = endpoint.connect(Protocol::Http1).await.expect("a connection");
    let headers = [("authorization", credentials)];
    let (mut made, mut ids) = (Vec::new(), Vec::new());
    while !done.load(Ordering::SeqCst) {
        let answer = client.request("POST", KEYS, &headers, "").await.expect("an answer");
        match answer.status {
            201 => {
                let key = answer.json()["data"].clone();
                made.push(key["attributes"]["api_key"].as_str().expect("a key").to_owned());
                ids.push(key["id"].as_str().expect("an id").to_owned());
            }
            409 => {
                assert_eq!(answer.code(), "quota_exceeded");
                let Some(id) = ids.pop() else { continue };
                let path = format!("{KEYS}/{id}");
                let revoked = client.request("DELETE", &path, &headers, "").await;
                let status = revoked.expect("an answer").status;
                assert!([204, 401, 429, 503].contains(&status), "{status}");
            }
            401 | 429 | 503 => {}
            other => panic!("{other}: {}", answer.text()),
        }
    }
    made
}

#[test]
fn a_thief_who_makes_keys_has_none_after_the_owners_change() {
    let api = Api::start();
    let mut made_by_the_thief = 0;
    for round in 0..ROUNDS {
        let name = format!("owner-{round}");
        let tenant = api.register(&name);
        // In one round the quota is nearly used up, so keys are made and revoked in turn.
        for _ in 0..if round == 0 { 97 } else { 0 } {
            let own = [("authorization", tenant.bearer.as_str())];
            assert_status(&api.ask(Protocol::Http1, "POST", KEYS, &own, ""), 201, "a key");
        }
        let (endpoint, done) = (api.endpoint.clone(), AtomicBool::new(false));
        let owner = async {
            let mut client = endpoint.connect(Protocol::Http2).await.expect("a connection");
            let answer = change(&mut client, (&name, PASSWORD), NEW, true).await;
            done.store(true, Ordering::SeqCst);
            assert_status(&answer, 204, "the owner's change");
        };
        let old_password = basic(&name, PASSWORD);
        let (_, by_key, again, by_password) = api.runtime.block_on(async {
            futures_util::future::join4(
                owner,
                make_keys(&endpoint, &tenant.bearer, &done),
                make_keys(&endpoint, &tenant.bearer, &done),
                make_keys(&endpoint, &old_password, &done),
            )
            .await
        });
        let stolen: Vec<String> = [by_key, again, by_password].concat();
        made_by_the_thief += stolen.len();
        for key in stolen.iter().chain([&tenant.key]) {
            let bearer = format!("Bearer {key}");
            let answer = api.ask(Protocol::Http1, "GET", TENANT, &[("authorization", &bearer)], "");
            assert_status(&answer, 401, "a key that the thief was given");
        }
        // The owner has everything: no key is counted that is not there, and a new one is valid.
        let right = basic(&name, NEW);
        let own = [("authorization", right.as_str())];
        let tenant = api.ask(Protocol::Http1, "GET", TENANT, &own, "").json();
        assert_eq!(tenant["data"]["attributes"]["keys"]["count"], 0, "{tenant}");
        assert_status(&api.ask(Protocol::Http1, "POST", KEYS, &own, ""), 201, "the owner's key");
        let listed = api.ask(Protocol::Http1, "GET", KEYS, &own, "").json();
        assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "{listed}");
    }
    assert!(made_by_the_thief > 0, "the thief was never fast enough to be a thief");
    api.stop();
}

#[test]
fn of_two_changes_with_one_password_one_is_made() {
    let api = Api::start();
    for round in 0..ROUNDS {
        let name = format!("owner-{round}");
        api.register(&name);
        let endpoint = api.endpoint.clone();
        let attempt = async |to: &'static str| {
            let mut client = endpoint.connect(Protocol::Http2).await.expect("a connection");
            (to, change(&mut client, (&name, PASSWORD), to, false).await.status)
        };
        let both = api.runtime.block_on(async {
            futures_util::future::join(attempt(NEW), attempt("another-battery-horse")).await
        });
        let made: Vec<&str> = [both.0, both.1]
            .into_iter()
            .inspect(|(_, status)| assert!([204, 401].contains(status), "{both:?}"))
            .filter_map(|(to, status)| (status == 204).then_some(to))
            .collect();
        assert_eq!(made.len(), 1, "{both:?}");
        let headers = [("authorization", &*basic(&name, made[0]))];
        assert_status(&api.ask(Protocol::Http1, "GET", TENANT, &headers, ""), 200, "the new one");
    }
    api.stop();
}
