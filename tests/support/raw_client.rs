//! A client of bytes, past any HTTP library: for load that has to be cheap, and for malformed,
//! slow, half and interrupted requests.
//!
//! Job: [`RawConnection`] sends what it is given and reads what comes, by pieces or by whole
//! messages; [`interrupt`] leaves at a chosen time.
//! Invariant: exactly the given bytes are sent, and `Progress` says only what is certain of them.
//! Must never: add or repeat a byte, or take a reset for a failed test; to cut such a connection is
//! a correct answer, and the caller decides.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::Endpoint;

/// The first line of a success, as far as it says so.
const SUCCESS: &[u8] = b"HTTP/1.1 200";

/// One connection, and what was read of it and not yet taken.
#[derive(Debug)]
pub(crate) struct RawConnection<S> {
    pub(crate) stream: S,
    pub(crate) read: Vec<u8>,
    /// Bytes at the beginning of `read` that were handed out as messages.
    taken: usize,
}

impl RawConnection<TlsStream<TcpStream>> {
    /// Over TLS, with the protocols that the connector offers.
    ///
    /// # Errors
    /// That of the connection or of the handshake.
    pub(crate) async fn over_tls(
        endpoint: &Endpoint,
        connector: &TlsConnector,
    ) -> io::Result<Self> {
        Ok(Self::new(endpoint.open(connector).await?))
    }

    /// Lets the connection end with RST instead of FIN.
    pub(crate) fn reset_at_end(&self) -> io::Result<()> {
        self.stream.get_ref().0.set_zero_linger()
    }
}

impl<S> RawConnection<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, read: Vec::new(), taken: 0 }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawConnection<S> {
    /// Sends these bytes in records or segments of their own.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads once; how many bytes came, 0 at the end.
    pub(crate) async fn read_more(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.read).await
    }

    /// Reads until the peer ends the connection or the time is up; what [`Self::message`] returned
    /// before is not returned again.
    pub(crate) async fn read_until(mut self, deadline: Instant) -> Reply {
        self.read.drain(..self.taken);
        let mut closed = false;
        while let Ok(read) = timeout_at(deadline, self.read_more()).await {
            if !matches!(read, Ok(1..)) {
                closed = true;
                break;
            }
        }
        Reply { bytes: self.read, closed }
    }

    /// The next whole request or answer, whose length its head says.
    ///
    /// # Errors
    /// `UnexpectedEof` when the peer ends the connection before it is whole.
    pub(crate) async fn message(&mut self) -> io::Result<&[u8]> {
        loop {
            let unread = &self.read[self.taken..];
            if let Some(length) = message_length(unread).filter(|length| *length <= unread.len()) {
                let start = self.taken;
                self.taken += length;
                return Ok(&self.read[start..self.taken]);
            }
            self.read.drain(..std::mem::take(&mut self.taken));
            if self.read_more().await? == 0 {
                let text = String::from_utf8_lossy(&self.read).into_owned();
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("ended within {text:?}"),
                ));
            }
        }
    }
}

/// The length of a whole message, once its head is complete; without a length it has no body.
pub(crate) fn message_length(bytes: &[u8]) -> Option<usize> {
    const LENGTH: &[u8] = b"\r\ncontent-length:";
    let head = find(bytes, b"\r\n\r\n")?;
    let at =
        bytes[..head].windows(LENGTH.len()).position(|window| window.eq_ignore_ascii_case(LENGTH));
    let body = at.map_or(0, |at| {
        let digits = bytes[at + LENGTH.len()..head].trim_ascii_start();
        number(digits).expect("a length is a number")
    });
    Some(head + 4 + body)
}

/// Where these bytes are for the first time.
pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = wanted[0];
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The digits at the beginning.
pub(crate) fn number(bytes: &[u8]) -> Option<usize> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |sum: Option<usize>, digit| {
        Some(sum.unwrap_or(0) * 10 + usize::from(digit - b'0'))
    })
}

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
    let connection = RawConnection::over_tls(endpoint, &endpoint.tls(&[])).await;
    talk(connection.expect("the TLS handshake succeeds"), pieces, deadline).await
}

/// Sends the pieces, each flushed by itself, over plain TCP.
pub(crate) async fn over_tcp(address: SocketAddr, pieces: &[&[u8]], deadline: Duration) -> Reply {
    let stream = TcpStream::connect(address).await.expect("the listener accepts");
    stream.set_nodelay(true).expect("TCP can send at once");
    talk(RawConnection::new(stream), pieces, deadline).await
}

async fn talk(
    mut connection: RawConnection<impl AsyncRead + AsyncWrite + Unpin>,
    pieces: &[&[u8]],
    deadline: Duration,
) -> Reply {
    let until = Instant::now() + deadline;
    for piece in pieces {
        // What the server does not want to hear any more it may still have answered.
        if !matches!(timeout_at(until, connection.send(piece)).await, Ok(Ok(()))) {
            break;
        }
    }
    connection.read_until(until).await
}

/// A connection from one of the loopback's own addresses, `127.0.0.0/8`: a million short
/// connections from a single one would run out of ports.
pub(crate) async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    assert!(source.is_loopback() && address.ip().is_loopback(), "only loopback is ever a target");
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// When a client leaves its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// After this number of bytes of the request, which is not all of them.
    Partly(usize),
    /// After the last byte.
    Sent,
    /// After the answer began, of which this number of bytes is read at most.
    Begun(usize),
    /// This long after the last byte, unless the answer comes first.
    After(Duration),
}

/// How far the request is known to have come: after `Partly` it cannot have been done, after `Sent`
/// it may have been, now or a little later, and after `Begun` it was, since a success was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    Partly,
    Sent,
    Begun,
}

/// Sends a request, or a part of it, and leaves before its answer was read to the end.
pub(crate) async fn interrupt(
    mut connection: RawConnection<TlsStream<TcpStream>>,
    request: &[u8],
    at: Interruption,
) -> Progress {
    let sent = if let Interruption::Partly(length) = at { &request[..length] } else { request };
    // What breaks now may have arrived all the same.
    let is_sent = connection.send(sent).await.is_ok();
    if sent.len() < request.len() {
        return Progress::Partly;
    }
    let mut answer = [0; 512];
    let stream = &mut connection.stream;
    let read = match at {
        _ if !is_sent => Ok(0),
        Interruption::Begun(most) => stream.read(&mut answer[..most.min(512)]).await,
        Interruption::After(wait) => timeout(wait, stream.read(&mut answer)).await.unwrap_or(Ok(0)),
        Interruption::Sent | Interruption::Partly(_) => Ok(0),
    };
    if answer[..read.unwrap_or(0)].starts_with(SUCCESS) { Progress::Begun } else { Progress::Sent }
}
