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
use crate::store::embedded::commit::queue::deliver;
use crate::store::embedded::data_dir::DataDir;
use crate::store::embedded::fs::OsDirectory;
use crate::store::embedded::runtime::messages::{CheckpointMessage, CommitterMessage};
use crate::store::embedded::runtime::shared::StoreInner;
use crate::store::embedded::shutdown_record::ShutdownRecord;
use crate::store::{Health, Unavailable};

/// Requests that one commit takes at most.
const MAX_BATCH: usize = 2048;
const IDLE: Duration = Duration::from_secs(1);

/// The committer's thread: everything that it owns.
pub(crate) struct CommitterThread {
    pub(crate) shared: Arc<StoreInner>,
    pub(crate) committer: Committer<OsDirectory>,
    pub(crate) to_keeper: Sender<CheckpointMessage>,
    pub(crate) to_grounds: Option<Sender<BackgroundTask>>,
    pub(crate) keeper: Option<JoinHandle<()>>,
    pub(crate) grounds: Option<JoinHandle<()>>,
    pub(crate) folder: DataDir,
    /// What the keeper was last told of the journal.
    pub(crate) told: (usize, u64),
    pub(crate) closing: bool,
    pub(crate) started: Instant,
}

impl CommitterThread {
    /// Runs until the store is closed.
    pub(crate) fn run(mut self) {
        self.shared.queue.attend();
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    let noted = self.committer.poison("the committer panicked".to_owned());
                    self.note(noted);
                    break;
                }
            }
        }
        self.end();
    }

    /// One turn; false when the store is to be closed and nothing is left to do.
    fn turn(&mut self) -> bool {
        let mut idle = true;
        self.committer.tick(self.started.elapsed().as_secs());
        while let Some(message) = self.shared.queue.heard() {
            self.hear(message);
            idle = false;
        }
        let mut taken = 0;
        while taken < MAX_BATCH
            && let Some(work) = self.shared.queue.pop()
        {
            self.committer.decide(work);
            taken += 1;
        }
        let start = Instant::now();
        let (turn, result) = self.committer.finish_turn();
        let metrics = &self.shared.metrics;
        if turn.committed {
            metrics.commits.increment(1);
            metrics.commit_duration.record(start.elapsed().as_secs_f64());
            #[expect(clippy::cast_precision_loss, reason = "at most 2,048")]
            metrics.commit_batch_size.record(turn.answers.len() as f64);
            metrics.increments.increment(turn.increments);
            metrics.integers_issued.increment(turn.integers);
        }
        #[expect(clippy::cast_precision_loss, reason = "at most the queue's capacity")]
        metrics.queue_depth.set(self.shared.queue.depth() as f64);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics.idempotency_keys.set(self.committer.remembered() as f64);
        deliver(turn.answers);
        if let Err(error) = result {
            let noted = self.committer.poison(format!("the journal could not be written: {error}"));
            self.note(noted);
        }
        self.tell_of_journal();
        self.send_outbox();
        if taken > 0 || !idle {
            return true;
        }
        if self.closing {
            return false;
        }
        // Nothing waits: a good moment to let the keeper have what is durable.
        self.committer.hand_over_all();
        self.send_outbox();
        self.shared.queue.wait(IDLE);
        true
    }

    fn hear(&mut self, message: CommitterMessage) {
        match message {
            CommitterMessage::Event(tidings) => {
                let noted = self.committer.hear(tidings);
                self.note(noted);
            }
            CommitterMessage::MarkRunning(told) => {
                self.folder.leave(ShutdownRecord::Running);
                let _ = told.send(());
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
    fn note(&self, noted: EventEffect) {
        match noted {
            EventEffect::Nothing => {}
            EventEffect::Checkpointed(covered, took, removed) => {
                self.shared.metrics.checkpoint_duration.record(took.as_secs_f64());
                tracing::info!(
                    event.action = "checkpoint",
                    event.duration = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
                    odometer.commit_seq = covered.0,
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
                    self.folder.leave_aside(ShutdownRecord::Poisoned(&problem));
                }
            }
        }
    }

    fn tell_of_journal(&mut self) {
        let journal = self.committer.journal();
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        self.shared.metrics.journal_bytes.set(journal.bytes() as f64);
        let now = (self.committer.segments_behind(), journal.older_bytes());
        if now != self.told {
            self.told = now;
            let _ = self.to_keeper.send(CheckpointMessage::Journal(now.0, now.1));
        }
    }

    fn send_outbox(&mut self) {
        for order in self.committer.outbox() {
            match order {
                BackgroundTask::Flush(..) | BackgroundTask::Load(_) | BackgroundTask::List(..) => {
                    drop(self.to_keeper.send(CheckpointMessage::Task(order)))
                }
                BackgroundTask::MakeSpare | BackgroundTask::Remove(_) => {
                    if let Some(grounds) = &self.to_grounds {
                        let _ = grounds.send(order);
                    }
                }
            }
        }
    }

    /// Hands the rest to the keeper, waits for its last checkpoint and gives the folder back.
    fn end(mut self) {
        let healthy = !self.shared.is_poisoned();
        if healthy {
            self.committer.hand_over_all();
            self.send_outbox();
        }
        self.shared.refuse_everything();
        let _ = self.to_keeper.send(CheckpointMessage::Close { checkpoint: healthy });
        let _ = self.keeper.take().map(JoinHandle::join);
        while let Some(message) = self.shared.queue.heard() {
            if let CommitterMessage::Event(CommitterEvent::Checkpointed(..) | CommitterEvent::Failed(_)) = message {
                self.hear(message);
            }
        }
        self.send_outbox();
        // Without its sender the grounds thread does what it was told so far, and ends.
        self.to_grounds = None;
        let _ = self.grounds.take().map(JoinHandle::join);
        if !self.shared.is_poisoned() {
            self.folder.leave(ShutdownRecord::Clean);
        }
        // With this thread's end the folder is given back.
    }
}

/// Runs a helper's thread; its panic is a failure of the store, since its messages would never come.
pub(crate) fn watched(shared: &StoreInner, name: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        shared.queue.tell(CommitterMessage::Event(CommitterEvent::Failed(format!("the {name} thread panicked"))));
    }
}
