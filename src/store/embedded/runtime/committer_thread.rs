//! The committer thread.
//!
//! Job: give the committer's cycle its time, messages, commands and surroundings; close the store
//! in order.
//! Invariant: this thread ends last: the data directory is unlocked when all others are done.
//! Must never: reply to a command before its commit is durable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::failpoint::failpoint;
use crate::store::embedded::checkpoint::messages::CheckpointMessage;
use crate::store::embedded::commit::command::CommandResult;
use crate::store::embedded::commit::committer::{
    BackgroundTask, CommitResult, Committer, CommitterEvent, EventEffect,
};
use crate::store::embedded::commit::queue::{Responder, send_replies};
use crate::store::embedded::data_dir::DataDir;
use crate::store::embedded::fs::{OsDirectory, OsFile};
use crate::store::embedded::runtime::committer_cycle::{CommitterCycle, Surroundings};
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
    cycle: CommitterCycle<OsDirectory>,
    around: Around,
    closing: bool,
    started: Instant,
}

/// What is around the committer: the other threads, log and metrics.
struct Around {
    shared: Arc<StoreInner>,
    helpers: Helpers,
    data_dir: DataDir,
    /// When the commit of this batch began.
    commit_began: Instant,
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
        let around = Around { shared, helpers, data_dir, commit_began: started };
        Self { cycle: CommitterCycle::new(committer), around, closing: false, started }
    }

    /// Runs until the store is closed.
    pub(crate) fn run(mut self) {
        self.around.shared.queue.register_consumer();
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.run_cycle())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    self.cycle.poison("the committer panicked".to_owned(), &mut self.around);
                    break;
                }
            }
        }
        self.shut_down();
    }

    /// Handles what is there and commits it; false when the store is closing and nothing is left.
    fn run_cycle(&mut self) -> bool {
        let mut idle = true;
        self.cycle.begin(self.started.elapsed().as_secs());
        while let Some(message) = self.around.shared.queue.pop_control() {
            self.on_message(message);
            idle = false;
        }
        self.cycle.execute(&self.around.shared.queue, MAX_BATCH);
        self.around.commit_began = Instant::now();
        let taken = self.cycle.commit(&mut self.around);
        if taken > 0 || !idle {
            return true;
        }
        if self.closing {
            return false;
        }
        // The queue is empty: stage durable changes now.
        self.cycle.stage(&mut self.around);
        self.around.shared.queue.wait(IDLE_WAIT);
        true
    }

    fn on_message(&mut self, message: CommitterMessage) {
        match message {
            CommitterMessage::Event(event) => self.cycle.on_event(event, &mut self.around),
            CommitterMessage::MarkRunning(done) => {
                self.around.data_dir.record_shutdown(ShutdownRecord::Running);
                let _ = done.send(());
            }
            CommitterMessage::Close => {
                let shared = &self.around.shared;
                if !shared.is_poisoned() {
                    shared.set_health(Health::Unavailable(Unavailable::Closing));
                }
                self.closing = true;
            }
        }
    }

    /// Stages the rest, waits for the last checkpoint and unlocks the data directory.
    fn shut_down(mut self) {
        let healthy = !self.around.shared.is_poisoned();
        if healthy {
            self.cycle.stage(&mut self.around);
        }
        self.around.shared.close_queue();
        self.around.to_checkpointer(CheckpointMessage::Close { checkpoint: healthy });
        let _ = self.around.helpers.checkpoint.take().map(JoinHandle::join);
        while let Some(message) = self.around.shared.queue.pop_control() {
            if let CommitterMessage::Event(
                CommitterEvent::Checkpointed(..) | CommitterEvent::Failed(_),
            ) = message
            {
                self.on_message(message);
            }
        }
        self.cycle.dispatch_tasks(&mut self.around);
        let Around { shared, helpers: Helpers { allocator_tx, allocator, .. }, data_dir, .. } =
            self.around;
        drop(allocator_tx);
        let _ = allocator.join();
        if !shared.is_poisoned() || failpoint!("clean-shutdown-recorded-after-a-poison") {
            data_dir.record_shutdown(ShutdownRecord::Clean);
        }
        drop(self.cycle);
        // The end of this thread drops the lock of the data directory.
    }
}

impl Surroundings<OsDirectory> for Around {
    fn on_batch(&mut self, committer: &Committer<OsDirectory>, batch: &CommitResult) {
        let metrics = &self.shared.metrics;
        if batch.committed {
            metrics.commits.increment(1);
            metrics.commit_duration.record(self.commit_began.elapsed().as_secs_f64());
            #[expect(clippy::cast_precision_loss, reason = "at most 2,048")]
            metrics.commit_batch_size.record(batch.replies.len() as f64);
            metrics.increments.increment(batch.increments);
            metrics.integers_issued.increment(batch.integers);
        }
        #[expect(clippy::cast_precision_loss, reason = "at most the queue's capacity")]
        metrics.queue_depth.set(self.shared.queue.depth() as f64);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics.idempotency_keys.set(committer.idempotency_keys() as f64);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics.journal_bytes.set(committer.journal().bytes() as f64);
    }

    fn send_replies(&mut self, replies: Vec<(Responder, CommandResult)>) {
        send_replies(replies);
    }

    /// Logs and measures what an event led to.
    fn report(&mut self, effect: EventEffect) {
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

    fn to_checkpointer(&mut self, message: CheckpointMessage<OsFile>) {
        // A helper that is gone has poisoned the store, or the store is closing.
        drop(self.helpers.checkpoint_tx.send(message));
    }

    fn to_allocator(&mut self, task: BackgroundTask) {
        drop(self.helpers.allocator_tx.send(task));
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
