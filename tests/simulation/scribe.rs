//! The scribe without its thread: writes one backup, a chunk at a step.
//!
//! Job: what `Scribe::run` in `keeping.rs` does between two chunks. Invariant: it holds as many chunks as its channel has room for.
//! Must never: say that a backup is finished before `BackupWriter` did.

use std::collections::VecDeque;
use std::sync::Arc;

use odometer::store::embedded::backup::directory::{self, BackupWriter};
use odometer::store::embedded::fs::Directory;
use odometer::store::embedded::journal::frame::LogPosition;

use crate::disk::SimDisk;

const CHUNKS: usize = 4;

/// A piece of a backup.
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) last: bool,
}

/// How it went.
pub(crate) type Ended = Result<LogPosition, String>;

/// See the module's text.
pub(crate) struct Scribe {
    disk: SimDisk,
    mark: LogPosition,
    /// How many automatic backups stay; nothing for a backup that somebody asked for.
    keep: Option<usize>,
    chunks: VecDeque<Chunk>,
    writer: Option<BackupWriter<SimDisk>>,
    gave_up: bool,
}

impl Scribe {
    pub(crate) fn new(disk: SimDisk, mark: LogPosition, keep: Option<usize>) -> Self {
        Self { disk, mark, keep, chunks: VecDeque::new(), writer: None, gave_up: false }
    }

    /// Takes a chunk; gives it back where there is no room, and nothing back where nobody reads any more.
    pub(crate) fn offer(&mut self, chunk: Chunk) -> Result<(), Option<Chunk>> {
        if self.gave_up {
            return Err(None);
        }
        if self.chunks.len() >= CHUNKS {
            return Err(Some(chunk));
        }
        self.chunks.push_back(chunk);
        Ok(())
    }

    /// The name of the finished backup, if it has one.
    pub(crate) fn name(&self) -> Option<String> {
        self.keep.map(|_| directory::backup_file_name(self.mark.seq))
    }

    /// Creates the file, or writes what is there; says how it ended when it did.
    pub(crate) fn step(&mut self, sender_is_gone: bool) -> Option<Ended> {
        match self.write(sender_is_gone) {
            Ok(ended) => ended.map(Ok),
            Err(problem) => {
                self.gave_up = true;
                Some(Err(problem))
            }
        }
    }

    fn write(&mut self, sender_is_gone: bool) -> Result<Option<LogPosition>, String> {
        let named = directory::backup_file_name(self.mark.seq);
        if self.writer.is_none() {
            let name = if self.keep.is_some() { named.clone() } else { format!("asked-{named}") };
            let writer = BackupWriter::create(Arc::new(self.disk.clone()), &name).map_err(|error| error.to_string())?;
            self.writer = Some(writer);
        }
        if self.disk.available_bytes().unwrap_or(0) == 0 {
            return Err("the disk is almost full".to_owned());
        }
        let Some(chunk) = self.chunks.pop_front() else {
            return if sender_is_gone { Err("it was given up".to_owned()) } else { Ok(None) };
        };
        let Some(writer) = &mut self.writer else { return Ok(None) };
        writer.write(&chunk.bytes).map_err(|error| error.to_string())?;
        if !chunk.last {
            return Ok(None);
        }
        let Some(keep) = self.keep else {
            let summary = writer.verify().map_err(|error| error.to_string())?;
            self.disk.open(writer.partial()).map_err(|error| error.to_string())?;
            return Ok(Some(summary.header.position));
        };
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let summary = writer.finish(&named).map_err(|error| error.to_string())?;
        let _ = directory::prune(&self.disk, crate::start::SYSTEM_TENANT, keep);
        Ok(Some(summary.header.position))
    }
}
