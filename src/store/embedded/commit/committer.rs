//! The committer: decides every value, in order, and answers when it is durable. There is one, and it alone changes records.
//!
//! Job: each turn takes the requests that are there ([`Committer::decide`]), decides them on the records in memory (decide.rs), appends one frame
//! to the journal, and then, and only then, publishes and answers ([`Committer::finish_turn`]).
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
use crate::store::embedded::commit::apply::{decide, needs, replay, seen};
use crate::store::embedded::commit::command::{Command, CommandResult, Reply};
use crate::store::embedded::commit::queue::{QueuedCommand, Responder};
use crate::store::embedded::commit::working_set::{ReadSet, WorkingSet};
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition, RecordWrite};
use crate::store::embedded::journal::writer::{AppendError, Journal};
use crate::store::{StoreError, Unavailable};

/// Requests that may wait for records that are not in memory.
const MAX_PARKED: usize = 4096;
/// Changes that are kept before they are handed to the keeper together.
const HAND_OVER: usize = 2048;

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
    pub answers: Vec<(Responder, CommandResult)>,
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
    pub state: CommitSeq,
    /// Every commit up to this one is in a verified backup; the largest number where no backups are made.
    pub backup: CommitSeq,
}

/// See the module's text.
pub struct Committer<D: Directory> {
    journal: Journal<D>,
    desk: WorkingSet,
    parked: HashMap<RecordKey, Vec<(QueuedCommand, ReadSet)>>,
    parked_count: usize,
    decided: Vec<(Responder, CommandResult)>,
    hand_over: Vec<RecordWrite>,
    outbox: Vec<BackgroundTask>,
    closed_to_changes: Option<StoreError>,
    covered: CommitSeq,
    backed_up: CommitSeq,
    spare_requested: bool,
}

impl<D: Directory> Committer<D> {
    /// A committer that appends to `journal` and decides on `desk`. Segments are kept until state and backup cover them.
    pub fn new(journal: Journal<D>, desk: WorkingSet, covered: RetentionWatermarks) -> Self {
        Self {
            journal,
            desk,
            parked: HashMap::new(),
            parked_count: 0,
            decided: Vec::new(),
            hand_over: Vec::new(),
            outbox: Vec::new(),
            closed_to_changes: None,
            covered: covered.state,
            backed_up: covered.backup,
            spare_requested: false,
        }
    }

    /// Tells how long this process has run, in seconds: idempotency keys are forgotten by it.
    pub fn tick(&mut self, running_s: u64) {
        self.desk.remembered.tick(running_s);
    }

    /// How many idempotency keys are remembered.
    pub fn remembered(&self) -> usize {
        self.desk.remembered.len()
    }

    /// The journal, to look at.
    pub fn journal(&self) -> &Journal<D> {
        &self.journal
    }

    /// Segments that hold a commit which the state does not cover yet.
    pub fn segments_behind(&self) -> usize {
        self.journal.segments_behind(self.covered)
    }

