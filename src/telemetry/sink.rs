//! The log queue and its writer thread.
//!
//! ```text
//! threads that log ── one line each ──► buffer ── swapped for an empty one ──► writer's thread
//!                                              stdout or a file ◄── one write ──┘
//! ```
//! Job: [`Queue`] takes whole lines from any thread; [`Writer`] writes them in batches;
//! [`LogDrops`] counts the lines that were dropped.
//! Invariant: a thread that logs only copies its line; the lock is held for that copy or for a swap
//! of buffers, never for a write. The target gets whole lines: after a write that ended inside a
//! line comes a newline, so that a failure (a full disk) does not join two events.
//! Must never: allocate for a line, wait for the target, or return an error to a thread that logs;
//! a failure only counts as dropped lines.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Capacity of the queue in bytes: several seconds of the busiest log.
const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;
/// A buffer with a larger capacity is freed after its batch.
const MAX_RETAINED_BYTES: usize = 256 * 1024;
/// How long the writer waits after a batch for the next lines. Without the wait, under load, the
/// threads that serve requests would wake it for every few lines. It delays a line by as much.
const BATCH_DELAY: Duration = Duration::from_millis(2);

/// The number of dropped log lines: the queue was full, or the write failed. Cheap to clone and to
/// read.
#[derive(Clone, Debug, Default)]
pub struct LogDrops(Arc<AtomicU64>);

impl LogDrops {
    /// Lines dropped since the logs were installed; monotonic.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Ordering::Relaxed);
    }
}

/// A handle to the queue. Each `write` must be one whole line with its newline. Clones share the
/// queue.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<QueueInner>);

