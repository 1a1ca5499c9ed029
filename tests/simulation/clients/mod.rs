//! The clients: what they ask of the store, what they are told, and the history of both.
//!
//! ```text
//! new ─► sent, by one copy or by several at once ─► answered ─► its key is used again, for the
//!         ▲                │                                    same request or for another one
//!         └── sent again ◄─┴─ all refused, or an answer was lost
//! ```
//! Job: [`Clients::act`] lets one of them ask or read; [`Clients::collect`] takes answers;
//! [`Clients::lose_all`] is the end of a process.
//! Invariant: the history holds every request once, with times in steps of the scheduler. One
//! client sets, all others increment and read. A request with an idempotency key that was sent
//! several times counts once, from the first time after which it may have been done.
//! Must never: look into the store beside the published window and the answers.

mod job;
mod request;
mod wish;

use std::collections::{BTreeMap, BTreeSet};

use odometer::store::embedded::commit::cache::ReadView;
use odometer::store::embedded::commit::command::CommandResult;
use odometer::store::embedded::commit::queue::{Queue, QueuedCommand, Responder};
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use self::job::{Job, Origin, Settled};
pub(crate) use self::request::{FULL, Place, REUSED, Reply, What, key, places, value_of};
use crate::bugs::Bug;
use crate::machine::Tally;
use crate::support::Random;
use crate::support::history::{Op, Operation, Outcome};
use crate::support::model;

/// The one client that sets.
const OWNER: u32 = 0;
const CLIENTS: u64 = 5;

/// The time: steps of the scheduler, and how long the store ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) step: u64,
    pub(crate) age_s: u64,
}

/// See the module's text.
pub(crate) struct Clients {
    /// By their numbers, in the order in which they were wished for.
    jobs: BTreeMap<u64, Job>,
    /// The copies of requests that are under way.
    waiting: Vec<(u64, Receiver<CommandResult>)>,
    /// Requests with a key that were done.
    settled: Vec<Settled>,
    /// Every key that was ever sent, of each tenant.
    used_keys: BTreeSet<(u32, u64)>,
    bug: Option<Bug>,
    registered: u64,
    keys: u64,
    next_job: u64,
    pub(crate) history: Vec<Operation>,
    pub(crate) tally: Tally,
    /// What answers contradict: requests that were done twice, keys that stand for two requests.
    pub(crate) problem: Option<String>,
}

impl Clients {
    pub(crate) fn new(bug: Option<Bug>) -> Self {
        Self {
            jobs: BTreeMap::new(),
            waiting: Vec::new(),
            settled: Vec::new(),
            used_keys: BTreeSet::new(),
            bug,
            registered: 0,
            keys: 0,
            next_job: 0,
            history: Vec::new(),
            tally: Tally::default(),
            problem: None,
        }
    }

    /// Whether no client waits for an answer.
    pub(crate) fn are_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One client does something: asks, reads, or gives up. Returns what it read, if it did.
    /// `known` are the counters of a tenant.
    pub(crate) fn act<C>(
        &mut self,
        random: &mut Random,
        now: Now,
        window: &ReadView,
        queue: &Queue<C>,
        known: impl Fn(u32) -> Vec<String>,
    ) -> Option<(Place, u64)> {
        let client = random.between(0, CLIENTS - 1) as u32;
        let own = self.jobs.iter().filter(|(_, job)| job.client == client && job.is_open());
        let (waits, owed) = own.fold((None, None), |(waits, owed), (id, job)| {
            if job.copies > 0 { (waits.or(Some(*id)), owed) } else { (waits, owed.or(Some(*id))) }
        });
        if let Some(id) = waits {
            self.lose_patience(id, random, now, queue);
            return None;
        }
        if let Some(id) = owed.filter(|_| random.between(0, 3) > 0) {
            self.send_again(id, now, queue);
            return None;
        }
        let (what, origin) = self.wish(client, random, now, known);
        if let What::Read(place) = what
            && let Some(published) = window.pin().get(&key(place))
        {
            let value = value_of(published.record().as_deref());
            let job = Job::new(client, what, origin, now);
            self.record(&job, now.step, Outcome::Ok(value));
            return Some((place, value));
        }
        let id = self.add(client, what, origin, now);
        if self.push(id, now, queue) && self.jobs[&id].may_be_copied() {
            self.send_companion(id, random, now, queue);
        }
        None
    }

