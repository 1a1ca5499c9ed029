//! The committer: the one thread's logic that applies every command, in order.
//!
//! Job: group commit. Each batch executes the commands that are queued ([`Committer::execute`]),
//! appends their changes as one frame to the journal, and after the `fdatasync` publishes the
//! changes to readers and sends the replies ([`Committer::commit_batch`]).
//!
//! ```text
//!   commands  A+1 A+1 B=9 C+1 (cache miss)            while a batch syncs, the next one gathers
//!   execute   A=5 A=6 B=9  └─ deferred until the checkpointer has loaded C
//!   append    one frame {A=6, B=9} ── write, fdatasync ──┐
//!   publish   A=6, B=9 visible to readers               ◄┘
//!   reply     5, 6, 9
//! ```
//! Invariant: what is replied or published is in the journal and synced. A frame holds the whole
//! new records, so their order in it does not matter, and a counter that was incremented a hundred
//! times is in it once.
//! Must never: reply before the sync, apply a command to a record that is not the newest, or
//! continue after a failed sync. It starts no thread, reads no clock and knows no async runtime, so
//! that the simulation can drive it step by step.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::failpoint::failpoint;
use crate::store::embedded::codec::key::{IndexScan, RecordKey};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::apply::{Plan, apply, apply_counter, plan, replay};
use crate::store::embedded::commit::command::{Command, CommandResult, Reply};
use crate::store::embedded::commit::queue::{QueuedCommand, Responder, send_replies};
use crate::store::embedded::commit::working_set::{ReadSet, WorkingSet};
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition, RecordWrite};
use crate::store::embedded::journal::writer::{AppendError, Journal};
use crate::store::{StoreError, Unavailable};

/// The largest number of commands that are deferred by cache misses.
const MAX_DEFERRED: usize = 4096;
/// The number of durable changes at which they are staged.
const STAGE_THRESHOLD: usize = 2048;

/// A task for a background thread. The caller must pass tasks on in this order: changes before a
/// load, so that the load sees them.
#[derive(Debug)]
pub enum BackgroundTask {
    /// Checkpointer: stage these durable changes, which are complete up to the position.
    Stage(Vec<RecordWrite>, LogPosition),
    /// Checkpointer: load a record and return it by [`CommitterEvent::Loaded`].
    Load(RecordKey),
    /// Checkpointer: scan an index and reply to the client.
    List(IndexScan, Responder),
    /// Segment allocator: preallocate the next segment.
    MakeSpare,
    /// Segment allocator: remove these retired segments, in this order.
    Remove(Vec<String>),
}

/// An event from a background thread.
#[derive(Debug)]
pub enum CommitterEvent<F> {
    /// The record of a cache miss; `None` if there is none. The error is one sentence.
    Loaded(RecordKey, Result<Option<Record>, String>),
    /// A checkpoint up to this commit is finished; its duration.
    Checkpointed(CommitSeq, Duration),
    /// A verified backup holds every commit up to this one.
    BackedUp(CommitSeq),
    /// The preallocated next segment.
    Spare(F),
    /// Whether disk space is low: free space is below the reserve, or the next segment could not be
    /// allocated.
    DiskLow(bool),
    /// A background thread failed; the problem in one sentence.
    Failed(String),
}

/// The effect of an event, for logging and metrics.
#[derive(Debug)]
pub enum EventEffect {
    /// Nothing to report.
    Nothing,
    /// A checkpoint up to this commit is recorded; its duration, and the number of segments that
    /// were retired.
    Checkpointed(CommitSeq, Duration, usize),
    /// The store became read-only because of low disk space, or writable again.
    DiskLow(bool),
    /// The store is poisoned; the problem in one sentence.
    Poisoned(String),
}

/// The result of one group commit.
#[derive(Debug, Default)]
pub struct CommitResult {
    /// The replies to send.
    pub replies: Vec<(Responder, CommandResult)>,
    /// Whether a frame was committed.
    pub committed: bool,
    /// The number of committed increments.
    pub increments: u64,
    /// The number of integers that they issued.
    pub integers: u64,
}

