//! The committer: decides every value, in order, and answers when it is durable. There is one, and it alone changes records.
//!
//! Job: each turn takes the requests that are there ([`Committer::execute`]), decides them on the records in memory (decide.rs), appends one frame
//! to the journal, and then, and only then, publishes and answers ([`Committer::commit_batch`]).
//!
//! ```text
//!   requests: A+1 A+1 B=9 C+1(cold)                          while this turn syncs, the next requests gather
//!   decide    A=5 A=6 B=9  └─ parked until the keeper has found C
//!   append    one frame {A=6, B=9} ── write, fdatasync ──┐
//!   publish   A=6, B=9 visible to readers                ◄┘
//!   answer    5, 6, 9
//! ```
//! Invariant: what is answered or published is in the journal and synced. A frame holds absolute values, so the order within it does
//! not matter and a counter that was incremented a hundred times is in it once.
//! Must never: answer before the sync, decide on a record that is not the newest, or go on after a failed sync.
//! It starts no thread, reads no clock and knows no runtime, so that a simulation can drive it step by step.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::store::embedded::codec::key::{IndexScan, RecordKey};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::apply::{apply, lookup_idempotency, read_set, replay};
use crate::store::embedded::commit::command::{Command, CommandResult, Reply};
use crate::store::embedded::commit::queue::{QueuedCommand, Responder};
use crate::store::embedded::commit::working_set::{ReadSet, WorkingSet};
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition, RecordWrite};
use crate::store::embedded::journal::writer::{AppendError, Journal};
use crate::store::{StoreError, Unavailable};

/// Requests that may wait for records that are not in memory.
const MAX_DEFERRED: usize = 4096;
/// Changes that are kept before they are handed to the keeper together.
const FLUSH_THRESHOLD: usize = 2048;

/// What the committer's helpers are asked, in this order: changes before a load, so that the load sees them.
#[derive(Debug)]
pub enum BackgroundTask {
    /// The keeper: durable changes, complete up to a commit.
    Flush(Vec<RecordWrite>, LogPosition),
    /// The keeper: find a record and tell.
    Load(RecordKey),
    /// The keeper: list, and answer by itself.
    List(IndexScan, Responder),
    /// The grounds: make the next segment.
    MakeSpare,
    /// The grounds: remove these segments, in this order.
    Remove(Vec<String>),
}

/// What its helpers tell the committer.
#[derive(Debug)]
pub enum CommitterEvent<F> {
    /// The keeper found this.
    Loaded(RecordKey, Result<Option<Record>, String>),
    /// The state covers every commit up to here; it took so long.
    Checkpointed(CommitSeq, Duration),
    /// A verified backup holds every commit up to here.
    BackedUp(CommitSeq),
    /// The next segment.
    Spare(F),
    /// Whether there is too little room: less than the reserve, or none for the next segment.
    DiskLow(bool),
    /// A helper failed.
    Failed(String),
}

/// What became of tidings, for whoever logs and measures.
#[derive(Debug)]
pub enum EventEffect {
    /// Nothing to tell.
    Nothing,
    /// A checkpoint is noted in the journal; so many segments go.
    Checkpointed(CommitSeq, Duration, usize),
    /// Changes are refused for want of room, or taken again.
    DiskLow(bool),
    /// The store is poisoned by this.
    Poisoned(String),
}

/// What a turn did.
#[derive(Debug, Default)]
pub struct CommitResult {
    /// Answers to hand out.
    pub replies: Vec<(Responder, CommandResult)>,
    /// Whether a frame was committed.
    pub committed: bool,
    /// Increments among the answers that were committed.
    pub increments: u64,
    /// Integers that they issued.
    pub integers: u64,
}

/// What a committer goes on from.
#[derive(Clone, Copy, Debug)]
pub struct RetentionWatermarks {
    /// Every commit up to this one is in the state.
    pub checkpointed: CommitSeq,
    /// Every commit up to this one is in a verified backup; the largest number where no backups are made.
    pub backed_up: CommitSeq,
}

/// See the module's text.
pub struct Committer<D: Directory> {
    journal: Journal<D>,
    working_set: WorkingSet,
    deferred: HashMap<RecordKey, Vec<(QueuedCommand, ReadSet)>>,
    deferred_count: usize,
    pending_replies: Vec<(Responder, CommandResult)>,
    unflushed: Vec<RecordWrite>,
    pending_tasks: Vec<BackgroundTask>,
    read_only: Option<StoreError>,
    checkpointed_seq: CommitSeq,
    backed_up_seq: CommitSeq,
    spare_requested: bool,
}

