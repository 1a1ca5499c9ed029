//! Requests that no library sends: each gets a clear 4xx document, and nothing is lost or counted.
//!
//! Invariant: bytes go out exactly as written here. A case that the server may serve or refuse says
//! so; then the value tells which it was.
//! Must never: wait longer than [`DEADLINE`] for an answer that has to come at once.

use std::fmt::Write;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{
    Api, BOTH, INCREMENT, INTEGER, Tenant, answer_of, answers_of, assert_error_document,
    assert_refusal,
};
use crate::support::client::{Endpoint, Protocol};
use crate::support::raw_client::{Reply, over_tcp, over_tls};

/// Far above what an answer takes, and above the 5 s that a body may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(9);

/// An increment, up to the end of its own headers.
pub(super) fn increment(tenant: &Tenant) -> String {
    format!(
        "PUT {INCREMENT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {}\r\n",
        tenant.bearer
    )
}

pub(super) fn send(api: &Api, bytes: &[u8]) -> Reply {
    api.runtime.block_on(over_tls(&api.endpoint, &[bytes], DEADLINE))
}

#[test]
fn heads_that_are_no_http_get_a_document() {
    let api = Api::start();
    let tenant = api.register("heads");
    let increment = increment(&tenant);
    let with = |rest: &str| format!("{increment}{rest}\r\n").into_bytes();
    let mut thousand = String::new();
    for number in 0..1000 {
        write!(thousand, "X-{number}: y\r\n").unwrap();
    }
    let path = |path: &str| increment.replacen(INCREMENT, path, 1).into_bytes();
    for (case, bytes) in [
        ("NUL in a header's value", with("X: a\0b\r\n")),
        ("NUL in a header's name", with("X\0: a\r\n")),
        ("a control character in a header", with("X: a\x01b\r\n")),
        ("DEL in a header", with("X: a\x7fb\r\n")),
        ("CR in a header", with("X: a\rb\r\n")),
        ("a folded header", with("X: a\r\n b\r\n")),
        ("a space before the colon", with("X : a\r\n")),
        ("a header without a name", with(": a\r\n")),
        ("a header without a colon", with("X\r\n")),
        ("NUL in the path", [&path(&format!("{INCREMENT}\0"))[..], b"\r\n"].concat()),
        (
            "a control character in the path",
            [&path(&format!("{INCREMENT}\x01"))[..], b"\r\n"].concat(),
        ),
        ("DEL in the path", [&path(&format!("{INCREMENT}\x7f"))[..], b"\r\n"].concat()),
        ("a space in the path", [&path("/api v1/integer")[..], b"\r\n"].concat()),
        ("a path without a slash", [&path("api/v1/integer")[..], b"\r\n"].concat()),
        ("no path", [&path("")[..], b"\r\n"].concat()),
        (
            "a path of 100 KiB",
            [&path(&format!("/{}", "a".repeat(100 << 10)))[..], b"\r\n"].concat(),
        ),
        ("a header of 100 KiB", with(&format!("X: {}\r\n", "a".repeat(100 << 10)))),
        ("1000 headers", with(&thousand)),
        (
            "a version of its own",
            [&increment.replacen("HTTP/1.1", "HTTP/1.9", 1).into_bytes()[..], b"\r\n"].concat(),
        ),
        (
            "HTTP/2 without its preface",
            [&increment.replacen("1.1", "2.0", 1).into_bytes()[..], b"\r\n"].concat(),
        ),
        ("binary", b"\x00\x01\x02\x03\r\n\r\n".to_vec()),
        ("a negative length", with("Content-Length: -1\r\n")),
        ("a signed length", with("Content-Length: +0\r\n")),
        ("a length in hexadecimal", with("Content-Length: 0x2\r\n")),
        ("a length beyond any", with("Content-Length: 99999999999999999999\r\n")),
        ("two lengths", with("Content-Length: 0\r\nContent-Length: 1\r\n")),
        ("an unknown transfer coding", with("Transfer-Encoding: gzip\r\n")),
        ("chunked, but not last", with("Transfer-Encoding: chunked, gzip\r\n")),
    ] {
        let reply = send(&api, &bytes);
        assert!(reply.closed, "{case}: the connection stays open");
        assert_error_document(&answer_of(&reply, case), case);
        assert_eq!(api.read(&tenant), 1, "{case}");
    }
    api.stop();
}

