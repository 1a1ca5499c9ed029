//! What the checkpoint scheduler is told, and what it wants done.
//!
//! Job: name the messages to the scheduler and the effects that it returns.
//! Invariant: plain data; the driver of the scheduler handles every effect, in order.
//! Must never: carry a secret.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::store::embedded::backup::format::Summary;
use crate::store::embedded::backup::task::{BackupTask, Chunk, FinishedBackup};
use crate::store::embedded::commit::command::CommandResult;
use crate::store::embedded::commit::committer::{BackgroundTask, CommitterEvent};
use crate::store::embedded::commit::queue::Responder;
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::frame::CommitSeq;

/// The time, as the driver of the scheduler measures it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the store was opened; never goes back. All limits are measured by it.
    pub uptime: Duration,
    /// Seconds since 1970, for the header of a backup.
    pub unix_s: u64,
}

/// Reply of an on-demand backup: the unlinked open file and its summary, or one sentence.
pub type BackupReply<F> = oneshot::Sender<Result<(F, Summary), String>>;

/// A message to the checkpoint scheduler.
#[derive(Debug)]
pub enum CheckpointMessage<F> {
    /// From the committer: changes, a load or a list. Tasks of the segment allocator are ignored.
    Task(BackgroundTask),
    /// From the committer: how far the journal has grown.
    Journal {
        /// Segments with commits that the state does not hold yet.
        uncheckpointed_segments: usize,
        /// Bytes of all segments but the active one.
        sealed_bytes: u64,
    },
    /// From an operator: make a backup now.
    Backup(BackupReply<F>),
    /// From the backup task: the backup is complete and verified, or why not.
    BackupEnded(Result<FinishedBackup<F>, String>),
    /// From the committer: stop, after a last checkpoint or at once.
    Close {
        /// Whether the state is to cover everything first; not after a failed write.
        checkpoint: bool,
    },
}

/// What the scheduler wants done. The driver does it in the order in which it was returned.
pub enum Effect<D: Directory> {
    /// Send this event to the committer.
    Event(CommitterEvent<D::File>),
    /// Send [`CommitterEvent::Checkpointed`]: the state is durable up to `seq`. The driver
    /// measures the duration, since the last step of a checkpoint is the slow one.
    Checkpointed {
        /// The last commit of the checkpoint.
        seq: CommitSeq,
        /// When the checkpoint was started, as uptime.
        started: Duration,
    },
    /// Send the reply to a list command.
    Reply(Responder, CommandResult),
    /// Run this task and report its end with [`CheckpointMessage::BackupEnded`].
    StartBackup(BackupTask<D>),
    /// Offer this chunk to the running task and report with `on_chunk` what came of it.
    OfferChunk(Chunk),
    /// The running task gets no more chunks: it is to end without a backup.
    StopBackup,
    /// Send the reply to the client that asked for a backup.
    BackupReply(BackupReply<D::File>, Result<(D::File, Summary), String>),
    /// Log and measure: an automatic backup is complete; the duration is its whole time.
    BackupCompleted(Summary, Duration),
    /// Measure: nothing changed since the newest backup, so it is still current.
    BackupCurrent,
    /// Log: an automatic backup failed; one sentence.
    BackupFailed(String),
    /// Log: the state is corrupt. The store stops, and the next start rebuilds the state.
    StateCorrupt {
        /// What was found, one sentence.
        problem: String,
        /// Why the state could not be marked corrupt, if it could not.
        mark_error: Option<String>,
    },
}

/// What came of a chunk that was offered to the backup task.
#[derive(Debug)]
pub enum ChunkOutcome {
    /// The task has it.
    Accepted,
    /// Its queue is full; here is the chunk again.
    Full(Chunk),
    /// The task has ended; why, it says with [`CheckpointMessage::BackupEnded`].
    TaskEnded,
}
