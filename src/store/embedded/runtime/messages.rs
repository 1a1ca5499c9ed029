//! Messages between the threads of the store.
//!
//! Job: name what each thread can be sent, below both sender and receiver.
//! Invariant: every message is handled by exactly one thread.
//! Must never: carry a secret.

use std::fs::File;

use tokio::sync::oneshot;

use crate::store::embedded::backup::format::Summary;
use crate::store::embedded::commit::committer::{BackgroundTask, CommitterEvent};
use crate::store::embedded::fs::OsFile;

/// What the committer's thread is told.
#[derive(Debug)]
pub(crate) enum CommitterMessage {
    Event(CommitterEvent<OsFile>),
    MarkRunning(oneshot::Sender<()>),
    Close,
}

/// What somebody who asked for a backup gets: the open file, which has no name any more, and what it holds.
pub(crate) type BackupReply = oneshot::Sender<Result<(File, Summary), String>>;

/// What the keeper's thread is told.
#[derive(Debug)]
pub(crate) enum CheckpointMessage {
    Task(BackgroundTask),
    /// Segments with commits that sled does not cover, and bytes of all segments but the active one.
    Journal(usize, u64),
    Backup(BackupReply),
    BackupEnded(Result<(Option<File>, Summary), String>),
    Close {
        checkpoint: bool,
    },
}
