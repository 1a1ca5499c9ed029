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
use crate::store::embedded::commit::queue::deliver;
use crate::store::embedded::fs::{OsDirectory, OsFile};
use crate::store::embedded::journal::frame::{CommitSeq, StoreId};
use crate::store::embedded::options::BackupPolicy;
use crate::store::embedded::runtime::messages::{BackupReply, CheckpointMessage, CommitterMessage};
use crate::store::embedded::runtime::shared::StoreInner;
use crate::store::embedded::state::checkpointer::{CheckpointError, Checkpointer, Step};
use crate::store::embedded::state::sled::SledState;
use crate::store::{StoreError, now_unix_s};

/// A checkpoint starts when so many records wait …
const CHECKPOINT_RECORDS: usize = 65_536;
/// … or so many journal segments hold commits that sled does not.
const CHECKPOINT_SEGMENTS: usize = 4;
/// Chunks that wait for the scribe.
const CHUNKS: usize = 4;
/// How soon a chunk is offered again to a scribe without room.
const OFFER_AGAIN: Duration = Duration::from_millis(1);
/// A backup that failed is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// The first backup of a store is made so soon after a start.
const FIRST_BACKUP: Duration = Duration::from_secs(60);
/// A scribe that takes nothing for so long is given up, so that checkpoints go on.
const STUCK: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(3600);

struct RunningBackup {
    scribe: Option<SyncSender<Chunk>>,
    in_hand: Option<Chunk>,
    asked: Option<BackupReply>,
    started: Instant,
    /// When the scribe last took something.
    taken: Instant,
}

/// Everything that the keeper's thread owns.
pub(crate) struct CheckpointThread {
    pub(crate) shared: Arc<StoreInner>,
    pub(crate) keeper: Checkpointer<SledState>,
    pub(crate) inbox: Receiver<CheckpointMessage>,
    pub(crate) own: Sender<CheckpointMessage>,
    pub(crate) interval: Duration,
    pub(crate) policy: Option<BackupPolicy>,
    pub(crate) folder: PathBuf,
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
    segments_behind: usize,
    older_bytes: u64,
    closing: Option<bool>,
    backup_due: Option<Instant>,
    /// After a failure, the next try is not before this.
    not_before: Option<Instant>,
    backed_up: CommitSeq,
    asked: VecDeque<BackupReply>,
    job: Option<RunningBackup>,
}

impl CheckpointThread {
    /// Runs until the store is closed.
    pub(crate) fn run(mut self) {
        let now = Instant::now();
        // A store without a backup gets one soon; where the journal no longer has its first commit, at once: until then nothing could be healed.
        let due_in = |policy: BackupPolicy| match self.newest_backup {
            Some((_, at)) => policy.interval.saturating_sub(Duration::from_secs(now_unix_s().saturating_sub(at))),
            None if self.journal_is_complete => policy.interval.min(FIRST_BACKUP),
            None => Duration::ZERO,
        };
        let mut turn = LoopState {
            checkpoint_started: now,
            segments_behind: 1,
            older_bytes: 0,
            closing: None,
            backup_due: self.policy.map(|policy| now + due_in(policy)),
            not_before: None,
            backed_up: self.newest_backup.map_or(CommitSeq(0), |(seq, _)| seq),
            asked: VecDeque::new(),
            job: None,
        };
        while self.turn(&mut turn) {}
        // Without its channel the scribe ends; an unfinished backup leaves nothing.
    }

