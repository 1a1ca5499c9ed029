//! One batch of the committer by hand: what its requests see of each other, and what is left of it
//! when the journal has no room.
//!
//! Job: [`Store::commit`] lets the real committer decide some requests as one batch. Which requests
//! share a batch is a matter of luck with a running store; here the test says so.
//! Invariant: nothing fails and nothing is evicted; the journal gets no spare unless the test makes
//! one.
//! Must never: decide what the committer decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use odometer::domain::counter::CounterName;
use odometer::domain::tenant::TenantId;
use odometer::store::embedded::checkpoint::messages::Now;
use odometer::store::embedded::codec::key::RecordKey;
use odometer::store::embedded::codec::record::Record;
use odometer::store::embedded::commit::command::{
    Command, CommandResult, CounterCommand, CounterOp, Reply,
};
use odometer::store::embedded::commit::committer::{BackgroundTask, CommitResult, CommitterEvent};
use odometer::store::embedded::commit::queue::{QueuedCommand, Responder, send_replies};
use odometer::store::embedded::recovery::start::{StartedStore, recover_store};
use odometer::store::embedded::runtime::segment_allocator::SegmentAllocator;
use odometer::store::{IdempotencyToken, Refusal, StoreError, Unavailable};

use crate::disk::SimDisk;
use crate::machine::Power;
use crate::plan::{Plan, WALL_CLOCK_S};
use crate::start::{STORE, Site};
use crate::state::SimState;

const SEGMENT_BYTES: u64 = 2048;

struct Store {
    parts: StartedStore<SimState, SimDisk>,
    allocator: SegmentAllocator<SimDisk>,
    /// What the committer gave away to be stored.
    state: BTreeMap<RecordKey, Option<Record>>,
}

impl Store {
    fn new() -> Self {
        let plan = Plan { capacity: 100, segment_bytes: SEGMENT_BYTES, ..Plan::of(1, None) };
        let plan = Plan { idempotency_keys: 1000, backups: None, ..plan };
        let mut site = Site::new(&Power::new(1), &plan);
        let now = Now { uptime: std::time::Duration::ZERO, unix_s: WALL_CLOCK_S };
        let recovered = recover_store(&mut site, STORE, SEGMENT_BYTES, WALL_CLOCK_S);
        let parts = recovered.expect("a new store starts").start(&mut site, &plan.options(), now);
        let allocator = SegmentAllocator::new(Arc::new(site.journal.clone()), SEGMENT_BYTES);
        let state = BTreeMap::new();
        Self { parts: parts.expect("a new store starts"), allocator, state }
    }

    /// Lets the committer decide these requests as one batch and commit it. Returns the answers and
    /// what the commit counts.
    fn commit(&mut self, batch: Vec<Command>) -> (Vec<CommandResult>, CommitResult) {
        let committer = &mut self.parts.committer;
        let mut waiting = Vec::new();
        for command in batch {
            let (responder, answer) = Responder::new(None);
            committer.execute(QueuedCommand { command, responder });
            waiting.push(answer);
        }
        let mut loads = Vec::new();
        loop {
            for task in committer.pending_tasks() {
                match task {
                    BackgroundTask::Stage(writes, _) => self.state.extend(writes),
                    BackgroundTask::Load(key) => loads.push(key),
                    _ => {}
                }
            }
            let Some(key) = loads.pop() else { break };
            let record = self.state.get(&key).cloned().flatten();
            committer.on_event(CommitterEvent::Loaded(key, Ok(record)));
        }
        let (mut commit, result) = committer.commit_batch();
        result.expect("nothing fails");
        send_replies(std::mem::take(&mut commit.replies));
        let answers = waiting.into_iter().map(|mut answer| answer.try_recv().expect("an answer"));
        (answers.collect(), commit)
    }

    /// Gives the journal its next segment.
    fn make_room(&mut self) {
        self.allocator.enqueue(BackgroundTask::MakeSpare);
        for event in self.allocator.poll(false).events {
            self.parts.committer.on_event(event);
        }
    }
}

/// A request for so many integers, with an idempotency key of this number.
fn advance(key: u8, count: u32) -> Command {
    let request_fingerprint = u128::from(count).to_be_bytes();
    let token = IdempotencyToken { key_hash: [key; 16], request_fingerprint };
    let name = CounterName::default_counter();
    Command::Counter(CounterCommand::new(TenantId(1), name, CounterOp::Advance(count), Some(token)))
}

/// The last integer of an answer, and whether it was given before.
#[track_caller]
fn issued(answer: &CommandResult) -> (u64, bool) {
    match answer {
        Ok(Reply::Issued(applied)) => (applied.result.range.last.get(), applied.replayed),
        other => panic!("no integers: {other:?}"),
    }
}

#[test]
fn a_key_stands_for_one_request_within_a_batch_too() {
    let mut store = Store::new();
    let (answers, commit) =
        store.commit(vec![advance(1, 2), advance(1, 2), advance(1, 3), advance(2, 3)]);
    assert_eq!((issued(&answers[0]), issued(&answers[1])), ((3, false), (3, true)));
    assert!(
        matches!(answers[2], Err(StoreError::Refused(Refusal::IdempotencyKeyReused))),
        "another request with the key: {:?}",
        answers[2]
    );
    assert_eq!(issued(&answers[3]), (6, false));
    assert_eq!((commit.increments, commit.integers), (2, 5));
    // A later batch answers the same.
    let (answers, _) = store.commit(vec![advance(1, 2), advance(1, 3)]);
    assert_eq!(issued(&answers[0]), (3, true));
    assert!(matches!(answers[1], Err(StoreError::Refused(Refusal::IdempotencyKeyReused))));
}

#[test]
fn a_batch_without_room_counts_nothing_and_its_keys_are_free() {
    let mut store = Store::new();
    let mut done = 0;
    let refused = loop {
        let (answers, commit) = store.commit(vec![advance(done, 1), advance(done, 1)]);
        if !commit.committed {
            break (answers, commit);
        }
        assert_eq!((commit.increments, commit.integers), (1, 1));
        done += 1;
        assert!(done < u8::MAX, "the journal has room without end");
    };
    assert!(done > 0, "the first batch already had no room");
    let (answers, commit) = refused;
    for answer in &answers {
        let is_disk_low = matches!(answer, Err(StoreError::Unavailable(Unavailable::DiskLow)));
        assert!(is_disk_low, "{answer:?}");
    }
    assert_eq!((commit.increments, commit.integers), (0, 0), "counted without a commit");
    assert_eq!(store.parts.committer.idempotency_len(), usize::from(done));
    store.make_room();
    // The same request, sent again: it is done now, and once.
    let (answers, commit) = store.commit(vec![advance(done, 1), advance(done, 1)]);
    let last = u64::from(done) + 2;
    assert_eq!((issued(&answers[0]), issued(&answers[1])), ((last, false), (last, true)));
    assert_eq!((commit.increments, commit.integers), (1, 1));
}
