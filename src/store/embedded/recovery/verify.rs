//! Offline checks: a store is read as it is, while no server runs on it.
//!
//! Job: `verify` reads every record; the offline backup opens a store read-only.
//! Invariant: nothing is rebuilt and no journal is begun.
//! Must never: run on a directory that is in use.

use std::path::Path;
use std::sync::Arc;

use crate::store::embedded::data_dir::{DataDir, DataDirError, read_format};
use crate::store::embedded::fs::OsDirectory;
use crate::store::embedded::journal::frame::StoreId;
use crate::store::embedded::journal::segment::JournalDir;
use crate::store::embedded::recovery::open::{
    OpenError, OpenedStore, RecoveryReport, StateOrigin, open, read_or_create_store_id, rebuild_source,
};
use crate::store::embedded::recovery::rebuild::RebuildSource;
use crate::store::embedded::state::sled::SledState;

/// A folder that was opened to be read, while no server runs on it.
pub struct ReadOnlyStore {
    /// State and journal.
    pub opened: OpenedStore<SledState>,
    /// The store's id.
    pub store: StoreId,
    _folder: DataDir,
}

/// Opens a store as it is, for as long as the value lives; nothing is rebuilt and no journal is begun.
///
/// # Errors
/// [`OpenError`].
pub fn open_read_only(path: &Path) -> Result<ReadOnlyStore, OpenError> {
    let (data_dir, journal) = open_existing(path)?;
    match open(&data_dir, &journal, StateOrigin::Existing) {
        Ok(opened) => Ok(ReadOnlyStore { opened, store: journal.store, _folder: data_dir }),
        Err(OpenError::Rebuild(problem)) => Err(OpenError::State(format!("{problem}; `odometer serve` rebuilds it"))),
        Err(error) => Err(error),
    }
}

/// Takes a folder that is a store already.
fn open_existing(path: &Path) -> Result<(DataDir, JournalDir<OsDirectory>), OpenError> {
    if !DataDir::is_initialized(path) {
        let problem = "there is no odometer data here (no file FORMAT)".to_owned();
        return Err(DataDirError::Format { path: path.to_owned(), problem }.into());
    }
    let data_dir = DataDir::lock(path)?;
    let dir = Arc::new(OsDirectory::new(data_dir.journal()));
    let (store, _) = read_or_create_store_id(&data_dir, &dir, [0; 16])?;
    Ok((data_dir, JournalDir { dir, store, segment_bytes: 0 }))
}

/// What an offline look found.
#[derive(Debug)]
pub enum VerifyResult {
    /// Complete, every record as it was written.
    Clean(RecoveryReport),
    /// Not as it was written, and a start rebuilds it; what is wrong, and from what.
    Repairable(String, RebuildSource),
    /// Not to be served.
    Corrupt(String),
}

/// Looks at a folder as a start would, and at every record besides. The folder must not be in use. Nothing is rebuilt.
///
/// # Errors
/// [`OpenError`] only where nothing could be looked at: no such folder, in use, another format.
pub fn verify(path: &Path) -> Result<VerifyResult, OpenError> {
    if read_format(path)?.is_some() && !path.join("journal").is_dir() {
        return Ok(VerifyResult::Corrupt("the folder journal is missing".to_owned()));
    }
    let (data_dir, journal) = open_existing(path)?;
    let (problem, checkpointer) = match open(&data_dir, &journal, StateOrigin::Existing) {
        Ok(mut opened) => match opened.checkpointer.verify_all() {
            Ok(_) => return Ok(VerifyResult::Clean(opened.report)),
            Err(problem) => (problem, Some(opened.checkpointer)),
        },
        Err(OpenError::Rebuild(problem)) => (problem, None),
        Err(error @ (OpenError::DataDir(_) | OpenError::State(_))) => return Err(error),
        Err(error) => return Ok(VerifyResult::Corrupt(error.to_string())),
    };
    let rebuild_source = match rebuild_source(&data_dir, &journal, &problem) {
        Ok(rebuild_source) => rebuild_source,
        Err(error) => return Ok(VerifyResult::Corrupt(error.to_string())),
    };
    // So that a start does not have to meet the damage by chance; but only if there is something to rebuild it from.
    if let Some(mut checkpointer) = checkpointer {
        checkpointer.mark_corrupt(&problem).map_err(OpenError::State)?;
    }
    Ok(VerifyResult::Repairable(problem, rebuild_source))
}