/// RFC 9112, 3.2: a request without Host, or with two, is a bad request.
#[test]
fn a_host_is_asked_for_once() {
    let api = Api::start();
    let tenant = api.register("hosts");
    let increment = increment(&tenant);
    for (case, head) in [
        ("no Host", increment.replacen("Host: localhost\r\n", "", 1)),
        (
            "two Hosts",
            increment.replacen("Host: localhost\r\n", "Host: localhost\r\nHost: evil\r\n", 1),
        ),
    ] {
        let answer = answer_of(&send(&api, format!("{head}\r\n").as_bytes()), case);
        assert_error_document(&answer, case);
        assert_eq!((answer.status, api.read(&tenant)), (400, 1), "{case}");
    }
    api.stop();
}

/// The same promise for a head that HTTP's library refuses: the error can be found again by its id.
#[test]
fn a_refused_head_has_an_id_too() {
    let api = Api::start();
    for bytes in [&b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"\x00\r\n\r\n"] {
        let answer = answer_of(&send(&api, bytes), "an unreadable head");
        assert_refusal(&answer, 400, "malformed_request", "an unreadable head");
    }
    api.stop();
}

#[test]
fn many_headers_and_long_ones_are_served_up_to_a_limit() {
    let api = Api::start();
    let tenant = api.register("headers");
    let names: Vec<String> = (0..1000).map(|number| format!("x-{number}")).collect();
    let headers = |count: usize| {
        let extra = names[..count - 1].iter().map(|name| (name.as_str(), "y"));
        [tenant.auth()].into_iter().chain(extra).collect::<Vec<_>>()
    };
    for (number, protocol) in BOTH.into_iter().enumerate() {
        let answer = api.ask(protocol, "PUT", INCREMENT, &headers(100), "");
        assert_eq!(
            (answer.status, super::value_of(&answer)),
            (200, number as u64 + 2),
            "100 headers"
        );
        let key = format!("Bearer {}", "a".repeat(10 << 10));
        let answer = api.ask(protocol, "PUT", INCREMENT, &[("authorization", &key)], "");
        assert_refusal(&answer, 401, "unauthorized", "a key of 10 KiB");
    }
    let answer = api.ask(Protocol::Http1, "PUT", INCREMENT, &headers(1000), "");
    assert_error_document(&answer, "1000 headers");
    assert_eq!(api.read(&tenant), 3);
    api.stop();
}

#[test]
fn a_thousand_headers_over_http2_get_a_document() {
    let api = Api::start();
    let tenant = api.register("headers");
    let names: Vec<String> = (0..1000).map(|number| format!("x-{number}")).collect();
    let headers: Vec<_> =
        names.iter().map(|name| (name.as_str(), "y")).chain([tenant.auth()]).collect();
    let answer = api.ask(Protocol::Http2, "PUT", INCREMENT, &headers, "");
    assert_error_document(&answer, "1000 headers over HTTP/2");
    assert_eq!(api.read(&tenant), 1);
    api.stop();
}

#[test]
fn two_announced_lengths_are_refused_in_either_order() {
    let api = Api::start();
    let tenant = api.register("smuggler");
    let head = increment(&tenant);
    let (length, coding) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for (case, lengths) in [
        ("Content-Length first", format!("{length}{coding}")),
        ("Transfer-Encoding first", format!("{coding}{length}")),
        (
            "in other letters",
            format!("{}{}", coding.to_ascii_uppercase(), length.to_ascii_lowercase()),
        ),
        ("apart", format!("{coding}X: y\r\n{length}")),
    ] {
        let smuggled = format!(
            "PUT {INCREMENT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n",
            tenant.bearer
        );
        let reply = send(&api, format!("{head}{lengths}\r\n0\r\n\r\n{smuggled}").as_bytes());
        assert!(reply.closed, "{case}");
        assert_refusal(&answer_of(&reply, case), 400, "malformed_request", case);
        assert_eq!(api.read(&tenant), 1, "{case}");
    }
    api.stop();
}

