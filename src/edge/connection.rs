//! One connection, from the first byte to the last.
//!
//! Job: tell TLS from plain bytes, shake hands within a limit, speak HTTP/2 or 1.1 as was agreed, and end gracefully when the process goes down.
//! Invariant: every wait has a limit. Must never: take longer than [`HANDSHAKE`] before the first request may begin.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::header::{HOST, TRANSFER_ENCODING};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::activity::Activity;
use super::guard::{self, Guard};
use super::observe::Observer;
use crate::api::document;
use crate::api::error::ApiError;

/// How long a peer may take from connecting to the end of the handshake.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);
const MAX_HEADERS: usize = 128;
const MAX_HEAD_BYTES: usize = 32 * 1024;
const MAX_STREAMS: u32 = 256;
/// The first byte of every TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a listener does with its connections.
#[derive(Clone)]
pub enum Protocol {
    /// HTTPS for tenants.
    Tls(TlsAcceptor, Observer),
    /// Plain HTTP for operators.
    Ops(Observer),
    /// Plain HTTP that points to HTTPS, on this port.
    Redirect(Observer, u16),
}

/// Serves a connection to its end; ends it early, but not in the middle of an answer, once `drain` turns true.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, protocol: Protocol, drain: watch::Receiver<bool>) {
    // An error here is the peer's going away; there is nobody to tell.
    let _ = stream.set_nodelay(true);
    match protocol {
        Protocol::Redirect(observer, port) => {
            let malformed = malformed(observer.clone(), peer);
            let answer = move |request: Request<Incoming>, _| {
                let answer = observer.redirect(peer.ip(), &request, port);
                async move { answer }
            };
            http1(stream, answer, malformed, drain).await;
        }
        Protocol::Ops(observer) => {
            let malformed = malformed(observer.clone(), peer);
            http1(stream, observed(observer, peer), malformed, drain).await;
        }
        Protocol::Tls(acceptor, observer) => {
            let malformed = malformed(observer.clone(), peer);
            let Ok(Some(stream)) = timeout(HANDSHAKE, handshake(stream, acceptor, &malformed)).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                http2(stream, observer, peer, drain).await;
            } else {
                http1(stream, observed(observer, peer), malformed, drain).await;
            }
        }
    }
}

async fn handshake(
    mut stream: TcpStream,
    acceptor: TlsAcceptor,
    malformed: &Malformed,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    if first[0] != TLS_HANDSHAKE {
        let _ = stream.write_all(&malformed("this port speaks HTTPS; use https://")).await;
        // Closing with unread bytes would reset the connection and take the answer with it.
        let _ = stream.shutdown().await;
        let mut rest = [0; 4096];
        while stream.try_read(&mut rest).is_ok_and(|count| count > 0) {}
        return None;
    }
    acceptor.accept(stream).await.ok()
}

fn observed(
    observer: Observer,
    peer: SocketAddr,
) -> impl Fn(Request<Incoming>, Option<ApiError>) -> std::pin::Pin<Box<dyn Future<Output = document::Answer> + Send>> {
    move |request, refusal| {
        let observer = observer.clone();
        Box::pin(async move { observer.answer(peer.ip(), request, refusal).await })
    }
}

async fn http1<S, A, F>(stream: S, answer: A, malformed: Malformed, mut drain: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Incoming>, Option<ApiError>) -> F,
    F: Future<Output = document::Answer>,
{
    let shared = Arc::new(guard::Shared::default());
    let service = service_fn(|request| {
        shared.busy.store(true, Ordering::Relaxed);
        let refusal = refuse_http1(&request, &shared).or_else(|| refuse_head(&request));
        let (answer, shared) = (answer(request, refusal), Arc::clone(&shared));
        async move {
            let answer = answer.await;
            shared.busy.store(false, Ordering::Relaxed);
            shared.answered.store(true, Ordering::Relaxed);
            Ok::<Response<Full<Bytes>>, Infallible>(answer)
        }
    });
    let guard = Guard::new(stream, Arc::clone(&shared), Box::new(move |status| malformed(unreadable(status))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(2 * MAX_HEADERS)
        .max_buf_size(2 * MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(guard), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = drain.wait_for(|draining| *draining) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn http2<S>(stream: S, observer: Observer, peer: SocketAddr, mut drain: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Activity::start();
    let service = service_fn(|request| {
        let (observer, ticket) = (observer.clone(), activity.begin());
        let refusal = refuse_head(&request);
        async move {
            let answer = observer.answer(peer.ip(), request, refusal).await;
            drop(ticket);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        // Larger than what is taken, so that what is refused gets a document.
        .max_header_list_size(8 * u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(8))
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A request that crossed the goodbye is still answered, and an answer that was not taken yet may still be. How long a drain takes is not for one
    // connection to say.
    let rest = tokio::select! {
        _ = connection.as_mut() => return,
        _ = drain.wait_for(|draining| *draining) => Duration::MAX,
        () = activity.idle(guard::HEAD, guard::IDLE) => guard::WRITE,
    };
    connection.as_mut().graceful_shutdown();
    let rest = if activity.has_begun() { rest } else { guard::LINGER };
    let _ = timeout(rest, connection).await;
}

/// What is wrong with a head that the library took, in HTTP/1.1's own rules.
fn refuse_http1(request: &Request<Incoming>, shared: &guard::Shared) -> Option<ApiError> {
    let headers = request.headers();
    let problem = if headers.contains_key(TRANSFER_ENCODING) && shared.has_two_lengths() {
        "the request has both Transfer-Encoding and Content-Length; send one of them"
    } else if request.version() == Version::HTTP_11 && headers.get_all(HOST).iter().count() != 1 {
        "a request has one Host header; this one has none or several"
    } else {
        return None;
    };
    Some(ApiError::MalformedRequest(problem))
}

/// What is wrong with a head whatever the protocol: its size.
fn refuse_head(request: &Request<Incoming>) -> Option<ApiError> {
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (headers.len() > MAX_HEADERS || bytes > MAX_HEAD_BYTES).then_some(ApiError::MalformedRequest(HEAD_TOO_LARGE))
}

const HEAD_TOO_LARGE: &str = "the request's head is too large: 128 headers and 32 KiB at most";

/// Why HTTP's library could not parse a head.
fn unreadable(status: u16) -> &'static str {
    match status {
        431 => HEAD_TOO_LARGE,
        414 => "the request's path is too long",
        _ => "the request's head is not valid HTTP/1.1",
    }
}

/// Makes the whole answer to a head that could not be read, from why.
type Malformed = Box<dyn Fn(&'static str) -> Vec<u8> + Send + Sync>;

fn malformed(observer: Observer, peer: SocketAddr) -> Malformed {
    Box::new(move |detail| {
        let (id, answer) = observer.malformed(peer.ip(), detail);
        let bytes = body_bytes(answer.into_body());
        let mut whole = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/vnd.api+json\r\ncache-control: no-store\r\nx-request-id: {id}\r\n\
             strict-transport-security: max-age=31536000\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            bytes.len()
        )
        .into_bytes();
        whole.extend_from_slice(&bytes);
        whole
    })
}

fn body_bytes(body: Full<Bytes>) -> Bytes {
    body.collect().now_or_never().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default()
}
