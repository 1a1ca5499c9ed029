//! What logs and metrics say: exactly what was done, in lines that parse, and never a secret.
//!
//! Invariant: every number compared here was counted by the test as it asked.
//! Must never: look for a secret only where one expects it; the whole output is searched.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;
use tokio::time::Instant;

use super::{Api, BOTH, CREATE, FORM, INCREMENT, INTEGER, JSON};
use crate::support::client::{Answer, Protocol};
use crate::support::raw_client::{RawConnection, connect_from};
use crate::support::server::TestServer;
use crate::support::workload::runtime;

/// The value of one series, written as in the text of `/metrics`; 0 when it is not there.
pub(super) fn sample(api: &Api, series: &str) -> f64 {
    let (_, text) = api.server.ops_get("/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a metric is a number"))
}

#[test]
fn metrics_equal_what_was_done() {
    let api = Api::start();
    let tenant = api.register("metrics");
    let mut done = BTreeMap::from([(("200".to_owned(), "POST".to_owned(), CREATE), 1.0)]);
    let mut ask = |protocol: Protocol,
                   method: &str,
                   path: &str,
                   label: &'static str,
                   headers: &[(&str, &str)]| {
        let answer = api.ask(protocol, method, path, headers, "");
        let shown = if method == "BREW" || method == "TRACE" { "other" } else { method };
        *done.entry((answer.status.to_string(), shown.to_owned(), label)).or_insert(0.0) += 1.0;
        answer
    };
    for (protocol, rounds) in BOTH.into_iter().zip([3, 4]) {
        for _ in 0..rounds {
            ask(protocol, "PUT", INCREMENT, INCREMENT, &[tenant.auth()]);
        }
        ask(protocol, "GET", INTEGER, INTEGER, &[tenant.auth()]);
        ask(protocol, "GET", "/api/v1/integer?secret=query", INTEGER, &[tenant.auth()]);
        ask(protocol, "PUT", "/api/v1/integer?value=0", INTEGER, &[tenant.auth()]);
        ask(protocol, "PUT", INCREMENT, INCREMENT, &[]);
        ask(protocol, "GET", INCREMENT, INCREMENT, &[tenant.auth()]);
        ask(protocol, "POST", CREATE, CREATE, &[]);
        ask(protocol, "BREW", INTEGER, INTEGER, &[]);
        ask(protocol, "TRACE", "/livez", "/livez", &[]);
        for path in ["/", "/metrics", "/a/b/c", "/other", "/api/v1/integer/1"] {
            ask(protocol, "GET", path, "other", &[]);
        }
    }
    ask(Protocol::Http1, "HEAD", INTEGER, INTEGER, &[tenant.auth()]);
    let (_, text) = api.server.ops_get("/metrics");
    let name = "http_server_requests_total";
    for ((code, method, path), count) in &done {
        let series = format!("{name}{{code=\"{code}\",method=\"{method}\",path=\"{path}\"}}");
        assert_eq!(sample(&api, &series), *count, "{series}\n{text}");
    }
    // Some series are there from the start, at zero.
    let counted = |line: &&str| {
        line.starts_with(name) && !line.contains("\"/metrics\"") && !line.ends_with(" 0")
    };
    let public = text.lines().filter(counted).count();
    assert_eq!(public, done.len(), "other series than those:\n{text}");
    assert!(
        !text.contains("/a/b/c") && !text.contains("BREW"),
        "an unknown path or method became a label"
    );
    assert_eq!(sample(&api, "odometer_increments_total"), 7.0);
    assert_eq!(sample(&api, "odometer_integers_issued_total"), 7.0);
    // 7 increments and a registration; fewer commits would mean that one was not durable by itself.
    // That the key was used today is noted beside them, in a commit of its own or with the next.
    let commits = sample(&api, "odometer_commits_total");
    assert!((8.0..=9.0).contains(&commits), "{commits}");
    assert_eq!(sample(&api, "odometer_store_ready"), 1.0);
    let durations: f64 = api.server.metric("http_server_request_duration_seconds_count").unwrap();
    assert!(durations >= done.values().sum::<f64>(), "not every request was timed");
    api.stop();
}

#[test]
fn secrets_are_told_to_nobody() {
    let api = Api::on(TestServer::builder().flag("--log-level", "trace"));
    let password = "A-Very-Secret-Passphrase-1";
    let mut bodies = Vec::new();
    let mut ask = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| -> Answer {
        let answer = api.ask(Protocol::Http1, method, path, headers, body.to_owned());
        if answer.status >= 400 {
            bodies.push(answer.text());
        }
        answer
    };
    let form = format!("username=Secret.Name&password={password}");
    let key = super::Tenant::of(&ask("POST", CREATE, &[FORM], &form)).key;
    let bearer = format!("Bearer {key}");
    let auth = ("authorization", bearer.as_str());
    ask("PUT", INCREMENT, &[auth], "");
    ask("POST", &format!("{CREATE}?{form}"), &[auth], "");
    ask("POST", CREATE, &[FORM, auth], &format!("{form}&password={password}"));
    ask(
        "POST",
        CREATE,
        &[JSON, auth],
        &format!("{{\"username\":\"x y\",\"password\":\"{password}\"}}"),
    );
    ask("POST", CREATE, &[("content-type", "text/plain"), auth], &form);
    ask("PUT", INTEGER, &[JSON, auth], &format!("{{\"value\":\"{password}\"}}"));
    ask("PUT", &format!("{INTEGER}?value={password}&key={key}"), &[auth], "");
    ask("GET", &format!("/{key}/{password}"), &[auth], "");
    ask("GET", INTEGER, &[("authorization", &format!("Bearer {key}0"))], "");
    ask("GET", INTEGER, &[("authorization", &format!("Basic {key}"))], "");
    ask("GET", INTEGER, &[auth, auth], "");
    let raw =
        format!("PUT {INCREMENT} HTTP/1.1\r\nAuthorization: {bearer}\0\r\nX: {password}\r\n\r\n");
    bodies.push(super::hostile::send(&api, raw.as_bytes()).text());
    assert!(bodies.len() >= 10, "these were to be refused: {bodies:?}");
    bodies.push(api.server.ops_get("/metrics").1);
    let written = api.stop();
    assert!(written.log.len() > 10, "nothing was logged");
    let all = [bodies, written.log, vec![written.stderr]].concat().join("\n").to_lowercase();
    for secret in [&password.to_lowercase(), &key, &key[21..], &key[21..53]] {
        assert!(!all.contains(secret), "{secret} was told");
    }
}