    /// A client asks for something once.
    pub(crate) fn ask<C>(&mut self, client: u32, what: What, now: Now, queue: &Queue<C>) {
        let id = self.add(client, what, Origin::New, now);
        self.push(id, now, queue);
    }

    fn add(&mut self, client: u32, what: What, origin: Origin, now: Now) -> u64 {
        self.used_keys.extend(what.key());
        self.next_job += 1;
        self.jobs.insert(self.next_job, Job::new(client, what, origin, now));
        self.next_job
    }

    /// Sends a copy of a request; false if the queue is full.
    fn push<C>(&mut self, id: u64, now: Now, queue: &Queue<C>) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        let command = job.what.command(self.bug, job.sent.step);
        let (responder, answer) = Responder::new(None);
        if queue.push(QueuedCommand { command, responder }).is_err() {
            self.tally.add("answered", job.what.name(), "overloaded");
            job.refusals += 1;
            if job.copies == 0 {
                self.settle(id, now);
            }
            return false;
        }
        job.sent_copy(now);
        self.waiting.push((id, answer));
        true
    }

    /// The client waits for its answer: it may give up, or send the request once more.
    fn lose_patience<C>(&mut self, id: u64, random: &mut Random, now: Now, queue: &Queue<C>) {
        let (dice, job) = (random.between(0, 99), &self.jobs[&id]);
        if job.may_be_copied() {
            if dice < 4 && !job.is_old(now) && self.push(id, now, queue) {
                self.tally.add("keys", "sent again", "while it waits");
            }
        } else if dice == 0 && job.what.key().is_none() {
            let job = self.jobs.remove(&id).expect("it is there");
            self.record(&job, now.step, Outcome::Unknown);
            // Its answer, if it comes, is that of a request whose client has gone.
            self.jobs.insert(id, Job { gave_up: true, ..job });
        }
    }

    /// Sends a request again that was refused, or whose answer was lost.
    fn send_again<C>(&mut self, id: u64, now: Now, queue: &Queue<C>) {
        let job = &self.jobs[&id];
        // It may wait for long until it is decided.
        if job.is_old(now) {
            self.abandon(id, now);
            return;
        }
        let how = if job.perhaps { "after a lost answer" } else { "after a refusal" };
        if self.push(id, now, queue) {
            self.tally.add("keys", "sent again", how);
        }
    }

    /// Sends a request with a key a second time at once, or another one with the same key.
    fn send_companion<C>(&mut self, id: u64, random: &mut Random, now: Now, queue: &Queue<C>) {
        match random.between(0, 19) {
            0..4 if self.push(id, now, queue) => self.tally.add("keys", "sent twice", "at once"),
            4..7 => {
                let (client, what) = (self.jobs[&id].client, self.jobs[&id].what.another());
                self.jobs.get_mut(&id).expect("it is there").origin = Origin::Raced;
                let other = self.add(client, what, Origin::Raced, now);
                if self.push(other, now, queue) {
                    self.tally.add("keys", "of two requests", "at once");
                }
            }
            _ => {}
        }
    }

    /// Takes every answer that arrived until `now`.
    pub(crate) fn collect(&mut self, now: Now) -> Vec<(What, Reply)> {
        let mut answered = Vec::new();
        let mut at = 0;
        while at < self.waiting.len() {
            let told = match self.waiting[at].1.try_recv() {
                Ok(told) => Some(told),
                Err(TryRecvError::Closed) => None,
                Err(TryRecvError::Empty) => {
                    at += 1;
                    continue;
                }
            };
            let (id, _) = self.waiting.remove(at);
            let what = self.jobs[&id].what.clone();
            let reply = Reply::of(told, &what);
            self.tally.add("answered", what.name(), reply.name());
            self.hear(id, &reply, now);
            answered.push((what, reply));
        }
        answered
    }

    /// A copy of a request was answered.
    fn hear(&mut self, id: u64, reply: &Reply, now: Now) {
        let mut job = self.jobs.remove(&id).expect("what waits is a request");
        job.copies -= 1;
        let was_done = job.result.is_some();
        if let Err(problem) = job.hear(reply, now) {
            let what = format!("{:?} was answered {reply:?}: {problem}", job.what);
            self.problem.get_or_insert(what);
        }
        if let Some(how) = job.noteworthy(reply) {
            self.tally.add("keys", how.0, how.1);
        }
        // What was replayed from before is in the history already.
        if let (false, false, Some(value)) = (was_done, job.gave_up, job.result)
            && (matches!(reply, Reply::Value(_)) || !matches!(job.origin, Origin::Again(_)))
        {
            self.record(&job, now.step, Outcome::Ok(value));
        }
        let is_last = job.copies == 0;
        self.jobs.insert(id, job);
        if is_last {
            self.settle(id, now);
        }
    }

    /// No copy of the request is under way any more.
    fn settle(&mut self, id: u64, now: Now) {
        let Some(mut job) = self.jobs.remove(&id) else { return };
        if job.gave_up {
            return;
        }
        if let Some(settled) = job.settled() {
            self.keep(settled);
        }
        match &job.origin {
            _ if job.result.is_some() => {}
            Origin::Again(before) | Origin::Other(before) => {
                if job.perhaps && before.may_be_expired(now) {
                    self.record(&job, now.step, Outcome::Unknown);
                } else {
                    self.keep(before.clone());
                }
            }
            Origin::New | Origin::Raced => {
                if !job.perhaps {
                    // Certainly not done: what comes is a new attempt.
                    job.tries = 0;
                }
                let again = job.perhaps || (job.refusals < 3 && id.is_multiple_of(2));
                self.jobs.insert(id, job);
                if !again || !self.jobs[&id].may_be_copied() {
                    self.abandon(id, now);
                }
            }
        }
    }

    /// The client asks for this no more.
    fn abandon(&mut self, id: u64, now: Now) {
        let Some(job) = self.jobs.remove(&id) else { return };
        let outcome = if job.perhaps { Outcome::Unknown } else { Outcome::Refused };
        self.record(&job, now.step, outcome);
    }

    fn keep(&mut self, settled: Settled) {
        if self.settled.len() == 16 {
            // Both old and new ones stay.
            self.settled.remove(8);
        }
        self.settled.push(settled);
    }

    /// The process is gone, and no client that waits will hear of it any more.
    pub(crate) fn lose_all(&mut self, now: Now) {
        for (id, _) in std::mem::take(&mut self.waiting) {
            if let Some(job) = self.jobs.get_mut(&id) {
                (job.copies, job.perhaps) = (0, true);
                self.settle(id, now);
            }
        }
    }

    /// No client asks again any more.
    pub(crate) fn give_up(&mut self, now: Now) {
        self.jobs.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| {
            self.abandon(id, now);
        });
    }

    /// Notes that a client read a value.
    pub(crate) fn note_read(&mut self, place: Place, value: u64, now: Now) {
        let job = Job::new(OWNER, What::Read(place), Origin::New, now);
        self.record(&job, now.step, Outcome::Ok(value));
    }

    fn record(&mut self, job: &Job, returned: u64, outcome: Outcome) {
        let ((tenant, counter), op, count) = match job.what {
            What::Advance(place, count, _) => (place, Op::Increment, u64::from(count)),
            What::Set(place, value, _) => (place, Op::Set(value), 1),
            What::Read(place) => (place, Op::Read, 1),
            What::Register(..) | What::Create(..) | What::List(..) => return,
        };
        let step = model::Shape::DEFAULT.step;
        for index in 0..count {
            let outcome = match outcome {
                Outcome::Ok(last) => Outcome::Ok(last - step * (count - 1 - index)),
                other => other,
            };
            let (client, sent, resent) = (job.client, job.sent.step, job.resent);
            self.history.push(Operation {
                client,
                tenant,
                counter,
                op,
                sent,
                resent,
                returned,
                outcome,
            });
        }
    }
}
