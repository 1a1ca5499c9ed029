//! The committer thread.
//!
//! Job: pump the committer: messages and commands in, group commit, replies and tasks out; close
//! the store in order.
//! Invariant: this thread ends last: the data directory is unlocked when all others are done.
//! Must never: reply to a command before its commit is durable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::failpoint::failpoint;
use crate::store::embedded::checkpoint::messages::CheckpointMessage;
use crate::store::embedded::commit::committer::{
    BackgroundTask, CommitResult, Committer, CommitterEvent, EventEffect,
};
use crate::store::embedded::commit::queue::send_replies;
use crate::store::embedded::data_dir::DataDir;
use crate::store::embedded::fs::{OsDirectory, OsFile};
use crate::store::embedded::runtime::messages::CommitterMessage;
use crate::store::embedded::runtime::shared::StoreInner;
use crate::store::embedded::shutdown_record::ShutdownRecord;
use crate::store::{Health, Unavailable};

/// Commands that one commit takes at most.
const MAX_BATCH: usize = 2048;
const IDLE_WAIT: Duration = Duration::from_secs(1);

/// The threads that work for the committer.
pub(crate) struct Helpers {
    pub(crate) checkpoint_tx: Sender<CheckpointMessage<OsFile>>,
    pub(crate) checkpoint: Option<JoinHandle<()>>,
    /// When the sender is dropped, the allocator finishes its tasks and ends.
    pub(crate) allocator_tx: Sender<BackgroundTask>,
    pub(crate) allocator: JoinHandle<()>,
}

/// Everything that the committer thread owns.
pub(crate) struct CommitterThread {
    shared: Arc<StoreInner>,
    committer: Committer<OsDirectory>,
    helpers: Helpers,
    data_dir: DataDir,
    /// Journal size last reported to the checkpoint thread: uncheckpointed segments, sealed bytes.
    last_reported: (usize, u64),
    closing: bool,
    started: Instant,
}

impl CommitterThread {
    /// The thread of a committer whose uptime starts now.
    pub(crate) fn new(
        shared: Arc<StoreInner>,
        committer: Committer<OsDirectory>,
        helpers: Helpers,
        data_dir: DataDir,
    ) -> Self {
        let started = Instant::now();
        Self {
            shared,
            committer,
            helpers,
            data_dir,
            last_reported: (1, 0),
            closing: false,
            started,
        }
    }