#[derive(Debug)]
struct QueueInner {
    waiting: Mutex<Buffer>,
    changed: Condvar,
    drops: LogDrops,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    /// The writer sleeps on the condition variable.
    is_idle: bool,
    is_closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the queue: the writer writes what is queued and ends; later lines count as dropped.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.0.changed.notify_all();
    }

    /// The number of queued lines.
    pub(super) fn len(&self) -> usize {
        count_lines(&self.lock().lines)
    }

    /// Waits for lines and swaps them for an empty buffer; `None` when the queue is closed and
    /// empty.
    fn take(&self, mut empty: Vec<u8>) -> Option<Vec<u8>> {
        let mut waiting = self.lock();
        while waiting.lines.is_empty() {
            if waiting.is_closed {
                return None;
            }
            waiting.is_idle = true;
            waiting = self.0.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut waiting.lines, &mut empty);
        Some(empty)
    }

    /// Waits [`BATCH_DELAY`] for more lines, unless the queue is closed.
    fn wait_for_batch(&self) {
        let waiting = self.lock();
        drop(self.0.changed.wait_timeout_while(waiting, BATCH_DELAY, |waiting| !waiting.is_closed));
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.lock();
        if waiting.is_closed || waiting.lines.len() + line.len() > MAX_QUEUED_BYTES {
            drop(waiting);
            self.0.drops.add(1);
            return Ok(line.len());
        }
        waiting.lines.extend_from_slice(line);
        let wake = std::mem::take(&mut waiting.is_idle);
        drop(waiting);
        if wake {
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the thread that writes to `target`. The receiver gets a message when the thread ends.
///
/// # Errors
/// The thread could not be started.
pub(super) fn start(
    target: impl Write + Send + 'static,
    drops: LogDrops,
) -> io::Result<(Queue, Receiver<()>)> {
    let shared =
        QueueInner { waiting: Mutex::default(), changed: Condvar::new(), drops: drops.clone() };
    let queue = Queue(Arc::new(shared));
    let (done, ended) = channel();
    let own = queue.clone();
    std::thread::Builder::new().name("log-writer".into()).spawn(move || {
        Writer::new(target, drops).run(&own);
        let _ = done.send(());
    })?;
    Ok((queue, ended))
}

/// The writer's side of the queue.
struct Writer<W> {
    target: W,
    /// The last write ended in the middle of a line.
    mid_line: bool,
    drops: LogDrops,
}

impl<W: Write> Writer<W> {
    fn new(target: W, drops: LogDrops) -> Self {
        Self { target, mid_line: false, drops }
    }

    fn run(mut self, queue: &Queue) {
        let mut buffer = Vec::new();
        while let Some(lines) = queue.take(buffer) {
            self.write_lines(&lines);
            buffer = lines;
            buffer.clear();
            if buffer.capacity() > MAX_RETAINED_BYTES {
                buffer = Vec::new();
            }
            queue.wait_for_batch();
        }
    }

    /// Writes whole lines; those that the target does not accept count as dropped.
    fn write_lines(&mut self, lines: &[u8]) {
        if self.mid_line && self.write(b"\n") == 1 {
            self.mid_line = false;
        }
        let written = if self.mid_line { 0 } else { self.write(lines) };
        if written > 0 {
            self.mid_line = lines[written - 1] != b'\n';
        }
        self.drops.add(count_lines(&lines[written..]) as u64);
        // This would be an error of the target's own buffer; there is nowhere to report it.
        let _ = self.target.flush();
    }

    /// Writes as much as the target accepts and returns the number of bytes.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.target.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(taken) => written += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        written
    }
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts `room` bytes, then fails every write until it gets more room.
    struct Disk {
        kept: Vec<u8>,
        room: usize,
        writes: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.kept.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writer(room: usize) -> Writer<Disk> {
        Writer::new(Disk { kept: Vec::new(), room, writes: 0 }, LogDrops::default())
    }

    /// A target whose writes block until the test releases them, and which reports what it got.
    struct Stuck(Receiver<()>, std::sync::mpsc::Sender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_counts_lines_and_never_joins_them() {
        let mut writer = writer(9);
        writer.write_lines(b"one..\ntwo..\nthree\n");
        assert_eq!(writer.drops.count(), 2, "two and three");
        writer.write_lines(b"four.\n");
        assert_eq!(writer.drops.count(), 3);
        writer.target.room = usize::MAX;
        writer.write_lines(b"five.\n");
        assert_eq!(writer.target.kept, b"one..\ntwo\nfive.\n");
        assert_eq!(writer.drops.count(), 3);
    }

    #[test]
    fn lines_queued_while_the_target_is_slow_are_one_write_and_none_is_lost() {
        let ((go, wait), (took, writes)) = (channel(), channel());
        let drops = LogDrops::default();
        let (mut queue, ended) = start(Stuck(wait, took), drops.clone()).unwrap();
        queue.write_all(b"first\n").unwrap();
        while queue.len() > 0 {
            std::thread::yield_now();
        }
        for _ in 0..100 {
            queue.write_all(b"a line\n").unwrap();
        }
        assert_eq!(queue.len(), 100);
        queue.close();
        queue.write_all(b"too late\n").unwrap();
        drop(go);
        ended.recv().unwrap();
        assert_eq!(
            writes.iter().collect::<Vec<_>>(),
            [b"first\n".to_vec(), b"a line\n".repeat(100)]
        );
        assert_eq!((drops.count(), queue.len()), (1, 0));
    }

    #[test]
    fn a_full_queue_counts_the_lines_that_it_drops() {
        let ((go, wait), (took, _writes)) = (channel(), channel());
        let drops = LogDrops::default();
        let (mut queue, _ended) = start(Stuck(wait, took), drops.clone()).unwrap();
        let line = [vec![b'x'; MAX_QUEUED_BYTES / 4 - 1], vec![b'\n']].concat();
        for _ in 0..9 {
            queue.write_all(&line).unwrap();
        }
        // Four fit, and the writer may have taken up to four before.
        assert!((1..=5).contains(&drops.count()), "{}", drops.count());
        drop(go);
    }
}