/// Where the next request of such a peer begins cannot be known, so it is not looked for.
#[test]
fn a_peer_that_announced_two_lengths_is_left() {
    let api = Api::start();
    let tenant = api.register("left");
    let open = increment(&tenant).replacen("Connection: close\r\n", "", 1);
    let chunked = "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let reply = send(&api, format!("{open}Content-Length: 5\r\n{chunked}{open}\r\n").as_bytes());
    assert!(reply.closed);
    assert_refusal(&answer_of(&reply, "two lengths"), 400, "malformed_request", "two lengths");
    assert_eq!(answers_of(&reply).len(), 1, "{}", reply.text());
    assert_eq!(api.read(&tenant), 1);
    // One that says one thing is served on.
    let reply = send(&api, format!("{open}{chunked}{}\r\n", increment(&tenant)).as_bytes());
    assert_eq!(
        answers_of(&reply).iter().map(|answer| answer.status).collect::<Vec<_>>(),
        [200, 200]
    );
    api.stop();
}

/// As above, but the head does not come alone in one read.
#[test]
fn two_announced_lengths_are_refused_however_they_arrive() {
    let api = Api::on(super::TestServer::builder().flag("--workers", "1"));
    let tenant = api.register("smuggler");
    let head = increment(&tenant);
    let second = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let open = head.replacen("Connection: close\r\n", "", 1);
    let reply = send(&api, format!("{open}\r\n{head}{second}").as_bytes());
    let answers = answers_of(&reply);
    assert_eq!(answers.len(), 2, "{}", reply.text());
    assert_eq!(
        (answers[0].status, answers[1].status),
        (200, 400),
        "behind another request: {}",
        answers[1].text()
    );
    assert_eq!(api.read(&tenant), 2);
    let (one, two) = head.split_at(head.len() / 2);
    for cut in ["Content-Length: 5\r\nTrans", "Content-Length: 5\r\n", "Content-L", ""] {
        let (first, rest) = (format!("{two}{cut}"), second.strip_prefix(cut).unwrap());
        super::partial_requests::in_two(
            &api,
            &[one.as_bytes(), first.as_bytes()],
            rest.as_bytes(),
            |reply| {
                assert_refusal(
                    &answer_of(reply, cut),
                    400,
                    "malformed_request",
                    &format!("cut after {cut:?}"),
                );
            },
        );
        assert_eq!(api.read(&tenant), 2, "cut after {cut:?}");
    }
    api.stop();
}

#[test]
fn bodies_without_an_end_are_cut_off() {
    let api = Api::start();
    let tenant = api.register("endless");
    let head = increment(&tenant);
    let chunked =
        format!("{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [&b"400\r\n"[..], &[b'x'; 1024], b"\r\n"].concat();
    let endless =
        |chunks| std::iter::once(chunked.as_bytes()).chain(std::iter::repeat_n(&chunk[..], chunks));
    let fast: Vec<&[u8]> = endless(20_000).collect();
    let reply = api.runtime.block_on(over_tls(&api.endpoint, &fast, DEADLINE));
    assert_refusal(&answer_of(&reply, "fast"), 413, "body_too_large", "chunks without an end");
    let stalled: Vec<&[u8]> = endless(5).collect();
    let reply = api.runtime.block_on(over_tls(&api.endpoint, &stalled, DEADLINE));
    let answer = answer_of(&reply, "stalled");
    assert_error_document(&answer, "too many chunks and then nothing");
    assert!([408, 413].contains(&answer.status), "{}", answer.text());
    let slow = [
        ("a chunk and then nothing", format!("{chunked}1\r\nx\r\n")),
        ("no chunk at all", chunked.clone()),
        ("half of the announced length", format!("{head}Content-Length: 20\r\n\r\n{{}}")),
    ];
    let replies = api.runtime.block_on(join_all(slow.iter().map(async |(case, request)| {
        (case, over_tls(&api.endpoint, &[request.as_bytes()], DEADLINE).await)
    })));
    for (case, reply) in replies {
        assert_refusal(&answer_of(&reply, case), 408, "body_timeout", case);
        assert!(reply.closed, "{case}");
    }
    for (case, rest) in [
        ("no size", "zz\r\n"),
        ("no line break", "1\r\nxy\r\n"),
        ("a size beyond any", "fffffffffffffffff\r\n"),
    ] {
        let reply = send(&api, format!("{chunked}{rest}").as_bytes());
        assert_refusal(&answer_of(&reply, case), 400, "malformed_body", case);
    }
    assert_eq!(api.read(&tenant), 1);
    api.stop();
}

#[test]
fn http_on_the_tls_port_is_told_so() {
    let api = Api::start();
    let tenant = api.register("wrong-port");
    let long = format!("{}X: {}\r\n\r\n", increment(&tenant), "a".repeat(8 << 10));
    for request in
        [format!("{}\r\n", increment(&tenant)), "GET / HTTP/1.0\r\n\r\n".to_owned(), long]
    {
        let reply =
            api.runtime.block_on(over_tcp(api.server.public(), &[request.as_bytes()], DEADLINE));
        assert!(reply.closed);
        let answer = answer_of(&reply, "HTTP on the TLS port");
        assert_error_document(&answer, "HTTP on the TLS port");
        assert_eq!(
            (answer.status, answer.text().contains("https")),
            (400, true),
            "{}",
            answer.text()
        );
    }
    assert_eq!(api.read(&tenant), 1);
    // Not even a first byte, or half a handshake: cut, and nobody else is kept waiting.
    let unfinished: [&[u8]; 2] = [b"", b"\x16\x03\x01\x02\x00\x01"];
    let replies =
        unfinished.map(async |bytes| over_tcp(api.server.public(), &[bytes], DEADLINE).await);
    for reply in api.runtime.block_on(join_all(replies)) {
        assert!(reply.closed, "an unfinished handshake is kept");
    }
    assert_eq!(api.ask(Protocol::Http2, "GET", INTEGER, &[tenant.auth()], "").status, 200);
    api.stop();
}

/// What follows an HTTP/1.0 request that wanted to go on is refused in that version, and no less
/// completely.
#[test]
fn nonsense_behind_an_old_request_gets_a_document_too() {
    let api = Api::start();
    let old = b"GET /livez HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n";
    let answers = answers_of(&send(&api, &[&old[..], b"\x00nonsense\r\n\r\n"].concat()));
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[0].status, 200);
    assert_refusal(&answers[1], 400, "malformed_request", "behind HTTP/1.0");
    api.stop();
}

