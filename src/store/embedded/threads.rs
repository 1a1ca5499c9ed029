//! The three threads of the embedded store, and what they tell each other.
//!
//! ```text
//! workers ──requests──► committer ──changes, loads──► keeper (sled)     committer: decides, syncs the journal, answers
//!                           ▲   └───spare? remove───► grounds           keeper:    checkpoints and loads
//!                           └──found, covered, spare, disk low──┘       grounds:   slow work on the journal folder
//! ```
//! Job: run the parts that know no thread. Invariant: whatever goes wrong in a thread poisons the store; it never goes on half.
//! Must never: let a request wait for a thread that is gone.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Shared;
use super::checkpoint::Keeper;
use super::committer::{Committer, ToKeeper};
use super::disk::{Disk, RealDisk, RealFile};
use super::folder::Folder;
use super::frame::CommitSeq;
use super::journal::{AppendError, SPARE};
use super::queue::deliver;
use super::record::{Key, Record};
use super::state::SledState;
use crate::store::{Health, StoreError, Unavailable};

/// Requests that one commit takes at most.
const MAX_BATCH: usize = 2048;
const IDLE: Duration = Duration::from_secs(1);
const DISK_CHECK: Duration = Duration::from_millis(500);
/// A checkpoint starts when so many records wait …
const CHECKPOINT_RECORDS: usize = 65_536;
/// … or so many journal segments are on the disk.
const CHECKPOINT_SEGMENTS: usize = 4;

/// What the helpers tell the committer.
#[derive(Debug)]
pub(super) enum Control {
    Loaded(Key, Result<Option<Record>, String>),
    Checkpointed(CommitSeq, Duration),
    Spare(io::Result<RealFile>),
    DiskLow(bool),
    Failed(String),
    Close,
}

/// What the keeper's thread is told.
#[derive(Debug)]
pub(super) enum KeeperMessage {
    Do(ToKeeper),
    Segments(usize),
    Close { checkpoint: bool },
}

/// What the grounds thread is told.
#[derive(Debug)]
pub(super) enum GroundsMessage {
    MakeSpare,
    Remove(Vec<String>),
}

/// The committer's thread: everything that it owns.
pub(super) struct CommitterThread {
    pub(super) shared: Arc<Shared>,
    pub(super) committer: Committer<RealDisk>,
    pub(super) to_keeper: Sender<KeeperMessage>,
    pub(super) to_grounds: Option<Sender<GroundsMessage>>,
    pub(super) keeper: Option<JoinHandle<()>>,
    pub(super) grounds: Option<JoinHandle<()>>,
    pub(super) _folder: Folder,
    pub(super) spare_requested: bool,
    pub(super) closing: bool,
}

impl CommitterThread {
    /// Runs until the store is closed.
    pub(super) fn run(mut self) {
        self.shared.queue.attend();
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    self.poison("the committer panicked");
                    break;
                }
            }
        }
        self.end();
    }

    /// One turn; false when the store is to be closed and nothing is left to do.
    fn turn(&mut self) -> bool {
        let mut idle = true;
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
        deliver(turn.answers);
        if let Err(error) = result {
            self.poison(&format!("the journal could not be written: {error}"));
        }
        self.look_after_segments();
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

    fn hear(&mut self, message: Control) {
        match message {
            Control::Loaded(key, record) => self.committer.loaded(key, record),
            Control::Checkpointed(covered, took) => self.checkpointed(covered, took),
            Control::Spare(Ok(file)) => {
                self.spare_requested = false;
                self.committer.journal().give_spare(file);
            }
            Control::Spare(Err(error)) => {
                self.spare_requested = false;
                self.disk_low(true);
                tracing::warn!(
                    event.action = "journal-segment-failed",
                    error.message = %error,
                    "the next journal segment could not be made; free some disk"
                );
            }
            Control::DiskLow(low) => self.disk_low(low),
            Control::Failed(problem) => self.poison(&problem),
            Control::Close => {
                if !self.shared.is_poisoned() {
                    self.shared.set_health(Health::Unavailable(Unavailable::Closing));
                }
                self.closing = true;
            }
        }
    }

    fn disk_low(&mut self, low: bool) {
        if self.shared.is_poisoned() {
            return;
        }
        let why = low.then_some(Unavailable::DiskLow);
        self.committer.refuse_changes(why.map(StoreError::Unavailable));
        self.shared.set_health(why.map_or(Health::Ready, Health::Unavailable));
    }

    fn checkpointed(&mut self, covered: CommitSeq, took: Duration) {
        self.shared.metrics.checkpoint_duration.record(took.as_secs_f64());
        if self.shared.is_poisoned() {
            return;
        }
        match self.committer.journal().append_checkpoint(covered) {
            Ok(_) => {
                let names = self.committer.journal().release(covered);
                let removed = names.len();
                self.tell_grounds(GroundsMessage::Remove(names));
                tracing::info!(
                    event.action = "checkpoint",
                    event.duration = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
                    odometer.commit_seq = covered.0,
                    odometer.segments_removed = removed,
                    "checkpoint complete"
                );
            }
            // The next checkpoint says it again.
            Err(AppendError::NoSpare) => {}
            Err(AppendError::Failed(error)) => self.poison(&format!("the journal could not be written: {error}")),
        }
    }

    fn look_after_segments(&mut self) {
        let journal = self.committer.journal();
        let (segments, bytes, wants_spare) = (journal.segments(), journal.bytes(), journal.wants_spare());
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        self.shared.metrics.journal_bytes.set(bytes as f64);
        if wants_spare && !self.spare_requested && !self.shared.is_poisoned() {
            self.spare_requested = true;
            self.tell_grounds(GroundsMessage::MakeSpare);
            let _ = self.to_keeper.send(KeeperMessage::Segments(segments));
        }
    }

    fn send_outbox(&mut self) {
        for message in self.committer.outbox() {
            let _ = self.to_keeper.send(KeeperMessage::Do(message));
        }
    }

    fn tell_grounds(&self, message: GroundsMessage) {
        if let Some(grounds) = &self.to_grounds {
            let _ = grounds.send(message);
        }
    }

    fn poison(&mut self, problem: &str) {
        self.committer.refuse_changes(Some(StoreError::Poisoned));
        if self.shared.poison(problem) {
            tracing::error!(
                event.action = "poison",
                error.message = problem,
                "a write failed and its outcome is not known: the store takes no more changes until a restart"
            );
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
        let _ = self.to_keeper.send(KeeperMessage::Close { checkpoint: healthy });
        let _ = self.keeper.take().map(JoinHandle::join);
        while let Some(message) = self.shared.queue.heard() {
            match message {
                Control::Checkpointed(..) | Control::Failed(_) => self.hear(message),
                _ => {}
            }
        }
        // Without its sender the grounds thread does what it was told so far, and ends.
        self.to_grounds = None;
        let _ = self.grounds.take().map(JoinHandle::join);
        // With this thread's end the folder is given back.
    }
}

/// Runs a helper's thread; its panic is a failure of the store, since its messages would never come.
pub(super) fn watched(shared: &Shared, name: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        shared.queue.tell(Control::Failed(format!("the {name} thread panicked")));
    }
}