/// Positions that recovery found: a segment is retired when both are past its last commit.
#[derive(Clone, Copy, Debug)]
pub struct RetentionWatermarks {
    /// Every commit up to this one is in the state.
    pub checkpointed: CommitSeq,
    /// Every commit up to this one is in a verified backup; the largest number if no backups are
    /// made.
    pub backed_up: CommitSeq,
}

/// The committer.
pub struct Committer<D: Directory> {
    journal: Journal<D>,
    working_set: WorkingSet,
    /// Deferred commands and their read sets, by the key whose record is being loaded.
    deferred: HashMap<RecordKey, Vec<(QueuedCommand, ReadSet)>>,
    deferred_count: usize,
    /// Replies that wait for the sync of this batch.
    pending_replies: Vec<(Responder, CommandResult)>,
    /// Durable changes that are not staged yet: the checkpointer's memtable does not have them.
    unstaged: Vec<RecordWrite>,
    pending_tasks: Vec<BackgroundTask>,
    /// The error for changes while the store is read-only.
    read_only: Option<StoreError>,
    checkpointed_seq: CommitSeq,
    backed_up_seq: CommitSeq,
    spare_requested: bool,
}

impl<D: Directory> Committer<D> {
    /// A committer that appends to `journal` and applies commands to `working_set`.
    pub fn new(
        journal: Journal<D>,
        working_set: WorkingSet,
        watermarks: RetentionWatermarks,
    ) -> Self {
        Self {
            journal,
            working_set,
            deferred: HashMap::new(),
            deferred_count: 0,
            pending_replies: Vec::new(),
            unstaged: Vec::new(),
            pending_tasks: Vec::new(),
            read_only: None,
            checkpointed_seq: watermarks.checkpointed,
            backed_up_seq: watermarks.backed_up,
            spare_requested: false,
        }
    }

    /// Sets how long this process has run, in seconds: idempotency keys expire by it.
    pub fn set_uptime(&mut self, running_s: u64) {
        self.working_set.idempotency.set_uptime(running_s);
    }

    /// The number of stored idempotency keys.
    pub fn idempotency_keys(&self) -> usize {
        self.working_set.idempotency.count()
    }

    /// The journal, read-only.
    pub fn journal(&self) -> &Journal<D> {
        &self.journal
    }

    /// The number of segments with a commit that is not in the state yet.
    pub fn uncheckpointed_segments(&self) -> usize {
        self.journal.segments_after(self.checkpointed_seq)
    }

