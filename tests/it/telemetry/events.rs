//! Events: once for what matters, seldom for what a peer can cause at will, and a start that tells
//! how the process before it ended.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::support::client::Protocol;
use crate::support::raw_client::{over_tcp, over_tls};
use crate::support::server::TestServer;
use crate::support::workload::{register, runtime};

const READ: &str = "/api/v1/integer";
const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn refused_credentials_are_told_once_a_second_and_all_counted() {
    let server = TestServer::start();
    let (began, mut asked) = (Instant::now(), 0);
    runtime().block_on(async {
        let mut client = server.endpoint().connect(Protocol::Http2).await.unwrap();
        // On into the second second, so that an event tells how many were kept back.
        while asked < 300 || began.elapsed() < Duration::from_millis(1200) {
            let answer = client
                .request("GET", READ, &[("authorization", "Bearer nonsense")], "")
                .await
                .unwrap();
            assert_eq!(answer.status, 401);
            asked += 1;
        }
        assert_eq!(client.request("GET", READ, &[], "").await.unwrap().status, 401);
    });
    let seconds = began.elapsed().as_secs();
    assert_eq!(server.metric("odometer_auth_failures_total"), Some(asked as f64 + 1.0));
    let told = server.stop().actions("auth-failure");
    let of = |reason: &str| -> Vec<&Value> {
        told.iter().filter(|event| event["event.reason"] == reason).collect()
    };
    let malformed = of("malformed");
    assert!(
        (1..=seconds + 2).contains(&(malformed.len() as u64)),
        "{} events in {seconds} s",
        malformed.len()
    );
    let kept_back: u64 =
        malformed.iter().map(|event| event["odometer.suppressed_events"].as_u64().unwrap()).sum();
    // All but those after the last event.
    assert!(kept_back > 0 && kept_back < asked, "{kept_back} of {asked}");
    assert_eq!(of("missing").len(), 1, "one reason does not hide another");
    let first = malformed[0];
    assert_eq!(
        (&first["client.ip"], &first["odometer.suppressed_events"]),
        (&"127.0.0.1".into(), &0.into())
    );
    assert_eq!((&first["url.path"], &first["log.level"]), (&READ.into(), &"warn".into()));
}

#[test]
fn successes_are_sampled_and_refusals_are_not() {
    let server = TestServer::builder().flag("--access-log-sample", "10").start();
    runtime().block_on(async {
        let key = register(&server.endpoint(), "sampled", 1).await.remove(0);
        let bearer = format!("Bearer {key}");
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        for _ in 0..99 {
            assert_eq!(
                client
                    .request("GET", READ, &[("authorization", &bearer)], "")
                    .await
                    .unwrap()
                    .status,
                200
            );
        }
        for _ in 0..20 {
            assert_eq!(client.request("GET", READ, &[], "").await.unwrap().status, 401);
        }
    });
    let told = server.stop().actions("request");
    let (refused, done): (Vec<_>, Vec<_>) =
        told.iter().partition(|event| event["http.response.status_code"] == 401);
    assert_eq!(refused.len(), 20);
    assert!((6..=15).contains(&done.len()), "{} of 100 successes", done.len());
    assert!(done.iter().all(|event| event["odometer.sampled"] == 10));
    assert!(refused.iter().all(|event| event["odometer.sampled"].is_null()));

    let server = TestServer::builder().flag("--access-log-sample", "off").start();
    runtime().block_on(register(&server.endpoint(), "off", 3));
    let written = server.stop();
    assert_eq!(
        (written.actions("request").len(), written.actions("tenant-registered").len()),
        (0, 3)
    );
}

