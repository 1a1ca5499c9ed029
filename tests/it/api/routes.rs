//! What is answered: the exact documents and headers of each route, over both protocols and in each
//! form of body.
//!
//! Invariant: documents are compared whole, so a member more or less is a difference.
//! Must never: accept an answer because it merely contains the right value.

use hyper::header::CONTENT_LENGTH;
use serde_json::json;

use super::hostile::send;
use super::{
    Api, BOTH, CREATE, FORM, INCREMENT, INTEGER, JSON, JSON_API, Tenant, answer_of,
    assert_common_headers, value_of,
};
use crate::support::client::Protocol;
use crate::support::workload::PASSWORD;

#[test]
fn every_route_answers_its_exact_document() {
    let api = Api::start();
    for (number, protocol) in BOTH.into_iter().enumerate() {
        for (form, path, headers, body) in registrations(&format!("Route.{number}")) {
            let answer = api.ask(protocol, "POST", &path, &headers, body);
            assert_eq!(answer.status, 200, "{form}: {}", answer.text());
            assert_eq!(answer.header("content-type"), JSON_API.1);
            assert_common_headers(&answer, form);
            let tenant = Tenant::of(&answer);
            one_tenants_day(&api, protocol, &tenant);
        }
    }
    api.stop();
}

type Registration = (&'static str, String, Vec<(&'static str, &'static str)>, String);

fn registrations(prefix: &str) -> [Registration; 4] {
    let attributes =
        |name: &str| json!({ "username": format!("{prefix}-{name}"), "password": PASSWORD });
    let document = json!({ "data": { "type": "user", "attributes": attributes("jsonapi") } });
    let query = |name: &str| format!("username={prefix}-{name}&password={PASSWORD}");
    [
        ("form", CREATE.to_owned(), vec![FORM], query("form")),
        ("json", CREATE.to_owned(), vec![JSON], attributes("json").to_string()),
        ("json:api", CREATE.to_owned(), vec![JSON_API], document.to_string()),
        ("query", format!("{CREATE}?{}", query("query")), vec![], String::new()),
    ]
}

fn one_tenants_day(api: &Api, protocol: Protocol, tenant: &Tenant) {
    let expect = |method: &str, path: &str, headers: &[(&str, &str)], body: &str, value: u64| {
        let headers: Vec<_> = headers.iter().copied().chain([tenant.auth()]).collect();
        let answer = api.ask(protocol, method, path, &headers, body.to_owned());
        assert_eq!(
            (answer.status, answer.json()),
            (200, tenant.integer(value)),
            "{method} {path} {body}"
        );
        assert_eq!(answer.header("content-type"), JSON_API.1);
        assert_common_headers(&answer, path);
    };
    expect("GET", INTEGER, &[], "", 1);
    expect("PUT", INCREMENT, &[], "", 2);
    expect("GET", INTEGER, &[], "", 2);
    expect("GET", "/api/v1/integer?what=ever", &[], "", 2);
    expect("PUT", INCREMENT, &[JSON], "{}", 3);
    expect("PUT", INCREMENT, &[FORM], "", 4);
    expect("PUT", INTEGER, &[FORM], "value=10", 10);
    expect("PUT", INTEGER, &[JSON], r#"{"value":20}"#, 20);
    expect("PUT", INTEGER, &[JSON], r#"{"value":"30"}"#, 30);
    let document = r#"{"data":{"type":"user_integer","attributes":{"value":40}}}"#;
    expect("PUT", INTEGER, &[JSON_API], document, 40);
    expect(
        "PUT",
        INTEGER,
        &[("content-type", "Application/JSON; charset=utf-8")],
        r#"{"value":45}"#,
        45,
    );
    expect("PUT", "/api/v1/integer?value=50", &[], "", 50);
    expect("PUT", INCREMENT, &[], "", 51);
    expect("PUT", INTEGER, &[FORM], "value=1", 1);
    expect("PUT", INCREMENT, &[], "", 2);
}

#[test]
fn head_is_get_without_the_body() {
    let api = Api::start();
    let tenant = api.register("head");
    for protocol in BOTH {
        for path in [INTEGER, "/livez", "/readyz"] {
            let get = api.ask(protocol, "GET", path, &[tenant.auth()], "");
            let head = api.ask(protocol, "HEAD", path, &[tenant.auth()], "");
            assert_eq!((get.status, head.status), (200, 200), "{path}");
            assert_eq!(head.headers.get(CONTENT_LENGTH), get.headers.get(CONTENT_LENGTH), "{path}");
            assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
            assert_common_headers(&head, path);
        }
        for (path, status) in [("/nope", 404), (INTEGER, 401), (CREATE, 405), (INCREMENT, 405)] {
            let answer = api.ask(protocol, "HEAD", path, &[], "");
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}");
        }
    }
    let raw = send(&api, b"HEAD /nope HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(raw.text().ends_with("\r\n\r\n"), "HEAD was answered with a body: {}", raw.text());
    api.stop();
}

#[test]
fn health_is_on_both_listeners_and_metrics_on_one() {
    let api = Api::start();
    for (path, word) in [("/livez", "alive\n"), ("/readyz", "ready\n")] {
        for protocol in BOTH {
            let answer = api.ask(protocol, "GET", path, &[], "");
            assert_eq!((answer.status, answer.text()), (200, word.to_owned()));
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
            assert_common_headers(&answer, path);
        }
        assert_eq!(api.server.ops_get(path), (200, word.to_owned()));
    }
    for protocol in BOTH {
        super::assert_refusal(
            &api.ask(protocol, "GET", "/metrics", &[], ""),
            404,
            "not_found",
            "public /metrics",
        );
    }
    let (status, text) = api.server.ops_get("/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("# TYPE http_server_requests_total counter"), "{text}");
    for path in [INTEGER, INCREMENT, CREATE, "/"] {
        assert_eq!(api.server.ops_get(path).0, 404, "the ops listener has {path}");
    }
    api.stop();
}

#[test]
fn ids_and_traces_come_along() {
    let api = Api::start();
    let tenant = api.register("ids");
    let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let too_long = "x".repeat(129);
    let longest = "x".repeat(128);
    for protocol in BOTH {
        for path in [INTEGER, "/nope", "/livez"] {
            for id in ["abc-123", r#"quote"back\slash"#, &longest] {
                let answer = api.ask(
                    protocol,
                    "GET",
                    path,
                    &[tenant.auth(), ("x-request-id", id), trace],
                    "",
                );
                assert_eq!(answer.header("x-request-id"), id, "{path}");
                assert!(
                    answer.status == 200 || answer.json()["errors"][0]["id"] == id,
                    "{}",
                    answer.text()
                );
                let parts: Vec<_> = answer.header("traceparent").split('-').collect();
                assert_eq!((parts[0], parts[1], parts[3]), ("00", &trace.1[3..35], "01"), "{path}");
                assert!(
                    parts[2].len() == 16 && parts[2] != "00f067aa0ba902b7",
                    "the span must be ours: {parts:?}"
                );
            }
            let mut made = Vec::new();
            for id in ["", "a b", "über", &too_long] {
                let answer =
                    api.ask(protocol, "GET", path, &[tenant.auth(), ("x-request-id", id)], "");
                made.push(answer.header("x-request-id").to_owned());
                assert!(
                    answer.status == 200
                        || answer.json()["errors"][0]["id"] == made[made.len() - 1]
                );
            }
            made.sort_unstable();
            made.dedup();
            assert!(made.len() == 4 && made.iter().all(|id| id.len() == 32), "{made:?}");
            for bad in [
                "",
                "00-0-0-0",
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                "nonsense",
            ] {
                let answer =
                    api.ask(protocol, "GET", path, &[tenant.auth(), ("traceparent", bad)], "");
                assert_eq!(answer.header("traceparent"), "", "a trace was made up of {bad:?}");
            }
        }
    }
    api.stop();
}

/// A counter of its own for each tenant, and requests that follow each other on one connection.
#[test]
fn tenants_and_keep_alive_connections_do_not_mix() {
    let api = Api::start();
    let (first, second) = (api.register("one"), api.register("two"));
    assert_ne!((first.id, &first.key), (second.id, &second.key));
    for protocol in BOTH {
        let (a, b) = (api.read(&first), api.read(&second));
        let values = api.runtime.block_on(async {
            let mut client = api.endpoint.connect(protocol).await.expect("a connection");
            let mut values = Vec::new();
            for tenant in [&first, &second, &first] {
                values.push(client.increment(&tenant.key).await.expect("an increment"));
                let refused =
                    client.request("PUT", INCREMENT, &[("authorization", "Bearer x")], "").await;
                assert_eq!(refused.expect("an answer").status, 401);
            }
            values
        });
        assert_eq!(values, [a + 1, b + 1, a + 2], "{protocol:?}");
    }
    // Pipelined: both answered, in order.
    let before = api.read(&first);
    let one = format!(
        "PUT {INCREMENT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n",
        first.bearer
    );
    let both = format!("{one}\r\n{one}Connection: close\r\n\r\n");
    let values: Vec<_> =
        super::answers_of(&send(&api, both.as_bytes())).iter().map(value_of).collect();
    assert_eq!(values, [before + 1, before + 2]);
    // HTTP/1.0 has no keep-alive of itself.
    let old = format!("GET {INTEGER} HTTP/1.0\r\nAuthorization: {}\r\n\r\n", first.bearer);
    let reply = send(&api, old.as_bytes());
    assert!(reply.closed);
    assert_eq!(value_of(&answer_of(&reply, "HTTP/1.0")), before + 2);
    api.stop();
}