    /// Runs until the store is closed.
    pub(crate) fn run(mut self) {
        self.shared.queue.register_consumer();
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.run_cycle())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    let effect = self.committer.poison("the committer panicked".to_owned());
                    self.report(effect);
                    break;
                }
            }
        }
        self.shut_down();
    }

    /// Handles what is there and commits it; false when the store is closing and nothing is left.
    fn run_cycle(&mut self) -> bool {
        let mut idle = true;
        self.committer.set_uptime(self.started.elapsed().as_secs());
        while let Some(message) = self.shared.queue.pop_control() {
            self.on_message(message);
            idle = false;
        }
        let mut taken = 0;
        while taken < MAX_BATCH
            && let Some(queued) = self.shared.queue.pop()
        {
            self.committer.execute(queued);
            taken += 1;
        }
        let start = Instant::now();
        let (batch, result) = self.committer.commit_batch();
        self.record_batch(&batch, start.elapsed());
        send_replies(batch.replies);
        if let Err(error) = result {
            let effect =
                self.committer.poison(format!("the journal could not be written: {error}"));
            self.report(effect);
        }
        self.report_journal_size();
        self.dispatch_tasks();
        if taken > 0 || !idle {
            return true;
        }
        if self.closing {
            return false;
        }
        // The queue is empty: stage durable changes now.
        self.committer.stage();
        self.dispatch_tasks();
        self.shared.queue.wait(IDLE_WAIT);
        true
    }

    fn record_batch(&self, batch: &CommitResult, took: Duration) {
        let metrics = &self.shared.metrics;
        if batch.committed {
            metrics.commits.increment(1);
            metrics.commit_duration.record(took.as_secs_f64());
            #[expect(clippy::cast_precision_loss, reason = "at most 2,048")]
            metrics.commit_batch_size.record(batch.replies.len() as f64);
            metrics.increments.increment(batch.increments);
            metrics.integers_issued.increment(batch.integers);
        }
        #[expect(clippy::cast_precision_loss, reason = "at most the queue's capacity")]
        metrics.queue_depth.set(self.shared.queue.depth() as f64);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics.idempotency_keys.set(self.committer.idempotency_len() as f64);
    }

    fn on_message(&mut self, message: CommitterMessage) {
        match message {
            CommitterMessage::Event(event) => {
                let effect = self.committer.on_event(event);
                self.report(effect);
            }
            CommitterMessage::MarkRunning(done) => {
                self.data_dir.record_shutdown(ShutdownRecord::Running);
                let _ = done.send(());
            }
            CommitterMessage::Close => {
                if !self.shared.is_poisoned() {
                    self.shared.set_health(Health::Unavailable(Unavailable::Closing));
                }
                self.closing = true;
            }
        }
    }

    /// Logs and measures what an event led to.
    fn report(&self, effect: EventEffect) {
        match effect {
            EventEffect::Nothing => {}
            EventEffect::Checkpointed(checkpointed, took, removed) => {
                self.shared.metrics.checkpoint_duration.record(took.as_secs_f64());
                tracing::info!(
                    event.action = "checkpoint",
                    event.duration = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
                    odometer.commit_seq = checkpointed.0,
                    odometer.segments_removed = removed,
                    "checkpoint complete"
                );
            }
            EventEffect::DiskLow(low) => {
                self.shared.set_disk_low(low);
            }
            EventEffect::Poisoned(problem) => {
                if self.shared.poison(&problem) {
                    tracing::error!(
                        event.action = "poison",
                        error.message = %problem,
                        "a write failed and its outcome is unknown: no changes until a restart"
                    );
                    self.data_dir.record_shutdown_detached(ShutdownRecord::Poisoned(&problem));
                }
            }
        }
    }

    fn report_journal_size(&mut self) {
        let journal = self.committer.journal();
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        self.shared.metrics.journal_bytes.set(journal.bytes() as f64);
        let now = (self.committer.uncheckpointed_segments(), journal.sealed_bytes());
        if now != self.last_reported {
            self.last_reported = now;
            let (uncheckpointed_segments, sealed_bytes) = now;
            let message = CheckpointMessage::Journal { uncheckpointed_segments, sealed_bytes };
            let _ = self.helpers.checkpoint_tx.send(message);
        }
    }

    fn dispatch_tasks(&mut self) {
        for task in self.committer.pending_tasks() {
            // A helper that is gone has poisoned the store, or the store is closing.
            match task {
                BackgroundTask::Stage(..) | BackgroundTask::Load(_) | BackgroundTask::List(..) => {
                    drop(self.helpers.checkpoint_tx.send(CheckpointMessage::Task(task)));
                }
                BackgroundTask::MakeSpare | BackgroundTask::Remove(_) => {
                    drop(self.helpers.allocator_tx.send(task));
                }
            }
        }
    }

    /// Stages the rest, waits for the last checkpoint and unlocks the data directory.
    fn shut_down(mut self) {
        let healthy = !self.shared.is_poisoned();
        if healthy {
            self.committer.stage();
            self.dispatch_tasks();
        }
        self.shared.close_queue();
        let close = CheckpointMessage::Close { checkpoint: healthy };
        let _ = self.helpers.checkpoint_tx.send(close);
        let _ = self.helpers.checkpoint.take().map(JoinHandle::join);
        while let Some(message) = self.shared.queue.pop_control() {
            if let CommitterMessage::Event(
                CommitterEvent::Checkpointed(..) | CommitterEvent::Failed(_),
            ) = message
            {
                self.on_message(message);
            }
        }
        self.dispatch_tasks();
        let Helpers { allocator_tx, allocator, .. } = self.helpers;
        drop(allocator_tx);
        let _ = allocator.join();
        if !self.shared.is_poisoned() || failpoint!("clean-shutdown-recorded-after-a-poison") {
            self.data_dir.record_shutdown(ShutdownRecord::Clean);
        }
        // The end of this thread drops the lock of the data directory.
    }
}

/// Runs the body of a helper thread. Its panic poisons the store, since the events that the
/// committer waits for would never come.
pub(crate) fn run_or_poison(shared: &StoreInner, name: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        let failed = CommitterEvent::Failed(format!("the {name} thread panicked"));
        shared.queue.send_control(CommitterMessage::Event(failed));
    }
}
