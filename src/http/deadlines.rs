//! A stream between the socket and HTTP/1.1 that knows what HTTP's library leaves to us.
//!
//! Job: cut peers that are slow in sending a head or in taking an answer, keep idle connections for a while, notice a request that announces its
//! length twice, and put our error document in place of the library's empty answer to a head that it can not parse.
//! Invariant: while a request is being answered, reading has no deadline here; its body has one of its own.
//! Must never: keep what was read, or change an answer that a handler made (those are never empty).

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
/// How long a head may take from its first byte.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a peer may take nothing of an answer.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a peer may go on sending after the last answer.
pub(super) const LINGERING_CLOSE: Duration = Duration::from_secs(1);
const FAR_FUTURE: Duration = Duration::from_secs(86_400);

/// What the stream and the service of one connection tell each other.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// A request is being answered.
    pub(super) busy: AtomicBool,
    /// A request was answered since the last look.
    pub(super) answered: AtomicBool,
    /// A head announced its body's length in both ways.
    ambiguous_length: AtomicBool,
}

impl ConnectionState {
    /// Whether a head on this connection announced its body's length in both ways. HTTP's library
    /// hides that: it reads the chunks and ignores the length, so nothing could be smuggled; but a
    /// sender that says two things is to be told.
    pub(super) fn has_ambiguous_length(&self) -> bool {
        self.ambiguous_length.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Busy,
    Idle,
    Head,
}

/// Makes the whole answer to an unreadable head, from its status.
pub(super) type Substitute = Box<dyn Fn(u16) -> Vec<u8>>;

/// See the module's text.
pub(super) struct DeadlineStream<S> {
    inner: S,
    shared: Arc<ConnectionState>,
    scan: HeadScan,
    phase: Phase,
    read_deadline: Instant,
    write_deadline: Option<Instant>,
    linger_deadline: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
    substitute: Option<(Vec<u8>, usize)>,
    write_shut_down: bool,
    malformed: Substitute,
}

impl<S> DeadlineStream<S> {
    /// Guards `inner`; `malformed` makes the whole answer to an unreadable head, from its status.
    pub(super) fn new(inner: S, shared: Arc<ConnectionState>, malformed: Substitute) -> Self {
        let now = Instant::now();
        Self {
            inner,
            shared,
            scan: HeadScan::default(),
            phase: Phase::Idle,
            read_deadline: now + HEADER_TIMEOUT,
            write_deadline: None,
            linger_deadline: None,
            sleep: Box::pin(sleep_until(now + HEADER_TIMEOUT)),
            substitute: None,
            write_shut_down: false,
            malformed,
        }
    }

    /// Whether the earliest deadline has passed; otherwise arms the timer for it. The timer is moved only when it fires, not with every request.
    fn deadline_elapsed(&mut self, context: &mut Context<'_>) -> bool {
        let read = if self.phase == Phase::Busy { None } else { Some(self.read_deadline) };
        loop {
            if self.sleep.as_mut().poll(context).is_pending() {
                let due =
                    [read, self.write_deadline, self.linger_deadline].into_iter().flatten().min();
                if due.is_none_or(|due| due >= self.sleep.deadline()) {
                    return false;
                }
                self.sleep.as_mut().reset(due.unwrap_or_else(Instant::now));
                continue;
            }
            let now = Instant::now();
            let due = [read, self.write_deadline, self.linger_deadline].into_iter().flatten().min();
            if due.is_some_and(|due| due <= now) {
                return true;
            }
            self.sleep.as_mut().reset(due.unwrap_or(now + FAR_FUTURE));
        }
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer was too slow")
}

impl<S: AsyncRead + Unpin> AsyncRead for DeadlineStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.shared.answered.swap(false, Ordering::Relaxed) {
            self.phase = Phase::Idle;
            self.read_deadline = Instant::now() + KEEP_ALIVE_TIMEOUT;
        }
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if self.scan.take(&buffer.filled()[before..]) {
            self.shared.ambiguous_length.store(true, Ordering::Relaxed);
        }
        if self.shared.busy.load(Ordering::Relaxed) {
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
                    Poll::Ready(Err(too_slow()))
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
        // An answer of the library's own has no body, so it is the whole of its part.
        if self.substitute.is_none()
            && let Some(status) = parts.first().and_then(|head| empty_client_error(head))
        {
            self.substitute = Some(((self.malformed)(status), 0));
        }
        let this = &mut *self;
        let written = match &mut this.substitute {
            None => Pin::new(&mut this.inner).poll_write_vectored(context, parts),
            Some((answer, sent)) => loop {
                if *sent == answer.len() {
                    this.substitute = None;
                    break Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
                }
                match Pin::new(&mut this.inner).poll_write(context, &answer[*sent..]) {
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
        if self.deadline_elapsed(context) { Poll::Ready(Err(too_slow())) } else { Poll::Pending }
    }

    /// True, since HTTP's library keeps a copy of every answer's body otherwise, and for ever the
    /// memory that the largest one took.
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
        if self.deadline_elapsed(context) { Poll::Ready(Err(too_slow())) } else { Poll::Pending }
    }

    /// Says goodbye and then reads, for a moment, what the peer still sends: closing over unread bytes would reset the connection and could take
    /// the last answer with it.
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

/// The status of an answer of the library's own: a client error without a body.
fn empty_client_error(bytes: &[u8]) -> Option<u16> {
    // It answers in the version of the last request that it could read.
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
    fn only_the_librarys_own_answers_are_replaced() {
        let empty = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
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
