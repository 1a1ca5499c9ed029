//! Restores a backup into a new data directory.
//!
//! Job: [`restore`] verifies the backup, then creates the data directory; [`verify_backup`] only
//! verifies.
//! Invariant: FORMAT is written last, so a directory is a store only when it is complete. Until
//! then the file RESTORING marks it: no server starts on it, and another restore may begin anew.
//! Must never: write into a directory that contains anything else.
//!
//! The new store has an id of its own, so that files of the backed-up store cannot get mixed in.
//! The new store issues again the numbers that the old one issued after the backup: that is what
//! restoring an older state means, and the command says so.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use crate::failpoint::failpoint;
use crate::store::embedded::backup::directory::read_file;
use crate::store::embedded::backup::format::{BackupError, RecordVisitor, Summary};
use crate::store::embedded::data_dir::{DataDir, DataDirError};
use crate::store::embedded::fs::OsDirectory;
use crate::store::embedded::journal::frame::StoreId;
use crate::store::embedded::journal::reader::JournalTail;
use crate::store::embedded::journal::segment::{JournalDir, JournalError};
use crate::store::embedded::journal::writer::Journal;
use crate::store::embedded::layout::RESTORING;
use crate::store::embedded::recovery::os_files::create_empty;
use crate::store::embedded::recovery::rebuild::load_backup;
use crate::store::embedded::state::StateOpenError;
use crate::store::embedded::state::sled::SledState;

/// The content of the file RESTORING.
const UNFINISHED: &str = "a restore was interrupted; run `odometer restore` again\n";

/// Why a backup could not be restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The backup is not intact, or cannot be read; its path.
    #[error("{0}: {1}")]
    Backup(String, BackupError),
    /// The data directory is not empty; its path and a file in it.
    #[error("{0} is not empty (it contains {1}); choose a new or an empty directory")]
    NotEmpty(String, String),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The new journal could not be created.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The new state could not be created.
    #[error("{0}")]
    State(StateOpenError),
    /// The operating system returned an error; the path.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// Called from time to time with the number of records that were read.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Reads and verifies a whole backup.
///
/// # Errors
/// [`RestoreError::Backup`].
pub fn verify_backup(from: &Path, progress: Progress<'_>) -> Result<Summary, RestoreError> {
    read_backup(from, progress, &mut |_, _| Ok(()))
        .map_err(|error| RestoreError::Backup(from.display().to_string(), error))
}

/// Creates a store with the records of the backup `from` in `data_dir`.
///
/// # Errors
/// [`RestoreError`]; `data_dir` is then not a store, and the restore can be repeated.
pub fn restore(
    from: &Path,
    data_dir: &Path,
    new_store_id: StoreId,
    segment_bytes: u64,
    progress: Progress<'_>,
) -> Result<Summary, RestoreError> {
    verify_backup(from, &mut |_| {})?;
    check_empty(data_dir)?;
    let at = |cause| RestoreError::Io(data_dir.display().to_string(), cause);
    let sync = |data_dir: &Path| File::open(data_dir)?.sync_all();
    let marker = data_dir.join(RESTORING);
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(at)?;
    fs::write(&marker, UNFINISHED).map_err(at)?;
    if !failpoint!("restore-marker-not-synced") {
        sync(data_dir).map_err(at)?;
    }
    let dir = DataDir::lock_for_restore(data_dir)?;
    // An interrupted restore may have left files in them.
    for subdir in [dir.journal(), dir.sled()] {
        create_empty(&subdir).map_err(at)?;
    }
    let mut state = SledState::open(&dir.sled()).map_err(RestoreError::State)?;
    let summary = load_backup(&mut state, |visit| read_backup(from, progress, visit))
        .map_err(|error| RestoreError::Backup(from.display().to_string(), error))?;
    drop(state);
    let keeps_id = failpoint!("restore-keeps-the-store-id");
    let new_store_id = if keeps_id { summary.header.store } else { new_store_id };
    let journal_dir = Arc::new(OsDirectory::new(dir.journal()));
    let journal = JournalDir { dir: journal_dir, store: new_store_id, segment_bytes };
    drop(Journal::start(journal, JournalTail::after(summary.header.position))?);
    dir.write_format(new_store_id)?;
    fs::remove_file(&marker).map_err(at)?;
    if !failpoint!("restore-end-not-synced") {
        sync(data_dir).map_err(at)?;
    }
    Ok(summary)
}

fn read_backup(
    from: &Path,
    progress: Progress<'_>,
    visit: RecordVisitor<'_>,
) -> Result<Summary, BackupError> {
    let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut count = 0;
    read_file(&OsDirectory::parent_of(from), &name, &mut |key, record| {
        count += 1;
        if count % 1024 == 0 {
            progress(count);
        }
        visit(key, record)
    })
}

/// Checks that the data directory contains nothing, or only the files of an unfinished restore.
fn check_empty(data_dir: &Path) -> Result<(), RestoreError> {
    let at = |cause| RestoreError::Io(data_dir.display().to_string(), cause);
    let entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(error)),
    };
    let names: Vec<String> = entries.collect::<io::Result<_>>().map_err(at)?;
    let own = ["journal", "sled", "backups", "LOCK", "FORMAT.new", RESTORING];
    let has_marker = names.iter().any(|name| name == RESTORING);
    let is_unfinished = has_marker && !DataDir::is_initialized(data_dir);
    // An ext4 file system has a directory lost+found in its root.
    let is_allowed = |name: &str| name == "lost+found" || (is_unfinished && own.contains(&name));
    match names.into_iter().find(|name| !is_allowed(name)) {
        Some(name) => Err(RestoreError::NotEmpty(data_dir.display().to_string(), name)),
        None => Ok(()),
    }
}
