//! A stream between the socket and hyper's HTTP/1.1 that adds what hyper does not have.
//!
//! Job: header, keep-alive and write timeouts; a lingering close; the detection of requests with an
//! ambiguous length; and an error document in place of hyper's empty response to a head that it
//! cannot parse.
//! Invariant: while a request is in flight, reading has no deadline here; its body has one of its
//! own.
//! Must never: keep the bytes that were read, or change the response of a handler (which is never
//! empty).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::head_scan::HeadScan;

/// How long a connection may be idle between two requests.
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a head may take from its first byte, or the first one from the accept.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a peer may accept no byte of a response.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(8);
/// How long input is drained after the last response.
pub(super) const LINGERING_CLOSE: Duration = Duration::from_secs(1);
/// A deadline that stands for none.
const FAR_FUTURE: Duration = Duration::from_secs(86_400);

/// The state that the stream and the service of one connection share.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// A request is in flight.
    pub(super) busy: AtomicBool,
    /// A response was completed since the last read.
    pub(super) answered: AtomicBool,
    /// A head had both `Transfer-Encoding` and `Content-Length`.
    ambiguous_length: AtomicBool,
}

impl ConnectionState {
    /// Whether a head on this connection had both `Transfer-Encoding` and `Content-Length`. hyper
    /// does not report that: it reads the chunks and ignores the length, so request smuggling is
    /// not possible; but such a request gets an error response.
    pub(super) fn has_ambiguous_length(&self) -> bool {
        self.ambiguous_length.load(Ordering::Relaxed)
    }
}

/// What the connection waits for; decides the read deadline.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A request is in flight: no read deadline.
    Busy,
    /// No byte of the next request has arrived.
    Idle,
    /// The head of a request is incomplete.
    Head,
}

/// Makes the whole response to a head that hyper could not parse, from hyper's status.
pub(super) type ErrorOverride = Box<dyn Fn(u16) -> Vec<u8>>;

/// See the module's documentation.
pub(super) struct DeadlineStream<S> {
    inner: S,
    state: Arc<ConnectionState>,
    scan: HeadScan,
    phase: Phase,
    read_deadline: Instant,
    write_deadline: Option<Instant>,
    linger_deadline: Option<Instant>,
    /// The one timer for all deadlines; see [`DeadlineStream::deadline_elapsed`].
    sleep: Pin<Box<Sleep>>,
    /// The response that replaces hyper's empty one, and how much of it is written.
    replacement: Option<(Vec<u8>, usize)>,
    write_shut_down: bool,
    error_override: ErrorOverride,
}

impl<S> DeadlineStream<S> {
    /// Wraps `inner`; `error_override` makes the response to a head that hyper could not parse.
    pub(super) fn new(
        inner: S,
        state: Arc<ConnectionState>,
        error_override: ErrorOverride,
    ) -> Self {
        let now = Instant::now();
        Self {
            inner,
            state,
            scan: HeadScan::default(),
            phase: Phase::Idle,
            read_deadline: now + HEADER_TIMEOUT,
            write_deadline: None,
            linger_deadline: None,
            sleep: Box::pin(sleep_until(now + HEADER_TIMEOUT)),
            replacement: None,
            write_shut_down: false,
            error_override,
        }
    }

    /// Whether the earliest deadline has elapsed; otherwise registers the task for a wake-up at it.
    ///
    /// Deadlines change with every request, but resetting a tokio timer takes a lock of the
    /// runtime. So the timer stays as it is while it is due no later than the earliest deadline. It
    /// may then fire early, because the deadline has moved on in the meantime. That is why the
    /// deadlines are compared with the clock when it fires, and the timer is set to the earliest
    /// one again: a connection is woken about once per timeout, and a request costs nothing.
    ///
    /// It is a loop because a timer that was reset must be polled again: only the poll registers
    /// the task for a wake-up.
    fn deadline_elapsed(&mut self, context: &mut Context<'_>) -> bool {
        let deadline = self.earliest_deadline();
        loop {
            if self.sleep.as_mut().poll(context).is_pending() {
                match deadline {
                    // The timer would fire too late: a shorter deadline has been set.
                    Some(deadline) if deadline < self.sleep.deadline() => {
                        self.sleep.as_mut().reset(deadline);
                    }
                    _ => return false,
                }
            } else {
                let now = Instant::now();
                if deadline.is_some_and(|deadline| deadline <= now) {
                    return true;
                }
                self.sleep.as_mut().reset(deadline.unwrap_or(now + FAR_FUTURE));
            }
        }
    }

