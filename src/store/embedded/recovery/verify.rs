//! Offline verification, and read-only opening for offline backups, while no server runs.
//!
//! Job: [`verify`] reads and verifies every record; [`open_read_only`] opens a store as it is.
//! Invariant: nothing is rebuilt and no segment is added to the journal.
//! Must never: run on a directory that is in use.

use std::path::Path;

use crate::failpoint::failpoint;
use crate::store::embedded::data_dir::{DataDir, DataDirError, read_format};
use crate::store::embedded::fs::OsDirectory;
use crate::store::embedded::journal::frame::StoreId;
use crate::store::embedded::journal::segment::JournalDir;
use crate::store::embedded::recovery::open::{
    OpenedStore, RecoveryError, RecoveryReport, StateOrigin,
};
use crate::store::embedded::recovery::os_files::OpenError;
use crate::store::embedded::recovery::rebuild::RebuildSource;
use crate::store::embedded::recovery::start::{open, require_rebuild_source};
use crate::store::embedded::recovery::store_files::StoreFiles;
use crate::store::embedded::state::sled::SledState;

/// A store that was opened read-only; its data directory stays locked as long as this value lives.
pub struct ReadOnlyStore {
    /// State and journal.
    pub opened: OpenedStore<SledState>,
    /// The store's id.
    pub store: StoreId,
    _data_dir: DataDir,
}

/// Opens a store as it is: nothing is rebuilt and no segment is added to the journal.
///
/// # Errors
/// [`OpenError`]; if the state has to be rebuilt, it says that `odometer serve` does so.
pub fn open_read_only(path: &Path) -> Result<ReadOnlyStore, OpenError> {
    let (mut data_dir, journal) = open_existing(path)?;
    match open(&mut data_dir, &journal, StateOrigin::Existing) {
        Ok(opened) => Ok(ReadOnlyStore { opened, store: journal.store, _data_dir: data_dir }),
        Err(RecoveryError::StateUnusable(problem)) => {
            Err(OpenError::StateUnusable(format!("{problem}; `odometer serve` rebuilds the state")))
        }
        Err(error) => Err(OpenError::new(error, &data_dir)),
    }
}

/// Locks a data directory that contains a store.
fn open_existing(path: &Path) -> Result<(DataDir, JournalDir<OsDirectory>), OpenError> {
    let no_store = || {
        let problem = "it contains no odometer data (no file FORMAT)".to_owned();
        DataDirError::Format { path: path.to_owned(), problem }
    };
    if !DataDir::is_initialized(path) {
        return Err(no_store().into());
    }
    let data_dir = DataDir::lock(path)?;
    let store = data_dir.format()?.ok_or_else(no_store)?;
    let dir = StoreFiles::journal(&data_dir);
    Ok((data_dir, JournalDir { dir, store, segment_bytes: 0 }))
}

/// Result of [`verify`].
#[derive(Debug)]
pub enum VerifyResult {
    /// The store is complete and every record is as it was written.
    Clean(RecoveryReport),
    /// The state is corrupt, and the next start rebuilds it; the problem, and the source.
    Repairable(String, RebuildSource),
    /// The store is corrupt or incomplete and cannot be served; the problem.
    Corrupt(String),
}

/// Opens a store as a start does, and verifies every record too. The data directory must not be in
/// use. Nothing is rebuilt.
///
/// # Errors
/// [`OpenError`] only if nothing could be verified: there is no store, it is in use, or it has
/// another format.
pub fn verify(path: &Path) -> Result<VerifyResult, OpenError> {
    if read_format(path)?.is_some() && !path.join("journal").is_dir() {
        return Ok(VerifyResult::Corrupt("the directory journal is missing".to_owned()));
    }
    let (mut data_dir, journal) = open_existing(path)?;
    let (problem, checkpointer) = match open(&mut data_dir, &journal, StateOrigin::Existing) {
        Ok(mut opened) => match opened.checkpointer.verify_all() {
            Ok(_) => return Ok(VerifyResult::Clean(opened.report)),
            Err(_) if failpoint!("verify-says-clean") => {
                return Ok(VerifyResult::Clean(opened.report));
            }
            Err(problem) => (problem, Some(opened.checkpointer)),
        },
        Err(RecoveryError::StateUnusable(problem)) => (problem, None),
        Err(error) => {
            return match OpenError::new(error, &data_dir) {
                error @ (OpenError::DataDir(_) | OpenError::StateIo(_)) => Err(error),
                error => Ok(VerifyResult::Corrupt(error.to_string())),
            };
        }
    };
    let source = match require_rebuild_source(&data_dir, &journal, &problem) {
        Ok(source) => source,
        Err(error) => {
            return Ok(VerifyResult::Corrupt(OpenError::new(error, &data_dir).to_string()));
        }
    };
    // The mark makes the next start rebuild the state, instead of finding the corruption by chance.
    // It is set only if there is something to rebuild the state from.
    if let Some(mut checkpointer) = checkpointer {
        checkpointer.mark_corrupt(&problem).map_err(OpenError::StateIo)?;
    }
    Ok(VerifyResult::Repairable(problem, source))
}
