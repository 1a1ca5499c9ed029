//! The checkpoint scheduler: feeds the checkpointer and decides when it works, and for what.
//!
//! ```text
//! committer ── changes, loads, lists ──► on_message ─┐              ┌─► events to the committer
//! operator  ── backup? ────────────────► on_message ─┼► checkpointer┼─► replies
//! backup task ── ended ────────────────► on_message ─┤     └► state └─► tasks, chunks, reports
//! time ────────────────────────────────► run_step ───┘
//! ```
//!
//! Job: serve loads, and start and advance checkpoints and backups, one step per call. A thread
//! drives it in the server (`runtime/checkpoint_thread.rs`), and the simulation in tests.
//! Invariant: one backup at a time; a backup is reported to the committer only when its task says
//! that it is verified and named; a slow backup task delays no load.
//! Must never: read a clock, wait, or report a checkpoint that is not durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::store::StoreError;
use crate::store::embedded::backup::directory;
use crate::store::embedded::backup::format::{BackupEncoder, Header};
use crate::store::embedded::backup::task::{BackupTask, Chunk, FinishedBackup};
use crate::store::embedded::checkpoint::backup_schedule::{BackupSchedule, Due, NewestBackup};
use crate::store::embedded::checkpoint::messages::{
    BackupReply, CheckpointMessage, ChunkOutcome, Effect, Now,
};
use crate::store::embedded::commit::command::Reply;
use crate::store::embedded::commit::committer::{BackgroundTask, CommitterEvent};
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::frame::{LogPosition, StoreId};
use crate::store::embedded::options::BackupPolicy;
use crate::store::embedded::state::State;
use crate::store::embedded::state::checkpoint_step::{CheckpointError, Step};
use crate::store::embedded::state::checkpointer::Checkpointer;

/// A checkpoint starts when this many records wait …
const CHECKPOINT_DIRTY_RECORDS: usize = 65_536;
/// … or this many journal segments hold commits that the state does not.
const CHECKPOINT_SEGMENTS: usize = 4;
/// How soon a chunk is offered again to a backup task whose queue is full.
const CHUNK_RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// A backup whose task takes no chunk for this long is given up, so that checkpoints continue.
const BACKUP_STALL_TIMEOUT: Duration = Duration::from_secs(60);
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// How the scheduler works.
pub struct SchedulerConfig<D> {
    /// The store that backups are of.
    pub store: StoreId,
    /// The directory of automatic backups; on-demand backups are written there too.
    pub backups: Arc<D>,
    /// The longest time between two checkpoints while there is something to write.
    pub interval: Duration,
    /// When automatic backups are made; `None` for none.
    pub policy: Option<BackupPolicy>,
    /// With fewer bytes free than this, no backup is made.
    pub min_free_bytes: u64,
    /// Whether the journal still has its first commit.
    pub journal_is_complete: bool,
    /// The newest backup when the store was opened.
    pub newest_backup: Option<NewestBackup>,
}

struct RunningBackup<F> {
    /// The chunk that the task had no room for.
    pending_chunk: Option<Chunk>,
    /// Who asked for it; `None` for an automatic backup.
    reply_to: Option<BackupReply<F>>,
    started: Duration,
    /// When the task last accepted a chunk.
    last_progress: Duration,
}

/// See the module's text.
pub struct CheckpointScheduler<S: State, D: Directory> {
    checkpointer: Checkpointer<S>,
    store: StoreId,
    backups: Arc<D>,
    interval: Duration,
    min_free_bytes: u64,
    schedule: Option<BackupSchedule>,
    checkpoint_started: Duration,
    uncheckpointed_segments: usize,
    /// The store is being closed; whether after a last checkpoint.
    closing: Option<bool>,
    /// Operators who wait for a backup that has not been started.
    backup_requests: VecDeque<BackupReply<D::File>>,
    backup: Option<RunningBackup<D::File>>,
    /// The last message was a load or a list.
    served_read: bool,
    finished: bool,
    effects: Vec<Effect<D>>,
}

impl<S: State, D: Directory> CheckpointScheduler<S, D> {
    /// The scheduler of a store that was just opened; `now` is the start of its time.
    pub fn new(checkpointer: Checkpointer<S>, config: SchedulerConfig<D>, now: Now) -> Self {
        let SchedulerConfig { store, backups, interval, policy, min_free_bytes, .. } = config;
        let (newest, is_complete) = (config.newest_backup, config.journal_is_complete);
        Self {
            checkpointer,
            store,
            backups,
            interval,
            min_free_bytes,
            schedule: policy.map(|policy| BackupSchedule::new(policy, newest, is_complete, now)),
            checkpoint_started: now.uptime,
            uncheckpointed_segments: 1,
            closing: None,
            backup_requests: VecDeque::new(),
            backup: None,
            served_read: false,
            finished: false,
            effects: Vec::new(),
        }
    }

