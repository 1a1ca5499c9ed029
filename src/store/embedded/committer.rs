//! The committer: decides every value, in order, and answers when it is durable. There is one, and it alone changes records.
//!
//! Job: each turn takes the requests that are there ([`Committer::decide`]), decides them on the records in memory, appends one frame to the
//! journal, and then, and only then, publishes and answers ([`Committer::finish_turn`]).
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

use super::disk::Disk;
use super::frame::{Change, CommitSeq, Mark};
use super::journal::{AppendError, Journal};
use super::queue::{Answer, Ask, Outcome, Ticket, Work};
use super::record::{Key, Record, TenantRecord};
use super::resident::{Residents, Slot};
use crate::counter::{Counter, CounterRefusal};
use crate::store::{NewTenant, Refusal, StoreError, Unavailable};
use crate::tenant::TenantId;

/// Requests that may wait for records that are not in memory.
const MAX_PARKED: usize = 4096;
/// Changes that are kept before they are handed to the keeper together.
const HAND_OVER: usize = 2048;

/// What the committer's helpers are asked, in this order: changes before a load, so that the load sees them.
#[derive(Debug)]
pub enum Order {
    /// The keeper: durable changes, complete up to a commit.
    Changes(Vec<Change>, Mark),
    /// The keeper: find a record and tell.
    Load(Key),
    /// The grounds: make the next segment.
    MakeSpare,
    /// The grounds: remove these segments, in this order.
    Remove(Vec<String>),
}

/// What its helpers tell the committer.
#[derive(Debug)]
pub enum Tidings<F> {
    /// The keeper found this.
    Loaded(Key, Result<Option<Record>, String>),
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
pub enum Noted {
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
pub struct Turn {
    /// Answers to hand out.
    pub answers: Vec<(Ticket, Outcome)>,
    /// Whether a frame was committed.
    pub committed: bool,
    /// Increments among the answers that were committed.
    pub increments: u64,
    /// Integers that they issued.
    pub integers: u64,
}

/// See the module's text.
pub struct Committer<D: Disk> {
    journal: Journal<D>,
    residents: Residents,
    parked: HashMap<Key, Vec<Work>>,
    parked_count: usize,
    touched: Vec<Key>,
    decided: Vec<(Ticket, Outcome)>,
    increments: u64,
    integers: u64,
    hand_over: Vec<Change>,
    outbox: Vec<Order>,
    closed_to_changes: Option<StoreError>,
    covered: CommitSeq,
    backed_up: CommitSeq,
    spare_requested: bool,
}

impl<D: Disk> Committer<D> {
    /// A committer that appends to `journal` and remembers in `residents`. Segments are kept until state and backup cover them; where no
    /// backups are made, `backed_up` is the largest number.
    pub fn new(journal: Journal<D>, residents: Residents, covered: CommitSeq, backed_up: CommitSeq) -> Self {
        Self {
            journal,
            residents,
            parked: HashMap::new(),
            parked_count: 0,
            touched: Vec::new(),
            decided: Vec::new(),
            increments: 0,
            integers: 0,
            hand_over: Vec::new(),
            outbox: Vec::new(),
            closed_to_changes: None,
            covered,
            backed_up,
            spare_requested: false,
        }
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
    pub fn outbox(&mut self) -> std::vec::Drain<'_, Order> {
        self.outbox.drain(..)
    }

    /// Takes what a helper has to tell.
    pub fn hear(&mut self, tidings: Tidings<D::File>) -> Noted {
        match tidings {
            Tidings::Loaded(key, record) => self.loaded(key, record),
            Tidings::Checkpointed(covered, took) => return self.checkpointed(covered, took),
            Tidings::BackedUp(mark) => {
                self.backed_up = self.backed_up.max(mark);
                self.release();
            }
            Tidings::Spare(file) => {
                self.spare_requested = false;
                self.journal.give_spare(file);
            }
            Tidings::DiskLow(low) => return if self.disk_low(low) { Noted::DiskLow(low) } else { Noted::Nothing },
            Tidings::Failed(problem) => return self.poison(problem),
        }
        Noted::Nothing
    }

    fn checkpointed(&mut self, covered: CommitSeq, took: Duration) -> Noted {
        if self.is_poisoned() {
            return Noted::Nothing;
        }
        match self.journal.append_checkpoint(covered) {
            // Without room for the frame the next checkpoint says it again; what this one covers can go all the same, and makes room.
            Ok(_) | Err(AppendError::NoSpare) => {
                self.covered = self.covered.max(covered);
                Noted::Checkpointed(covered, took, self.release())
            }
            Err(AppendError::Failed(error)) => self.poison(format!("the journal could not be written: {error}")),
        }
    }

