//! The directory of backup files: written under a partial name, verified, and then renamed.
//!
//! ```text
//! backups/00000000000000001004.backup           every commit up to 1004, verified when written
//! backups/00000000000000002310.backup.partial   being written, or left by a killed process:
//!                                               never read
//! ```
//! Job: [`BackupWriter`] writes a backup; [`newest_first`], [`newest`] and [`prune`] manage the
//! existing ones.
//! Invariant: a file gets a name that ends in `.backup` only after it was synced, read back and
//! verified, and a backup is reported only after its name was synced.
//! Must never: remove an older backup before a newer one is durable.

use std::io::{self, Read};
use std::sync::Arc;

use crate::failpoint::failpoint;
use crate::store::embedded::backup::format::{
    BackupError, HEADER_BYTES, Header, RecordVisitor, Summary, read,
};
use crate::store::embedded::fs::{Directory, VfsFile};
use crate::store::embedded::journal::frame::{CommitSeq, StoreId};

const SUFFIX: &str = ".backup";
/// The suffix of a file that is not a verified backup yet.
pub const PARTIAL: &str = ".partial";
/// The file is synced whenever this many bytes were written, so that no sync takes long: the syncs
/// of the journal wait for the same device.
const SYNC_BYTES: u64 = 4 << 20;

/// The file name of the backup that ends with commit `seq`.
#[must_use]
pub fn backup_file_name(seq: CommitSeq) -> String {
    format!("{:020}{SUFFIX}", seq.0)
}

fn parse_backup_file_name(name: &str) -> Option<CommitSeq> {
    let seq = name.strip_suffix(SUFFIX)?.parse().ok().map(CommitSeq)?;
    (backup_file_name(seq) == name).then_some(seq)
}

/// The backups in the directory, newest first, by their names only.
///
/// # Errors
/// Any I/O error.
pub fn newest_first<D: Directory>(dir: &D) -> io::Result<Vec<(CommitSeq, String)>> {
    let parse = |name: String| Some((parse_backup_file_name(&name)?, name));
    let mut backups: Vec<_> = dir.list()?.into_iter().filter_map(parse).collect();
    backups.sort_unstable_by(|a, b| b.cmp(a));
    Ok(backups)
}

/// Reads the header of a backup file.
///
/// # Errors
/// [`BackupError`].
pub fn header<D: Directory>(dir: &D, name: &str) -> Result<Header, BackupError> {
    let mut bytes = [0; HEADER_BYTES];
    let read = dir.open(name)?.read_at(&mut bytes, 0)?;
    let bytes = bytes.get(..read).unwrap_or_default();
    let bad = || BackupError::Bad { problem: "the header is not valid".to_owned(), offset: 0 };
    Header::decode(bytes).ok_or_else(bad)
}

/// Removes all but the `keep` newest backups of this store, and all partial files. Backups of
/// another store stay.
///
/// # Errors
/// Any I/O error.
pub fn prune<D: Directory>(dir: &D, store: StoreId, keep: usize) -> io::Result<()> {
    let is_own = |(_, name): &(CommitSeq, String)| {
        header(dir, name).is_ok_and(|header| header.store == store)
    };
    let keep = keep.saturating_sub(usize::from(failpoint!("backup-pruned-early")));
    for (_, name) in newest_first(dir)?.into_iter().filter(is_own).skip(keep) {
        dir.remove(&name)?;
    }
    remove_partial(dir)
}

/// The newest backup of this store that ends at or before commit `last`, and when it was made, in
/// seconds since 1970. `None` if there is none, or on an I/O error. A backup is verified before it
/// gets its name, so here only the directory is synced.
pub fn newest<D: Directory>(dir: &D, store: StoreId, last: CommitSeq) -> Option<(CommitSeq, u64)> {
    dir.sync_dir().ok()?;
    let backups = newest_first(dir).ok()?;
    backups.into_iter().filter(|(seq, _)| *seq <= last).find_map(|(seq, name)| {
        let header = header(dir, &name).ok()?;
        let is_own = header.store == store && header.position.seq == seq;
        is_own.then_some((seq, header.created_unix_s))
    })
}

/// Removes the partial files of backups that were interrupted.
///
/// # Errors
/// Any I/O error.
pub fn remove_partial<D: Directory>(dir: &D) -> io::Result<()> {
    let names = dir.list()?;
    names.iter().filter(|name| name.ends_with(PARTIAL)).try_for_each(|name| dir.remove(name))
}

/// Reads and verifies a whole backup file, see [`read`].
///
/// # Errors
/// [`BackupError`].
pub fn read_file<D: Directory>(
    dir: &D,
    name: &str,
    visit: RecordVisitor<'_>,
) -> Result<Summary, BackupError> {
    read(FileReader { file: dir.open(name)?, offset: 0 }, visit)
}

struct FileReader<F> {
    file: F,
    offset: u64,
}

impl<F: VfsFile> Read for FileReader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Writes a backup file. Dropping the writer before [`BackupWriter::finish`] removes the file.
pub struct BackupWriter<D: Directory> {
    dir: Arc<D>,
    file: D::File,
    partial: String,
    offset: u64,
    unsynced: u64,
    is_finished: bool,
}

impl<D: Directory> BackupWriter<D> {
    /// Creates the file, whose name is `name` with the suffix [`PARTIAL`] until it is finished.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn create(dir: Arc<D>, name: &str) -> io::Result<Self> {
        let partial = format!("{name}{PARTIAL}");
        let file = dir.create(&partial)?;
        Ok(Self { dir, file, partial, offset: 0, unsynced: 0, is_finished: false })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Any I/O error; the file is then useless.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync()?;
        }
        Ok(())
    }

    /// Syncs the file, reads it back and verifies it.
    ///
    /// # Errors
    /// [`BackupError`]; the file is then not a backup.
    pub fn verify(&mut self) -> Result<Summary, BackupError> {
        if !failpoint!("backup-not-synced") {
            self.file.sync()?;
        }
        read_file(&*self.dir, &self.partial, &mut |_, _| Ok(()))
    }

    /// Verifies the file and durably gives it its final name.
    ///
    /// # Errors
    /// [`BackupError`]; then there is no backup of that name, or it may not be durable.
    pub fn finish(mut self, name: &str) -> Result<Summary, BackupError> {
        let summary = self.verify()?;
        self.dir.rename(&self.partial, name)?;
        self.is_finished = true;
        if !failpoint!("backup-name-not-synced") {
            self.dir.sync_dir()?;
        }
        Ok(summary)
    }

    /// The name of the file until it is finished.
    pub fn partial(&self) -> &str {
        &self.partial
    }
}

impl<D: Directory> Drop for BackupWriter<D> {
    fn drop(&mut self) {
        if !self.is_finished {
            // If this fails, the next `prune` or start removes the file.
            let _ = self.dir.remove(&self.partial);
        }
    }
}