impl<D: Directory> Committer<D> {
    /// A committer that appends to `journal` and decides on `working_set`. Segments are kept until state and backup cover them.
    pub fn new(journal: Journal<D>, working_set: WorkingSet, checkpointed_seq: RetentionWatermarks) -> Self {
        Self {
            journal,
            working_set,
            deferred: HashMap::new(),
            deferred_count: 0,
            pending_replies: Vec::new(),
            unflushed: Vec::new(),
            pending_tasks: Vec::new(),
            read_only: None,
            checkpointed_seq: checkpointed_seq.checkpointed,
            backed_up_seq: checkpointed_seq.backed_up,
            spare_requested: false,
        }
    }

    /// Tells how long this process has run, in seconds: idempotency keys are forgotten by it.
    pub fn set_uptime(&mut self, running_s: u64) {
        self.working_set.idempotency.set_uptime(running_s);
    }

    /// How many idempotency keys are remembered.
    pub fn idempotency_len(&self) -> usize {
        self.working_set.idempotency.len()
    }

    /// The journal, to look at.
    pub fn journal(&self) -> &Journal<D> {
        &self.journal
    }

    /// Segments that hold a commit which the state does not cover yet.
    pub fn uncheckpointed_segments(&self) -> usize {
        self.journal.segments_after(self.checkpointed_seq)
    }

