//! One process, turn by turn: what one batch does, what an answer waits for, and what a failed
//! write ends.
//!
//! Job: put requests into batches of a test's choice, let the operation of its choice fail, and
//! look at answers, at the window of readers and at the bytes on their way to the disk.
//! Invariant: nothing is drawn; each test is one run.
//! Must never: look into the store beside these three.

use std::sync::Arc;
use std::time::Duration;

use odometer::store::embedded::commit::command::CommandResult;
use odometer::store::embedded::commit::committer::CommitterEvent;
use odometer::store::embedded::commit::idempotency::RETENTION_S;
use odometer::store::embedded::commit::queue::{QueuedCommand, Responder};
use odometer::store::embedded::journal::frame::CommitSeq;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use crate::clients::{Place, REUSED, Reply, What, key, value_of};
use crate::machine::Power;
use crate::plan::Plan;
use crate::process::Process;
use crate::start::{Site, start};
use crate::support::Random;

/// Two counters of one tenant, and one of another.
const FIRST: Place = (0, 0);
const OTHER: Place = (1, 0);

/// A request that was sent.
struct Sent(What, Receiver<CommandResult>);

struct Turns {
    site: Site,
    plan: Arc<Plan>,
    process: Process,
    random: Random,
}

impl Turns {
    /// A process on an empty disk, with the counters in memory.
    fn new() -> Self {
        let mut turns = Self::without_counters();
        for place in [FIRST, OTHER] {
            let mut read = turns.send(What::Read(place));
            turns.go_on();
            assert_eq!(read.answer(), Reply::Value(1));
        }
        turns
    }

    /// The same before a counter was read.
    fn without_counters() -> Self {
        let plan = Plan {
            segment_bytes: 2048,
            capacity: 400,
            idempotency_keys: 400,
            backups: None,
            asked_rate: 0,
            checkpoint_rate: 0,
            fault_rate: 0,
            weak: None,
            ..Plan::of(1, None)
        };
        let (plan, power) = (Arc::new(plan), Power::new(1));
        let mut site = Site::new(&power, &plan);
        let (process, _) = start(&mut site, &plan).expect("an empty directory is a new store");
        let mut turns = Self { site, plan, process, random: Random::seeded(1) };
        turns.go_on();
        turns
    }

    /// The process is killed, and another one started.
    fn restart(&mut self) {
        self.site.crash(&mut self.random, false);
        self.site.power.rise(None, 0, None);
        let started = start(&mut self.site, &self.plan);
        self.process = started.expect("nothing is damaged").0;
        self.go_on();
    }

    fn send(&self, what: What) -> Sent {
        let (responder, answer) = Responder::new(None);
        let command = what.command(None, 0);
        let pushed = self.process.queue.push(QueuedCommand { command, responder });
        pushed.expect("the queue has room for a batch");
        Sent(what, answer)
    }

    /// Everything that was sent is one batch, and decided, but not committed.
    fn decide(&mut self) {
        self.process.decide(usize::MAX);
    }

    /// A batch of its own for everything that was sent.
    fn turn(&mut self) {
        self.decide();
        self.process.commit();
    }

    /// All parts go on until nothing is left to do.
    fn go_on(&mut self) {
        for _ in 0..12 {
            self.turn();
            self.process.checkpoint_step(&mut self.random);
            self.process.allocator_step();
        }
        assert!(self.process.is_quiet());
    }

    /// Sends it, and returns what it is answered in the turn that follows.
    fn ask(&mut self, what: What) -> Reply {
        let mut sent = self.send(what);
        self.turn();
        sent.answer()
    }

    /// What a reader sees now.
    fn shown(&self, place: Place) -> u64 {
        let window = self.process.read_view.pin();
        value_of(window.get(&key(place)).expect("it is in memory").record().as_deref())
    }

    /// The next sync of the journal fails.
    fn fail_sync(&self) {
        self.site.power.lock().fails_next = Some(("journal", "sync"));
    }

    /// How often the journal's files were written since the last call.
    fn writes(&self) -> usize {
        self.site.journal.take_written().len()
    }

