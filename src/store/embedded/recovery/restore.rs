//! A new data folder from a backup.
//!
//! Job: [`restore`] proves the backup, then makes the folder; [`verify_backup`] only proves it.
//! Invariant: FORMAT appears last, so a folder is a store only when all of it is there; until then a file RESTORING says what it is, no
//! server starts on it, and another restore may begin again. Must never: write into a folder that holds anything else.
//!
//! The new store has an id of its own: files of the one that the backup was made of can not get mixed in, and numbers that the old one issued
//! after the backup are issued again by the new one. That is what restoring an older state means; the command says so.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use crate::store::embedded::backup::directory::read_file;
use crate::store::embedded::backup::format::{BackupError, RecordVisitor, Summary};
use crate::store::embedded::data_dir::{DataDir, DataDirError};
use crate::store::embedded::fs::OsDirectory;
use crate::store::embedded::journal::frame::StoreId;
use crate::store::embedded::journal::reader::JournalTail;
use crate::store::embedded::journal::segment::{JournalDir, JournalError};
use crate::store::embedded::journal::writer::Journal;
use crate::store::embedded::layout::RESTORING;
use crate::store::embedded::recovery::rebuild::rebuild;
use crate::store::embedded::state::StateOpenError;
use crate::store::embedded::state::sled::SledState;

/// Why a backup could not be restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The backup is not whole, or can not be read.
    #[error("{0}: {1}")]
    Backup(String, BackupError),
    /// The folder is not empty.
    #[error("{0} is not empty (it holds {1}); name a new or an empty folder")]
    NotEmpty(String, String),
    /// The folder can not be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The new journal could not be made.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The new state could not be made.
    #[error("{0}")]
    State(StateOpenError),
    /// The system refused.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// Told now and then how many records were read.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Reads a backup from its first byte to its last.
///
/// # Errors
/// [`RestoreError::Backup`].
pub fn verify_backup(from: &Path, progress: Progress<'_>) -> Result<Summary, RestoreError> {
    read_backup(from, progress, &mut |_, _| Ok(()))
        .map_err(|error| RestoreError::Backup(from.display().to_string(), error))
}

/// Makes `data_dir` a store that holds what the backup holds.
///
/// # Errors
/// [`RestoreError`]; the folder is then no store, and restoring may be tried again.
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
    fs::write(&marker, "a restore began here and did not end; run `odometer restore` again\n").map_err(at)?;
    sync(data_dir).map_err(at)?;
    let dir = DataDir::lock_for_restore(data_dir)?;
    for inner in [dir.journal(), dir.sled()] {
        fs::remove_dir_all(&inner).and_then(|()| DirBuilder::new().mode(0o700).create(&inner)).map_err(at)?;
    }
    let mut state = SledState::open(&dir.sled()).map_err(RestoreError::State)?;
    let summary = rebuild(&mut state, |visit| read_backup(from, progress, visit))
        .map_err(|error| RestoreError::Backup(from.display().to_string(), error))?;
    drop(state);
    let journal = JournalDir { dir: Arc::new(OsDirectory::new(dir.journal())), store: new_store_id, segment_bytes };
    drop(Journal::start(journal, JournalTail::after(summary.header.position))?);
    dir.write_format(new_store_id)?;
    fs::remove_file(&marker).and_then(|()| sync(data_dir)).map_err(at)?;
    Ok(summary)
}

fn read_backup(from: &Path, progress: Progress<'_>, visit: RecordVisitor<'_>) -> Result<Summary, BackupError> {
    let name = from.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut count = 0;
    read_file(&OsDirectory::parent_of(from), &name, &mut |key, record| {
        count += 1;
        if count % 1024 == 0 {
            progress(count);
        }
        visit(key, record)
    })
}

/// Makes sure that the folder holds nothing but what an unfinished restore left.
fn check_empty(data_dir: &Path) -> Result<(), RestoreError> {
    let at = |cause| RestoreError::Io(data_dir.display().to_string(), cause);
    let entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(error)),
    };
    let names: Vec<String> = entries.collect::<io::Result<_>>().map_err(at)?;
    let ours = ["journal", "sled", "backups", "LOCK", "FORMAT.new", RESTORING];
    let unfinished = names.iter().any(|name| name == RESTORING) && !DataDir::is_initialized(data_dir);
    let foreign = |name: &&String| name.as_str() != "lost+found" && !(unfinished && ours.contains(&name.as_str()));
    match names.iter().find(foreign) {
        Some(name) => Err(RestoreError::NotEmpty(data_dir.display().to_string(), name.clone())),
        None => Ok(()),
    }
}
