//! The port without TLS: it points to HTTPS and honours nothing.
//!
//! Invariant: a key, a name or a value that came in clear has no effect, whatever the method.
//! Must never: follow the redirect itself; the place it points to is compared as text.

use super::hostile::DEADLINE;
use super::{Answer, Api, CREATE, INCREMENT, INTEGER, answer_of, assert_error_document};
use crate::support::raw_client::over_tcp;
use crate::support::server::TestServer;

fn start() -> Api {
    Api::on(TestServer::builder().flag("--http-listen", "127.0.0.1:0"))
}

#[track_caller]
fn ask(api: &Api, head: &str, body: &str) -> Answer {
    let request = format!("{head}\r\nConnection: close\r\n\r\n{body}");
    answer_of(
        &api.runtime.block_on(over_tcp(api.server.http(), &[request.as_bytes()], DEADLINE)),
        head,
    )
}

#[test]
fn a_bare_get_is_sent_to_https() {
    let api = start();
    let (http, https) = (api.server.http().port(), api.server.public().port());
    for (host, there) in [
        (format!("localhost:{http}"), "localhost"),
        ("localhost".to_owned(), "localhost"),
        (format!("127.0.0.1:{http}"), "127.0.0.1"),
        (format!("[::1]:{http}"), "[::1]"),
        ("odometer.example".to_owned(), "odometer.example"),
    ] {
        for target in ["/", INTEGER, "/a/b?c=d&e=%20f", "//evil.example/x"] {
            let answer = ask(&api, &format!("GET {target} HTTP/1.1\r\nHost: {host}"), "");
            assert_eq!(answer.status, 308, "{target} of {host}");
            assert_eq!(
                answer.header("location"),
                format!("https://{there}:{https}{target}"),
                "{host}"
            );
        }
    }
    // Whatever a path is, `Location` is a URI.
    let odd = ask(&api, "GET /caf\u{e9}?v\u{e4}lue={5} HTTP/1.1\r\nHost: localhost", "");
    assert_eq!(
        odd.header("location"),
        format!("https://localhost:{https}/caf%C3%A9?v%C3%A4lue=%7B5%7D")
    );
    let head = b"HEAD /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let reply = api.runtime.block_on(over_tcp(api.server.http(), &[head], DEADLINE)).text();
    assert!(
        reply.starts_with("HTTP/1.1 308 ") && reply.ends_with("\r\n\r\n"),
        "HEAD has no body: {reply}"
    );
    assert!(reply.contains(&format!("location: https://localhost:{https}/x\r\n")), "{reply}");
    api.stop();
}

#[test]
fn a_key_or_a_body_in_clear_is_refused_and_not_honoured() {
    let api = start();
    let tenant = api.register("clear");
    let auth = format!("Authorization: {}", tenant.bearer);
    let create = "username=thief&password=correct-horse-battery";
    for (head, body) in [
        (format!("GET {INTEGER} HTTP/1.1\r\nHost: localhost\r\n{auth}"), ""),
        (format!("PUT {INCREMENT} HTTP/1.1\r\nHost: localhost\r\n{auth}"), ""),
        (format!("PUT {INTEGER}?value=9 HTTP/1.1\r\nHost: localhost\r\n{auth}"), ""),
        (format!("GET {INTEGER} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic eDp5"), ""),
        (
            format!(
                "POST {CREATE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}",
                create.len()
            ),
            create,
        ),
        (format!("POST {CREATE}?{create} HTTP/1.1\r\nHost: localhost"), ""),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2".to_owned(), "{}"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked".to_owned(), "0\r\n\r\n"),
        ("DELETE / HTTP/1.1\r\nHost: localhost".to_owned(), ""),
    ] {
        let answer = ask(&api, &head, body);
        assert_eq!(
            (answer.status, answer.code()),
            (403, "https_required".to_owned()),
            "{head}: {}",
            answer.text()
        );
        assert_eq!(answer.header("content-type"), super::JSON_API.1);
        assert!(!answer.headers.contains_key("location"), "{head}");
        assert_eq!(api.read(&tenant), 1, "{head}");
    }
    assert_eq!(api.register("thief").id, tenant.id + 1, "somebody was registered in clear");
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(
            ask(&api, &format!("GET {path} HTTP/1.1\r\nHost: localhost"), "").status,
            308,
            "{path}"
        );
    }
    api.stop();
}

/// Answers of this port are documents like all others, and no cache keeps a redirect or a refusal.
#[test]
fn its_answers_are_complete_and_not_cached() {
    let api = start();
    let redirect = ask(&api, "GET / HTTP/1.1\r\nHost: localhost", "");
    assert_eq!(redirect.header("cache-control"), "no-store", "{:?}", redirect.headers);
    let refused = ask(&api, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2", "{}");
    assert_error_document(&refused, "a body in clear");
    assert_ne!(refused.json()["errors"][0]["id"], "");
    assert_eq!(refused.header("x-request-id"), refused.json()["errors"][0]["id"]);
    api.stop();
}

/// RFC 6797, 7.2: no answer in clear has `Strict-Transport-Security`, whichever listener gives it;
/// a browser would ignore it, and a proxy might not.
#[test]
fn no_answer_in_clear_asks_for_strict_transport_security() {
    let api = start();
    let good = &b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"[..];
    let unreadable = &b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n"[..];
    let (http, ops, public) = (api.server.http(), api.server.ops(), api.server.public());
    for (listener, bytes, status) in [
        (http, good, 308),
        (http, unreadable, 400),
        (ops, good, 404),
        (ops, unreadable, 400),
        // The port of HTTPS answers a client that does not speak TLS in clear, too.
        (public, good, 400),
    ] {
        let reply = api.runtime.block_on(over_tcp(listener, &[bytes], DEADLINE));
        let answer = answer_of(&reply, "in clear");
        assert_eq!(answer.status, status, "{}", reply.text());
        assert_eq!(answer.header("strict-transport-security"), "", "{}", reply.text());
    }
    api.stop();
}

#[test]
fn nonsense_and_tls_on_the_plain_port_end_there() {
    let api = start();
    for bytes in [&b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"\x00\x01\r\n\r\n"] {
        let reply = api.runtime.block_on(over_tcp(api.server.http(), &[bytes], DEADLINE));
        assert_error_document(&answer_of(&reply, "nonsense"), "nonsense");
        assert!(reply.closed);
    }
    let no_host = answer_of(
        &api.runtime.block_on(over_tcp(api.server.http(), &[b"GET / HTTP/1.1\r\n\r\n"], DEADLINE)),
        "no Host",
    );
    assert!((400..500).contains(&no_host.status), "{}", no_host.text());
    let certificate = api.server.data_dir().join("tls/cert.pem");
    let wrong = super::Endpoint::trusting(api.server.http(), &certificate);
    let handshake = async { wrong.open(&wrong.tls(&[])).await.map(drop) };
    let outcome = api.runtime.block_on(async { tokio::time::timeout(DEADLINE, handshake).await });
    assert!(matches!(outcome, Ok(Err(_))), "TLS on the plain port: {outcome:?}");
    assert_eq!(ask(&api, "GET / HTTP/1.1\r\nHost: localhost", "").status, 308);
    api.stop();
}
