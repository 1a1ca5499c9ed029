//! The clients: what they ask of the store, what they are told, and the history of both.
//!
//! Job: [`Clients::act`] lets one of them ask or read; [`Clients::collect`] takes answers; [`Clients::lose_all`] is the end of a process.
//! Invariant: the history holds every request once, with times in steps of the scheduler. One client sets, all others increment and read.
//! Must never: look into the store beside the published window and the answers.

use odometer::counter::{CounterName, Value};
use odometer::store::embedded::queue::{Answer, Ask, Outcome as Told, Queue, Ticket, Work};
use odometer::store::embedded::record::{Key, Record};
use odometer::store::embedded::resident::Window;
use odometer::store::{NewTenant, Refusal, StoreError};
use odometer::tenant::{KeyId, PasswordHash, SecretHash, TenantId, TenantName};
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use crate::bugs::Bug;
use crate::support::Random;
use crate::support::history::{Op, Operation, Outcome};

const TENANTS: u64 = 3;
const COUNTERS: u64 = 2;
/// The one client that sets.
const OWNER: u32 = 0;
const CLIENTS: u64 = 5;

/// A counter, as the history names it.
pub(crate) type Place = (u32, u32);

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Advance(Place, u32),
    Set(Place, u64),
    Read(Place),
    Register(TenantName, KeyId),
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The last value of a range, the value set, or the value read.
    Value(u64),
    Tenant(TenantId),
    /// Not done.
    Refused(&'static str),
    Unknown,
}

struct Waiting {
    client: u32,
    what: What,
    sent: u64,
    answer: Receiver<Told>,
    /// It gave up, so its history says *unknown* already.
    gave_up: bool,
}

/// See the module's text.
pub(crate) struct Clients {
    waiting: Vec<Waiting>,
    bug: Option<Bug>,
    registered: u64,
    pub(crate) history: Vec<Operation>,
}

/// The counter's key.
pub(crate) fn key(place: Place) -> Key {
    let name = if place.1 == 0 { "default" } else { "second" };
    let name = CounterName::parse(name).expect("a good name");
    Key::Counter(TenantId(u64::from(place.0) + 1), name)
}

/// Every counter that there may be.
pub(crate) fn places() -> impl Iterator<Item = Place> {
    (0..TENANTS as u32).flat_map(|tenant| (0..COUNTERS as u32).map(move |counter| (tenant, counter)))
}

/// A counter's value; one that nobody touched holds 1.
pub(crate) fn value_of(record: Option<&Record>) -> u64 {
    match record {
        Some(Record::Counter(counter)) => counter.value.get(),
        _ => Value::FIRST.get(),
    }
}

impl Clients {
    pub(crate) fn new(bug: Option<Bug>) -> Self {
        Self { waiting: Vec::new(), bug, registered: 0, history: Vec::new() }
    }

