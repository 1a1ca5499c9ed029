//! The files of a store in a data directory of the file system, and what to do about an error.
//!
//! Job: [`StoreFiles`] for [`DataDir`], and [`OpenError`], which adds paths and commands to a
//! [`RecoveryError`].
//! Invariant: every step that the next start relies on is synced.
//! Must never: remove a corrupt state; it is moved into quarantine.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use crate::failpoint::failpoint;
use crate::store::embedded::backup::directory::{newest_first, read_file};
use crate::store::embedded::data_dir::{DataDir, DataDirError};
use crate::store::embedded::fs::{OsDirectory, ignore_not_found};
use crate::store::embedded::journal::frame::{CommitSeq, StoreId};
use crate::store::embedded::journal::segment::JournalError;
use crate::store::embedded::recovery::open::RecoveryError;
use crate::store::embedded::recovery::rebuild::replace_state_dir;
use crate::store::embedded::recovery::store_files::StoreFiles;
use crate::store::embedded::state::StateOpenError;
use crate::store::embedded::state::sled::SledState;

/// Why a data directory cannot be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory itself.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The journal.
    #[error("{cause}; {repair_hint}")]
    Journal {
        /// What is wrong, and where.
        cause: JournalError,
        /// The commands that help.
        repair_hint: String,
    },
    /// The state cannot be used and has to be rebuilt, which this command does not do.
    #[error("{0}")]
    StateUnusable(String),
    /// The system did not open or mark the state, or gave no random bytes for a new store's id.
    #[error("{0}")]
    StateIo(String),
    /// State, journal and backups together are not every commit.
    #[error("commits are missing: {problem}; {repair_hint}")]
    Incomplete {
        /// Which, and why.
        problem: String,
        /// The commands that help.
        repair_hint: String,
    },
    /// A rebuilt state could not be written.
    #[error("the corrupt state could not be rebuilt: {0}")]
    Rebuild(String),
    /// A thread could not be started.
    #[error(transparent)]
    Thread(#[from] io::Error),
}

impl OpenError {
    /// Adds to `error` what helps in this data directory.
    #[must_use]
    pub fn new(error: RecoveryError, data_dir: &DataDir) -> Self {
        match error {
            RecoveryError::DataDir(error) => Self::DataDir(error),
            RecoveryError::JournalDir(cause) => {
                Self::DataDir(DataDirError::Io { path: data_dir.journal(), cause })
            }
            RecoveryError::FormatMissing(_) => {
                let problem = error.to_string();
                Self::DataDir(DataDirError::Format { path: data_dir.path().to_owned(), problem })
            }
            RecoveryError::StateUnusable(problem) | RecoveryError::Rebuild(problem) => {
                Self::Rebuild(problem)
            }
            RecoveryError::StateIo(problem) => Self::StateIo(problem),
            RecoveryError::Journal(cause) => {
                Self::Journal { cause, repair_hint: repair_hint(data_dir) }
            }
            RecoveryError::JournalTruncated(problem) | RecoveryError::NoRebuildSource(problem) => {
                Self::Incomplete { problem, repair_hint: repair_hint(data_dir) }
            }
            RecoveryError::JournalStart(cause) => {
                let repair_hint =
                    "see whether the disk is full or failing; nothing was lost".to_owned();
                Self::Journal { cause, repair_hint }
            }
        }
    }
}

impl StoreFiles for DataDir {
    type Dir = OsDirectory;
    type State = SledState;

    fn journal(&self) -> Arc<OsDirectory> {
        Arc::new(OsDirectory::new(DataDir::journal(self)))
    }

    fn backups(&self) -> Arc<OsDirectory> {
        Arc::new(OsDirectory::new(DataDir::backups(self)))
    }

    fn read_format(&self) -> Result<Option<StoreId>, DataDirError> {
        self.format()
    }

    fn write_format(&mut self, store: StoreId) -> Result<(), DataDirError> {
        DataDir::write_format(self, store)
    }

    fn clear_state(&mut self) -> Result<(), DataDirError> {
        let path = self.sled();
        create_empty(&path).map_err(|cause| DataDirError::Io { path, cause })
    }

    fn open_state(&mut self) -> Result<SledState, StateOpenError> {
        SledState::open(&self.sled())
    }

    fn create_rebuilding_state(&mut self) -> Result<SledState, String> {
        let path = self.path().join("sled.rebuilding");
        create_empty(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        SledState::open(&path).map_err(|error| error.to_string())
    }

    fn replace_state(&mut self, now_unix_s: u64) -> Result<String, String> {
        let quarantine = self.quarantine_name(now_unix_s);
        replace_state_dir(self.path(), &quarantine).map_err(|error| error.to_string())?;
        Ok(quarantine)
    }
}

/// Creates an empty directory, durably, in place of whatever is there.
pub(super) fn create_empty(dir: &Path) -> io::Result<()> {
    ignore_not_found(fs::remove_dir_all(dir))?;
    DirBuilder::new().mode(0o700).create(dir)?;
    match dir.parent() {
        // FORMAT, which says that the store is complete, must not be durable before its parts.
        Some(parent) if !failpoint!("emptied-directory-not-synced") => {
            File::open(parent)?.sync_all()
        }
        _ => Ok(()),
    }
}

/// What to do where nothing can be rebuilt, with the paths to type.
fn repair_hint(data_dir: &DataDir) -> String {
    let path = data_dir.path().display();
    let backups = OsDirectory::new(data_dir.backups());
    let is_whole =
        |(_, name): &(CommitSeq, String)| read_file(&backups, name, &mut |_, _| Ok(())).is_ok();
    let newest = newest_first(&backups).ok().and_then(|found| found.into_iter().find(is_whole));
    let from = newest.map_or_else(
        || "BACKUP".to_owned(),
        |(_, name)| data_dir.backups().join(name).display().to_string(),
    );
    format!(
        "keep {path} as it is; if the disk it came from can still be read, copy all of it again; \
         otherwise `odometer restore --from {from} --data-dir NEW-FOLDER` brings back what that \
         backup holds, and the numbers issued after it would be issued again"
    )
}