    /// Fills the active segment, while none follows it, until a change is refused.
    fn fill(&mut self) -> u64 {
        // The spare is used up by the first rotation.
        for _ in 0..200 {
            match self.ask(increment(OTHER, None)) {
                Reply::Value(_) => {}
                Reply::Refused("disk low") => return self.shown(OTHER),
                other => panic!("{other:?}"),
            }
        }
        panic!("a segment has no end");
    }
}

impl Sent {
    /// The answer, which must be there.
    fn answer(&mut self) -> Reply {
        match self.1.try_recv() {
            Ok(told) => Reply::of(Some(told), &self.0),
            Err(TryRecvError::Closed) => Reply::Unknown,
            Err(TryRecvError::Empty) => panic!("{:?} is not answered", self.0),
        }
    }

    fn is_answered(&mut self) -> bool {
        !matches!(self.1.try_recv(), Err(TryRecvError::Empty))
    }
}

fn increment(place: Place, key: Option<u64>) -> What {
    What::Advance(place, 1, key)
}

#[test]
fn an_answer_and_a_reader_wait_for_the_commit() {
    let mut turns = Turns::new();
    let mut sent = turns.send(increment(FIRST, None));
    turns.decide();
    assert!(!sent.is_answered(), "answered before the commit");
    assert_eq!(turns.shown(FIRST), 1, "shown before the commit");
    turns.process.commit();
    assert_eq!((sent.answer(), turns.shown(FIRST)), (Reply::Value(2), 2));
}

#[test]
fn changes_of_one_batch_follow_one_another_and_all_are_shown() {
    let mut turns = Turns::new();
    let whats = [FIRST, OTHER, FIRST, OTHER].map(|place| What::Advance(place, 3, None));
    let mut sent = whats.map(|what| turns.send(what));
    turns.turn();
    let answers = sent.each_mut().map(Sent::answer);
    assert_eq!(answers, [4, 4, 7, 7].map(Reply::Value));
    assert_eq!((turns.shown(FIRST), turns.shown(OTHER)), (7, 7));
    assert_eq!(turns.process.counted, (4, 12));
    assert_eq!(turns.ask(increment(FIRST, None)), Reply::Value(8));
    turns.restart();
    let mut read = turns.send(What::Read(OTHER));
    turns.go_on();
    assert_eq!(read.answer(), Reply::Value(7));
}

#[test]
fn a_deferred_change_is_made_once() {
    let mut turns = Turns::without_counters();
    let mut sent = [None, Some(1), None].map(|key| turns.send(increment(FIRST, key)));
    turns.turn();
    assert!(!sent[0].is_answered(), "its counter is not in memory");
    turns.go_on();
    let answers = sent.each_mut().map(Sent::answer);
    assert_eq!(answers, [2, 3, 4].map(Reply::Value));
    assert_eq!(turns.ask(increment(FIRST, None)), Reply::Value(5));
}

/// More than may wait at once (4,096), one batch after another.
#[test]
fn what_was_loaded_waits_no_longer() {
    let mut turns = Turns::without_counters();
    for batch in 0..1100 {
        let sent: Vec<Sent> =
            (0..4).map(|tenant| turns.send(What::Read((batch * 4 + tenant, 0)))).collect();
        turns.go_on();
        for mut read in sent {
            assert_eq!(read.answer(), Reply::Value(1), "batch {batch}");
        }
    }
}

#[test]
fn a_key_is_used_once_in_a_batch_and_later_and_for_one_request() {
    let mut turns = Turns::new();
    let whats = [1, 1, 2].map(|count| What::Advance(FIRST, count, Some(1)));
    let mut sent = whats.map(|what| turns.send(what));
    let mut of_another_tenant = turns.send(increment(OTHER, Some(1)));
    turns.turn();
    let answers = sent.each_mut().map(Sent::answer);
    assert_eq!(answers, [Reply::Value(2), Reply::Replayed(2), Reply::Refused(REUSED)]);
    assert_eq!(of_another_tenant.answer(), Reply::Value(2));
    for is_restarted in [false, true] {
        if is_restarted {
            turns.restart();
        }
        let mut same = turns.send(increment(FIRST, Some(1)));
        let mut another = turns.send(What::Create((0, 1), Some(1)));
        turns.go_on();
        assert_eq!(same.answer(), Reply::Replayed(2));
        assert_eq!(another.answer(), Reply::Refused(REUSED));
    }
}

