//! Where log lines go once they have left the request: gathered, written together, counted when lost.
//!
//! ```text
//! threads that log ──a line each──► one buffer ──swapped for an empty one──► the writer's thread ──one write──► stdout or a file
//! ```
//! Job: [`Queue`] takes whole lines from any thread; [`Writer`] writes what has gathered; [`LogDrops`] tells how many lines never arrived.
//! Invariant: a thread that logs copies its line and goes on; the lock is held for that copy or for a swap, never for a write. What reaches the target is
//! whole lines: a write that stops inside one is closed with a newline before the next, so one failure (a full disk, say) can not glue two events together.
//! Must never: allocate for a line, wait for the target, or report an error to those who log. A failure is a count.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lines wait in so many bytes at most; what does not fit is lost. Seconds of the busiest log.
const QUEUED_BYTES: usize = 16 * 1024 * 1024;
/// A buffer that grew beyond this gives its memory back.
const KEPT_BYTES: usize = 256 * 1024;
/// After a batch the writer rests, so that the next lines gather: under load it would otherwise be woken for every few of them, by the very threads that
/// answer requests. A line is at most so late.
const BATCH_DELAY: Duration = Duration::from_millis(2);

/// How many log lines were lost: the queue was full, or the target refused them. Cheap to clone and to read.
#[derive(Clone, Debug, Default)]
pub struct LogDrops(Arc<AtomicU64>);

impl LogDrops {
    /// Lines lost since the logs were installed. Never goes down.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Ordering::Relaxed);
    }
}

/// Takes lines. Each `write` must be one whole line with its newline. A clone is another handle to the same queue.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Buffer>,
    changed: Condvar,
    drops: LogDrops,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    /// The writer waits to be woken.
    is_idle: bool,
    is_closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the writer end when it has written what waits; what comes after this is lost, and counted.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.0.changed.notify_all();
    }

    /// How many lines wait.
    pub(super) fn len(&self) -> usize {
        count_lines(&self.lock().lines)
    }

    /// The next lines, in exchange for an empty buffer; nothing when the queue is closed and empty.
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

    /// Lets lines gather, unless nobody will bring any.
    fn wait_for_batch(&self) {
        let waiting = self.lock();
        drop(self.0.changed.wait_timeout_while(waiting, BATCH_DELAY, |waiting| !waiting.is_closed));
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.lock();
        if waiting.is_closed || waiting.lines.len() + line.len() > QUEUED_BYTES {
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

/// Starts the thread that writes to `target`. The receiver hears when it has ended.
///
/// # Errors
/// Any error of the system: no thread could be started.
pub(super) fn start(
    target: impl Write + Send + 'static,
    drops: LogDrops,
) -> io::Result<(Queue, Receiver<()>)> {
    let shared =
        Shared { waiting: Mutex::default(), changed: Condvar::new(), drops: drops.clone() };
    let queue = Queue(Arc::new(shared));
    let (done, ended) = channel();
    let own = queue.clone();
    std::thread::Builder::new().name("log-writer".into()).spawn(move || {
        Writer::new(target, drops).run(&own);
        let _ = done.send(());
    })?;
    Ok((queue, ended))
}

/// Writes what has gathered.
struct Writer<W> {
    target: W,
    /// The target holds a line without its end.
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
            if buffer.capacity() > KEPT_BYTES {
                buffer = Vec::new();
            }
            queue.wait_for_batch();
        }
    }

    /// Writes whole lines; what the target does not take is lost, and counted.
    fn write_lines(&mut self, lines: &[u8]) {
        if self.mid_line && self.write(b"\n") == 1 {
            self.mid_line = false;
        }
        let written = if self.mid_line { 0 } else { self.write(lines) };
        if written > 0 {
            self.mid_line = lines[written - 1] != b'\n';
        }
        self.drops.add(count_lines(&lines[written..]) as u64);
        // An error here would be the target's own buffer failing; nobody is left to tell.
        let _ = self.target.flush();
    }

    /// How many bytes the target took.
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

    /// Takes `room` bytes, then refuses everything until given more room.
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

    /// A target that is stuck until it is let go, and shows what it took.
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
    fn a_full_disk_counts_lines_and_never_glues_them() {
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
    fn what_gathers_while_the_target_is_slow_is_one_write_and_nothing_is_lost() {
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
    fn a_queue_that_is_full_counts_what_it_does_not_take() {
        let ((go, wait), (took, _writes)) = (channel(), channel());
        let drops = LogDrops::default();
        let (mut queue, _ended) = start(Stuck(wait, took), drops.clone()).unwrap();
        let line = [vec![b'x'; QUEUED_BYTES / 4 - 1], vec![b'\n']].concat();
        for _ in 0..9 {
            queue.write_all(&line).unwrap();
        }
        // Four fit, and the writer may have taken up to four before.
        assert!((1..=5).contains(&drops.count()), "{}", drops.count());
        drop(go);
    }
}
