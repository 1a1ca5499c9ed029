//! One connection, from accept to close.
//!
//! Job: TLS handshake, HTTP/2 or HTTP/1.1 by ALPN, graceful shutdown; over TCP, or in plain
//! HTTP/1.1 over a Unix socket.
//! Invariant: every wait has a timeout.
//! Must never: take longer than [`HANDSHAKE_TIMEOUT`] from accept to the end of the handshake.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::bridge::{self, AppService};
use super::context::Peer;
use super::deadlines::{self, DeadlineStream};
use super::error::ApiError;
use super::idle::IdleTracker;
use super::middleware::access_log::{HEAD_TOO_LARGE, Listener, Observer};
use crate::failpoint::failpoint;

/// How long a peer may take from connecting to the end of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HEADERS: usize = 128;
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// An HTTP/1.1 connection whose request had a larger head is closed after its response, since hyper
/// keeps a buffer of that size for as long as the connection lives.
const MAX_KEPT_HEAD_BYTES: usize = 8 * 1024;
const MAX_STREAMS: u32 = 256;
/// The first byte of every TLS connection: the type of a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// An App, and the observer that records its connections' own errors.
#[derive(Clone)]
pub struct Endpoint {
    /// The App.
    pub app: AppService,
    /// The App's observer.
    pub observer: Rc<Observer>,
}

/// The protocol of a listener's connections.
#[derive(Clone)]
pub enum Protocol {
    /// HTTPS.
    Tls(TlsAcceptor, Endpoint),
    /// Plain HTTP.
    Plain(Endpoint),
}

/// Serves a connection to its end. Once `drain` turns true it ends after the current response.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    protocol: Protocol,
    drain: watch::Receiver<bool>,
) {
    // This fails only if the peer has disconnected, which the next read reports.
    let _ = stream.set_nodelay(true);
    let peer = Peer::Tcp(peer);
    match protocol {
        Protocol::Plain(endpoint) => http1(stream, endpoint, peer, drain).await,
        Protocol::Tls(acceptor, endpoint) => {
            let handshake = handshake(stream, acceptor, &endpoint, peer);
            let Ok(Some(stream)) = timeout(HANDSHAKE_TIMEOUT, handshake).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                http2(stream, endpoint, peer, drain).await;
            } else {
                http1(stream, endpoint, peer, drain).await;
            }
        }
    }
}

/// As [`serve`], for a user of this machine.
pub(super) async fn serve_unix(
    stream: UnixStream,
    uid: u32,
    endpoint: Endpoint,
    drain: watch::Receiver<bool>,
) {
    http1(stream, endpoint, Peer::Unix { uid }, drain).await;
}

async fn handshake(
    mut stream: TcpStream,
    acceptor: TlsAcceptor,
    endpoint: &Endpoint,
    peer: Peer,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    if first[0] != TLS_HANDSHAKE {
        let _ = stream
            .write_all(&malformed(
                &endpoint.observer,
                peer,
                "this port requires HTTPS; use https://",
                false,
            ))
            .await;
        // Closing a socket with unread input resets the connection, and the peer could lose the
        // response.
        let _ = stream.shutdown().await;
        let mut rest = [0; 4096];
        while stream.try_read(&mut rest).is_ok_and(|count| count > 0) {}
        return None;
    }
    acceptor.accept(stream).await.ok()
}