#[test]
fn a_batch_without_room_leaves_nothing_and_its_keys_are_free() {
    let mut turns = Turns::new();
    let value = turns.fill();
    turns.process.counted = (0, 0);
    let mut refused = [None, Some(1), Some(1)].map(|key| turns.send(increment(OTHER, key)));
    turns.turn();
    let answers = refused.each_mut().map(Sent::answer);
    assert_eq!(answers, [(); 3].map(|()| Reply::Refused("disk low")));
    assert_eq!(turns.shown(OTHER), value);
    turns.process.allocator_step();
    assert_eq!(turns.ask(increment(OTHER, Some(1))), Reply::Value(value + 1));
    assert_eq!(turns.ask(What::Advance(OTHER, 2, None)), Reply::Value(value + 3));
    assert_eq!(turns.process.counted, (2, 3), "what was refused is not counted");
}

#[test]
fn a_commit_that_failed_answers_none_of_its_requests_as_done() {
    let mut turns = Turns::new();
    let whats = [increment(FIRST, Some(1)), increment(FIRST, Some(1)), increment(OTHER, None)];
    let mut sent = whats.map(|what| turns.send(what));
    let mut read = turns.send(What::Read(FIRST));
    turns.fail_sync();
    turns.turn();
    let answers = sent.each_mut().map(Sent::answer);
    assert_eq!(answers, [(); 3].map(|()| Reply::Unknown));
    assert_eq!((read.answer(), turns.shown(FIRST)), (Reply::Value(1), 1));
    assert!(turns.process.poisoned.is_some());
    assert_eq!(turns.ask(increment(FIRST, Some(1))), Reply::Refused("poisoned"));
}

#[test]
fn after_a_failed_write_the_journal_is_not_written_again() {
    let mut turns = Turns::without_counters();
    // In one turn: a counter is loaded, for which a change waits; the frame of a checkpoint fails;
    // the change would be committed.
    let mut waits = turns.send(increment(FIRST, None));
    turns.turn();
    turns.process.checkpoint_step(&mut turns.random);
    turns.process.queue.send_control(CommitterEvent::Checkpointed(CommitSeq(0), Duration::ZERO));
    turns.fail_sync();
    turns.writes();
    turns.turn();
    assert_eq!(turns.writes(), 1, "the frame of the checkpoint, and nothing behind it");
    assert!(turns.process.poisoned.is_some());
    assert_eq!((waits.answer(), turns.writes()), (Reply::Unknown, 0));
}

#[test]
fn a_poisoned_store_writes_no_checkpoint_and_removes_no_keys() {
    let mut turns = Turns::new();
    assert_eq!(turns.ask(increment(FIRST, Some(1))), Reply::Value(2));
    let failed = CommitterEvent::Failed("a thread panicked".to_owned());
    turns.process.queue.send_control(failed);
    turns.turn();
    turns.writes();
    turns.process.queue.send_control(CommitterEvent::Checkpointed(CommitSeq(1), Duration::ZERO));
    turns.turn();
    assert_eq!(turns.writes(), 0, "a checkpoint was recorded");
    turns.process.running_s += RETENTION_S + 10;
    turns.turn();
    assert_eq!(turns.writes(), 0, "the page of an expired key was removed");
}

#[test]
fn a_key_expires_after_a_day_and_not_before() {
    let mut turns = Turns::new();
    assert_eq!(turns.ask(increment(FIRST, Some(1))), Reply::Value(2));
    turns.process.running_s += RETENTION_S;
    turns.go_on();
    let mut again = turns.send(increment(FIRST, Some(1)));
    turns.go_on();
    assert_eq!(again.answer(), Reply::Replayed(2));
    turns.process.running_s += 1;
    turns.go_on();
    assert_eq!(turns.ask(increment(FIRST, Some(1))), Reply::Value(3));
}