#[test]
fn the_plain_port_is_observed_too() {
    let server = TestServer::builder()
        .flag("--http-listen", "127.0.0.1:0")
        .flag("--public-port", "443")
        .start();
    let ask = |head: &str| {
        let whole = format!("{head}\r\nhost: localhost:8080\r\nconnection: close\r\n\r\n");
        runtime().block_on(over_tcp(server.http(), &[whole.as_bytes()], DEADLINE)).text()
    };
    let answer = ask("GET /a HTTP/1.1\r\nx-request-id: plain-1");
    assert!(
        answer.starts_with("HTTP/1.1 308 ")
            && answer.contains("\r\nlocation: https://localhost/a\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("\r\nx-request-id: plain-1\r\n") && !answer.contains("strict-transport"),
        "{answer}"
    );
    let answer = ask("GET /a HTTP/1.1\r\nauthorization: Bearer x");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let (_, page) = server.ops_get("/metrics");
    for code in [308, 403] {
        let series = format!(
            "http_server_requests_total{{code=\"{code}\",method=\"GET\",path=\"other\"}} 1\n"
        );
        assert!(page.contains(&series), "{page}");
    }
    let told = server.stop().actions("request");
    let codes: Vec<_> = told
        .iter()
        .filter(|event| event["url.path"] == "other")
        .map(|e| &e["error.code"])
        .collect();
    assert_eq!(codes, [&Value::Null, &"https_required".into()]);
}

#[test]
fn a_start_tells_how_the_process_before_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let start = || TestServer::builder().data_dir(folder.path()).start();
    let how = |server: &TestServer| {
        let (_, page) = server.ops_get("/metrics");
        let line = page
            .lines()
            .find(|line| line.starts_with("odometer_previous_shutdown_info{"))
            .unwrap()
            .to_owned();
        line.split('"').nth(1).unwrap().to_owned()
    };
    let server = start();
    assert_eq!(how(&server), "first");
    server.stop();
    let server = start();
    assert_eq!(how(&server), "clean");
    server.kill();
    let server = start();
    assert_eq!(how(&server), "unclean");
    let recovered = &server.stop().actions("recovered")[0];
    assert_eq!(recovered["odometer.previous_shutdown"], "unclean");
}

#[test]
fn a_connection_too_many_is_told_and_counted() {
    let server = TestServer::builder().flag("--max-connections-per-address", "2").start();
    let open = || std::net::TcpStream::connect(server.public()).unwrap();
    let _held = [open(), open()];
    let refused = open();
    // The third is closed by the server: nothing else ends this read.
    let mut byte = [0];
    assert!(matches!(std::io::Read::read(&mut &refused, &mut byte), Ok(0) | Err(_)));
    assert_eq!(server.metric("odometer_connections_refused_total"), Some(1.0));
    assert_eq!(server.ops_get("/readyz").0, 200, "whoever looks after it gets in");
    let written = server.stop();
    let told = written.actions("connection-refused");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["event.reason"], &told[0]["client.ip"]),
        (&"max-connections-per-address".into(), &"127.0.0.1".into())
    );
}

/// A revoked key of which nobody reads would be the trace that whoever stole it wishes for.
#[test]
fn a_change_is_told_though_its_client_hangs_up() {
    let server = TestServer::start();
    let gone: Vec<String> = runtime().block_on(async {
        let key = register(&server.endpoint(), "hasty", 1).await.remove(0);
        let bearer = format!("Bearer {key}");
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..20 {
            let answer = client.request("POST", "/api/v1/keys", &[("authorization", &bearer)], "").await.unwrap();
            assert_eq!(answer.status, 201, "{}", answer.text());
            ids.push(answer.json()["data"]["id"].as_str().unwrap().to_owned());
        }
        let connector = server.endpoint().tls(&[b"http/1.1"]);
        for id in &ids {
            let mut stream = server.endpoint().open(&connector).await.unwrap();
            let head =
                format!("DELETE /api/v1/keys/{id} HTTP/1.1\r\nhost: localhost\r\nauthorization: {bearer}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
        }
        let path = "/api/v1/keys?page[size]=100";
        // On a busy machine the first look may come before the first of these requests was read.
        let mut gone = Vec::new();
        for _ in 0..1000 {
            let left = client.request("GET", path, &[("authorization", &bearer)], "").await.unwrap().text();
            gone = ids.iter().filter(|id| !left.contains(id.as_str())).cloned().collect();
            if !gone.is_empty() {
                break;
            }
        }
        gone
    });
    let told = server.stop().actions("key-revoked");
    for id in &gone {
        assert!(
            told.iter().any(|event| event["odometer.key_id"] == id.as_str()),
            "nobody was told of {id}: {told:?}"
        );
    }
    assert!(!gone.is_empty(), "no key was revoked before its client was gone");
}

#[test]
fn a_head_that_can_not_be_read_is_told_and_counted_under_its_id() {
    let server = TestServer::start();
    let answer = runtime()
        .block_on(over_tls(&server.endpoint(), &[b"BAD\x01 HEAD\r\n\r\n"], DEADLINE))
        .text();
    let id = answer.split("x-request-id: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let page = server.ops_get("/metrics").1;
    let series = "http_server_requests_total{code=\"400\",method=\"other\",path=\"other\"} 1\n";
    assert!(page.contains(series), "{page}");
    let told = server.stop().actions("request");
    let own = told
        .iter()
        .find(|event| event["http.request.id"] == id)
        .unwrap_or_else(|| panic!("{id}: {told:?}"));
    assert_eq!(
        (&own["error.code"], &own["http.response.status_code"]),
        (&"malformed_request".into(), &400.into())
    );
}
