//! Answers that must survive a request still being sent, and heads that arrive in parts.
//!
//! Invariant: a refusal is readable however much of the body is still to come; a client that only
//! learns "connection reset" does not know whether its increment happened.
//! Must never: rely on a pause between two pieces; each piece is a TLS record, and the server is
//! seen to have read it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Api, CREATE, FORM, INCREMENT, INTEGER, JSON, assert_refusal};
use crate::support::client::Protocol;
use crate::support::raw_client::{RawConnection, Reply};
use crate::support::server::TestServer;

/// Sends `first`, makes sure that the server has read it, then sends `rest` and hands over what
/// came back.
///
/// The server tells nothing between two pieces of a head; but it has one worker here, so when
/// another connection was answered several times after the pieces were sent, they had been read.
pub(super) fn in_two(api: &Api, first: &[&[u8]], rest: &[u8], check: impl Fn(&Reply)) {
    let reply = api.runtime.block_on(async {
        let connection = RawConnection::over_tls(&api.endpoint, &api.endpoint.tls(&[])).await;
        let mut connection = connection.expect("the handshake succeeds");
        for piece in first {
            connection.send(piece).await.expect("the server reads");
            let mut witness = api.endpoint.connect(Protocol::Http1).await.expect("a connection");
            for _ in 0..8 {
                witness.request("GET", "/livez", &[], "").await.expect("an answer");
            }
        }
        // A refusal may be sent before everything is.
        let _ = connection.send(rest).await;
        connection.read_until(Instant::now() + super::hostile::DEADLINE).await
    });
    check(&reply);
}

#[test]
fn a_head_in_pieces_is_a_head() {
    let api = Api::on(TestServer::builder().flag("--workers", "1"));
    let tenant = api.register("pieces");
    let request = format!("{}\r\n", super::hostile::increment(&tenant));
    for (number, cut) in [1, 4, 40, request.len() - 1].into_iter().enumerate() {
        in_two(&api, &[&request.as_bytes()[..cut]], &request.as_bytes()[cut..], |reply| {
            assert_eq!(
                super::value_of(&super::answer_of(reply, "cut")),
                number as u64 + 2,
                "cut at {cut}"
            );
        });
    }
    api.stop();
}

/// Requests that are refused before their body is read, with bodies from a few bytes to megabytes:
/// the answer arrives every time.
fn refusals_arrive(protocol: Protocol) {
    let api = Api::start();
    let tenant = api.register("early");
    for length in [12, 300, 4096, 70_000, 2_000_000] {
        let body = Bytes::from(vec![b'x'; length]);
        let case = format!("{protocol:?}, {length} bytes");
        for _ in 0..3 {
            let answer = api.ask(protocol, "PUT", INCREMENT, &[FORM], body.clone());
            assert_refusal(&answer, 401, "unauthorized", &case);
            assert_refusal(
                &api.ask(protocol, "PUT", "/nope", &[FORM], body.clone()),
                404,
                "not_found",
                &case,
            );
            let answer = api.ask(protocol, "POST", INCREMENT, &[FORM], body.clone());
            assert_refusal(&answer, 405, "method_not_allowed", &case);
            if length > 4096 {
                let answer =
                    api.ask(protocol, "PUT", INTEGER, &[tenant.auth(), JSON], body.clone());
                assert_refusal(&answer, 413, "body_too_large", &case);
            }
        }
    }
    assert_eq!(api.read(&tenant), 1);
    api.stop();
}

#[test]
fn a_refusal_arrives_whatever_the_body_over_http1() {
    refusals_arrive(Protocol::Http1);
}

#[test]
fn a_refusal_arrives_whatever_the_body_over_http2() {
    refusals_arrive(Protocol::Http2);
}

/// The same with the client that most people have, which speaks HTTP/2 if it is offered.
#[test]
fn curl_sees_a_refusal_of_a_request_with_a_body() {
    if !crate::support::require("curl", crate::support::has_program("curl")) {
        return;
    }
    let api = Api::start();
    let certificate = api.server.data_dir().join("tls/cert.pem");
    let url = |path: &str| format!("https://localhost:{}{path}", api.server.public().port());
    for body in ["value=5".to_owned(), "x".repeat(300), "x".repeat(5000)] {
        for (path, method, status) in
            [(INTEGER, "PUT", "401"), ("/nope", "PUT", "404"), (CREATE, "PUT", "405")]
        {
            for version in ["--http1.1", "--http2"] {
                for _ in 0..2 {
                    let output = std::process::Command::new("curl")
                        .args([
                            "-sS",
                            "-m",
                            "9",
                            version,
                            "-o",
                            "/dev/null",
                            "-w",
                            "%{http_code}",
                            "-X",
                            method,
                            "-d",
                            &body,
                        ])
                        .arg("--cacert")
                        .arg(&certificate)
                        .arg(url(path))
                        .output()
                        .unwrap();
                    let (told, problem) = (
                        String::from_utf8(output.stdout).unwrap(),
                        String::from_utf8_lossy(&output.stderr),
                    );
                    assert_eq!(
                        told,
                        status,
                        "{version} {path}, a body of {} bytes: {problem}",
                        body.len()
                    );
                }
            }
        }
    }
    api.stop();
}

/// A client that asks first is told no before it sends the body, or told to go on.
#[test]
fn expect_continue_is_answered() {
    let api = Api::start();
    let tenant = api.register("expect");
    let head = |auth: &str, length: usize| {
        format!(
            "PUT {INTEGER} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{auth}Expect: 100-continue\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let auth = format!("Authorization: {}\r\n", tenant.bearer);
    let told = api.runtime.block_on(async {
        let connector = api.endpoint.tls(&[]);
        let mut connection = RawConnection::over_tls(&api.endpoint, &connector).await.unwrap();
        connection.send(head(&auth, 12).as_bytes()).await.unwrap();
        let interim = tokio::time::timeout(Duration::from_secs(4), connection.message())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        connection.send(b"{\"value\":17}").await.unwrap();
        connection.read_until(Instant::now() + super::hostile::DEADLINE).await
    });
    assert_eq!(super::value_of(&super::answer_of(&told, "continued")), 17);
    for (request, status, code) in
        [(head("", 12), 401, "unauthorized"), (head(&auth, 5000), 413, "body_too_large")]
    {
        let reply = super::hostile::send(&api, request.as_bytes());
        assert!(
            !reply.text().contains("100 Continue"),
            "asked for a body that it refuses: {}",
            reply.text()
        );
        assert_refusal(&super::answer_of(&reply, code), status, code, code);
    }
    assert_eq!(api.read(&tenant), 17);
    api.stop();
}