    /// Takes the tasks for the background threads, in order.
    pub fn pending_tasks(&mut self) -> std::vec::Drain<'_, BackgroundTask> {
        self.pending_tasks.drain(..)
    }

    /// Applies an event from a background thread.
    pub fn on_event(&mut self, event: CommitterEvent<D::File>) -> EventEffect {
        match event {
            CommitterEvent::Loaded(key, record) => self.on_loaded(key, record),
            CommitterEvent::Checkpointed(seq, took) => return self.on_checkpointed(seq, took),
            CommitterEvent::BackedUp(seq) => {
                self.backed_up_seq = self.backed_up_seq.max(seq);
                self.retire_segments();
            }
            CommitterEvent::Spare(file) => {
                self.spare_requested = false;
                self.journal.set_spare(file);
            }
            CommitterEvent::DiskLow(low) => return self.on_disk_low(low),
            CommitterEvent::Failed(problem) => return self.poison(problem),
        }
        EventEffect::Nothing
    }

    fn on_checkpointed(&mut self, seq: CommitSeq, took: Duration) -> EventEffect {
        if self.is_poisoned() && !failpoint!("checkpoint-recorded-by-a-poisoned-store") {
            return EventEffect::Nothing;
        }
        match self.journal.append_checkpoint(seq) {
            // If the frame does not fit, the next checkpoint records it. The segments that this
            // checkpoint makes obsolete can be removed all the same, which frees disk space.
            Ok(_) | Err(AppendError::NoSpare) => {
                self.checkpointed_seq = self.checkpointed_seq.max(seq);
                EventEffect::Checkpointed(seq, took, self.retire_segments())
            }
            Err(AppendError::Failed(error)) => {
                self.poison(format!("the journal could not be written: {error}"))
            }
        }
    }

    /// Retires the segments whose commits are in the state and in a backup; returns their number.
    fn retire_segments(&mut self) -> usize {
        let mut through = self.checkpointed_seq.min(self.backed_up_seq);
        if failpoint!("segment-removed-without-a-backup") {
            through = self.checkpointed_seq;
        }
        if failpoint!("segment-removed-without-a-checkpoint") {
            through = self.backed_up_seq;
        }
        let names = self.journal.retire_through(through);
        let count = names.len();
        if count > 0 {
            self.pending_tasks.push(BackgroundTask::Remove(names));
        }
        count
    }

    fn on_disk_low(&mut self, low: bool) -> EventEffect {
        if self.is_poisoned() {
            return EventEffect::Nothing;
        }
        self.set_read_only(low.then_some(StoreError::Unavailable(Unavailable::DiskLow)));
        EventEffect::DiskLow(low)
    }

    fn is_poisoned(&self) -> bool {
        matches!(self.read_only, Some(StoreError::Poisoned))
    }

    /// Poisons the store: it stays read-only until the process ends.
    pub fn poison(&mut self, problem: String) -> EventEffect {
        self.set_read_only(Some(StoreError::Poisoned));
        EventEffect::Poisoned(problem)
    }

    /// Rejects every change with this error from now on; `None`: accepts changes again. Reads are
    /// not affected.
    pub fn set_read_only(&mut self, error: Option<StoreError>) {
        self.read_only = error;
    }

    /// Applies a command, or defers it on a cache miss. Its reply is sent after the commit.
    pub fn execute(&mut self, queued: QueuedCommand) {
        let Plan { lookup, read_set } = plan(&self.working_set, &queued.command);
        if let Some(missing) = self.working_set.first_missing(&read_set).cloned() {
            self.defer(missing, queued, read_set);
            return;
        }
        let QueuedCommand { command, responder } = queued;
        let result = match command {
            Command::Load(key) => self.load_reply(&key),
            Command::List(scan) => {
                self.stage();
                self.pending_tasks.push(BackgroundTask::List(scan, responder));
                return;
            }
            // A replayed reply changes nothing, so it is given also while the store is read-only.
            command => replay(&self.working_set, &command, &lookup).unwrap_or_else(|| match &self
                .read_only
            {
                Some(error) => Err(error.clone()),
                None => apply(&mut self.working_set, command),
            }),
        };
        if failpoint!("reply-before-its-commit") {
            return send_replies(vec![(responder, result)]);
        }
        self.pending_replies.push((responder, result));
    }

    fn defer(&mut self, missing: RecordKey, queued: QueuedCommand, read_set: ReadSet) {
        if self.deferred_count >= MAX_DEFERRED {
            self.pending_replies.push((queued.responder, Err(Unavailable::Overloaded.into())));
            return;
        }
        self.deferred_count += 1;
        // The whole read set is pinned; otherwise two records could evict each other forever.
        read_set.iter().flatten().for_each(|key| self.working_set.cache.pin(key));
        if !self.deferred.contains_key(&missing) {
            // The load must see every change that is durable.
            self.stage();
            self.pending_tasks.push(BackgroundTask::Load(missing.clone()));
        }
        self.deferred.entry(missing).or_default().push((queued, read_set));
    }

    /// Caches a loaded record and executes the commands that were deferred for it.
    fn on_loaded(&mut self, key: RecordKey, record: Result<Option<Record>, String>) {
        let waiting = self.deferred.remove(&key).unwrap_or_default();
        self.deferred_count -= waiting.len();
        for key in waiting.iter().flat_map(|(_, read_set)| read_set.iter().flatten()) {
            self.working_set.cache.unpin(key);
        }
        let waiting = waiting.into_iter().map(|(queued, _)| queued);
        match record {
            Ok(record) => {
                self.working_set.cache.insert(key, record);
                // A deferred command is executed anew from the start. Other commands ran in the
                // meantime: one may have stored a result under the same idempotency key, which
                // changes the read set, and another record of the read set may still be missing.
                waiting.for_each(|queued| {
                    if failpoint!("deferred-command-executed-twice")
                        && let Command::Counter(command) = &queued.command
                    {
                        drop(apply_counter(&mut self.working_set, command));
                    }
                    self.execute(queued);
                });
            }
            Err(problem) => {
                let problem: Arc<str> = problem.into();
                for queued in waiting {
                    let error = StoreError::Corrupt(Arc::clone(&problem));
                    self.pending_replies.push((queued.responder, Err(error)));
                }
            }
        }
    }

    fn load_reply(&mut self, key: &RecordKey) -> CommandResult {
        let entry = self.working_set.cache.get_mut(key).ok_or(StoreError::OutcomeUnknown)?;
        Ok(Reply::Loaded(entry.committed()))
    }

    /// Makes the batch durable, publishes its changes and returns the replies.
    ///
    /// # Errors
    /// The I/O error of a failed write or sync. The replies to changes are then *outcome unknown*,
    /// and the store is poisoned.
    pub fn commit_batch(&mut self) -> (CommitResult, Result<(), std::io::Error>) {
        let replies = std::mem::take(&mut self.pending_replies);
        let mut commit = CommitResult { replies, ..CommitResult::default() };
        let working_set = &mut self.working_set;
        let increments = std::mem::take(&mut working_set.increments);
        let integers = std::mem::take(&mut working_set.integers);
        let mut result = Ok(());
        if failpoint!("increments-counted-before-commit") {
            (commit.increments, commit.integers) = (increments, integers);
        }
        // While the store is read-only, idempotency keys do not expire: after a failed write
        // nothing must be written again, not even a removal.
        let expire = self.read_only.is_none() || failpoint!("page-removed-by-a-read-only-store");
        if working_set.stage_idempotency(expire) {
            match self.journal.append(working_set.changes()) {
                Ok(_) => {
                    commit.committed = true;
                    (commit.increments, commit.integers) = (increments, integers);
                    working_set.publish(&mut self.unstaged);
                }
                Err(AppendError::NoSpare) => {
                    working_set.roll_back();
                    if failpoint!("refused-increments-counted-later") {
                        (working_set.increments, working_set.integers) = (increments, integers);
                    }
                    commit.fail_all(&StoreError::Unavailable(Unavailable::DiskLow));
                }
                Err(AppendError::Failed(error)) => {
                    working_set.roll_back();
                    commit.fail_all(&StoreError::OutcomeUnknown);
                    self.read_only = Some(StoreError::Poisoned);
                    result = Err(error);
                }
            }
        }
        self.after_commit();
        (commit, result)
    }

    /// Stages, evicts and requests a spare segment, where that is due.
    fn after_commit(&mut self) {
        let is_over_capacity = self.working_set.cache.is_over_capacity();
        // A record may be evicted only after the checkpointer has its newest version.
        if self.unstaged.len() >= STAGE_THRESHOLD || is_over_capacity {
            self.stage();
        }
        if is_over_capacity {
            self.working_set.cache.evict();
        }
        if self.journal.needs_spare() && !self.spare_requested && !self.is_poisoned() {
            self.spare_requested = true;
            self.pending_tasks.push(BackgroundTask::MakeSpare);
        }
    }

    /// Stages every durable change that is not staged yet: hands it to the checkpointer's memtable.
    pub fn stage(&mut self) {
        if !self.unstaged.is_empty() {
            let changes = std::mem::take(&mut self.unstaged);
            self.pending_tasks.push(BackgroundTask::Stage(changes, self.journal.last()));
        }
    }
}

impl CommitResult {
    /// Replaces every reply that depends on the changes of this batch. Refusals are among them,
    /// because they may be due to a change that was discarded.
    fn fail_all(&mut self, error: &StoreError) {
        for (_, result) in &mut self.replies {
            let is_replay = matches!(result, Ok(Reply::Issued(applied)) if applied.replayed);
            let stays = is_replay && failpoint!("replay-answered-by-a-failed-commit");
            if !stays && !matches!(result, Ok(Reply::Loaded(_))) {
                *result = Err(error.clone());
            }
        }
    }
}