    fn earliest_deadline(&self) -> Option<Instant> {
        let read = (self.phase != Phase::Busy).then_some(self.read_deadline);
        [read, self.write_deadline, self.linger_deadline].into_iter().flatten().min()
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer was too slow")
}

impl<S: AsyncRead + Unpin> AsyncRead for DeadlineStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.state.answered.swap(false, Ordering::Relaxed) {
            self.phase = Phase::Idle;
            self.read_deadline = Instant::now() + KEEP_ALIVE_TIMEOUT;
        }
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if self.scan.scan(&buffer.filled()[before..]) {
            self.state.ambiguous_length.store(true, Ordering::Relaxed);
        }
        if self.state.busy.load(Ordering::Relaxed) {
            self.phase = Phase::Busy;
            return read;
        }
        match read {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                if self.phase != Phase::Head {
                    self.phase = Phase::Head;
                    self.read_deadline = Instant::now() + HEADER_TIMEOUT;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                if self.deadline_elapsed(context) {
                    Poll::Ready(Err(timed_out()))
                } else {
                    Poll::Pending
                }
            }
            other => other,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for DeadlineStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A response of hyper's own has no body, so its head is the whole first part.
        if self.replacement.is_none()
            && let Some(status) = parts.first().and_then(|head| empty_client_error(head))
        {
            self.replacement = Some(((self.error_override)(status), 0));
        }
        let this = &mut *self;
        let written = match &mut this.replacement {
            None => Pin::new(&mut this.inner).poll_write_vectored(context, parts),
            Some((response, sent)) => loop {
                if *sent == response.len() {
                    this.replacement = None;
                    break Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
                }
                match Pin::new(&mut this.inner).poll_write(context, &response[*sent..]) {
                    Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => *sent += count,
                    other => break other,
                }
            },
        };
        if written.is_ready() {
            self.write_deadline = None;
            return written;
        }
        self.write_deadline.get_or_insert_with(|| Instant::now() + WRITE_TIMEOUT);
        if self.deadline_elapsed(context) { Poll::Ready(Err(timed_out())) } else { Poll::Pending }
    }

    /// True: otherwise hyper would copy the body of every response into a buffer, which keeps the
    /// capacity of the largest one for as long as the connection lives.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        if flushed.is_ready() {
            self.write_deadline = None;
            return flushed;
        }
        self.write_deadline.get_or_insert_with(|| Instant::now() + WRITE_TIMEOUT);
        if self.deadline_elapsed(context) { Poll::Ready(Err(timed_out())) } else { Poll::Pending }
    }

    /// Lingering close: shuts down the write side, then drains input for [`LINGERING_CLOSE`]. To
    /// close a socket with unread input resets the connection (TCP RST), and the peer could lose
    /// the last response.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.phase = Phase::Busy;
        self.linger_deadline.get_or_insert_with(|| Instant::now() + LINGERING_CLOSE);
        if !self.write_shut_down {
            match Pin::new(&mut self.inner).poll_shutdown(context) {
                Poll::Ready(Ok(())) => self.write_shut_down = true,
                Poll::Ready(error) => return Poll::Ready(error),
                Poll::Pending => {}
            }
        }
        let mut rest = [0; 4096];
        while self.write_shut_down {
            let mut rest = ReadBuf::new(&mut rest);
            match Pin::new(&mut self.inner).poll_read(context, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        if self.deadline_elapsed(context) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// The status of the response if it is one of hyper's own: a client error without a body.
fn empty_client_error(bytes: &[u8]) -> Option<u16> {
    // hyper responds in the version of the last request that it could parse.
    let status = bytes
        .strip_prefix(b"HTTP/1.1 4")
        .or_else(|| bytes.strip_prefix(b"HTTP/1.0 4"))?
        .get(..2)?;
    let head = std::str::from_utf8(bytes).ok()?.split_once("\r\n\r\n")?.0;
    let is_empty = bytes.len() < 256
        && head.lines().any(|line| line.eq_ignore_ascii_case("content-length: 0"));
    is_empty
        .then(|| std::str::from_utf8(status).ok()?.parse::<u16>().ok())
        .flatten()
        .map(|rest| 400 + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_own_responses_are_replaced() {
        let empty = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
            connection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(empty_client_error(empty), Some(431));
        assert_eq!(
            empty_client_error(b"HTTP/1.0 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
            Some(400)
        );
        assert_eq!(
            empty_client_error(b"HTTP/1.1 404 Not Found\r\ncontent-length: 10\r\n\r\n0123456789"),
            None
        );
        assert_eq!(empty_client_error(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), None);
    }
}
