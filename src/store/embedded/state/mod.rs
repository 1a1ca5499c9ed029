//! The checkpointed state: sled below, the memtable and the bucket digests above it.
//!
//! Job: hold every record as of the last checkpoint, and prove that what is read was written.
//! Invariant: the journal can bring any state since the last checkpoint up to date.
//! Must never: return a record whose bucket failed verification.

pub mod checkpointer;
pub mod digests;
pub mod sled;

use thiserror::Error;

use crate::store::embedded::journal::frame::LogPosition;

/// A key and what is to be there; `None`: nothing.
pub type WriteOp = (Vec<u8>, Option<Vec<u8>>);

/// A key and what is there.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Bytes by key, complete up to a commit. Every error is one sentence.
pub trait State: Send {
    /// What is under `key`.
    ///
    /// # Errors
    /// If it can not be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String>;

    /// Everything in a bucket, with its key, in the order of keys.
    ///
    /// # Errors
    /// If it can not be read.
    fn bucket(&self, bucket: u16) -> Result<Vec<KeyValue>, String>;

    /// Keys that start with `prefix`, in order, from the first one behind `after` on, `limit` at most.
    ///
    /// # Errors
    /// If they can not be read.
    fn keys_after(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, String>;

    /// Writes or removes entries. Durable after [`State::sync_through`].
    ///
    /// # Errors
    /// Then any of them may have been written.
    fn write_batch(&mut self, entries: &[WriteOp]) -> Result<(), String>;

    /// Forces everything to the disk, then notes, durably, that every commit up to `position` is there.
    ///
    /// # Errors
    /// Then nothing is known, and it must not be tried again by this process.
    fn sync_through(&mut self, position: LogPosition) -> Result<(), String>;

    /// What the last successful [`State::sync_through`] noted; the default for a new state.
    fn synced_through(&self) -> LogPosition;

    /// The seals that were saved last; `None` if none ever were.
    ///
    /// # Errors
    /// If they can not be read.
    fn load_digests(&self) -> Result<Option<Vec<u8>>, String>;

    /// Replaces the seals, durably and at once: after a crash the old or the new ones are there, whole.
    ///
    /// # Errors
    /// Then either may be there.
    fn save_digests(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// Leaves a note, durably, that this state is not to be opened again, and why.
    ///
    /// # Errors
    /// If it could not be written.
    fn mark_corrupt(&mut self, why: &str) -> Result<(), String>;
}

/// Why a state can not be opened.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum StateOpenError {
    /// It is not what was written: it can be rebuilt, and must not be used.
    #[error("{0}")]
    Corrupt(String),
    /// The system refused, and might not another time: a missing right, a full disk, a lock.
    #[error("{0}")]
    Io(String),
}
