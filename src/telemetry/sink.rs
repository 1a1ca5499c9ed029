//! Where log lines go once they have left the request: gathered into batches, written at once, counted when lost.
//!
//! Job: [`BatchWriter`] stands between the log writer's thread and stdout or a file, so that a burst of lines costs one
//! write and not one each; [`LogDrops`] tells how many lines never arrived.
//! Invariant: what reaches the target is whole lines. A write that stops inside a line is closed with a newline before
//! the next line, so one failure (a full disk, say) cannot glue two events together.
//! Must never: report an error to the log writer's thread, which would only ignore it. A failure is a count.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing_appender::non_blocking::ErrorCounter;

/// Batches are written when they pass this size, or as soon as no more lines wait.
const BATCH_BYTES: usize = 64 * 1024;
/// After a batch the writer rests, so that the next lines gather: under load it would otherwise be woken for every few of them, by the very threads that
/// answer requests. A line is at most so late; the queue holds what comes meanwhile many times over.
const REST: Duration = Duration::from_millis(2);

/// How many log lines were lost: the queue was full, or the target refused them. Cheap to clone and to read.
#[derive(Clone, Debug)]
pub struct LogDrops {
    queue_full: ErrorCounter,
    refused: Arc<AtomicU64>,
}

impl LogDrops {
    pub(super) fn new(queue_full: ErrorCounter, refused: Arc<AtomicU64>) -> Self {
        Self { queue_full, refused }
    }

    /// Lines lost since the logs were installed. Never goes down.
    #[must_use]
    pub fn count(&self) -> u64 {
        let queue_full = u64::try_from(self.queue_full.dropped_lines()).unwrap_or(u64::MAX);
        queue_full.saturating_add(self.refused.load(Ordering::Relaxed))
    }
}

/// Gathers lines and writes them together. Each `write` must be one whole line with its newline.
pub(super) struct BatchWriter<W> {
    target: W,
    batch: Vec<u8>,
    /// The target holds a line without its end; `batch` starts with the newline that closes it.
    torn: bool,
    refused: Arc<AtomicU64>,
}

impl<W: Write> BatchWriter<W> {
    pub(super) fn new(target: W, refused: Arc<AtomicU64>) -> Self {
        Self { target, batch: Vec::with_capacity(BATCH_BYTES), torn: false, refused }
    }

    fn write_batch(&mut self) {
        let written = self.write_until_error();
        let lost = &self.batch[written..];
        if lost.is_empty() {
            self.torn = false;
        } else {
            let closing = usize::from(self.torn && written == 0);
            let lines = lost.iter().filter(|byte| **byte == b'\n').count() - closing;
            self.refused.fetch_add(lines as u64, Ordering::Relaxed);
            if written > 0 {
                self.torn = self.batch[written - 1] != b'\n';
            }
        }
        self.batch.clear();
        if self.torn {
            self.batch.push(b'\n');
        }
    }

    /// How many bytes of the batch the target took.
    fn write_until_error(&mut self) -> usize {
        let mut written = 0;
        while written < self.batch.len() {
            match self.target.write(&self.batch[written..]) {
                Ok(0) => break,
                Ok(taken) => written += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        written
    }
}

impl<W: Write> Write for BatchWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.batch.len() + line.len() > BATCH_BYTES {
            self.write_batch();
        }
        self.batch.extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.batch.len() > usize::from(self.torn) {
            self.write_batch();
        }
        // An error here would be the target's own buffer failing; nobody is left to tell.
        let _ = self.target.flush();
        rest();
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "lines gather while nobody waits for them")]
fn rest() {
    std::thread::sleep(REST);
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

    fn writer(room: usize) -> BatchWriter<Disk> {
        BatchWriter::new(Disk { kept: Vec::new(), room, writes: 0 }, Arc::default())
    }

    #[test]
    fn a_burst_is_one_write() {
        let mut writer = writer(usize::MAX);
        for _ in 0..100 {
            writer.write_all(b"a line\n").unwrap();
        }
        writer.flush().unwrap();
        writer.flush().unwrap();
        assert_eq!((writer.target.writes, writer.target.kept.len()), (1, 700));
    }

    #[test]
    fn a_line_larger_than_a_batch_arrives_whole() {
        let mut writer = writer(usize::MAX);
        let long = [vec![b'x'; 3 * BATCH_BYTES], vec![b'\n']].concat();
        writer.write_all(b"short\n").unwrap();
        writer.write_all(&long).unwrap();
        writer.write_all(b"short\n").unwrap();
        writer.flush().unwrap();
        assert_eq!(writer.target.kept, [b"short\n".as_slice(), &long, b"short\n"].concat());
    }

    #[test]
    fn a_full_disk_counts_lines_and_never_glues_them() {
        let mut writer = writer(9);
        for line in [b"one..\n", b"two..\n", b"three\n"] {
            writer.write_all(line).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!(writer.refused.load(Ordering::Relaxed), 2, "two and three");
        writer.write_all(b"four.\n").unwrap();
        writer.flush().unwrap();
        assert_eq!(writer.refused.load(Ordering::Relaxed), 3, "four, and not its closing newline");
        writer.target.room = usize::MAX;
        writer.write_all(b"five.\n").unwrap();
        writer.flush().unwrap();
        assert_eq!(writer.target.kept, b"one..\ntwo\nfive.\n");
    }
}
