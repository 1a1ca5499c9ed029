//! The admin socket of a running server: the commands `tenant`, `key` and `top`, and HTTP as such.
//!
//! Job: each command does what it says, to the right tenant, from the next request on, and is in
//! the log.
//! Invariant: a command that fails says why in one line and exits 1.
//! Must never: need the server to be stopped.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::client::{Answer, Protocol};
use crate::support::command::{ended, odometer};
use crate::support::server::TestServer;
use crate::support::workload::{PASSWORD, register, runtime};
use serde_json::{Value, json};

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
        client
            .request("PUT", "/api/v1/integer/increment", &[("authorization", &bearer)], "")
            .await
            .unwrap()
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
    assert_eq!(
        increment(&server, &keys[0]).json()["data"]["attributes"]["value"],
        3,
        "nothing was taken meanwhile"
    );

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
    assert!(
        refused(&dir, &["tenant", "limit", &name(1), "lots"])
            .contains("a rate is a count per s, m or h")
    );
    assert_eq!(rows(&dir, &["tenant", "list"]).len(), 2);

    let written = server.stop();
    for (action, count) in [
        ("tenant-suspended", 1),
        ("tenant-resumed", 1),
        ("tenant-limited", 4),
        ("tenant-deleted", 1),
    ] {
        let events = written.actions(action);
        assert_eq!(events.len(), count, "{action}");
        assert!(
            events
                .iter()
                .all(|event| event["organization.id"].is_string() && event["user.id"].is_number()),
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
    let names: Vec<String> = rows(&dir, &["tenant", "list"])
        .iter()
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(increment(&server, &keys[0]).status, 200);
    let listed = rows(&dir, &["key", "list", &names[0]]);
    assert_eq!(listed.len(), 1);
    let id = &keys[0][4..20];
    assert_eq!(
        (&listed[0]["id"], &listed[0]["scopes"]),
        (&json!(id), &json!("read increment manage"))
    );
    assert!(!format!("{listed:?}").contains(&keys[0][21..40]), "a secret is shown");
    assert!(
        refused(&dir, &["key", "revoke", &names[1], id]).contains("no API key with this id"),
        "another tenant's key"
    );
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
    assert_eq!(
        (&told[2]["odometer.detail"], &told[3]["odometer.detail"]),
        (&Value::Null, &json!(id))
    );
    assert!(
        !written.log.iter().any(|line| line.contains(&keys[0][21..40]) || line.contains(PASSWORD))
    );
}

#[test]
fn top_shows_what_the_server_does_without_an_ops_listener() {
    let server = TestServer::builder().flag("--ops-listen", "off").start();
    let dir = server.data_dir().to_owned();
    let key = runtime().block_on(register(&server.endpoint(), "busy", 1)).remove(0);
    let looking =
        std::thread::spawn(move || rows(&dir, &["top", "--once", "--json", "--interval", "0.5"]));
    let mut made = 0;
    while !looking.is_finished() {
        assert_eq!(increment(&server, &key).status, 200);
        made += 1;
    }
    let [figures] = &looking.join().unwrap()[..] else { panic!("one look") };
    let figure = |name: &str| figures[name].as_f64().unwrap_or_else(|| panic!("{name}: {figures}"));
    assert_eq!(
        (&figures["state"], &figures["previous_shutdown"]),
        (&json!("ready"), &json!("first"))
    );
    assert!(
        figure("increments_per_s") > 0.0
            && figure("increments_per_s") * figure("interval_s") <= f64::from(made)
    );
    assert!(
        figure("commit_p50_ms") > 0.0 && figure("increment_p99_ms") > figure("commit_p50_ms"),
        "{figures}"
    );
    assert_eq!(
        (figure("queue_limit"), figure("connections_limit"), figure("failed_per_s")),
        (8192.0, 10000.0, 0.0)
    );
    let dir = server.data_dir().to_owned();
    // The counters of a busy server are read one after the other, so they are compared at rest.
    let figures = look_around(&dir, || {
        (0..10).for_each(|_| assert_eq!(increment(&server, &key).status, 200))
    });
    let figure = |name: &str| figures[name].as_f64().unwrap_or_else(|| panic!("{name}: {figures}"));
    assert_eq!(figure("increments_per_s"), figure("integers_per_s"));
    assert!((figure("increments_per_s") * figure("interval_s") - 10.0).abs() < 1e-6, "{figures}");
    assert!(
        server
            .stop()
            .actions("recovered")
            .iter()
            .all(|event| event["odometer.previous_shutdown"] == "first")
    );
    let said = refused(&dir, &["top", "--once"]);
    assert!(said.contains("no server runs on"), "{said}");
    let server = TestServer::builder().data_dir(&dir).start();
    server.freeze();
    let said = refused(&dir, &["top", "--once"]);
    assert!(said.contains("does not answer"), "{said}");
    server.kill();
}

/// What `top` shows if `work` is done between the two moments at which it looks, and nothing is
/// while it does: a relay stands before the socket, so the looks are known.
fn look_around(data_dir: &Path, work: impl FnOnce()) -> Value {
    let folder = tempfile::TempDir::new().unwrap();
    let relay = UnixListener::bind(folder.path().join("admin.sock")).unwrap();
    relay.set_nonblocking(true).unwrap();
    let dir = folder.path().to_owned();
    let looking =
        std::thread::spawn(move || rows(&dir, &["top", "--once", "--json", "--interval", "0.5"]));
    let pass_on = || {
        let mut stream = loop {
            match relay.accept() {
                Ok((stream, _)) => break stream,
                Err(_) => assert!(!looking.is_finished(), "top ended before it looked"),
            }
            std::thread::yield_now();
        };
        stream.set_nonblocking(false).unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        assert!(request.starts_with(b"GET /stats "), "{}", String::from_utf8_lossy(&request));
        let said = speak(data_dir, "GET /stats", "");
        stream.write_all(&[said.head.as_bytes(), b"\r\n\r\n", &said.body].concat()).unwrap();
    };
    pass_on();
    work();
    pass_on();
    let [figures] = &looking.join().unwrap()[..] else { panic!("one look") };
    figures.clone()
}

/// What was answered over the socket.
struct Said {
    head: String,
    body: Vec<u8>,
}

impl Said {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// A header's value; empty if there is none.
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
            .unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    /// The status and the code of a document of errors.
    #[track_caller]
    fn refusal(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/vnd.api+json", "{}", self.head);
        let error = &self.json()["errors"][0];
        assert_eq!(error["id"], self.header("x-request-id"));
        (self.status(), error["code"].as_str().unwrap().to_owned())
    }
}

/// One request over the socket, as its bytes are.
fn speak(data_dir: &Path, route: &str, json: &str) -> Said {
    let mut stream = UnixStream::connect(data_dir.join("admin.sock")).unwrap();
    let media = if json.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let head = format!("{route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{media}");
    stream
        .write_all(format!("{head}Content-Length: {}\r\n\r\n{json}", json.len()).as_bytes())
        .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head has an end");
    Said {
        head: String::from_utf8(bytes[..end].to_vec()).unwrap(),
        body: bytes[end + 4..].to_vec(),
    }
}

/// Who can connect to the socket is an operator, so nobody but the server's own user may.
#[test]
fn the_socket_is_for_the_servers_user_alone() {
    let server = TestServer::start();
    let mode = |name: &str| {
        fs::metadata(server.data_dir().join(name)).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!((mode("admin.sock"), mode("")), (0o600, 0o700), "admin.sock, and the folder");
    server.stop();
}

#[test]
fn the_socket_speaks_http_and_answers_json() {
    let server = TestServer::start();
    let dir = server.data_dir().to_owned();
    let mode = fs::metadata(dir.join("admin.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let keys = runtime().block_on(register(&server.endpoint(), "http", 3));
    let first = speak(&dir, "GET /tenants?limit=2", "");
    assert_eq!((first.status(), first.header("content-type")), (200, "application/json"));
    assert_eq!(
        (first.header("x-request-id").len(), first.header("strict-transport-security")),
        (32, "")
    );
    let page = first.json();
    assert_eq!((page["tenants"].as_array().unwrap().len(), &page["next"]), (2, &json!(2)));
    let rest = speak(&dir, "GET /tenants?limit=2&after=2", "").json();
    assert_eq!((&rest["tenants"][0]["id"], &rest["next"]), (&json!(3), &Value::Null));
    let name = |at: usize| page["tenants"][at]["name"].as_str().unwrap().to_owned();
    let path = format!("/tenants/{}", name(0));

    let suspended = speak(&dir, &format!("POST {path}/suspend"), "");
    assert_eq!((suspended.status(), &suspended.json()["suspended"]), (200, &json!(true)));
    assert_eq!(increment(&server, &keys[0]).code(), "tenant_suspended");
    let limited = speak(&dir, &format!("PUT {path}/limit"), r#"{"limit":"100/s:200"}"#);
    assert_eq!((limited.status(), &limited.json()["limit"]), (200, &json!("100/s:200")));
    assert_eq!(
        speak(&dir, &format!("GET {path}/keys"), "").json()["keys"][0]["id"],
        keys[0][4..20]
    );
    assert_eq!(speak(&dir, &format!("DELETE {path}/keys/{}", keys[0]), "").status(), 204);
    assert_eq!(speak(&dir, &format!("DELETE {path}"), "").status(), 204);
    let after = speak(&dir, "GET /tenants?limit=1", "").json();
    assert_eq!(after, json!({ "tenants": [], "next": 1 }), "a page leaves out who was deleted");

    let stats = speak(&dir, "GET /stats", "").json();
    let commits = &stats["metrics"]["odometer_commits_total"][0];
    assert!(commits["labels"] == json!({}) && commits["value"].as_u64() > Some(0), "{commits}");
    assert!(
        String::from_utf8(speak(&dir, "GET /metrics", "").body)
            .unwrap()
            .contains("odometer_commits_total ")
    );
    assert_eq!(speak(&dir, "GET /livez", "").body, b"alive\n");
    assert_eq!(speak(&dir, "GET /readyz", "").body, b"ready\n");
    // Operators are no traffic.
    let page = server.ops_get("/metrics").1;
    assert!(
        !page.contains("path=\"/tenants")
            && !page.contains("path=\"/stats")
            && page.contains("path=\"/users")
    );
    let written = server.stop();
    let paths: Vec<_> =
        written.actions("request").iter().map(|event| event["url.path"].clone()).collect();
    assert!(paths.contains(&json!("/users/create")), "{paths:?}");
    let is_admin = |path: &Value| {
        ["/tenants", "/stats"].iter().any(|admin| path.as_str().unwrap().starts_with(admin))
    };
    assert!(!paths.iter().any(is_admin), "{paths:?}");
    assert_eq!(written.actions("tenant-limited")[0]["odometer.detail"], "100/s:200");
    assert_eq!(
        written.actions("tenant-suspended")[0]["http.request.id"],
        suspended.header("x-request-id")
    );
}

#[test]
fn the_socket_refuses_with_the_documents_of_the_api() {
    let server = TestServer::start();
    let dir = server.data_dir().to_owned();
    let idle = (UnixStream::connect(dir.join("admin.sock")).unwrap(), Instant::now());
    runtime().block_on(register(&server.endpoint(), "refused", 1));
    let name = rows(&dir, &["tenant", "list"])[0]["name"].as_str().unwrap().to_owned();
    let missing = speak(&dir, "GET /tenants/no%20body", "");
    assert_eq!(missing.refusal(), (404, "tenant_not_found".to_owned()));
    assert_eq!(missing.json()["errors"][0]["detail"], "There is no tenant named \"no body\".");
    let wrong = speak(&dir, "POST /tenants", "");
    assert_eq!(
        (wrong.refusal(), wrong.header("allow")),
        ((405, "method_not_allowed".to_owned()), "GET, HEAD")
    );
    let wrong = speak(&dir, "POST /tenants/x", "");
    assert_eq!((wrong.status(), wrong.header("allow")), (405, "GET, HEAD, DELETE"));
    for (route, json, status, code, parameter) in [
        ("GET /api/v1/integer", "", 404, "not_found", Value::Null),
        ("PUT /tenants/NAME/limit", "{\"limit\":", 400, "malformed_body", Value::Null),
        (
            "PUT /tenants/NAME/limit",
            "{\"limit\":\"lots\"}",
            422,
            "invalid_parameter",
            json!("limit"),
        ),
        ("PUT /tenants/NAME/limit", "{\"rate\":\"off\"}", 422, "unknown_parameter", json!("rate")),
        ("POST /tenants/NAME/suspend", "{\"why\":\"x\"}", 422, "unknown_parameter", json!("why")),
        ("GET /tenants?limit=1001", "", 422, "invalid_value", json!("limit")),
        ("DELETE /tenants/NAME/keys/xyz", "", 422, "invalid_parameter", json!("id")),
        ("DELETE /tenants/NAME/keys/0123456789abcdef", "", 404, "key_not_found", Value::Null),
        ("DELETE /tenants/nobody", "", 404, "tenant_not_found", Value::Null),
    ] {
        let said = speak(&dir, &route.replace("NAME", &name), json);
        assert_eq!(said.refusal(), (status, code.to_owned()), "{route}");
        assert_eq!(said.json()["errors"][0]["source"]["parameter"], parameter, "{route}");
    }
    // Who says nothing is cut, as on every other listener.
    let (mut stream, since) = idle;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
}

#[test]
fn a_data_folder_with_a_long_path_has_a_socket_too() {
    let temp = tempfile::TempDir::new().unwrap();
    let dir = temp.path().join("d".repeat(120)).join("data");
    fs::create_dir_all(dir.parent().unwrap()).unwrap();
    let server = TestServer::builder().data_dir(&dir).start();
    assert_eq!(rows(&dir, &["tenant", "list"]), Vec::<Value>::new());
    server.stop();
    assert!(!dir.join("admin.sock").exists(), "the socket goes with its server");
}
