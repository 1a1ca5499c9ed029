//! Backup files in a folder: written under another name, proved, and only then called a backup.
//!
//! ```text
//! backups/00000000000000001004.backup       every commit up to 1004, verified when it was written
//! backups/00000000000000002310.backup.partial   being written, or left by a process that died: never read
//! ```
//! Job: [`BackupWriter`] writes one; [`newest_first`] and [`prune`] look after those that are there.
//! Invariant: a file that ends in `.backup` was synced, read back and proved before it got that name, and its name was synced before anybody
//! is told. Must never: let go of an older backup before a newer one is there.

use std::io::{self, Read};
use std::sync::Arc;

use crate::store::embedded::backup::format::{BackupError, HEADER_BYTES, Header, RecordVisitor, Summary, read};
use crate::store::embedded::fs::{Directory, VfsFile};
use crate::store::embedded::journal::frame::{CommitSeq, StoreId};

const SUFFIX: &str = ".backup";
/// What a file is called before it is a backup.
pub const PARTIAL: &str = ".partial";
/// Written bytes are pushed to the disk in portions, so that no sync has to wait for all of them, the journal's least of all.
const SYNC_BYTES: u64 = 4 << 20;

/// The name of the backup that ends with a commit.
#[must_use]
pub fn backup_file_name(seq: CommitSeq) -> String {
    format!("{:020}{SUFFIX}", seq.0)
}

fn parse_backup_file_name(name: &str) -> Option<CommitSeq> {
    let seq = name.strip_suffix(SUFFIX)?.parse().ok().map(CommitSeq)?;
    (backup_file_name(seq) == name).then_some(seq)
}

/// The backups in a folder, by name, newest first. Their content is not looked at.
///
/// # Errors
/// Any error of the system.
pub fn newest_first<D: Directory>(dir: &D) -> io::Result<Vec<(CommitSeq, String)>> {
    let mut found: Vec<_> =
        dir.list()?.into_iter().filter_map(|name| Some((parse_backup_file_name(&name)?, name))).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The header of a backup.
///
/// # Errors
/// [`BackupError`].
pub fn header<D: Directory>(dir: &D, name: &str) -> Result<Header, BackupError> {
    let mut bytes = [0; HEADER_BYTES];
    let read = dir.open(name)?.read_at(&mut bytes, 0)?;
    let whole = bytes.get(..read).unwrap_or_default();
    let bad = || BackupError::Bad { problem: "the header is not one".to_owned(), offset: 0 };
    Header::decode(whole).ok_or_else(bad)
}

/// Removes all but the `keep` newest backups of this store, and what was never finished. Files of another store are left alone.
///
/// # Errors
/// Any error of the system.
pub fn prune<D: Directory>(dir: &D, store: StoreId, keep: usize) -> io::Result<()> {
    let own = |(_, name): &(CommitSeq, String)| header(dir, name).is_ok_and(|header| header.store == store);
    for (_, name) in newest_first(dir)?.into_iter().filter(own).skip(keep) {
        dir.remove(&name)?;
    }
    remove_partial(dir)
}

/// The newest backup of this store that its journal reaches, and when it was made, in seconds since 1970. It got its name after it was verified;
/// that the name is durable is made sure here.
pub fn newest<D: Directory>(dir: &D, store: StoreId, last: CommitSeq) -> Option<(CommitSeq, u64)> {
    dir.sync_dir().ok()?;
    let found = newest_first(dir).ok()?;
    found.into_iter().filter(|(seq, _)| *seq <= last).find_map(|(seq, name)| {
        let header = header(dir, &name).ok()?;
        (header.store == store && header.position.seq == seq).then_some((seq, header.created_unix_s))
    })
}

/// Removes what was never finished.
///
/// # Errors
/// Any error of the system.
pub fn remove_partial<D: Directory>(dir: &D) -> io::Result<()> {
    dir.list()?.iter().filter(|name| name.ends_with(PARTIAL)).try_for_each(|name| dir.remove(name))
}

/// Reads a whole backup file, see [`read`].
///
/// # Errors
/// [`BackupError`].
pub fn read_file<D: Directory>(dir: &D, name: &str, visit: RecordVisitor<'_>) -> Result<Summary, BackupError> {
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

/// A backup file that is being written. One that is dropped before [`BackupWriter::finish`] leaves nothing.
pub struct BackupWriter<D: Directory> {
    dir: Arc<D>,
    file: D::File,
    partial: String,
    offset: u64,
    unsynced: u64,
    is_backup: bool,
}

impl<D: Directory> BackupWriter<D> {
    /// Begins a file, which is called `name` and [`PARTIAL`] until it is finished.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn create(dir: Arc<D>, name: &str) -> io::Result<Self> {
        let partial = format!("{name}{PARTIAL}");
        let file = dir.create(&partial)?;
        Ok(Self { dir, file, partial, offset: 0, unsynced: 0, is_backup: false })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Any error of the system; the file is then of no use.
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

    /// Syncs the file, reads it back and proves it.
    ///
    /// # Errors
    /// [`BackupError`]; there is then no backup.
    pub fn verify(&mut self) -> Result<Summary, BackupError> {
        self.file.sync()?;
        read_file(&*self.dir, &self.partial, &mut |_, _| Ok(()))
    }

    /// Proves the file and gives it its name, durably.
    ///
    /// # Errors
    /// [`BackupError`]; there is then no backup of that name, or it is not known to be durable.
    pub fn finish(mut self, name: &str) -> Result<Summary, BackupError> {
        let summary = self.verify()?;
        self.dir.rename(&self.partial, name)?;
        self.is_backup = true;
        self.dir.sync_dir()?;
        Ok(summary)
    }

    /// The name that the file has until it is finished.
    #[must_use]
    pub fn partial(&self) -> &str {
        &self.partial
    }
}

impl<D: Directory> Drop for BackupWriter<D> {
    fn drop(&mut self) {
        if !self.is_backup {
            // What can not be removed now goes with the next prune.
            let _ = self.dir.remove(&self.partial);
        }
    }
}