#[test]
fn every_log_line_is_an_event_of_its_own() {
    let api = Api::start();
    let tenant = api.register("lines");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [tenant.auth(), ("x-request-id", "id\"with\\odd{}signs"), ("traceparent", trace)];
    api.ask(Protocol::Http2, "PUT", INCREMENT, &headers, "");
    api.ask(
        Protocol::Http1,
        "GET",
        "/no\"such?path=secret",
        &[("x-request-id", "unknown-path")],
        "",
    );
    api.ask(Protocol::Http1, "PUT", INCREMENT, &[("x-request-id", "no-key")], "");
    let written = api.stop();
    let events = written.events();
    assert_eq!(events.len(), written.log.len(), "a line that is no JSON: {:#?}", written.log);
    for event in &events {
        for field in
            ["@timestamp", "log.level", "message", "ecs.version", "service.name", "service.version"]
        {
            assert!(event[field].is_string(), "no {field}: {event}");
        }
    }
    let access = |id: &str| -> Value {
        let of_it =
            |event: &&Value| event["http.request.id"] == id && event["event.action"] == "request";
        let found: Vec<_> = events.iter().filter(of_it).collect();
        assert_eq!(found.len(), 1, "events of {id}: {found:?}");
        found[0].clone()
    };
    let done = access("id\"with\\odd{}signs");
    for (field, value) in [
        ("event.action", "request"),
        ("event.outcome", "success"),
        ("http.request.method", "PUT"),
        ("http.version", "2"),
        ("url.path", INCREMENT),
        ("client.ip", "127.0.0.1"),
        ("trace.id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ] {
        assert_eq!(done[field], value, "{done}");
    }
    assert_eq!(
        (&done["http.response.status_code"], &done["error.code"]),
        (&Value::from(200), &Value::Null)
    );
    assert_eq!(done["organization.id"], tenant.id.to_string());
    assert!(done["event.duration"].as_u64().is_some_and(|ns| ns > 0));
    let lost = access("unknown-path");
    assert_eq!(
        (&lost["url.path"], &lost["error.code"]),
        (&Value::from("other"), &Value::from("not_found"))
    );
    let refused = access("no-key");
    assert_eq!(
        (&refused["error.code"], &refused["organization.id"]),
        (&Value::from("unauthorized"), &Value::Null)
    );
    assert_eq!(written.stderr, "", "with --log-format json nothing goes to stderr");
    let actions: Vec<_> = ["listening", "ready", "stopping", "stopped"]
        .map(|action| written.actions(action).len())
        .into();
    assert_eq!(actions, [2, 1, 1, 1]);
}

/// `X-Forwarded-For` counts from the last hop back, and only as far as trusted proxies wrote it.
#[test]
fn a_client_is_believed_to_be_elsewhere_by_trusted_proxies_alone() {
    let (proxy, outsider) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let behind = TestServer::builder().flag("--trusted-proxies", "127.0.0.2,10.0.0.0/8").start();
    let alone = TestServer::start();
    for (number, (server, peer, forwarded, client)) in [
        (&behind, proxy, "203.0.113.9", "203.0.113.9"),
        (&behind, proxy, "198.51.100.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"),
        (&behind, proxy, "198.51.100.1, nonsense", "127.0.0.2"),
        (&behind, outsider, "203.0.113.9", "127.0.0.3"),
        (&behind, outsider, "203.0.113.9, 10.1.2.3", "127.0.0.3"),
        (&behind, outsider, "127.0.0.2", "127.0.0.3"),
        (&alone, proxy, "203.0.113.9", "127.0.0.2"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("forwarded-{number}");
        let head = format!(
            "GET {INTEGER} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             X-Request-Id: {id}\r\nX-Forwarded-For: {forwarded}\r\n\r\n"
        );
        runtime().block_on(async {
            let endpoint = server.endpoint();
            let stream = connect_from(peer, endpoint.address).await.expect("a connection");
            let stream = endpoint.shake_hands(&endpoint.tls(&[]), stream).await.expect("TLS");
            let mut connection = RawConnection::new(stream);
            connection.send(head.as_bytes()).await.expect("the server reads");
            let reply = connection.read_until(Instant::now() + super::hostile::DEADLINE).await;
            assert_eq!(reply.status(), Some(401), "{}", reply.text());
        });
        let told = logged(server, &id);
        assert_eq!(told["client.ip"], client, "{peer} forwards for {forwarded}");
    }
    behind.stop();
    alone.stop();
}

/// The access event of the request with this id, once it is written.
fn logged(server: &TestServer, id: &str) -> Value {
    let until = std::time::Instant::now() + super::hostile::DEADLINE;
    loop {
        let log = server.log();
        let mut events = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_it =
            |event: &Value| event["http.request.id"] == id && event["event.action"] == "request";
        if let Some(event) = events.find(is_it) {
            return event;
        }
        assert!(std::time::Instant::now() < until, "no access event of {id}: {log:#?}");
        std::thread::yield_now();
    }
}
