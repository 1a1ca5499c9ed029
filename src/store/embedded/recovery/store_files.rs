//! The files of one store, as recovery sees them.
//!
//! Job: [`StoreFiles`], the seam between recovery and the data directory; the simulation has a
//! data directory of its own.
//! Invariant: FORMAT exists only in a directory whose journal exists.
//! Must never: decide whether a store is complete.

use std::sync::Arc;

use crate::store::embedded::data_dir::DataDirError;
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::frame::StoreId;
use crate::store::embedded::state::{State, StateOpenError};

/// See the module's text. The caller holds the lock of the data directory.
pub trait StoreFiles {
    /// The kind of directory that journal and backups are.
    type Dir: Directory;
    /// The kind of state.
    type State: State;

    /// The directory of journal segments.
    fn journal(&self) -> Arc<Self::Dir>;

    /// The directory of automatic backups.
    fn backups(&self) -> Arc<Self::Dir>;

    /// The store's id in FORMAT; `None` if there is no FORMAT.
    ///
    /// # Errors
    /// [`DataDirError`], also if the directory is of another format.
    fn read_format(&self) -> Result<Option<StoreId>, DataDirError>;

    /// Writes FORMAT, durably: from here on the directory holds a store.
    ///
    /// # Errors
    /// [`DataDirError`]; FORMAT may be there or not.
    fn write_format(&mut self, store: StoreId) -> Result<(), DataDirError>;

    /// Replaces the state of an interrupted first start by an empty directory.
    ///
    /// # Errors
    /// [`DataDirError`].
    fn clear_state(&mut self) -> Result<(), DataDirError>;

    /// Opens the state, or creates it where the directory is empty.
    ///
    /// # Errors
    /// [`StateOpenError`].
    fn open_state(&mut self) -> Result<Self::State, StateOpenError>;

    /// Creates an empty state beside the present one. What an interrupted rebuild left is removed.
    ///
    /// # Errors
    /// One sentence.
    fn create_rebuilding_state(&mut self) -> Result<Self::State, String>;

    /// Moves the present state into quarantine and the rebuilt one into its place, durably.
    /// Returns the name of the quarantine, which is made from the time.
    ///
    /// # Errors
    /// One sentence; the next start rebuilds again.
    fn replace_state(&mut self, now_unix_s: u64) -> Result<String, String>;
}
