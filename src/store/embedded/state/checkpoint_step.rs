//! The steps of a checkpoint: its phases, the result of one step, and its errors.
//!
//! Job: name what the checkpointer and its steps both know. Invariant: plain data.
//! Must never: touch the state.

use thiserror::Error;

use crate::store::embedded::backup::format::BackupEncoder;
use crate::store::embedded::journal::frame::LogPosition;

/// Errors of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// The state does not hold what was written: it has to be marked corrupt and rebuilt.
    #[error("{0}")]
    Corrupt(String),
    /// A write failed and its outcome is unknown: the store must stop.
    #[error("{0}")]
    Io(String),
}

/// The phase of the checkpoint in progress.
pub(super) enum Phase {
    Idle,
    /// A backup is being encoded; the next bucket.
    Snapshot(u16, Box<BackupEncoder>),
    /// The digests of the records to be replaced are being subtracted; the next batch entry.
    SubtractDigests(usize),
    /// Records are being written; the next batch entry.
    Write(usize),
    /// Everything is written and not yet synced.
    Sync,
}

/// Result of one step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// No checkpoint is in progress.
    Idle,
    /// The checkpoint needs further steps.
    More,
    /// The next bytes of the backup; the checkpoint needs further steps.
    Chunk {
        /// The bytes to write.
        bytes: Vec<u8>,
        /// Whether they are the end of the backup.
        last: bool,
    },
    /// The state durably contains every commit up to this position.
    Finished(LogPosition),
}