async fn http1<S>(stream: S, endpoint: Endpoint, peer: Peer, mut drain: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let state = Arc::new(deadlines::ConnectionState::default());
    let Endpoint { app, observer } = endpoint;
    let service = service_fn(|request| {
        state.busy.store(true, Ordering::Relaxed);
        let head_bytes = header_bytes(request.headers());
        let rejection =
            reject_http1(&request, &state).or_else(|| reject_head(&request, head_bytes));
        // After an ambiguous length, the beginning of the next request is unknown (RFC 9112, 6.1).
        let is_last = matches!(rejection, Some(ApiError::MalformedRequest(AMBIGUOUS_LENGTH)))
            || head_bytes > MAX_KEPT_HEAD_BYTES;
        let (app, state) = (Rc::clone(&app), Arc::clone(&state));
        async move {
            let mut response = bridge::respond(&app, peer, request, rejection).await;
            if is_last {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            state.busy.store(false, Ordering::Relaxed);
            state.answered.store(true, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let unreadable = Box::new(move |status| {
        let is_https = observer.listener == Listener::Public;
        malformed(&observer, peer, parse_error_reason(status), is_https)
    });
    let stream = DeadlineStream::new(stream, Arc::clone(&state), unreadable);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(2 * MAX_HEADERS)
        .max_buf_size(2 * MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = drain.wait_for(|draining| *draining) => connection.as_mut().graceful_shutdown(),
    }
    if !failpoint!("drain-cuts-http1-requests") {
        let _ = connection.await;
    }
}

/// Runs the streams of a connection on its worker's thread.
#[derive(Clone)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

async fn http2<S>(stream: S, endpoint: Endpoint, peer: Peer, mut drain: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let idle_tracker = IdleTracker::start();
    let service = service_fn(|request| {
        let (app, in_flight) = (Rc::clone(&endpoint.app), idle_tracker.begin());
        let rejection = reject_head(&request, header_bytes(request.headers()));
        async move {
            let response = bridge::respond(&app, peer, request, rejection).await;
            drop(in_flight);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        // Larger than the limit, so that a request above the limit gets an error document.
        .max_header_list_size(8 * u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(8))
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // After the GOAWAY, requests that crossed it and responses in flight are still completed.
    // During a drain, the worker limits the time for all connections; an idle peer has a limit of
    // its own.
    let rest = tokio::select! {
        _ = connection.as_mut() => return,
        _ = drain.wait_for(|draining| *draining) => Duration::MAX,
        () = idle_tracker.idle(deadlines::HEADER_TIMEOUT, deadlines::KEEP_ALIVE_TIMEOUT) => {
            deadlines::WRITE_TIMEOUT
        }
    };
    connection.as_mut().graceful_shutdown();
    let rest = if idle_tracker.has_begun() { rest } else { deadlines::LINGERING_CLOSE };
    if !failpoint!("drain-cuts-http2-requests") {
        let _ = timeout(rest, connection).await;
    }
}

const AMBIGUOUS_LENGTH: &str =
    "the request has both Transfer-Encoding and Content-Length; send one of them";

/// Checks the rules of HTTP/1.1 that hyper does not enforce.
fn reject_http1(
    request: &Request<Incoming>,
    shared: &deadlines::ConnectionState,
) -> Option<ApiError> {
    let headers = request.headers();
    let problem = if headers.contains_key(TRANSFER_ENCODING) && shared.has_ambiguous_length() {
        AMBIGUOUS_LENGTH
    } else if request.version() == Version::HTTP_11 && headers.get_all(HOST).iter().count() != 1 {
        "the request has no Host header or several; send one"
    } else {
        return None;
    };
    Some(ApiError::MalformedRequest(problem))
}

/// Checks the limits of a head, whatever the protocol.
fn reject_head(request: &Request<Incoming>, head_bytes: usize) -> Option<ApiError> {
    let is_too_large = request.headers().len() > MAX_HEADERS || head_bytes > MAX_HEAD_BYTES;
    is_too_large.then_some(ApiError::MalformedRequest(HEAD_TOO_LARGE))
}

/// The size of the headers in HTTP/1.1's form.
fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// The reason of a parse error, from hyper's status.
fn parse_error_reason(status: u16) -> &'static str {
    match status {
        431 => HEAD_TOO_LARGE,
        414 => "the request's path is too long",
        _ => "the request's head is not valid HTTP/1.1",
    }
}

/// The whole response to a head that could not be parsed, as bytes; `detail` is the reason, and
/// `is_https` whether it goes over TLS.
fn malformed(observer: &Observer, peer: Peer, detail: &'static str, is_https: bool) -> Vec<u8> {
    let response = observer.malformed(peer.ip(), detail, is_https);
    let response = bridge::convert_response(response, false);
    let (head, body) = response.into_parts();
    let body = body.into_bytes();
    let mut whole = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        whole.extend_from_slice(
            &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat(),
        );
    }
    whole.extend_from_slice(
        format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).as_bytes(),
    );
    whole.extend_from_slice(&body);
    whole
}