/// The keeper's thread: serves loads, brings checkpoints forward, and never decides.
pub(super) fn keep(
    shared: &Shared,
    mut keeper: Keeper<SledState>,
    inbox: &Receiver<KeeperMessage>,
    interval: Duration,
) {
    let (mut started, mut segments, mut closing) = (Instant::now(), 1, None);
    loop {
        let wait = match (keeper.is_writing(), closing) {
            (true, _) | (_, Some(_)) => Duration::ZERO,
            (false, None) => interval.saturating_sub(started.elapsed()).max(Duration::from_millis(1)),
        };
        match inbox.recv_timeout(wait) {
            Ok(KeeperMessage::Do(ToKeeper::Changes(changes, up_to))) => keeper.take(changes, up_to),
            Ok(KeeperMessage::Do(ToKeeper::Load(key))) => {
                let record = keeper.load(&key);
                shared.queue.tell(Control::Loaded(key, record));
                continue;
            }
            Ok(KeeperMessage::Segments(now)) => segments = now,
            Ok(KeeperMessage::Close { checkpoint }) => closing = Some(checkpoint),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => closing = closing.or(Some(false)),
        }
        if closing == Some(false) || (closing.is_some() && !keeper.is_behind() && !keeper.is_writing()) {
            return;
        }
        let due = closing.is_some()
            || started.elapsed() >= interval
            || keeper.pending() >= CHECKPOINT_RECORDS
            || segments >= CHECKPOINT_SEGMENTS;
        if !keeper.is_writing() && due {
            started = Instant::now();
            segments = 1;
            if keeper.is_behind() {
                keeper.begin();
            }
        }
        match keeper.step() {
            Ok(None) => {}
            Ok(Some(covered)) => shared.queue.tell(Control::Checkpointed(covered, started.elapsed())),
            Err(problem) => {
                shared.queue.tell(Control::Failed(format!("a checkpoint failed: {problem}")));
                return;
            }
        }
    }
}

/// The grounds thread: makes spare segments, removes old ones, watches the free disk.
pub(super) fn keep_grounds(
    shared: &Shared,
    disk: &RealDisk,
    inbox: &Receiver<GroundsMessage>,
    segment_bytes: u64,
    min_free_bytes: u64,
) {
    let mut was_low = None;
    let mut wants_spare = false;
    loop {
        match inbox.recv_timeout(DISK_CHECK) {
            Ok(GroundsMessage::MakeSpare) => wants_spare = true,
            Ok(GroundsMessage::Remove(names)) => {
                for name in names {
                    if let Err(error) = disk.remove(&name) {
                        tracing::warn!(event.action = "journal-remove-failed", file.name = %name, error.message = %error,
                            "an old journal segment could not be removed");
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let low = is_low(shared, disk, min_free_bytes);
        if wants_spare && !low {
            wants_spare = false;
            shared.queue.tell(Control::Spare(disk.create_zeroed(SPARE, segment_bytes)));
        }
        if was_low != Some(low) {
            was_low = Some(low);
            shared.queue.tell(Control::DiskLow(low));
            if low {
                tracing::warn!(
                    event.action = "disk-low",
                    odometer.min_free_bytes = min_free_bytes,
                    "the disk is almost full: changes are refused until there is room, reads go on"
                );
            }
        }
    }
}

/// Whether less is free than the reserve; a disk that can not be asked counts as full.
pub(super) fn is_low(shared: &Shared, disk: &RealDisk, min_free_bytes: u64) -> bool {
    let free = disk.free_bytes().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    shared.metrics.disk_free.set(free as f64);
    free < min_free_bytes
}
