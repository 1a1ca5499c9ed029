//! The keeper's thread: when to checkpoint, when to back up, and who writes the backup's bytes.
//!
//! ```text
//! committer ──changes, loads──► keeper ──step──► sled
//! admin ─────────backup?──────►   │ └─chunks──► scribe: one thread for each backup; writes, syncs, proves, names the file
//!                                 └◄──────────────ended
//! ```
//! Job: give the keeper, which knows no thread and no clock, its messages and its steps. A scribe that is slow or stuck slows nobody: a chunk
//! that it has no room for waits in the keeper's hand, and loads go on.
//! Invariant: one backup at a time; the committer is told of one only when it is proved and named.
//! Must never: wait for the scribe.

use std::collections::VecDeque;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::store::embedded::backup::directory;
use crate::store::embedded::backup::format::{BackupEncoder, Header, Summary};
use crate::store::embedded::backup::task::{BackupTask, Chunk};
use crate::store::embedded::commit::command::Reply;
use crate::store::embedded::commit::committer::{BackgroundTask, CommitterEvent};
use crate::store::embedded::commit::queue::send_replies;
use crate::store::embedded::fs::{OsDirectory, OsFile};
use crate::store::embedded::journal::frame::{CommitSeq, StoreId};
use crate::store::embedded::options::BackupPolicy;
use crate::store::embedded::runtime::messages::{BackupReply, CheckpointMessage, CommitterMessage};
use crate::store::embedded::runtime::shared::StoreInner;
use crate::store::embedded::state::checkpointer::{CheckpointError, Checkpointer, Step};
use crate::store::embedded::state::sled::SledState;
use crate::store::{StoreError, now_unix_s};

/// A checkpoint starts when so many records wait …
const CHECKPOINT_DIRTY_RECORDS: usize = 65_536;
/// … or so many journal segments hold commits that sled does not.
const CHECKPOINT_SEGMENTS: usize = 4;
/// Chunks that wait for the scribe.
const MAX_QUEUED_CHUNKS: usize = 4;
/// How soon a chunk is offered again to a scribe without room.
const CHUNK_RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// A backup that failed is tried again after so long.
const BACKUP_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// The first backup of a store is made so soon after a start.
const FIRST_BACKUP_DELAY: Duration = Duration::from_secs(60);
/// A scribe that takes nothing for so long is given up, so that checkpoints go on.
const BACKUP_STALL_TIMEOUT: Duration = Duration::from_secs(60);
const IDLE_WAIT: Duration = Duration::from_secs(3600);

struct RunningBackup {
    writer: Option<SyncSender<Chunk>>,
    pending_chunk: Option<Chunk>,
    reply_to: Option<BackupReply>,
    started: Instant,
    /// When the scribe last took something.
    last_progress: Instant,
}

/// Everything that the keeper's thread owns.
pub(crate) struct CheckpointThread {
    pub(crate) shared: Arc<StoreInner>,
    pub(crate) checkpointer: Checkpointer<SledState>,
    pub(crate) inbox: Receiver<CheckpointMessage>,
    pub(crate) self_tx: Sender<CheckpointMessage>,
    pub(crate) interval: Duration,
    pub(crate) policy: Option<BackupPolicy>,
    pub(crate) dir: PathBuf,
    pub(crate) store: StoreId,
    pub(crate) min_free_bytes: u64,
    /// The journal still has its first commit.
    pub(crate) journal_is_complete: bool,
    /// The newest backup when the store was opened, and when it was made, in seconds since 1970.
    pub(crate) newest_backup: Option<(CommitSeq, u64)>,
}

/// What changes while it runs.
struct LoopState {
    checkpoint_started: Instant,
    uncheckpointed_segments: usize,
    sealed_bytes: u64,
    closing: Option<bool>,
    backup_due: Option<Instant>,
    /// After a failure, the next try is not before this.
    not_before: Option<Instant>,
    backed_up: CommitSeq,
    reply_to: VecDeque<BackupReply>,
    backup: Option<RunningBackup>,
}

