//! Writes one backup, chunk by chunk, on a thread of its own.
//!
//! Job: write, sync, verify and name the file of one backup.
//! Invariant: a file has its final name only when it is complete and verified.
//! Must never: use the disk space that is held in reserve.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::store::embedded::backup::directory::{self, BackupWriter};
use crate::store::embedded::backup::format::Summary;
use crate::store::embedded::fs::{Directory, OsDirectory};
use crate::store::embedded::journal::frame::{CommitSeq, StoreId};

/// A piece of a backup.
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    /// The backup ends with it.
    pub(crate) last: bool,
}

/// Writes one backup.
pub(crate) struct BackupTask {
    pub(crate) dir: Arc<OsDirectory>,
    pub(crate) seq: CommitSeq,
    pub(crate) min_free_bytes: u64,
    pub(crate) store: StoreId,
    /// How many automatic backups are kept; `None`: the file is for somebody who asked, and gets no name.
    pub(crate) retain: Option<usize>,
}

impl BackupTask {
    pub(crate) fn run(self, chunks: &Receiver<Chunk>) -> Result<(Option<File>, Summary), String> {
        let named = directory::backup_file_name(self.seq);
        let name = if self.retain.is_some() { named.clone() } else { format!("asked-{named}") };
        let mut writer = BackupWriter::create(Arc::clone(&self.dir), &name).map_err(|error| error.to_string())?;
        loop {
            if self.dir.available_bytes().unwrap_or(0) < self.min_free_bytes {
                return Err("the disk is almost full".to_owned());
            }
            let Ok(Chunk { bytes, last }) = chunks.recv() else { return Err("it was given up".to_owned()) };
            writer.write(&bytes).map_err(|error| error.to_string())?;
            if last {
                break;
            }
        }
        let Some(retain) = self.retain else {
            let summary = writer.verify().map_err(|error| error.to_string())?;
            let file = self.dir.open(writer.partial()).map_err(|error| error.to_string())?;
            return Ok((Some(file.into()), summary));
        };
        let summary = writer.finish(&named).map_err(|error| error.to_string())?;
        // Old ones that stay for now go next time.
        let _ = directory::prune(&*self.dir, self.store, retain);
        Ok((None, summary))
    }
}