    /// What the helpers are to do, in order; empty after the call.
    pub fn pending_tasks(&mut self) -> std::vec::Drain<'_, BackgroundTask> {
        self.pending_tasks.drain(..)
    }

    /// Takes what a helper has to tell.
    pub fn on_event(&mut self, event: CommitterEvent<D::File>) -> EventEffect {
        match event {
            CommitterEvent::Loaded(key, record) => self.on_loaded(key, record),
            CommitterEvent::Checkpointed(checkpointed_seq, took) => {
                return self.on_checkpointed(checkpointed_seq, took);
            }
            CommitterEvent::BackedUp(mark) => {
                self.backed_up_seq = self.backed_up_seq.max(mark);
                self.retire_segments();
            }
            CommitterEvent::Spare(file) => {
                self.spare_requested = false;
                self.journal.set_spare(file);
            }
            CommitterEvent::DiskLow(low) => {
                return if self.on_disk_low(low) { EventEffect::DiskLow(low) } else { EventEffect::Nothing };
            }
            CommitterEvent::Failed(problem) => return self.poison(problem),
        }
        EventEffect::Nothing
    }

    fn on_checkpointed(&mut self, checkpointed_seq: CommitSeq, took: Duration) -> EventEffect {
        if self.is_poisoned() {
            return EventEffect::Nothing;
        }
        match self.journal.append_checkpoint(checkpointed_seq) {
            // Without room for the frame the next checkpoint says it again; what this one covers can go all the same, and makes room.
            Ok(_) | Err(AppendError::NoSpare) => {
                self.checkpointed_seq = self.checkpointed_seq.max(checkpointed_seq);
                EventEffect::Checkpointed(checkpointed_seq, took, self.retire_segments())
            }
            Err(AppendError::Failed(error)) => self.poison(format!("the journal could not be written: {error}")),
        }
    }

    /// Lets go of the segments that nobody needs any more; returns how many.
    fn retire_segments(&mut self) -> usize {
        let names = self.journal.retire_through(self.checkpointed_seq.min(self.backed_up_seq));
        let count = names.len();
        if count > 0 {
            self.pending_tasks.push(BackgroundTask::Remove(names));
        }
        count
    }

    /// Returns whether it is of any consequence.
    fn on_disk_low(&mut self, low: bool) -> bool {
        if self.is_poisoned() {
            return false;
        }
        self.set_read_only(low.then_some(StoreError::Unavailable(Unavailable::DiskLow)));
        true
    }

    fn is_poisoned(&self) -> bool {
        matches!(self.read_only, Some(StoreError::Poisoned))
    }

    /// Takes no change any more.
    pub fn poison(&mut self, problem: String) -> EventEffect {
        self.set_read_only(Some(StoreError::Poisoned));
        EventEffect::Poisoned(problem)
    }

    /// Refuses every change from now on (`None`: takes them again). Loads go on.
    pub fn set_read_only(&mut self, why: Option<StoreError>) {
        self.read_only = why;
    }

    /// Decides one request, or parks it. Its answer comes with the turn's end.
    pub fn execute(&mut self, queued: QueuedCommand) {
        let lookup = lookup_idempotency(&self.working_set, &queued.command);
        let read_set = read_set(&queued.command, &lookup);
        if let Some(missing) = self.working_set.first_missing(&read_set).cloned() {
            self.defer(missing, queued, read_set);
            return;
        }
        let QueuedCommand { command, responder } = queued;
        let outcome = match command {
            Command::Load(key) => self.load_reply(&key),
            Command::List(listing) => {
                self.flush();
                self.pending_tasks.push(BackgroundTask::List(listing, responder));
                return;
            }
            // What was answered before is no change, and is answered also when no change is taken.
            command => replay(&self.working_set, &command, &lookup).unwrap_or_else(|| match &self.read_only {
                Some(why) => Err(why.clone()),
                None => apply(&mut self.working_set, command),
            }),
        };
        self.pending_replies.push((responder, outcome));
    }

    fn defer(&mut self, missing: RecordKey, queued: QueuedCommand, read_set: ReadSet) {
        if self.deferred_count >= MAX_DEFERRED {
            self.pending_replies.push((queued.responder, Err(Unavailable::Overloaded.into())));
            return;
        }
        self.deferred_count += 1;
        // What it needs stays once it is here: otherwise one record might go while another comes, for ever.
        read_set.iter().flatten().for_each(|key| self.working_set.cache.pin(key));
        let waiting = self.deferred.entry(missing.clone()).or_default();
        if waiting.is_empty() {
            Self::flush_into(&mut self.unflushed, &mut self.pending_tasks, self.journal.last());
            self.pending_tasks.push(BackgroundTask::Load(missing));
        }
        waiting.push((queued, read_set));
    }

    /// Takes a record that the keeper found, and decides what waited for it.
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
                waiting.for_each(|queued| self.execute(queued));
            }
            Err(problem) => {
                let problem: Arc<str> = problem.into();
                let damaged =
                    |queued: QueuedCommand| (queued.responder, Err(StoreError::Corrupt(Arc::clone(&problem))));
                self.pending_replies.extend(waiting.map(damaged));
            }
        }
    }

    fn load_reply(&mut self, key: &RecordKey) -> CommandResult {
        let entry = self.working_set.cache.get_mut(key).ok_or(StoreError::OutcomeUnknown)?;
        Ok(Reply::Loaded(entry.published()))
    }

    /// Makes what was decided durable, publishes it and returns the answers.
    ///
    /// # Errors
    /// What the system said when a write or a sync failed, beside the answers, all *outcome unknown*: the store is poisoned.
    pub fn commit_batch(&mut self) -> (CommitResult, Result<(), std::io::Error>) {
        let mut commit = CommitResult { replies: std::mem::take(&mut self.pending_replies), ..CommitResult::default() };
        let working_set = &mut self.working_set;
        let (increments, integers) =
            (std::mem::take(&mut working_set.increments), std::mem::take(&mut working_set.integers));
        let mut result = Ok(());
        // What expires is no reason to write where no change is taken: after a failed write nothing may be, ever.
        if working_set.stage_idempotency(self.read_only.is_none()) {
            match self.journal.append(working_set.changes()) {
                Ok(_) => {
                    commit.committed = true;
                    (commit.increments, commit.integers) = (increments, integers);
                    working_set.publish(&mut self.unflushed);
                }
                Err(AppendError::NoSpare) => {
                    working_set.roll_back();
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
        if self.unflushed.len() >= FLUSH_THRESHOLD
            || (self.working_set.cache.is_over_capacity() && !self.unflushed.is_empty())
        {
            self.flush();
        }
        if self.working_set.cache.is_over_capacity() {
            self.working_set.cache.evict();
        }
        if self.journal.needs_spare() && !self.spare_requested && !self.is_poisoned() {
            self.spare_requested = true;
            self.pending_tasks.push(BackgroundTask::MakeSpare);
        }
        (commit, result)
    }

    /// Gives the keeper everything that is durable and that it was not yet told of.
    pub fn flush(&mut self) {
        Self::flush_into(&mut self.unflushed, &mut self.pending_tasks, self.journal.last());
    }

    fn flush_into(unflushed: &mut Vec<RecordWrite>, pending_tasks: &mut Vec<BackgroundTask>, last: LogPosition) {
        if !unflushed.is_empty() {
            pending_tasks.push(BackgroundTask::Flush(std::mem::take(unflushed), last));
        }
    }
}

impl CommitResult {
    /// Replaces every answer that speaks of this turn's changes.
    fn fail_all(&mut self, error: &StoreError) {
        for (_, outcome) in &mut self.replies {
            if !matches!(outcome, Ok(Reply::Loaded(_))) {
                *outcome = Err(error.clone());
            }
        }
    }
}