/// `docs/configuration.md`, Limits: 8 s from the handshake to the first request, over HTTP/2 too,
/// where the library itself would wait for ever.
#[test]
fn http2_without_a_request_is_cut() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // HEADERS of a GET that announce more of them.
    const HEADERS: &[u8] = &[0, 0, 1, 1, 1, 0, 0, 0, 1, 0x82];
    let api = Api::start();
    let opened = [&[][..], &[&PREFACE[..9]], &[PREFACE, SETTINGS], &[PREFACE, SETTINGS, HEADERS]];
    let cut = opened.map(async |pieces| {
        let mut stream =
            api.endpoint.open(&api.endpoint.tls(&[b"h2"])).await.expect("the handshake succeeds");
        stream.write_all(&pieces.concat()).await.expect("the server reads");
        stream.flush().await.expect("the server reads");
        let reading = async { while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {} };
        (pieces.concat(), tokio::time::timeout(DEADLINE + Duration::from_secs(3), reading).await)
    });
    for (sent, end) in api.runtime.block_on(join_all(cut)) {
        assert!(end.is_ok(), "still open after {:?}", sent.escape_ascii().to_string());
    }
    assert_eq!(api.ask(Protocol::Http2, "GET", "/livez", &[], "").status, 200);
    api.stop();
}

/// A peer that has its last answer and keeps its end open does not keep its place: who comes next
/// is served.
#[test]
fn an_ended_connection_gives_its_place_back() {
    let builder = super::TestServer::builder().flag("--max-connections-per-address", "3");
    let api = Api::on(builder.flag("--ops-listen", "off"));
    let requests =
        ["GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "\0\r\n\r\n"];
    api.runtime.block_on(async {
        for request in requests {
            let mut kept = Vec::new();
            for _ in 0..3 {
                let mut stream = place(&api.endpoint).await;
                stream.write_all(request.as_bytes()).await.expect("the server reads");
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.expect("the server says goodbye");
                kept.push(stream);
            }
            // Those whose ends stay open have all had their last answer: whoever comes next gets
            // in.
            place(&api.endpoint).await;
        }
    });
    api.stop();
}

/// A connection of its own. A place that its owner gave up is free a moment after that, when the
/// server has noticed.
async fn place(endpoint: &Endpoint) -> TlsStream<TcpStream> {
    let until = Instant::now() + DEADLINE;
    loop {
        match endpoint.open(&endpoint.tls(&[])).await {
            Ok(stream) => return stream,
            Err(error) => {
                assert!(Instant::now() < until, "peers that are done keep everybody out: {error}")
            }
        }
        tokio::task::yield_now().await;
    }
}