    /// What the helpers are to do, in order; empty after the call.
    pub fn outbox(&mut self) -> std::vec::Drain<'_, BackgroundTask> {
        self.outbox.drain(..)
    }

    /// Takes what a helper has to tell.
    pub fn hear(&mut self, tidings: CommitterEvent<D::File>) -> EventEffect {
        match tidings {
            CommitterEvent::Loaded(key, record) => self.loaded(key, record),
            CommitterEvent::Checkpointed(covered, took) => return self.checkpointed(covered, took),
            CommitterEvent::BackedUp(mark) => {
                self.backed_up = self.backed_up.max(mark);
                self.release();
            }
            CommitterEvent::Spare(file) => {
                self.spare_requested = false;
                self.journal.give_spare(file);
            }
            CommitterEvent::DiskLow(low) => {
                return if self.disk_low(low) { EventEffect::DiskLow(low) } else { EventEffect::Nothing };
            }
            CommitterEvent::Failed(problem) => return self.poison(problem),
        }
        EventEffect::Nothing
    }

    fn checkpointed(&mut self, covered: CommitSeq, took: Duration) -> EventEffect {
        if self.is_poisoned() {
            return EventEffect::Nothing;
        }
        match self.journal.append_checkpoint(covered) {
            // Without room for the frame the next checkpoint says it again; what this one covers can go all the same, and makes room.
            Ok(_) | Err(AppendError::NoSpare) => {
                self.covered = self.covered.max(covered);
                EventEffect::Checkpointed(covered, took, self.release())
            }
            Err(AppendError::Failed(error)) => self.poison(format!("the journal could not be written: {error}")),
        }
    }

    /// Lets go of the segments that nobody needs any more; returns how many.
    fn release(&mut self) -> usize {
        let names = self.journal.release(self.covered.min(self.backed_up));
        let count = names.len();
        if count > 0 {
            self.outbox.push(BackgroundTask::Remove(names));
        }
        count
    }

    /// Returns whether it is of any consequence.
    fn disk_low(&mut self, low: bool) -> bool {
        if self.is_poisoned() {
            return false;
        }
        self.refuse_changes(low.then_some(StoreError::Unavailable(Unavailable::DiskLow)));
        true
    }

    fn is_poisoned(&self) -> bool {
        matches!(self.closed_to_changes, Some(StoreError::Poisoned))
    }

    /// Takes no change any more.
    pub fn poison(&mut self, problem: String) -> EventEffect {
        self.refuse_changes(Some(StoreError::Poisoned));
        EventEffect::Poisoned(problem)
    }

    /// Refuses every change from now on (`None`: takes them again). Loads go on.
    pub fn refuse_changes(&mut self, why: Option<StoreError>) {
        self.closed_to_changes = why;
    }

    /// Decides one request, or parks it. Its answer comes with the turn's end.
    pub fn decide(&mut self, work: QueuedCommand) {
        let seen = seen(&self.desk, &work.ask);
        let needs = needs(&work.ask, &seen);
        if let Some(missing) = self.desk.missing(&needs).cloned() {
            self.park(missing, work, needs);
            return;
        }
        let QueuedCommand { ask, ticket } = work;
        let outcome = match ask {
            Command::Load(key) => self.loaded_answer(&key),
            Command::List(listing) => {
                self.hand_over_all();
                self.outbox.push(BackgroundTask::List(listing, ticket));
                return;
            }
            // What was answered before is no change, and is answered also when no change is taken.
            ask => replay(&self.desk, &ask, &seen).unwrap_or_else(|| match &self.closed_to_changes {
                Some(why) => Err(why.clone()),
                None => decide(&mut self.desk, ask),
            }),
        };
        self.decided.push((ticket, outcome));
    }

    fn park(&mut self, missing: RecordKey, work: QueuedCommand, needs: ReadSet) {
        if self.parked_count >= MAX_PARKED {
            self.decided.push((work.ticket, Err(Unavailable::Overloaded.into())));
            return;
        }
        self.parked_count += 1;
        // What it needs stays once it is here: otherwise one record might go while another comes, for ever.
        needs.iter().flatten().for_each(|key| self.desk.residents.pin(key));
        let waiting = self.parked.entry(missing.clone()).or_default();
        if waiting.is_empty() {
            Self::flush_hand_over(&mut self.hand_over, &mut self.outbox, self.journal.last());
            self.outbox.push(BackgroundTask::Load(missing));
        }
        waiting.push((work, needs));
    }

    /// Takes a record that the keeper found, and decides what waited for it.
    fn loaded(&mut self, key: RecordKey, record: Result<Option<Record>, String>) {
        let waiting = self.parked.remove(&key).unwrap_or_default();
        self.parked_count -= waiting.len();
        for key in waiting.iter().flat_map(|(_, needs)| needs.iter().flatten()) {
            self.desk.residents.unpin(key);
        }
        let waiting = waiting.into_iter().map(|(work, _)| work);
        match record {
            Ok(record) => {
                self.desk.residents.install(key, record);
                waiting.for_each(|work| self.decide(work));
            }
            Err(problem) => {
                let problem: Arc<str> = problem.into();
                let damaged = |work: QueuedCommand| (work.ticket, Err(StoreError::Corrupt(Arc::clone(&problem))));
                self.decided.extend(waiting.map(damaged));
            }
        }
    }

    fn loaded_answer(&mut self, key: &RecordKey) -> CommandResult {
        let slot = self.desk.residents.get_mut(key).ok_or(StoreError::OutcomeUnknown)?;
        Ok(Reply::Loaded(slot.published()))
    }

    /// Makes what was decided durable, publishes it and returns the answers.
    ///
    /// # Errors
    /// What the system said when a write or a sync failed, beside the answers, all *outcome unknown*: the store is poisoned.
    pub fn finish_turn(&mut self) -> (CommitResult, Result<(), std::io::Error>) {
        let mut turn = CommitResult { answers: std::mem::take(&mut self.decided), ..CommitResult::default() };
        let desk = &mut self.desk;
        let (increments, integers) = (std::mem::take(&mut desk.increments), std::mem::take(&mut desk.integers));
        let mut result = Ok(());
        // What expires is no reason to write where no change is taken: after a failed write nothing may be, ever.
        if desk.seal(self.closed_to_changes.is_none()) {
            match self.journal.append(desk.changes()) {
                Ok(_) => {
                    turn.committed = true;
                    (turn.increments, turn.integers) = (increments, integers);
                    desk.publish(&mut self.hand_over);
                }
                Err(AppendError::NoSpare) => {
                    desk.roll_back();
                    turn.spoil(&StoreError::Unavailable(Unavailable::DiskLow));
                }
                Err(AppendError::Failed(error)) => {
                    desk.roll_back();
                    turn.spoil(&StoreError::OutcomeUnknown);
                    self.closed_to_changes = Some(StoreError::Poisoned);
                    result = Err(error);
                }
            }
        }
        if self.hand_over.len() >= HAND_OVER || (self.desk.residents.is_over() && !self.hand_over.is_empty()) {
            self.hand_over_all();
        }
        if self.desk.residents.is_over() {
            self.desk.residents.evict();
        }
        if self.journal.wants_spare() && !self.spare_requested && !self.is_poisoned() {
            self.spare_requested = true;
            self.outbox.push(BackgroundTask::MakeSpare);
        }
        (turn, result)
    }

    /// Gives the keeper everything that is durable and that it was not yet told of.
    pub fn hand_over_all(&mut self) {
        Self::flush_hand_over(&mut self.hand_over, &mut self.outbox, self.journal.last());
    }

    fn flush_hand_over(hand_over: &mut Vec<RecordWrite>, outbox: &mut Vec<BackgroundTask>, last: LogPosition) {
        if !hand_over.is_empty() {
            outbox.push(BackgroundTask::Flush(std::mem::take(hand_over), last));
        }
    }
}

impl CommitResult {
    /// Replaces every answer that speaks of this turn's changes.
    fn spoil(&mut self, error: &StoreError) {
        for (_, outcome) in &mut self.answers {
            if !matches!(outcome, Ok(Reply::Loaded(_))) {
                *outcome = Err(error.clone());
            }
        }
    }
}