impl CheckpointThread {
    /// Runs until the store is closed.
    pub(crate) fn run(mut self) {
        let now = Instant::now();
        // A store without a backup gets one soon; where the journal no longer has its first commit, at once: until then nothing could be healed.
        let due_in = |policy: BackupPolicy| match self.newest_backup {
            Some((_, at)) => policy.interval.saturating_sub(Duration::from_secs(now_unix_s().saturating_sub(at))),
            None if self.journal_is_complete => policy.interval.min(FIRST_BACKUP_DELAY),
            None => Duration::ZERO,
        };
        let mut turn = LoopState {
            checkpoint_started: now,
            uncheckpointed_segments: 1,
            sealed_bytes: 0,
            closing: None,
            backup_due: self.policy.map(|policy| now + due_in(policy)),
            not_before: None,
            backed_up: self.newest_backup.map_or(CommitSeq(0), |(seq, _)| seq),
            reply_to: VecDeque::new(),
            backup: None,
        };
        while self.turn(&mut turn) {}
        // Without its channel the scribe ends; an unfinished backup leaves nothing.
    }

    /// One message, one step; false at the end.
    fn turn(&mut self, turn: &mut LoopState) -> bool {
        match self.inbox.recv_timeout(self.next_timeout(turn)) {
            Ok(CheckpointMessage::Task(BackgroundTask::Load(key))) => {
                let record = self.checkpointer.load(&key);
                if let Err(problem) = &record {
                    self.report_corruption(problem);
                }
                self.send_event(CommitterEvent::Loaded(key, record));
                return true;
            }
            Ok(CheckpointMessage::Task(BackgroundTask::List(listing, ticket))) => {
                let listed = self.checkpointer.list(&listing);
                let outcome = listed.map(Reply::Listed).map_err(|problem| {
                    self.report_corruption(&problem);
                    StoreError::Corrupt(problem.into())
                });
                send_replies(vec![(ticket, outcome)]);
                return true;
            }
            Ok(message) => self.on_message(turn, message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => turn.closing = turn.closing.or(Some(false)),
        }
        if turn.closing.is_some() && turn.backup.take().is_some() {
            self.checkpointer.abandon_backup();
        }
        if turn.closing == Some(false)
            || (turn.closing.is_some() && !self.checkpointer.has_unflushed() && !self.checkpointer.in_progress())
        {
            return false;
        }
        self.start_due_work(turn);
        self.run_step(turn)
    }

    fn on_message(&mut self, turn: &mut LoopState, message: CheckpointMessage) {
        match message {
            CheckpointMessage::Task(BackgroundTask::Flush(changes, up_to)) => self.checkpointer.stage(changes, up_to),
            // The grounds do these.
            CheckpointMessage::Task(_) => {}
            CheckpointMessage::Journal(behind, sealed_bytes) => {
                turn.uncheckpointed_segments = behind;
                turn.sealed_bytes = sealed_bytes;
            }
            CheckpointMessage::Backup(reply_to) => turn.reply_to.push_back(reply_to),
            CheckpointMessage::BackupEnded(result) => self.backup_ended(turn, result),
            CheckpointMessage::Close { checkpoint } => turn.closing = Some(checkpoint),
        }
    }

    /// How long to wait for a message before the next step.
    fn next_timeout(&self, turn: &LoopState) -> Duration {
        if turn.backup.as_ref().is_some_and(|backup| backup.pending_chunk.is_some()) {
            return CHUNK_RETRY_INTERVAL;
        }
        if turn.closing.is_some() || self.checkpointer.in_progress() {
            return Duration::ZERO;
        }
        let checkpoint = if self.checkpointer.has_unflushed() {
            self.interval.saturating_sub(turn.checkpoint_started.elapsed())
        } else {
            IDLE_WAIT
        };
        let backup = turn.backup_due.map_or(IDLE_WAIT, |due| due.saturating_duration_since(Instant::now()));
        checkpoint.min(backup).max(Duration::from_millis(1))
    }

    fn start_due_work(&mut self, turn: &mut LoopState) {
        if self.checkpointer.in_progress() {
            return;
        }
        if turn.closing.is_none() && turn.backup.is_none() {
            if let Some(reply_to) = turn.reply_to.pop_front() {
                self.start_backup(turn, Some(reply_to));
                return;
            }
            if self.is_backup_due(turn) {
                self.start_backup(turn, None);
                return;
            }
        }
        let due = turn.closing.is_some()
            || turn.checkpoint_started.elapsed() >= self.interval
            || self.checkpointer.memtable() >= CHECKPOINT_DIRTY_RECORDS
            || turn.uncheckpointed_segments >= CHECKPOINT_SEGMENTS;
        if due && self.checkpointer.has_unflushed() {
            turn.checkpoint_started = Instant::now();
            turn.uncheckpointed_segments = 1;
            self.checkpointer.start_checkpoint();
        }
    }

    fn is_backup_due(&self, turn: &mut LoopState) -> bool {
        let (Some(policy), Some(due)) = (self.policy, turn.backup_due) else { return false };
        let now = Instant::now();
        let wanted = now >= due || turn.sealed_bytes >= policy.journal_cap_bytes;
        if turn.not_before.is_some_and(|time| now < time) {
            return false;
        }
        if wanted && self.checkpointer.last_position().seq <= turn.backed_up {
            turn.backup_due = Some(now + policy.interval);
            return self.newest_backup_missing(turn);
        }
        wanted
    }

    /// Where nothing changed since, the newest backup covers everything still and is as good as new: if it is still there.
    fn newest_backup_missing(&self, turn: &mut LoopState) -> bool {
        if turn.backed_up == CommitSeq(0) {
            return false;
        }
        let newest =
            directory::newest(&OsDirectory::new(self.dir.clone()), self.store, self.checkpointer.last_position().seq);
        let is_there = newest.is_some_and(|(seq, _)| seq >= turn.backed_up);
        if is_there {
            self.shared.metrics.set_last_backup(now_unix_s());
        } else {
            turn.backed_up = CommitSeq(0);
        }
        !is_there
    }

    /// Takes one step of what is under way; false when the store must stop.
    fn run_step(&mut self, turn: &mut LoopState) -> bool {
        if let Some(backup) = &mut turn.backup
            && let Some(chunk) = backup.pending_chunk.take()
        {
            let ended = chunk.last;
            match backup.writer.as_ref().map(|writer| writer.try_send(chunk)) {
                Some(Ok(())) => {
                    backup.last_progress = Instant::now();
                    if ended {
                        backup.writer = None;
                    }
                }
                Some(Err(TrySendError::Full(chunk))) if backup.last_progress.elapsed() < BACKUP_STALL_TIMEOUT => {
                    backup.pending_chunk = Some(chunk);
                    return true;
                }
                Some(Err(TrySendError::Full(_))) => {
                    backup.writer = None;
                    self.checkpointer.abandon_backup();
                }
                // The scribe gave up; why, it tells by itself.
                Some(Err(TrySendError::Disconnected(_))) | None => self.checkpointer.abandon_backup(),
            }
        }
        match self.checkpointer.step() {
            Ok(Step::Idle | Step::More) => {}
            Ok(Step::Chunk { bytes, last }) => {
                if let Some(backup) = &mut turn.backup {
                    backup.pending_chunk = Some(Chunk { bytes, last });
                }
            }
            Ok(Step::Finished(mark)) => {
                self.send_event(CommitterEvent::Checkpointed(mark.seq, turn.checkpoint_started.elapsed()))
            }
            Err(CheckpointError::Corrupt(problem)) => {
                self.report_corruption(&problem);
                return false;
            }
            Err(CheckpointError::Io(problem)) => {
                self.send_event(CommitterEvent::Failed(format!("a checkpoint failed: {problem}")));
                return false;
            }
        }
        true
    }

    /// sled does not hold what was written: nothing of it is believed any more, and the next start rebuilds it.
    fn report_corruption(&mut self, problem: &str) {
        // Without backups there may be nothing to rebuild it from, and the damage may pass: then the next start looks again.
        if self.policy.is_some()
            && let Err(error) = self.checkpointer.mark_corrupt(problem)
        {
            tracing::error!(event.action = "mark-corrupt-failed", error.message = %error, "the damaged state could not be marked");
        }
        self.send_event(CommitterEvent::Failed(format!("the state is damaged: {problem}; a restart rebuilds it")));
    }

    fn start_backup(&mut self, turn: &mut LoopState, reply_to: Option<BackupReply>) {
        let now = Instant::now();
        turn.checkpoint_started = now;
        turn.uncheckpointed_segments = 1;
        if let (None, Some(policy)) = (&reply_to, self.policy) {
            turn.backup_due = Some(now + policy.interval);
        }
        let header =
            Header { store: self.store, position: self.checkpointer.last_position(), created_unix_s: now_unix_s() };
        let (writer, chunks) = sync_channel(MAX_QUEUED_CHUNKS);
        let writing = BackupTask {
            dir: Arc::new(OsDirectory::new(self.dir.clone())),
            seq: header.position.seq,
            min_free_bytes: self.min_free_bytes,
            store: self.store,
            retain: if reply_to.is_none() { self.policy.map(|policy| policy.keep) } else { None },
        };
        let self_tx = self.self_tx.clone();
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(|| writing.run(&chunks)));
            let result = result.unwrap_or_else(|_| Err("its thread panicked".to_owned()));
            let _ = self_tx.send(CheckpointMessage::BackupEnded(result));
        };
        match thread::Builder::new().name("odometer-scribe".to_owned()).spawn(run) {
            Ok(_) => {
                turn.backup = Some(RunningBackup {
                    writer: Some(writer),
                    pending_chunk: None,
                    reply_to,
                    started: now,
                    last_progress: now,
                });
                self.checkpointer.start_backup(BackupEncoder::new(&header));
            }
            Err(error) => {
                turn.backup = Some(RunningBackup {
                    writer: None,
                    pending_chunk: None,
                    reply_to,
                    started: now,
                    last_progress: now,
                });
                self.backup_ended(turn, Err(format!("its thread can not be started: {error}")));
            }
        }
    }

    fn backup_ended(&mut self, turn: &mut LoopState, result: Result<(Option<File>, Summary), String>) {
        // After a job was given up its scribe still tells how it ended.
        let Some(backup) = turn.backup.take() else { return };
        self.checkpointer.abandon_backup();
        match (backup.reply_to, result) {
            (Some(reply_to), Ok((Some(file), summary))) => drop(reply_to.send(Ok((file, summary)))),
            (Some(reply_to), Ok((None, _))) => drop(reply_to.send(Err("the backup has no file".to_owned()))),
            (Some(reply_to), Err(problem)) => drop(reply_to.send(Err(problem))),
            (None, Ok((_, summary))) => {
                turn.backed_up = summary.header.position.seq;
                // What it covers is about to go; the committer tells of the rest.
                turn.sealed_bytes = 0;
                self.send_event(CommitterEvent::BackedUp(turn.backed_up));
                self.shared.metrics.set_last_backup(summary.header.created_unix_s);
                let took = u64::try_from(backup.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
                tracing::info!(
                    event.action = "backup",
                    event.outcome = "success",
                    event.duration = took,
                    odometer.commit_seq = turn.backed_up.0,
                    odometer.records = summary.records,
                    file.size = summary.bytes,
                    "a backup is complete and verified"
                );
            }
            (None, Err(problem)) => {
                turn.backup_due = Some(Instant::now() + BACKUP_RETRY_INTERVAL);
                turn.not_before = turn.backup_due;
                tracing::warn!(
                    event.action = "backup",
                    event.outcome = "failure",
                    error.message = %problem,
                    "a backup failed: the journal is kept until one succeeds"
                );
            }
        }
    }

    fn send_event(&self, event: CommitterEvent<OsFile>) {
        self.shared.queue.send_control(CommitterMessage::Event(event));
    }
}
