//! The checkpoint thread and the threads of backup tasks.
//!
//! ```text
//! committer ── changes, loads ──► checkpoint thread ── events ──► committer
//! operator  ── backup? ─────────►   │        ▲
//!                                   │ chunks │ ended
//!                                   └► backup thread: one for each backup
//! ```
//!
//! Job: pump the checkpoint scheduler: receive messages, measure time, carry out the effects, and
//! write the log and the metrics.
//! Invariant: effects are carried out in the order in which the scheduler returns them.
//! Must never: decide when something is due, or wait for a backup thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::store::embedded::backup::format::Summary;
use crate::store::embedded::backup::task::{
    BackupTask, Chunk, FinishedBackup, MAX_QUEUED_CHUNKS, NextChunk,
};
use crate::store::embedded::checkpoint::messages::{CheckpointMessage, ChunkOutcome, Effect, Now};
use crate::store::embedded::checkpoint::scheduler::CheckpointScheduler;
use crate::store::embedded::commit::committer::CommitterEvent;
use crate::store::embedded::commit::queue::send_replies;
use crate::store::embedded::fs::{OsDirectory, OsFile};
use crate::store::embedded::runtime::messages::CommitterMessage;
use crate::store::embedded::runtime::shared::StoreInner;
use crate::store::embedded::state::sled::SledState;
use crate::store::now_unix_s;

/// Everything that the checkpoint thread owns.
pub(crate) struct CheckpointThread {
    shared: Arc<StoreInner>,
    scheduler: CheckpointScheduler<SledState, OsDirectory>,
    inbox: Receiver<CheckpointMessage<OsFile>>,
    /// For the backup threads, which report their end here.
    self_tx: Sender<CheckpointMessage<OsFile>>,
    /// Leads to the running backup thread. Without it, that thread ends.
    chunk_tx: Option<SyncSender<Chunk>>,
    started: Instant,
}

impl CheckpointThread {
    /// The thread of a scheduler whose time starts now.
    pub(crate) fn new(
        shared: Arc<StoreInner>,
        scheduler: CheckpointScheduler<SledState, OsDirectory>,
        inbox: Receiver<CheckpointMessage<OsFile>>,
        self_tx: Sender<CheckpointMessage<OsFile>>,
    ) -> Self {
        Self { shared, scheduler, inbox, self_tx, chunk_tx: None, started: Instant::now() }
    }

    /// Runs until the store is closed. An unfinished backup leaves nothing.
    pub(crate) fn run(mut self) {
        while !self.scheduler.is_finished() {
            // `self_tx` keeps the channel open, so an error is a timeout.
            let message = self.inbox.recv_timeout(self.scheduler.next_timeout(self.now())).ok();
            if let Some(message) = message {
                let effects = self.scheduler.on_message(self.now(), message);
                self.carry_out(effects);
            }
            let effects = self.scheduler.run_step(self.now());
            self.carry_out(effects);
        }
    }

    fn now(&self) -> Now {
        Now { uptime: self.started.elapsed(), unix_s: now_unix_s() }
    }

    fn carry_out(&mut self, effects: Vec<Effect<OsDirectory>>) {
        for effect in effects {
            match effect {
                Effect::Event(event) => self.send_event(event),
                Effect::Checkpointed { seq, started } => {
                    let took = self.started.elapsed().saturating_sub(started);
                    self.send_event(CommitterEvent::Checkpointed(seq, took));
                }
                Effect::Reply(responder, result) => send_replies(vec![(responder, result)]),
                Effect::StartBackup(task) => self.start_backup(task),
                Effect::OfferChunk(chunk) => self.offer(chunk),
                Effect::StopBackup => self.chunk_tx = None,
                Effect::BackupReply(reply_to, result) => {
                    // An operator who went away gets no reply; the unnamed file is then removed.
                    let _ = reply_to.send(result);
                }
                Effect::BackupCompleted(summary, took) => self.report_backup(&summary, took),
                Effect::BackupCurrent => self.shared.metrics.set_last_backup(now_unix_s()),
                Effect::BackupFailed(problem) => tracing::warn!(
                    event.action = "backup",
                    event.outcome = "failure",
                    error.message = %problem,
                    "a backup failed: the journal is kept until one succeeds"
                ),
                Effect::StateCorrupt { mark_error, .. } => {
                    if let Some(error) = mark_error {
                        tracing::error!(
                            event.action = "mark-corrupt-failed",
                            error.message = %error,
                            "the corrupt state could not be marked corrupt"
                        );
                    }
                }
            }
        }
    }

    fn start_backup(&mut self, mut task: BackupTask<OsDirectory>) {
        let (chunk_tx, chunks) = sync_channel(MAX_QUEUED_CHUNKS);
        let self_tx = self.self_tx.clone();
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(|| run_task(&mut task, &chunks)));
            let result = result.unwrap_or_else(|_| Err("its thread panicked".to_owned()));
            // While the store is being closed, the result interests no thread.
            let _ = self_tx.send(CheckpointMessage::BackupEnded(result));
        };
        match thread::Builder::new().name("odometer-backup".to_owned()).spawn(run) {
            Ok(_) => self.chunk_tx = Some(chunk_tx),
            Err(error) => {
                let ended = Err(format!("its thread cannot be started: {error}"));
                let message = CheckpointMessage::BackupEnded(ended);
                let effects = self.scheduler.on_message(self.now(), message);
                self.carry_out(effects);
            }
        }
    }

    /// Offers a chunk without waiting: a slow backup disk must not delay loads.
    fn offer(&mut self, chunk: Chunk) {
        let outcome = match self.chunk_tx.as_ref().map(|chunk_tx| chunk_tx.try_send(chunk)) {
            Some(Ok(())) => ChunkOutcome::Accepted,
            Some(Err(TrySendError::Full(chunk))) => ChunkOutcome::Full(chunk),
            Some(Err(TrySendError::Disconnected(_))) | None => ChunkOutcome::TaskEnded,
        };
        let effects = self.scheduler.on_chunk(self.now(), outcome);
        self.carry_out(effects);
    }

    fn report_backup(&self, summary: &Summary, took: Duration) {
        self.shared.metrics.set_last_backup(summary.header.created_unix_s);
        tracing::info!(
            event.action = "backup",
            event.outcome = "success",
            event.duration = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            odometer.commit_seq = summary.header.position.seq.0,
            odometer.records = summary.records,
            file.size = summary.bytes,
            "a backup is complete and verified"
        );
    }

    fn send_event(&self, event: CommitterEvent<OsFile>) {
        self.shared.queue.send_control(CommitterMessage::Event(event));
    }
}

/// Runs a backup task to its end. A sender that is gone means that the backup was abandoned.
fn run_task(
    task: &mut BackupTask<OsDirectory>,
    chunks: &Receiver<Chunk>,
) -> Result<FinishedBackup<OsFile>, String> {
    loop {
        let next = || chunks.recv().map_or(NextChunk::Abandoned, NextChunk::Chunk);
        if let Some(finished) = task.step(next)? {
            return Ok(finished);
        }
    }
}
