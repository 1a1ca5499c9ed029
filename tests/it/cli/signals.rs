//! How it ends: well on the first signal, at once on the second.
//!
//! Invariant: after each end a server starts on the data directory again and has everything that
//! was answered.
//! Must never: send a second signal before the first is seen to have arrived, since two that wait
//! count as one.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{DEADLINE, Ended, Place, count_up, read};
use crate::support::client::Protocol;
use crate::support::server::{STOP_DEADLINE, TestServer};
use crate::support::workload::runtime;

#[test]
fn sigterm_and_sigint_end_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let builder = || TestServer::builder().data_dir(place.path("data"));
        let mut server = builder().start();
        let key = count_up(&server, 5);
        server.signal(signal);
        let status = server.wait_exit(STOP_DEADLINE).expect("it ends");
        assert_eq!(status.code(), Some(0), "{signal:?}\n{}", server.transcript());
        let written = server.written();
        assert_eq!(
            (written.actions("stopped").len(), written.stderr.as_str()),
            (1, ""),
            "{signal:?}"
        );
        let again = builder().start();
        assert_eq!(read(&again, &key), 6);
        again.stop();
    }
}

/// A request whose body is half sent: the server waits for the rest, and says so by `100 Continue`.
struct HalfSent {
    stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
}

impl HalfSent {
    async fn start(server: &TestServer, key: &str) -> Self {
        let endpoint = server.endpoint();
        let mut stream = endpoint.open(&endpoint.tls(&[])).await.expect("the handshake succeeds");
        let head = format!(
            "PUT /api/v1/integer HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nExpect: 100-continue\r\n\
             Content-Type: application/json\r\nContent-Length: 12\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("the server reads");
        let mut interim = [0; 25];
        let told = tokio::time::timeout(DEADLINE, stream.read_exact(&mut interim)).await;
        assert!(matches!(told, Ok(Ok(25))) && interim.starts_with(b"HTTP/1.1 100 "), "{told:?}");
        stream.write_all(b"{\"val").await.expect("the server reads");
        Self { stream }
    }

    async fn finish(mut self) -> String {
        self.stream.write_all(b"ue\":77}").await.expect("the server reads");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, self.stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection stays open");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Waits until the first signal has arrived.
fn wait_for_draining(server: &TestServer) {
    let until = Instant::now() + DEADLINE;
    while server.ops_get("/readyz") != (503, "draining\n".to_owned()) {
        assert!(Instant::now() < until, "it does not drain: {}", server.transcript());
        std::thread::yield_now();
    }
}

/// The drain lasts: the main thread, which also answers here, waits for the workers. It would need
/// a few answers at most to come to the end if it did not.
fn assert_it_waits(server: &TestServer) {
    for _ in 0..100 {
        let readiness = server.try_ops("/readyz");
        let draining = Some((503, "draining\n".to_owned()));
        assert_eq!(readiness, draining, "it ends while a request is under way");
    }
}

#[test]
fn a_request_under_way_is_finished_before_the_end() {
    let place = Place::new();
    let builder = || TestServer::builder().data_dir(place.path("data"));
    let mut server = builder().start();
    let key = count_up(&server, 1);
    let runtime = runtime();
    let half = runtime.block_on(HalfSent::start(&server, &key));
    server.signal(Signal::TERM);
    wait_for_draining(&server);
    let refused = runtime.block_on(server.endpoint().connect(Protocol::Http1));
    assert!(refused.is_err(), "it still takes connections");
    assert_it_waits(&server);
    let answer = runtime.block_on(half.finish());
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"value\":77"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(server.wait_exit(STOP_DEADLINE).and_then(|status| status.code()), Some(0));
    let again = builder().start();
    assert_eq!(read(&again, &key), 77);
    again.stop();
}

/// The same over HTTP/2, where the rest of the body is one stream among others.
#[test]
fn a_stream_under_way_is_finished_before_the_end() {
    let mut server = TestServer::start();
    let key = count_up(&server, 1);
    let runtime = runtime();
    let (rest, body) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = futures_util::stream::unfold(body, async |mut body| {
        body.recv().await.map(|piece| (Ok::<_, Infallible>(Frame::data(piece)), body))
    });
    let request = |method: &str, path: &str| {
        let uri = format!("https://localhost{path}");
        Request::builder().method(method).uri(uri).header(AUTHORIZATION, format!("Bearer {key}"))
    };
    let half = request("PUT", "/api/v1/integer").header(CONTENT_TYPE, "application/json");
    let half = half.body(StreamBody::new(body).boxed_unsync()).expect("a request");
    let (_sender, answered) = runtime.block_on(async {
        let endpoint = server.endpoint();
        let stream = endpoint.open(&endpoint.tls(&[b"h2"])).await.expect("the handshake succeeds");
        let (executor, stream) = (TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) =
            http2::handshake(executor, stream).await.expect("the server speaks HTTP/2");
        tokio::spawn(connection);
        rest.send(Bytes::from_static(b"{\"val")).await.expect("the body is open");
        let answered = tokio::spawn(sender.send_request(half));
        // Heads are read in order: with the second one's answer the first has been read.
        sender.ready().await.expect("the connection is open");
        let whole = request("GET", "/livez").body(Empty::new().boxed_unsync()).expect("a request");
        assert_eq!(sender.send_request(whole).await.expect("an answer").status(), 200);
        (sender, answered)
    });
    server.signal(Signal::TERM);
    wait_for_draining(&server);
    assert_it_waits(&server);
    let answer = runtime.block_on(async {
        rest.send(Bytes::from_static(b"ue\":77}")).await.expect("the body is open");
        drop(rest);
        let answer = answered.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.expect("a whole answer").to_bytes()
    });
    assert!(String::from_utf8_lossy(&answer).contains("\"value\":77"), "{answer:?}");
    assert_eq!(server.wait_exit(STOP_DEADLINE).and_then(|status| status.code()), Some(0));
}

#[test]
fn a_second_signal_ends_at_once_with_1() {
    for (first, second) in
        [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT), (Signal::TERM, Signal::INT)]
    {
        let place = Place::new();
        let builder = || TestServer::builder().data_dir(place.path("data"));
        let mut server = builder().start();
        let key = count_up(&server, 3);
        let half = runtime();
        let _half = half.block_on(HalfSent::start(&server, &key));
        server.signal(first);
        wait_for_draining(&server);
        server.signal(second);
        // Without the second signal it would be 5 s, and the code 0.
        let status = server.wait_exit(Duration::from_secs(4)).expect("the second signal ends it");
        let written = server.written();
        let ended =
            Ended { code: status.code(), stdout: written.log.join("\n"), stderr: written.stderr };
        ended.complained(1, &["second signal"]);
        let again = builder().start();
        assert_eq!(read(&again, &key), 4, "what was answered is there; the half request is not");
        again.stop();
    }
}

/// Peers that neither answer nor close, one or more for each worker: they have the drain's time
/// together, not one after another.
#[test]
fn peers_that_do_not_answer_do_not_hold_up_the_end() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = TestServer::builder().flag("--workers", "4").start();
        let frozen = runtime();
        let peers = frozen.block_on(async {
            let mut peers = Vec::new();
            for _ in 0..8 {
                let mut peer = server.endpoint().connect(protocol).await.expect("a connection");
                assert_eq!(
                    peer.request("GET", "/livez", &[], "").await.expect("an answer").status,
                    200
                );
                peers.push(peer);
            }
            peers
        });
        // Nobody drives the peers' runtime any more: their sockets stay as they are.
        server.stop();
        drop((peers, frozen));
    }
}
