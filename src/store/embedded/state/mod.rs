//! The checkpointed state: sled at the bottom, the memtable and the bucket digests above it.
//!
//! Job: hold every record as of the last checkpoint, and verify that what is read was written.
//! Invariant: the journal can bring any state since the last checkpoint up to date.
//! Must never: return a record whose bucket failed verification.

pub mod checkpoint_step;
pub mod checkpointer;
pub mod digests;
pub mod sled;

use thiserror::Error;

use crate::store::embedded::journal::frame::LogPosition;

/// A storage key and its new record; `None`: the key is removed.
pub type WriteOp = (Vec<u8>, Option<Vec<u8>>);

/// A storage key and its record.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// A persistent, ordered key-value state, complete up to a commit. Every error is one sentence.
pub trait State: Send {
    /// The record of `key`; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String>;

    /// Every key of a bucket and its record, in ascending order of keys.
    ///
    /// # Errors
    /// If they cannot be read.
    fn bucket(&self, bucket: u16) -> Result<Vec<KeyValue>, String>;

    /// The keys that start with `prefix` and are greater than `after`, in ascending order, at most
    /// `limit` of them.
    ///
    /// # Errors
    /// If they cannot be read.
    fn keys_after(&self, prefix: &[u8], after: &[u8], limit: usize)
    -> Result<Vec<Vec<u8>>, String>;

    /// Writes or removes the records of a batch. Durable after [`State::sync_through`].
    ///
    /// # Errors
    /// On an error any part of the batch may have been written.
    fn write_batch(&mut self, batch: &[WriteOp]) -> Result<(), String>;

    /// Syncs every written record, then durably records that the state contains every commit up to
    /// `position`.
    ///
    /// # Errors
    /// On an error it is unknown what is durable. This process must not try again, because a second
    /// `fdatasync` may succeed although pages were lost.
    fn sync_through(&mut self, position: LogPosition) -> Result<(), String>;

    /// The position of the last successful [`State::sync_through`]; the default for a new state.
    fn synced_through(&self) -> LogPosition;

    /// The digest file as it was saved last; `None` if it was never saved.
    ///
    /// # Errors
    /// If it cannot be read.
    fn load_digests(&self) -> Result<Option<Vec<u8>>, String>;

    /// Replaces the digest file durably and atomically: after a crash either the old or the new
    /// file is there, complete.
    ///
    /// # Errors
    /// On an error either file may be there.
    fn save_digests(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// Durably marks this state as corrupt, so that it is not opened again; `why` is stored with
    /// the mark.
    ///
    /// # Errors
    /// If the mark could not be written.
    fn mark_corrupt(&mut self, why: &str) -> Result<(), String>;
}

/// Why a state cannot be opened.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum StateOpenError {
    /// It is not what was written: it can be rebuilt, and must not be used.
    #[error("{0}")]
    Corrupt(String),
    /// The operating system returned an error that may be gone at the next attempt, for example a
    /// missing permission, a full disk or a lock.
    #[error("{0}")]
    Io(String),
}
