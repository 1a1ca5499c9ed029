//! The three threads of the embedded store, and what they tell each other.
//!
//! ```text
//! workers ──requests──► committer ──changes, loads──► keeper (sled)     committer: decides, syncs the journal, answers
//!                           ▲   └───spare? remove───► grounds           keeper:    checkpoints and loads
//!                           └──found, covered, spare, disk low──┘       grounds:   slow work on the journal folder
//! ```
//! Job: run the parts that know no thread. Invariant: whatever goes wrong in a thread poisons the store; it never goes on half.
//! Must never: let a request wait for a thread that is gone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::store::embedded::commit::committer::{BackgroundTask, Committer, CommitterEvent, EventEffect};
use crate::store::embedded::commit::queue::send_replies;
use crate::store::embedded::data_dir::DataDir;
use crate::store::embedded::fs::OsDirectory;
use crate::store::embedded::runtime::messages::{CheckpointMessage, CommitterMessage};
use crate::store::embedded::runtime::shared::StoreInner;
use crate::store::embedded::shutdown_record::ShutdownRecord;
use crate::store::{Health, Unavailable};

/// Requests that one commit takes at most.
const MAX_BATCH: usize = 2048;
const IDLE_WAIT: Duration = Duration::from_secs(1);

/// The committer's thread: everything that it owns.
pub(crate) struct CommitterThread {
    pub(crate) shared: Arc<StoreInner>,
    pub(crate) committer: Committer<OsDirectory>,
    pub(crate) checkpoint_tx: Sender<CheckpointMessage>,
    pub(crate) allocator_tx: Option<Sender<BackgroundTask>>,
    pub(crate) checkpointer: Option<JoinHandle<()>>,
    pub(crate) allocator: Option<JoinHandle<()>>,
    pub(crate) data_dir: DataDir,
    /// What the keeper was last told of the journal.
    pub(crate) last_reported: (usize, u64),
    pub(crate) closing: bool,
    pub(crate) started: Instant,
}

impl CommitterThread {
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

    /// One turn; false when the store is to be closed and nothing is left to do.
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
        let (run_cycle, result) = self.committer.commit_batch();
        let metrics = &self.shared.metrics;
        if run_cycle.committed {
            metrics.commits.increment(1);
            metrics.commit_duration.record(start.elapsed().as_secs_f64());
            #[expect(clippy::cast_precision_loss, reason = "at most 2,048")]
            metrics.commit_batch_size.record(run_cycle.replies.len() as f64);
            metrics.increments.increment(run_cycle.increments);
            metrics.integers_issued.increment(run_cycle.integers);
        }
        #[expect(clippy::cast_precision_loss, reason = "at most the queue's capacity")]
        metrics.queue_depth.set(self.shared.queue.depth() as f64);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics.idempotency_keys.set(self.committer.idempotency_len() as f64);
        send_replies(run_cycle.replies);
        if let Err(error) = result {
            let effect = self.committer.poison(format!("the journal could not be written: {error}"));
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
        // Nothing waits: a good moment to let the keeper have what is durable.
        self.committer.flush();
        self.dispatch_tasks();
        self.shared.queue.wait(IDLE_WAIT);
        true
    }

    fn on_message(&mut self, message: CommitterMessage) {
        match message {
            CommitterMessage::Event(event) => {
                let effect = self.committer.on_event(event);
                self.report(effect);
            }
            CommitterMessage::MarkRunning(last_reported) => {
                self.data_dir.record_shutdown(ShutdownRecord::Running);
                let _ = last_reported.send(());
            }
            CommitterMessage::Close => {
                if !self.shared.is_poisoned() {
                    self.shared.set_health(Health::Unavailable(Unavailable::Closing));
                }
                self.closing = true;
            }
        }
    }

    /// Logs and measures.
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
                self.shared.set_health(if low { Health::Unavailable(Unavailable::DiskLow) } else { Health::Ready });
            }
            EventEffect::Poisoned(problem) => {
                if self.shared.poison(&problem) {
                    tracing::error!(
                        event.action = "poison",
                        error.message = %problem,
                        "a write failed and its outcome is not known: the store takes no more changes until a restart"
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
            let _ = self.checkpoint_tx.send(CheckpointMessage::Journal(now.0, now.1));
        }
    }

    fn dispatch_tasks(&mut self) {
        for task in self.committer.pending_tasks() {
            match task {
                BackgroundTask::Flush(..) | BackgroundTask::Load(_) | BackgroundTask::List(..) => {
                    drop(self.checkpoint_tx.send(CheckpointMessage::Task(task)))
                }
                BackgroundTask::MakeSpare | BackgroundTask::Remove(_) => {
                    if let Some(allocator) = &self.allocator_tx {
                        let _ = allocator.send(task);
                    }
                }
            }
        }
    }

    /// Hands the rest to the keeper, waits for its last checkpoint and gives the folder back.
    fn shut_down(mut self) {
        let healthy = !self.shared.is_poisoned();
        if healthy {
            self.committer.flush();
            self.dispatch_tasks();
        }
        self.shared.close_queue();
        let _ = self.checkpoint_tx.send(CheckpointMessage::Close { checkpoint: healthy });
        let _ = self.checkpointer.take().map(JoinHandle::join);
        while let Some(message) = self.shared.queue.pop_control() {
            if let CommitterMessage::Event(CommitterEvent::Checkpointed(..) | CommitterEvent::Failed(_)) = message {
                self.on_message(message);
            }
        }
        self.dispatch_tasks();
        // Without its sender the grounds thread does what it was told so far, and ends.
        self.allocator_tx = None;
        let _ = self.allocator.take().map(JoinHandle::join);
        if !self.shared.is_poisoned() {
            self.data_dir.record_shutdown(ShutdownRecord::Clean);
        }
        // With this thread's end the folder is given back.
    }
}

/// Runs a helper's thread; its panic is a failure of the store, since its messages would never come.
pub(crate) fn run_or_poison(shared: &StoreInner, name: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        shared
            .queue
            .send_control(CommitterMessage::Event(CommitterEvent::Failed(format!("the {name} thread panicked"))));
    }
}