    /// Handles a message.
    #[must_use]
    pub fn on_message(&mut self, now: Now, message: CheckpointMessage<D::File>) -> Vec<Effect<D>> {
        match message {
            CheckpointMessage::Task(task) => self.on_task(task),
            CheckpointMessage::Journal { uncheckpointed_segments, sealed_bytes } => {
                self.uncheckpointed_segments = uncheckpointed_segments;
                if let Some(schedule) = &mut self.schedule {
                    schedule.set_sealed_bytes(sealed_bytes);
                }
            }
            CheckpointMessage::Backup(reply_to) => self.backup_requests.push_back(reply_to),
            CheckpointMessage::BackupEnded(result) => self.on_backup_ended(now, result),
            CheckpointMessage::Close { checkpoint } => {
                self.closing = self.closing.or(Some(checkpoint));
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// Notes what came of the chunk that [`Effect::OfferChunk`] carried.
    #[must_use]
    pub fn on_chunk(&mut self, now: Now, outcome: ChunkOutcome) -> Vec<Effect<D>> {
        let Some(backup) = &mut self.backup else { return Vec::new() };
        match outcome {
            ChunkOutcome::Accepted => backup.last_progress = now.uptime,
            ChunkOutcome::Full(chunk)
                if now.uptime.saturating_sub(backup.last_progress) < BACKUP_STALL_TIMEOUT =>
            {
                backup.pending_chunk = Some(chunk);
            }
            ChunkOutcome::Full(_) => {
                self.checkpointer.abandon_backup();
                self.effects.push(Effect::StopBackup);
            }
            ChunkOutcome::TaskEnded => self.checkpointer.abandon_backup(),
        }
        std::mem::take(&mut self.effects)
    }

    /// How long to wait for a message before the next step.
    pub fn next_timeout(&self, now: Now) -> Duration {
        if self.backup.as_ref().is_some_and(|backup| backup.pending_chunk.is_some()) {
            return CHUNK_RETRY_INTERVAL;
        }
        if self.closing.is_some() || self.checkpointer.in_progress() {
            return Duration::ZERO;
        }
        let checkpoint = if self.checkpointer.has_unflushed() {
            (self.checkpoint_started + self.interval).saturating_sub(now.uptime)
        } else {
            IDLE_WAIT
        };
        let backup = self.schedule.as_ref().map_or(IDLE_WAIT, |schedule| schedule.timeout(now));
        checkpoint.min(backup).max(Duration::from_millis(1))
    }

    /// Takes one step of what is due or under way. After a load it takes none: the next message may
    /// be another load, which must not wait for a step.
    #[must_use]
    pub fn run_step(&mut self, now: Now) -> Vec<Effect<D>> {
        if !self.finished && !std::mem::take(&mut self.served_read) {
            self.advance(now);
        }
        std::mem::take(&mut self.effects)
    }

    /// Whether nothing more is to be done: the store was closed, or a step failed.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether a checkpoint, perhaps with a backup in front of it, is under way.
    pub fn in_progress(&self) -> bool {
        self.checkpointer.in_progress()
    }

    /// Where a checkpoint or a backup that starts now would end.
    pub fn last_position(&self) -> LogPosition {
        self.checkpointer.last_position()
    }

    fn on_task(&mut self, task: BackgroundTask) {
        match task {
            BackgroundTask::Stage(changes, up_to) => self.checkpointer.stage(changes, up_to),
            BackgroundTask::Load(key) => {
                let record = self.checkpointer.load(&key);
                if let Err(problem) = &record {
                    self.report_corruption(problem);
                }
                self.send_event(CommitterEvent::Loaded(key, record));
                self.served_read = true;
            }
            BackgroundTask::List(scan, responder) => {
                let listed = self.checkpointer.list(&scan);
                let outcome = listed.map(Reply::Listed).map_err(|problem| {
                    self.report_corruption(&problem);
                    StoreError::Corrupt(problem.into())
                });
                self.effects.push(Effect::Reply(responder, outcome));
                self.served_read = true;
            }
            // The segment allocator does these.
            BackgroundTask::MakeSpare | BackgroundTask::Remove(_) => {}
        }
    }

    fn advance(&mut self, now: Now) {
        if self.closing.is_some() && self.backup.take().is_some() {
            self.checkpointer.abandon_backup();
            self.effects.push(Effect::StopBackup);
        }
        let is_clean = !self.checkpointer.has_unflushed() && !self.checkpointer.in_progress();
        if self.closing == Some(false) || (self.closing.is_some() && is_clean) {
            self.finished = true;
            return;
        }
        self.start_due_work(now);
        match self.backup.as_mut().and_then(|backup| backup.pending_chunk.take()) {
            Some(chunk) => self.effects.push(Effect::OfferChunk(chunk)),
            None => self.step_checkpointer(),
        }
    }

    fn start_due_work(&mut self, now: Now) {
        if self.checkpointer.in_progress() {
            return;
        }
        if self.closing.is_none() && self.backup.is_none() {
            if let Some(reply_to) = self.backup_requests.pop_front() {
                self.start_backup(now, Some(reply_to));
                return;
            }
            if self.is_backup_due(now) {
                self.start_backup(now, None);
                return;
            }
        }
        let due = self.closing.is_some()
            || now.uptime.saturating_sub(self.checkpoint_started) >= self.interval
            || self.checkpointer.memtable() >= CHECKPOINT_DIRTY_RECORDS
            || self.uncheckpointed_segments >= CHECKPOINT_SEGMENTS;
        if due && self.checkpointer.has_unflushed() {
            self.checkpoint_started = now.uptime;
            self.uncheckpointed_segments = 1;
            self.checkpointer.start_checkpoint();
        }
    }

    fn is_backup_due(&mut self, now: Now) -> bool {
        let last = self.checkpointer.last_position().seq;
        let Some(schedule) = &mut self.schedule else { return false };
        match schedule.check(now, last) {
            Due::No => return false,
            Due::Yes => return true,
            Due::IfMissing => {}
        }
        let newest = directory::newest(&*self.backups, self.store, last);
        if newest.is_some_and(|(seq, _)| seq >= schedule.backed_up()) {
            self.effects.push(Effect::BackupCurrent);
            return false;
        }
        schedule.on_missing();
        true
    }

    fn start_backup(&mut self, now: Now, reply_to: Option<BackupReply<D::File>>) {
        // A checkpoint of the same commits follows the backup.
        self.checkpoint_started = now.uptime;
        self.uncheckpointed_segments = 1;
        let mut retain = None;
        if let (None, Some(schedule)) = (&reply_to, &mut self.schedule) {
            schedule.on_start(now);
            retain = Some(schedule.keep());
        }
        let position = self.checkpointer.last_position();
        let header = Header { store: self.store, position, created_unix_s: now.unix_s };
        let task = BackupTask::new(Arc::clone(&self.backups), &header, self.min_free_bytes, retain);
        self.backup = Some(RunningBackup {
            pending_chunk: None,
            reply_to,
            started: now.uptime,
            last_progress: now.uptime,
        });
        self.effects.push(Effect::StartBackup(task));
        self.checkpointer.start_backup(BackupEncoder::new(&header));
    }

    fn step_checkpointer(&mut self) {
        match self.checkpointer.step() {
            Ok(Step::Idle | Step::More) => {}
            Ok(Step::Chunk { bytes, last }) => {
                if let Some(backup) = &mut self.backup {
                    backup.pending_chunk = Some(Chunk { bytes, last });
                }
            }
            Ok(Step::Finished(position)) => {
                let started = self.checkpoint_started;
                self.effects.push(Effect::Checkpointed { seq: position.seq, started });
            }
            Err(CheckpointError::Corrupt(problem)) => {
                self.report_corruption(&problem);
                self.finished = true;
            }
            Err(CheckpointError::Io(problem)) => {
                self.send_event(CommitterEvent::Failed(format!("a checkpoint failed: {problem}")));
                self.finished = true;
            }
        }
    }

    /// The state is corrupt: it is marked so and rebuilt at the next start.
    fn report_corruption(&mut self, problem: &str) {
        // Without backups there may be nothing to rebuild it from, and the damage may be
        // transient: then the next start checks again.
        let marked =
            if self.schedule.is_some() { self.checkpointer.mark_corrupt(problem) } else { Ok(()) };
        self.effects
            .push(Effect::StateCorrupt { problem: problem.to_owned(), mark_error: marked.err() });
        self.send_event(CommitterEvent::Failed(format!(
            "the state is corrupt: {problem}; a restart rebuilds it"
        )));
    }

    fn on_backup_ended(&mut self, now: Now, result: Result<FinishedBackup<D::File>, String>) {
        // The task of a backup that a close abandoned still reports its end.
        let Some(backup) = self.backup.take() else { return };
        self.checkpointer.abandon_backup();
        if let Some(reply_to) = backup.reply_to {
            let result = result.and_then(|finished| {
                let file = finished.file.ok_or("the backup has no file")?;
                Ok((file, finished.summary))
            });
            self.effects.push(Effect::BackupReply(reply_to, result));
            return;
        }
        let Some(schedule) = &mut self.schedule else { return };
        match result {
            Ok(FinishedBackup { summary, .. }) => {
                let seq = summary.header.position.seq;
                schedule.on_success(seq);
                self.send_event(CommitterEvent::BackedUp(seq));
                let took = now.uptime.saturating_sub(backup.started);
                self.effects.push(Effect::BackupCompleted(summary, took));
            }
            Err(problem) => {
                schedule.on_failure(now);
                self.effects.push(Effect::BackupFailed(problem));
            }
        }
    }

    fn send_event(&mut self, event: CommitterEvent<D::File>) {
        self.effects.push(Effect::Event(event));
    }
}
