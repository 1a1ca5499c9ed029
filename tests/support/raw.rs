//! Bytes as a test wants them, past any HTTP library: for malformed, slow and half requests.
//!
//! Invariant: it sends exactly the given bytes and reads until the server closes or the deadline passes. It must never
//! treat a reset as a test failure: cutting such a connection is a correct answer, and the caller decides.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::client::Endpoint;

/// What came back, and whether the server ended the connection before the deadline.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) closed: bool,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The status of the first answer, if one came.
    pub(crate) fn status(&self) -> Option<u16> {
        self.text().strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
    }
}

/// Sends the pieces, each flushed by itself, over TLS without ALPN.
pub(crate) async fn over_tls(endpoint: &Endpoint, pieces: &[&[u8]], deadline: Duration) -> Reply {
    let stream = endpoint.open(&endpoint.tls(&[])).await.expect("the TLS handshake succeeds");
    talk(stream, pieces, deadline).await
}

/// Sends the pieces, each flushed by itself, over plain TCP.
pub(crate) async fn over_tcp(address: SocketAddr, pieces: &[&[u8]], deadline: Duration) -> Reply {
    let stream = TcpStream::connect(address).await.expect("the listener accepts");
    stream.set_nodelay(true).expect("TCP can send at once");
    talk(stream, pieces, deadline).await
}

/// A connection from one of the loopback's own addresses, `127.0.0.0/8`: a million short connections from a single one would
/// run out of ports.
pub(crate) async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> std::io::Result<TcpStream> {
    assert!(source.is_loopback() && address.ip().is_loopback(), "only loopback is ever a target");
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, pieces: &[&[u8]], deadline: Duration) -> Reply {
    let until = Instant::now() + deadline;
    for piece in pieces {
        let sending = async {
            stream.write_all(piece).await?;
            stream.flush().await
        };
        // What the server does not want to hear any more it may still have answered.
        if !matches!(tokio::time::timeout_at(until, sending).await, Ok(Ok(()))) {
            break;
        }
    }
    let mut reply = Reply { bytes: Vec::new(), closed: false };
    while let Ok(read) = tokio::time::timeout_at(until, stream.read_buf(&mut reply.bytes)).await {
        if !matches!(read, Ok(1..)) {
            reply.closed = true;
            break;
        }
    }
    reply
}
