//! Messages to the committer thread.
//!
//! Job: name what the committer thread can be sent, below both sender and receiver. The messages
//! to the checkpoint thread are in `checkpoint/messages.rs`.
//! Invariant: every message is handled by exactly one thread.
//! Must never: carry a secret.

use tokio::sync::oneshot;

use crate::store::embedded::commit::committer::CommitterEvent;
use crate::store::embedded::fs::OsFile;

/// A message to the committer thread.
#[derive(Debug)]
pub(crate) enum CommitterMessage {
    Event(CommitterEvent<OsFile>),
    /// Record that the process serves; the reply comes when that is on disk.
    MarkRunning(oneshot::Sender<()>),
    Close,
}