    /// One message, one step; false at the end.
    fn turn(&mut self, turn: &mut LoopState) -> bool {
        match self.inbox.recv_timeout(self.patience(turn)) {
            Ok(CheckpointMessage::Task(BackgroundTask::Load(key))) => {
                let record = self.keeper.load(&key);
                if let Err(problem) = &record {
                    self.damaged(problem);
                }
                self.tell(CommitterEvent::Loaded(key, record));
                return true;
            }
            Ok(CheckpointMessage::Task(BackgroundTask::List(listing, ticket))) => {
                let listed = self.keeper.list(&listing);
                let outcome = listed.map(Reply::Listed).map_err(|problem| {
                    self.damaged(&problem);
                    StoreError::Corrupt(problem.into())
                });
                deliver(vec![(ticket, outcome)]);
                return true;
            }
            Ok(message) => self.hear(turn, message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => turn.closing = turn.closing.or(Some(false)),
        }
        if turn.closing.is_some() && turn.job.take().is_some() {
            self.keeper.abandon_backup();
        }
        if turn.closing == Some(false) || (turn.closing.is_some() && !self.keeper.is_behind() && !self.keeper.is_busy())
        {
            return false;
        }
        self.begin_what_is_due(turn);
        self.work(turn)
    }

    fn hear(&mut self, turn: &mut LoopState, message: CheckpointMessage) {
        match message {
            CheckpointMessage::Task(BackgroundTask::Flush(changes, up_to)) => self.keeper.take(changes, up_to),
            // The grounds do these.
            CheckpointMessage::Task(_) => {}
            CheckpointMessage::Journal(behind, older_bytes) => {
                turn.segments_behind = behind;
                turn.older_bytes = older_bytes;
            }
            CheckpointMessage::Backup(asked) => turn.asked.push_back(asked),
            CheckpointMessage::BackupEnded(result) => self.backup_ended(turn, result),
            CheckpointMessage::Close { checkpoint } => turn.closing = Some(checkpoint),
        }
    }

    /// How long to wait for a message before the next step.
    fn patience(&self, turn: &LoopState) -> Duration {
        if turn.job.as_ref().is_some_and(|job| job.in_hand.is_some()) {
            return OFFER_AGAIN;
        }
        if turn.closing.is_some() || self.keeper.is_busy() {
            return Duration::ZERO;
        }
        let checkpoint = if self.keeper.is_behind() {
            self.interval.saturating_sub(turn.checkpoint_started.elapsed())
        } else {
            IDLE
        };
        let backup = turn.backup_due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
        checkpoint.min(backup).max(Duration::from_millis(1))
    }

    fn begin_what_is_due(&mut self, turn: &mut LoopState) {
        if self.keeper.is_busy() {
            return;
        }
        if turn.closing.is_none() && turn.job.is_none() {
            if let Some(asked) = turn.asked.pop_front() {
                self.begin_backup(turn, Some(asked));
                return;
            }
            if self.is_backup_due(turn) {
                self.begin_backup(turn, None);
                return;
            }
        }
        let due = turn.closing.is_some()
            || turn.checkpoint_started.elapsed() >= self.interval
            || self.keeper.pending() >= CHECKPOINT_RECORDS
            || turn.segments_behind >= CHECKPOINT_SEGMENTS;
        if due && self.keeper.is_behind() {
            turn.checkpoint_started = Instant::now();
            turn.segments_behind = 1;
            self.keeper.begin();
        }
    }

    fn is_backup_due(&self, turn: &mut LoopState) -> bool {
        let (Some(policy), Some(due)) = (self.policy, turn.backup_due) else { return false };
        let now = Instant::now();
        let wanted = now >= due || turn.older_bytes >= policy.journal_cap_bytes;
        if turn.not_before.is_some_and(|time| now < time) {
            return false;
        }
        if wanted && self.keeper.newest().seq <= turn.backed_up {
            turn.backup_due = Some(now + policy.interval);
            return self.is_backup_gone(turn);
        }
        wanted
    }

    /// Where nothing changed since, the newest backup covers everything still and is as good as new: if it is still there.
    fn is_backup_gone(&self, turn: &mut LoopState) -> bool {
        if turn.backed_up == CommitSeq(0) {
            return false;
        }
        let newest = directory::newest(&OsDirectory::new(self.folder.clone()), self.store, self.keeper.newest().seq);
        let is_there = newest.is_some_and(|(seq, _)| seq >= turn.backed_up);
        if is_there {
            self.shared.metrics.tell_backup(now_unix_s());
        } else {
            turn.backed_up = CommitSeq(0);
        }
        !is_there
    }

    /// Takes one step of what is under way; false when the store must stop.
    fn work(&mut self, turn: &mut LoopState) -> bool {
        if let Some(job) = &mut turn.job
            && let Some(chunk) = job.in_hand.take()
        {
            let ended = chunk.last;
            match job.scribe.as_ref().map(|scribe| scribe.try_send(chunk)) {
                Some(Ok(())) => {
                    job.taken = Instant::now();
                    if ended {
                        job.scribe = None;
                    }
                }
                Some(Err(TrySendError::Full(chunk))) if job.taken.elapsed() < STUCK => {
                    job.in_hand = Some(chunk);
                    return true;
                }
                Some(Err(TrySendError::Full(_))) => {
                    job.scribe = None;
                    self.keeper.abandon_backup();
                }
                // The scribe gave up; why, it tells by itself.
                Some(Err(TrySendError::Disconnected(_))) | None => self.keeper.abandon_backup(),
            }
        }
        match self.keeper.step() {
            Ok(Step::Idle | Step::More) => {}
            Ok(Step::Chunk { bytes, last }) => {
                if let Some(job) = &mut turn.job {
                    job.in_hand = Some(Chunk { bytes, last });
                }
            }
            Ok(Step::Finished(mark)) => {
                self.tell(CommitterEvent::Checkpointed(mark.seq, turn.checkpoint_started.elapsed()))
            }
            Err(CheckpointError::Corrupt(problem)) => {
                self.damaged(&problem);
                return false;
            }
            Err(CheckpointError::Io(problem)) => {
                self.tell(CommitterEvent::Failed(format!("a checkpoint failed: {problem}")));
                return false;
            }
        }
        true
    }

    /// sled does not hold what was written: nothing of it is believed any more, and the next start rebuilds it.
    fn damaged(&mut self, problem: &str) {
        // Without backups there may be nothing to rebuild it from, and the damage may pass: then the next start looks again.
        if self.policy.is_some()
            && let Err(error) = self.keeper.condemn(problem)
        {
            tracing::error!(event.action = "condemn-failed", error.message = %error, "the damaged state could not be marked");
        }
        self.tell(CommitterEvent::Failed(format!("the state is damaged: {problem}; a restart rebuilds it")));
    }

    fn begin_backup(&mut self, turn: &mut LoopState, asked: Option<BackupReply>) {
        let now = Instant::now();
        turn.checkpoint_started = now;
        turn.segments_behind = 1;
        if let (None, Some(policy)) = (&asked, self.policy) {
            turn.backup_due = Some(now + policy.interval);
        }
        let header = Header { store: self.store, mark: self.keeper.newest(), created_unix_s: now_unix_s() };
        let (scribe, chunks) = sync_channel(CHUNKS);
        let writing = BackupTask {
            disk: Arc::new(OsDirectory::new(self.folder.clone())),
            seq: header.mark.seq,
            min_free_bytes: self.min_free_bytes,
            store: self.store,
            keep: if asked.is_none() { self.policy.map(|policy| policy.keep) } else { None },
        };
        let own = self.own.clone();
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(|| writing.run(&chunks)));
            let result = result.unwrap_or_else(|_| Err("its thread panicked".to_owned()));
            let _ = own.send(CheckpointMessage::BackupEnded(result));
        };
        match thread::Builder::new().name("odometer-scribe".to_owned()).spawn(run) {
            Ok(_) => {
                turn.job = Some(RunningBackup { scribe: Some(scribe), in_hand: None, asked, started: now, taken: now });
                self.keeper.begin_backup(BackupEncoder::new(&header));
            }
            Err(error) => {
                turn.job = Some(RunningBackup { scribe: None, in_hand: None, asked, started: now, taken: now });
                self.backup_ended(turn, Err(format!("its thread can not be started: {error}")));
            }
        }
    }

    fn backup_ended(&mut self, turn: &mut LoopState, result: Result<(Option<File>, Summary), String>) {
        // After a job was given up its scribe still tells how it ended.
        let Some(job) = turn.job.take() else { return };
        self.keeper.abandon_backup();
        match (job.asked, result) {
            (Some(asked), Ok((Some(file), summary))) => drop(asked.send(Ok((file, summary)))),
            (Some(asked), Ok((None, _))) => drop(asked.send(Err("the backup has no file".to_owned()))),
            (Some(asked), Err(problem)) => drop(asked.send(Err(problem))),
            (None, Ok((_, summary))) => {
                turn.backed_up = summary.header.mark.seq;
                // What it covers is about to go; the committer tells of the rest.
                turn.older_bytes = 0;
                self.tell(CommitterEvent::BackedUp(turn.backed_up));
                self.shared.metrics.tell_backup(summary.header.created_unix_s);
                let took = u64::try_from(job.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
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
                turn.backup_due = Some(Instant::now() + TRY_AGAIN);
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

    fn tell(&self, tidings: CommitterEvent<OsFile>) {
        self.shared.queue.tell(CommitterMessage::Event(tidings));
    }
}