    /// Lets go of the segments that nobody needs any more; returns how many.
    fn release(&mut self) -> usize {
        let names = self.journal.release(self.covered.min(self.backed_up));
        let count = names.len();
        if count > 0 {
            self.outbox.push(Order::Remove(names));
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
    pub fn poison(&mut self, problem: String) -> Noted {
        self.refuse_changes(Some(StoreError::Poisoned));
        Noted::Poisoned(problem)
    }

    /// Refuses every change from now on (`None`: takes them again). Loads go on.
    pub fn refuse_changes(&mut self, why: Option<StoreError>) {
        self.closed_to_changes = why;
    }

    /// Decides one request, or parks it. Its answer comes with the turn's end.
    pub fn decide(&mut self, work: Work) {
        if let Some(missing) = self.missing(&work.ask) {
            self.park(missing, work);
            return;
        }
        let Work { ask, ticket } = work;
        let outcome = match (&self.closed_to_changes, ask) {
            (_, Ask::Load(key)) => self.loaded_answer(&key),
            (Some(why), _) => Err(why.clone()),
            (None, Ask::Advance { tenant, name, count }) => {
                let range = self.change_counter(Key::Counter(tenant, name), |counter| counter.advance(count));
                if range.is_ok() {
                    self.increments += 1;
                    self.integers += u64::from(count);
                }
                range.map(Answer::Range)
            }
            (None, Ask::Set { tenant, name, value }) => {
                self.change_counter(Key::Counter(tenant, name), |counter| counter.set(value)).map(Answer::Value)
            }
            (None, Ask::Register(tenant)) => self.register(*tenant).map(Answer::Tenant),
        };
        self.decided.push((ticket, outcome));
    }

    /// The first record that a decision needs and that is not in memory.
    fn missing(&self, ask: &Ask) -> Option<Key> {
        let absent = |key: Key| (!self.residents.contains(&key)).then_some(key);
        match ask {
            Ask::Advance { tenant, name, .. } | Ask::Set { tenant, name, .. } => {
                absent(Key::Counter(*tenant, name.clone()))
            }
            Ask::Register(tenant) => absent(Key::Tenants).or_else(|| absent(Key::Name(tenant.name.folded()))),
            Ask::Load(key) => absent(key.clone()),
        }
    }

    fn park(&mut self, missing: Key, work: Work) {
        if self.parked_count >= MAX_PARKED {
            self.decided.push((work.ticket, Err(Unavailable::Overloaded.into())));
            return;
        }
        self.parked_count += 1;
        let waiting = self.parked.entry(missing.clone()).or_default();
        if waiting.is_empty() {
            Self::flush_hand_over(&mut self.hand_over, &mut self.outbox, self.journal.last());
            self.outbox.push(Order::Load(missing));
        }
        waiting.push(work);
    }

    /// Takes a record that the keeper found, and decides what waited for it.
    fn loaded(&mut self, key: Key, record: Result<Option<Record>, String>) {
        let waiting = self.parked.remove(&key).unwrap_or_default();
        self.parked_count -= waiting.len();
        match record {
            Ok(record) => {
                self.residents.install(key, record);
                waiting.into_iter().for_each(|work| self.decide(work));
            }
            Err(problem) => {
                let problem: Arc<str> = problem.into();
                let damaged = |work: Work| (work.ticket, Err(StoreError::Damaged(Arc::clone(&problem))));
                self.decided.extend(waiting.into_iter().map(damaged));
            }
        }
    }

    fn loaded_answer(&mut self, key: &Key) -> Outcome {
        let slot = self.residents.get_mut(key).ok_or(StoreError::OutcomeUnknown)?;
        Ok(Answer::Loaded(slot.published()))
    }

    fn change_counter<T>(
        &mut self,
        key: Key,
        change: impl FnOnce(&mut Counter) -> Result<T, CounterRefusal>,
    ) -> Result<T, StoreError> {
        let slot = self.residents.get_mut(&key).ok_or(StoreError::OutcomeUnknown)?;
        let mut counter = match &slot.record {
            Some(Record::Counter(counter)) => *counter,
            _ => Counter::default(),
        };
        let answer = change(&mut counter).map_err(Refusal::Counter)?;
        slot.record = Some(Record::Counter(counter));
        Self::touch(&mut self.touched, slot, key);
        Ok(answer)
    }

    fn register(&mut self, new: NewTenant) -> Result<TenantId, StoreError> {
        let name_key = Key::Name(new.name.folded());
        if self.residents.record(&name_key).is_some() {
            return Err(Refusal::NameTaken.into());
        }
        let count = match self.residents.record(&Key::Tenants) {
            Some(Record::Tenants(count)) => *count,
            _ => 0,
        };
        let id = TenantId(count + 1);
        let key = crate::store::KeyRecord { tenant: id, secret: new.secret, created_unix_s: new.created_unix_s };
        let tenant = TenantRecord { name: new.name, password: new.password, created_unix_s: new.created_unix_s };
        self.write(Key::Tenants, Record::Tenants(id.0));
        self.write(name_key, Record::Name(id));
        self.write(Key::Tenant(id), Record::Tenant(Box::new(tenant)));
        self.write(Key::ApiKey(new.key), Record::ApiKey(Arc::new(key)));
        Ok(id)
    }

    /// Writes a record that is in memory, or one that is new and so has no older version to load.
    fn write(&mut self, key: Key, record: Record) {
        if !self.residents.contains(&key) {
            self.residents.install(key.clone(), None);
        }
        if let Some(slot) = self.residents.get_mut(&key) {
            slot.record = Some(record);
            Self::touch(&mut self.touched, slot, key);
        }
    }

    fn touch(touched: &mut Vec<Key>, slot: &mut Slot, key: Key) {
        if !slot.touched {
            slot.touched = true;
            touched.push(key);
        }
    }

    /// Makes what was decided durable, publishes it and returns the answers.
    ///
    /// # Errors
    /// What the system said when a write or a sync failed, beside the answers, all *outcome unknown*: the store is poisoned.
    pub fn finish_turn(&mut self) -> (Turn, Result<(), std::io::Error>) {
        let mut turn = Turn { answers: std::mem::take(&mut self.decided), ..Turn::default() };
        let (increments, integers) = (std::mem::take(&mut self.increments), std::mem::take(&mut self.integers));
        let mut result = Ok(());
        if !self.touched.is_empty() {
            let residents = &self.residents;
            match self.journal.append(self.touched.iter().map(|key| (key, residents.record(key)))) {
                Ok(_) => {
                    turn.committed = true;
                    (turn.increments, turn.integers) = (increments, integers);
                    for key in self.touched.drain(..) {
                        let record = self.residents.publish(&key);
                        self.hand_over.push((key, record));
                    }
                }
                Err(AppendError::NoSpare) => {
                    self.touched.drain(..).for_each(|key| self.residents.roll_back(&key));
                    turn.spoil(&StoreError::Unavailable(Unavailable::DiskLow));
                }
                Err(AppendError::Failed(error)) => {
                    self.touched.drain(..).for_each(|key| self.residents.roll_back(&key));
                    turn.spoil(&StoreError::OutcomeUnknown);
                    self.closed_to_changes = Some(StoreError::Poisoned);
                    result = Err(error);
                }
            }
        }
        if self.hand_over.len() >= HAND_OVER || (self.residents.is_over() && !self.hand_over.is_empty()) {
            self.hand_over_all();
        }
        if self.residents.is_over() {
            self.residents.evict();
        }
        if self.journal.wants_spare() && !self.spare_requested && !self.is_poisoned() {
            self.spare_requested = true;
            self.outbox.push(Order::MakeSpare);
        }
        (turn, result)
    }

    /// Gives the keeper everything that is durable and that it was not yet told of.
    pub fn hand_over_all(&mut self) {
        Self::flush_hand_over(&mut self.hand_over, &mut self.outbox, self.journal.last());
    }

    fn flush_hand_over(hand_over: &mut Vec<Change>, outbox: &mut Vec<Order>, last: Mark) {
        if !hand_over.is_empty() {
            outbox.push(Order::Changes(std::mem::take(hand_over), last));
        }
    }
}

impl Turn {
    /// Replaces every answer that speaks of this turn's changes.
    fn spoil(&mut self, error: &StoreError) {
        for (_, outcome) in &mut self.answers {
            if !matches!(outcome, Ok(Answer::Loaded(_))) {
                *outcome = Err(error.clone());
            }
        }
    }
}
