//! The commands `tenant` and `key`, asked of a running server through its admin socket.
//!
//! Job: each command does what it says, to the right tenant, from the next request on, and is in the log. Invariant: a command that fails says why in
//! one line and exits 1. Must never: need the server to be stopped.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::client::{Answer, Protocol};
use support::command::{ended, odometer};
use support::server::TestServer;
use support::workload::{PASSWORD, register, runtime};

/// The rows that a command prints for programs.
fn rows(data_dir: &Path, words: &[&str]) -> Vec<Value> {
    let said = ended(odometer(words).arg("--data-dir").arg(data_dir)).succeeded();
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn refused(data_dir: &Path, words: &[&str]) -> String {
    let ended = ended(odometer(words).arg("--data-dir").arg(data_dir));
    ended.complained(1, &[]);
    ended.stderr
}

fn increment(server: &TestServer, key: &str) -> Answer {
    let bearer = format!("Bearer {key}");
    runtime().block_on(async {
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        client.request("PUT", "/api/v1/integer/increment", &[("authorization", &bearer)], "").await.unwrap()
    })
}

#[test]
fn tenants_are_listed_suspended_limited_and_deleted() {
    let server = TestServer::builder().flag("--tenant-rate-limit", "1000/s").start();
    let dir = server.data_dir().to_owned();
    let keys = runtime().block_on(register(&server.endpoint(), "shop", 3));
    let listed = rows(&dir, &["tenant", "list"]);
    assert_eq!(listed.iter().map(|row| row["id"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    let name = |at: usize| listed[at]["name"].as_str().unwrap().to_owned();
    assert_eq!(increment(&server, &keys[0]).status, 200);

    let [suspended] = &rows(&dir, &["tenant", "suspend", &name(0)])[..] else { panic!("one row") };
    assert_eq!(suspended["suspended"], true);
    let answer = increment(&server, &keys[0]);
    assert_eq!((answer.status, answer.code().as_str()), (403, "tenant_suspended"));
    assert_eq!(increment(&server, &keys[1]).status, 200, "another tenant is not touched");
    assert_eq!(rows(&dir, &["tenant", "resume", &name(0).to_uppercase()])[0]["suspended"], false);
    assert_eq!(increment(&server, &keys[0]).json()["data"]["attributes"]["value"], 3, "nothing was taken meanwhile");

    assert_eq!(rows(&dir, &["tenant", "limit", &name(1), "1/h:1"])[0]["limit"], "1/h");
    let answers = [increment(&server, &keys[1]), increment(&server, &keys[1])];
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 429]);
    assert_eq!(answers[0].header("ratelimit-policy"), "\"tenant\";q=1;w=3600");
    assert_eq!(rows(&dir, &["tenant", "limit", &name(1), "off"])[0]["limit"], "off");
    let unlimited = increment(&server, &keys[1]);
    assert_eq!((unlimited.status, unlimited.header("ratelimit-policy")), (200, ""));
    assert_eq!(rows(&dir, &["tenant", "limit", &name(1), "default"])[0]["limit"], "default");
    assert_eq!(increment(&server, &keys[1]).header("ratelimit-policy"), "\"tenant\";q=1000;w=1");

    assert!(refused(&dir, &["tenant", "delete", &name(2)]).contains("nothing was deleted"));
    assert_eq!(rows(&dir, &["tenant", "delete", &name(2), "--yes"]), Vec::<Value>::new());
    assert_eq!(increment(&server, &keys[2]).status, 401);
    assert!(refused(&dir, &["tenant", "show", &name(2)]).contains("there is no tenant named"));
    assert!(refused(&dir, &["tenant", "limit", &name(1), "lots"]).contains("a rate is a count per s, m or h"));
    assert_eq!(rows(&dir, &["tenant", "list"]).len(), 2);

    let written = server.stop();
    for (action, count) in
        [("tenant-suspended", 1), ("tenant-resumed", 1), ("tenant-limited", 4), ("tenant-deleted", 1)]
    {
        let events = written.actions(action);
        assert_eq!(events.len(), count, "{action}");
        assert!(
            events.iter().all(|event| event["organization.id"].is_string() && event["user.id"].is_number()),
            "{events:?}"
        );
    }
    assert!(refused(&dir, &["tenant", "list"]).contains("no server runs on"));
}

#[test]
fn keys_are_listed_without_secrets_and_revoked() {
    let server = TestServer::start();
    let dir = server.data_dir().to_owned();
    let keys = runtime().block_on(register(&server.endpoint(), "build", 2));
    let names: Vec<String> =
        rows(&dir, &["tenant", "list"]).iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(increment(&server, &keys[0]).status, 200);
    let listed = rows(&dir, &["key", "list", &names[0]]);
    assert_eq!(listed.len(), 1);
    let id = &keys[0][4..20];
    assert_eq!((&listed[0]["id"], &listed[0]["scopes"]), (&json!(id), &json!("read increment manage")));
    assert!(!format!("{listed:?}").contains(&keys[0][21..40]), "a secret is shown");
    assert!(refused(&dir, &["key", "revoke", &names[1], id]).contains("no such key"), "a key of somebody else");
    assert!(refused(&dir, &["key", "revoke", &names[0], "xyz"]).contains("16 hexadecimal digits"));
    assert_eq!(increment(&server, &keys[0]).status, 200);
    // Who found a key where it should not be has the whole of it at hand.
    let said = refused(&dir, &["key", "revoke", &names[0], &format!("{}0", keys[0])]);
    assert!(said.contains("16 hexadecimal digits") && !said.contains(&keys[0][21..40]), "{said}");
    assert_eq!(rows(&dir, &["key", "revoke", &names[0], &keys[0]]), Vec::<Value>::new());
    assert_eq!(increment(&server, &keys[0]).status, 401);
    assert_eq!(increment(&server, &keys[1]).status, 200);
    assert_eq!(rows(&dir, &["tenant", "show", &names[0]])[0]["keys"], 0);
    let written = server.stop();
    let told = written.actions("key-revoked");
    assert_eq!(told.len(), 4, "what failed is told too");
    assert_eq!((&told[2]["odometer.detail"], &told[3]["odometer.detail"]), (&Value::Null, &json!(id)));
    assert!(!written.log.iter().any(|line| line.contains(&keys[0][21..40]) || line.contains(PASSWORD)));
}

#[test]
fn top_shows_what_the_server_does_without_an_ops_listener() {
    let server = TestServer::builder().flag("--ops-listen", "off").start();
    let dir = server.data_dir().to_owned();
    let key = runtime().block_on(register(&server.endpoint(), "busy", 1)).remove(0);
    let looking = std::thread::spawn(move || rows(&dir, &["top", "--once", "--json", "--interval", "0.5"]));
    let mut made = 0;
    while !looking.is_finished() {
        assert_eq!(increment(&server, &key).status, 200);
        made += 1;
    }
    let [figures] = &looking.join().unwrap()[..] else { panic!("one look") };
    let figure = |name: &str| figures[name].as_f64().unwrap_or_else(|| panic!("{name}: {figures}"));
    assert_eq!((&figures["state"], &figures["last_stop"]), (&json!("ready"), &json!("first")));
    assert!(figure("increments_per_s") > 0.0 && figure("increments_per_s") * figure("interval_s") <= f64::from(made));
    assert_eq!(figure("increments_per_s"), figure("integers_per_s"));
    assert!(figure("commit_p50_ms") > 0.0 && figure("increment_p99_ms") > figure("commit_p50_ms"), "{figures}");
    assert_eq!((figure("queue_limit"), figure("connections_limit"), figure("failed_per_s")), (8192.0, 10000.0, 0.0));
    let dir = server.data_dir().to_owned();
    assert!(server.stop().actions("recovered").iter().all(|event| event["odometer.last_stop"] == "first"));
    let said = refused(&dir, &["top", "--once"]);
    assert!(said.contains("no server runs on"), "{said}");
    let server = TestServer::builder().data_dir(&dir).start();
    server.freeze();
    let said = refused(&dir, &["top", "--once"]);
    assert!(said.contains("does not answer"), "{said}");
    server.kill();
}
