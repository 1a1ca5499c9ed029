//! Writes one backup, chunk by chunk.
//!
//! Job: write, sync, verify and name the file of one backup, a step at a time. In the server a
//! thread of its own pumps it, in the simulation the test does.
//! Invariant: a file has its final name only when it is complete and verified.
//! Must never: use the disk space that is held in reserve.

use std::sync::Arc;

use crate::failpoint::failpoint;
use crate::store::embedded::backup::directory::{self, BackupWriter};
use crate::store::embedded::backup::format::{Header, Summary};
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::frame::{CommitSeq, StoreId};

/// Chunks that may wait for a backup task.
pub const MAX_QUEUED_CHUNKS: usize = 4;

/// A piece of a backup.
#[derive(Debug)]
pub struct Chunk {
    /// The bytes, to be appended.
    pub bytes: Vec<u8>,
    /// The backup ends with it.
    pub last: bool,
}

/// What a task finds when it looks for its next chunk.
#[derive(Debug)]
pub enum NextChunk {
    /// This one.
    Chunk(Chunk),
    /// None yet: call `step` again later.
    NotYet,
    /// There will be none any more.
    Abandoned,
}

/// A backup that is complete and verified.
#[derive(Debug)]
pub struct FinishedBackup<F> {
    /// The open file of an on-demand backup, which has no name any more.
    pub file: Option<F>,
    /// What the backup holds.
    pub summary: Summary,
}

/// See the module's text. Dropped before its end, it leaves no file.
pub struct BackupTask<D: Directory> {
    dir: Arc<D>,
    seq: CommitSeq,
    store: StoreId,
    min_free_bytes: u64,
    retain: Option<usize>,
    writer: Option<BackupWriter<D>>,
}

impl<D: Directory> BackupTask<D> {
    /// A task that writes the backup with this header into `dir`. `retain`: how many automatic
    /// backups are kept; `None` for an on-demand backup, whose file gets no name.
    #[must_use]
    pub fn new(dir: Arc<D>, header: &Header, min_free_bytes: u64, retain: Option<usize>) -> Self {
        let Header { store, position, .. } = *header;
        Self { dir, seq: position.seq, store, min_free_bytes, retain, writer: None }
    }

    /// Creates the file, or appends one chunk to it. Returns the backup with its last chunk.
    ///
    /// # Errors
    /// One sentence; the file is then removed, and the task is of no more use.
    pub fn step(
        &mut self,
        next_chunk: impl FnOnce() -> NextChunk,
    ) -> Result<Option<FinishedBackup<D::File>>, String> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.create()?,
        };
        let is_low = self.dir.available_bytes().unwrap_or(0) < self.min_free_bytes;
        if is_low && !failpoint!("reserve-used-by-backups") {
            return Err("the disk is almost full".to_owned());
        }
        let chunk = match next_chunk() {
            NextChunk::Chunk(chunk) => chunk,
            NextChunk::NotYet => {
                self.writer = Some(writer);
                return Ok(None);
            }
            NextChunk::Abandoned => return Err("the backup was abandoned".to_owned()),
        };
        writer.write(&chunk.bytes).map_err(|error| error.to_string())?;
        if chunk.last {
            return self.finish(writer).map(Some);
        }
        self.writer = Some(writer);
        Ok(None)
    }

    fn create(&self) -> Result<BackupWriter<D>, String> {
        let named = directory::backup_file_name(self.seq);
        let name = if self.retain.is_some() { named } else { format!("asked-{named}") };
        BackupWriter::create(Arc::clone(&self.dir), &name).map_err(|error| error.to_string())
    }

    fn finish(&self, mut writer: BackupWriter<D>) -> Result<FinishedBackup<D::File>, String> {
        let Some(retain) = self.retain else {
            let summary = writer.verify().map_err(|error| error.to_string())?;
            let file = self.dir.open(writer.partial()).map_err(|error| error.to_string())?;
            return Ok(FinishedBackup { file: Some(file), summary });
        };
        let name = directory::backup_file_name(self.seq);
        let summary = writer.finish(&name).map_err(|error| error.to_string())?;
        // Old backups that cannot be removed now are removed after the next backup.
        let _ = directory::prune(&*self.dir, self.store, retain);
        Ok(FinishedBackup { file: None, summary })
    }
}