    /// Whether nobody waits for an answer.
    pub(crate) fn are_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One client does something at `now`: asks, reads, or gives up. Returns what it read, if it did.
    pub(crate) fn act<C>(
        &mut self,
        random: &mut Random,
        now: u64,
        window: &Window,
        queue: &Queue<C>,
    ) -> Option<(Place, u64)> {
        let client = random.between(0, CLIENTS - 1) as u32;
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.client == client && !waiting.gave_up) {
            if random.between(0, 99) == 0 {
                waiting.gave_up = true;
                let (what, sent) = (waiting.what.clone(), waiting.sent);
                self.record(client, &what, sent, now, &Reply::Unknown);
            }
            return None;
        }
        let place = (random.between(0, TENANTS - 1) as u32, random.between(0, COUNTERS - 1) as u32);
        let what = match random.between(0, 99) {
            0..35 => What::Read(place),
            35..40 => self.registration(random),
            40..48 if client == OWNER => What::Set(place, random.between(1, 500)),
            48..60 => What::Advance(place, random.between(2, 9) as u32),
            _ => What::Advance(place, 1),
        };
        if let What::Read(place) = what
            && let Some(published) = window.pin().get(&key(place))
        {
            let value = value_of(published.record().as_deref());
            self.record(client, &what, now, now, &Reply::Value(value));
            return Some((place, value));
        }
        self.ask(client, what, now, queue);
        None
    }

    /// Sends a request.
    pub(crate) fn ask<C>(&mut self, client: u32, what: What, now: u64, queue: &Queue<C>) {
        let ask = match &what {
            What::Advance(place, count) => {
                let Key::Counter(tenant, name) = key(*place) else { unreachable!("a counter's key is one") };
                let count = count + u32::from(self.bug == Some(Bug::ValueSkipped) && now.is_multiple_of(16));
                Ask::Advance { tenant, name, count }
            }
            What::Set(place, _) if self.bug == Some(Bug::SetLost) => Ask::Load(key(*place)),
            What::Set(place, value) => {
                let Key::Counter(tenant, name) = key(*place) else { unreachable!("a counter's key is one") };
                Ask::Set { tenant, name, value: Value::new(*value).expect("a small value") }
            }
            What::Read(place) => Ask::Load(key(*place)),
            What::Register(name, key) => Ask::Register(Box::new(new_tenant(name.clone(), *key))),
        };
        let (ticket, answer) = Ticket::new(None);
        if queue.push(Work { ask, ticket }).is_err() {
            self.record(client, &what, now, now, &Reply::Refused("overloaded"));
            return;
        }
        self.waiting.push(Waiting { client, what, sent: now, answer, gave_up: false });
    }

    fn registration(&mut self, random: &mut Random) -> What {
        // Sometimes a name that somebody has, in another case.
        if self.registered > 0 && random.between(0, 3) == 0 {
            let name = format!("NAME{}", random.between(1, self.registered));
            return What::Register(TenantName::parse(&name).expect("a good name"), KeyId(random.next().to_be_bytes()));
        }
        self.registered += 1;
        let name = format!("name{}", self.registered);
        What::Register(TenantName::parse(&name).expect("a good name"), KeyId(random.next().to_be_bytes()))
    }

    /// Takes every answer that arrived until `now`.
    pub(crate) fn collect(&mut self, now: u64) -> Vec<(What, Reply)> {
        let mut answered = Vec::new();
        let mut at = 0;
        while at < self.waiting.len() {
            let told = match self.waiting[at].answer.try_recv() {
                Ok(told) => Some(told),
                Err(TryRecvError::Closed) => None,
                Err(TryRecvError::Empty) => {
                    at += 1;
                    continue;
                }
            };
            let waiting = self.waiting.remove(at);
            let reply = reply(told, &waiting.what);
            if !waiting.gave_up {
                self.record(waiting.client, &waiting.what, waiting.sent, now, &reply);
            }
            answered.push((waiting.what, reply));
        }
        answered
    }

    /// The process is gone, and whoever waits will never know.
    pub(crate) fn lose_all(&mut self, now: u64) {
        for waiting in std::mem::take(&mut self.waiting) {
            if !waiting.gave_up {
                self.record(waiting.client, &waiting.what, waiting.sent, now, &Reply::Unknown);
            }
        }
    }

    /// Notes that somebody read a value.
    pub(crate) fn note_read(&mut self, place: Place, value: u64, now: u64) {
        self.record(OWNER, &What::Read(place), now, now, &Reply::Value(value));
    }

    fn record(&mut self, client: u32, what: &What, sent: u64, returned: u64, reply: &Reply) {
        let ((tenant, counter), op, count) = match what {
            What::Advance(place, count) => (*place, Op::Increment, u64::from(*count)),
            What::Set(place, value) => (*place, Op::Set(*value), 1),
            What::Read(place) => (*place, Op::Read, 1),
            What::Register(..) => return,
        };
        for index in 0..count {
            let outcome = match reply {
                Reply::Value(last) => Outcome::Ok(last - (count - 1 - index)),
                Reply::Refused(_) => Outcome::Refused,
                Reply::Unknown | Reply::Tenant(_) => Outcome::Unknown,
            };
            self.history.push(Operation { client, tenant, counter, op, sent, returned, outcome });
        }
    }
}

fn reply(told: Option<Told>, what: &What) -> Reply {
    match (told, what) {
        (None | Some(Err(StoreError::OutcomeUnknown)), _) => Reply::Unknown,
        (Some(Ok(Answer::Range(range))), _) => Reply::Value(range.last.get()),
        (Some(Ok(Answer::Value(value))), _) => Reply::Value(value.get()),
        (Some(Ok(Answer::Tenant(id))), _) => Reply::Tenant(id),
        // Only the bug of lost sets answers a set like this.
        (Some(Ok(Answer::Loaded(_))), What::Set(_, value)) => Reply::Value(*value),
        (Some(Ok(Answer::Loaded(published))), _) => Reply::Value(value_of(published.record().as_deref())),
        (Some(Err(StoreError::Refused(Refusal::NameTaken))), _) => Reply::Refused("name taken"),
        (Some(Err(StoreError::Refused(Refusal::Counter(_)))), _) => Reply::Refused("rule"),
        (Some(Err(StoreError::Unavailable(_))), _) => Reply::Refused("unavailable"),
        (Some(Err(StoreError::Poisoned)), _) => Reply::Refused("poisoned"),
        (Some(Err(StoreError::Damaged(_))), _) => Reply::Refused("damaged"),
    }
}

fn new_tenant(name: TenantName, key: KeyId) -> NewTenant {
    let password = PasswordHash { memory_kib: 8, passes: 1, lanes: 1, salt: [3; 16], hash: [4; 32] };
    NewTenant { name, password, key, secret: SecretHash([5; 32]), created_unix_s: 7 }
}
