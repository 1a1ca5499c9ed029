//! The clients: what they ask of the store, what they are told, and the history of both.
//!
//! Job: [`Clients::act`] lets one of them ask or read; [`Clients::collect`] takes answers;
//! [`Clients::lose_all`] is the end of a process.
//! Invariant: the history holds every request once, with times in steps of the scheduler. One
//! client sets, all others increment and read. A request with an idempotency key whose answer was
//! lost is sent again, and counts once, from the first time it was sent.
//! Must never: look into the store beside the published window and the answers.

use odometer::domain::api_key::{KeyId, SecretHash};
use odometer::domain::counter::{CounterConfig, CounterName, Value};
use odometer::domain::tenant::{PasswordHash, TenantId, TenantName};
use odometer::store::embedded::codec::key::IndexScan;
use odometer::store::embedded::codec::key::{IndexEntry, IndexKind, RecordKey};
use odometer::store::embedded::codec::record::Record;
use odometer::store::embedded::commit::cache::ReadView;
use odometer::store::embedded::commit::command::{
    Command, CommandResult, CounterCommand, CounterOp, Reply as StoreReply,
};
use odometer::store::embedded::commit::idempotency::RETENTION_S;
use odometer::store::embedded::commit::queue::{Queue, QueuedCommand, Responder};
use odometer::store::{
    IdempotencyToken, NewCounter, NewTenant, Precondition, Refusal, SetCounter, StoreError,
};
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use crate::bugs::Bug;
use crate::support::Random;
use crate::support::history::{Op, Operation, Outcome};
use crate::support::model;

const TENANTS: u64 = 3;
const COUNTERS: u64 = 2;
/// The one client that sets.
const OWNER: u32 = 0;
const CLIENTS: u64 = 5;

/// A counter, as the history names it.
pub(crate) type Place = (u32, u32);

/// The time: steps of the scheduler, and how long the store ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) step: u64,
    pub(crate) age_s: u64,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// So many integers, perhaps with an idempotency key.
    Advance(Place, u32, Option<u64>),
    Set(Place, u64),
    Read(Place),
    Register(TenantName, KeyId),
    Create(Place),
    /// The counters of a tenant, and which of them were known when it was asked.
    List(u32, Vec<String>),
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The last value of a range, the value set, or the value read.
    Value(u64),
    /// The last value of a range that was given before.
    Replayed(u64),
    Tenant(TenantId),
    Names(Vec<String>),
    /// Not done.
    Refused(&'static str),
    Unknown,
}

struct Waiting {
    client: u32,
    what: What,
    /// When it was sent first.
    sent: Now,
    /// When it was sent last, in steps.
    resent: u64,
    answer: Receiver<CommandResult>,
    /// It gave up, so its history says *unknown* already, or it asks again.
    gave_up: bool,
    /// An answer to it was lost before.
    is_retry: bool,
}

/// A request whose answer was lost and which is to be sent again.
struct Owed {
    client: u32,
    what: What,
    sent: Now,
    resent: u64,
}

/// See the module's text.
pub(crate) struct Clients {
    waiting: Vec<Waiting>,
    owed: Vec<Owed>,
    bug: Option<Bug>,
    registered: u64,
    keys: u64,
    pub(crate) history: Vec<Operation>,
}

fn counter_of(place: Place) -> (TenantId, CounterName) {
    let name = if place.1 == 0 { "default" } else { "second" };
    (TenantId(u64::from(place.0) + 1), CounterName::parse(name).expect("a good name"))
}

/// The counter's key.
pub(crate) fn key(place: Place) -> RecordKey {
    let (tenant, name) = counter_of(place);
    RecordKey::Counter(tenant, name)
}

/// Every counter that there may be.
pub(crate) fn places() -> impl Iterator<Item = Place> {
    (0..TENANTS as u32)
        .flat_map(|tenant| (0..COUNTERS as u32).map(move |counter| (tenant, counter)))
}

/// A counter's value; one that nobody touched or created holds 1.
pub(crate) fn value_of(record: Option<&Record>) -> u64 {
    match record {
        Some(Record::Counter(state)) => state.counter.value().get(),
        _ => model::Counter::default().value,
    }
}

impl Clients {
    pub(crate) fn new(bug: Option<Bug>) -> Self {
        Self {
            waiting: Vec::new(),
            owed: Vec::new(),
            bug,
            registered: 0,
            keys: 0,
            history: Vec::new(),
        }
    }

    /// Whether nobody waits for an answer.
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
        if let Some(at) =
            self.waiting.iter().position(|waiting| waiting.client == client && !waiting.gave_up)
        {
            if random.between(0, 99) == 0 {
                self.waiting[at].gave_up = true;
                let Waiting { what, sent, resent, .. } = &self.waiting[at];
                let owed = Owed { client, what: what.clone(), sent: *sent, resent: *resent };
                self.lose(owed, now.step);
            }
            return None;
        }
        if let Some(at) = self.owed.iter().position(|owed| owed.client == client)
            && random.between(0, 3) > 0
        {
            let owed = self.owed.remove(at);
            // It may wait for long until it is decided.
            if now.age_s - owed.sent.age_s > RETENTION_S / 3 {
                self.record_owed(&owed, now.step);
            } else {
                self.send(Owed { resent: now.step, ..owed }, true, queue);
            }
            return None;
        }
        let what = self.wish(client, random, known);
        if let What::Read(place) = what
            && let Some(published) = window.pin().get(&key(place))
        {
            let value = value_of(published.record().as_deref());
            self.record(client, &what, now.step, now.step, &Reply::Value(value));
            return Some((place, value));
        }
        self.ask(client, what, now, queue);
        None
    }

    fn wish(
        &mut self,
        client: u32,
        random: &mut Random,
        known: impl Fn(u32) -> Vec<String>,
    ) -> What {
        if self.registered < TENANTS && random.between(0, 3) == 0 {
            return self.registration(random);
        }
        let place = (random.between(0, TENANTS - 1) as u32, random.between(0, COUNTERS - 1) as u32);
        let once = (random.between(0, 2) == 0).then(|| {
            self.keys += 1;
            self.keys
        });
        match random.between(0, 99) {
            0..30 => What::Read(place),
            30..33 => What::List(place.0, known(place.0)),
            33..37 => self.registration(random),
            37..42 => What::Create((place.0, 1)),
            42..48 if client == OWNER => What::Set(place, random.between(1, 500)),
            48..60 => What::Advance(place, random.between(2, 9) as u32, once),
            _ => What::Advance(place, 1, once),
        }
    }

    /// Sends a request for the first time.
    pub(crate) fn ask<C>(&mut self, client: u32, what: What, now: Now, queue: &Queue<C>) {
        self.send(Owed { client, what, sent: now, resent: now.step }, false, queue);
    }

    fn send<C>(&mut self, owed: Owed, is_retry: bool, queue: &Queue<C>) {
        let ask = self.request(&owed.what, owed.sent.step);
        let (ticket, answer) = Responder::new(None);
        if queue.push(QueuedCommand { command: ask, responder: ticket }).is_ok() {
            let Owed { client, what, sent, resent } = owed;
            self.waiting.push(Waiting {
                client,
                what,
                sent,
                resent,
                answer,
                gave_up: false,
                is_retry,
            });
        } else if is_retry {
            self.owed.push(owed);
        } else {
            self.record(
                owed.client,
                &owed.what,
                owed.resent,
                owed.resent,
                &Reply::Refused("overloaded"),
            );
        }
    }

    fn request(&self, what: &What, step: u64) -> Command {
        let of = |place: Place, change, once| {
            let (tenant, name) = counter_of(place);
            Command::Counter(CounterCommand::new(tenant, name, change, once))
        };
        match what {
            What::Advance(place, count, key) => {
                let more =
                    u32::from(self.bug == Some(Bug::ValueSkipped) && step.is_multiple_of(16));
                of(
                    *place,
                    CounterOp::Advance(count + more),
                    key.map(|key| once(key, *place, *count)),
                )
            }
            What::Set(place, _) if self.bug == Some(Bug::SetLost) => Command::Load(key(*place)),
            What::Set(place, value) => {
                let value = Value::new(*value).expect("a small value");
                of(
                    *place,
                    CounterOp::Set(Box::new(SetCounter {
                        value,
                        rewind: true,
                        precondition: Precondition::Any,
                    })),
                    None,
                )
            }
            What::Read(place) => Command::Load(key(*place)),
            What::Register(name, key) => {
                Command::Register(Box::new(new_tenant(name.clone(), *key)))
            }
            What::Create(place) => of(
                *place,
                CounterOp::Create(Box::new(NewCounter {
                    config: CounterConfig::DEFAULT,
                    created_unix_s: 7,
                    quota: 1,
                })),
                None,
            ),
            What::List(tenant, _) => Command::List(IndexScan {
                tenant: TenantId(u64::from(*tenant) + 1),
                index_kind: IndexKind::Counters,
                after: None,
                limit: 9,
            }),
        }
    }

    fn registration(&mut self, random: &mut Random) -> What {
        // Sometimes a name that somebody has, in another case.
        if self.registered > 0 && random.between(0, 3) == 0 {
            let name = format!("NAME{}", random.between(1, self.registered));
            return What::Register(
                TenantName::parse(&name).expect("a good name"),
                KeyId(random.next().to_be_bytes()),
            );
        }
        self.registered += 1;
        let name = format!("name{}", self.registered);
        What::Register(
            TenantName::parse(&name).expect("a good name"),
            KeyId(random.next().to_be_bytes()),
        )
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
            let Waiting { client, what, sent, resent, gave_up, is_retry, .. } =
                self.waiting.remove(at);
            let reply = reply(told, &what);
            let is_open = match reply {
                Reply::Unknown => true,
                // Refused now, but the first time it may have been done.
                Reply::Refused(_) => is_retry,
                _ => false,
            };
            if !gave_up && is_open {
                self.lose(Owed { client, what: what.clone(), sent, resent }, now);
            } else if !gave_up {
                self.record(client, &what, sent.step, now, &reply);
            }
            answered.push((what, reply));
        }
        answered
    }

    /// The answer will never come: the request is sent again, if that is safe.
    fn lose(&mut self, owed: Owed, now: u64) {
        match owed.what {
            What::Advance(_, _, Some(_)) => self.owed.push(owed),
            _ => self.record_owed(&owed, now),
        }
    }

    /// The process is gone, and whoever waits will not hear of it any more.
    pub(crate) fn lose_all(&mut self, now: u64) {
        for Waiting { client, what, sent, resent, gave_up, .. } in std::mem::take(&mut self.waiting)
        {
            if !gave_up {
                self.lose(Owed { client, what, sent, resent }, now);
            }
        }
    }

    /// Nobody asks again any more.
    pub(crate) fn give_up(&mut self, now: u64) {
        for owed in std::mem::take(&mut self.owed) {
            self.record_owed(&owed, now);
        }
    }

    fn record_owed(&mut self, owed: &Owed, now: u64) {
        let before = self.history.len();
        self.record(owed.client, &owed.what, owed.sent.step, now, &Reply::Unknown);
        self.history[before..].iter_mut().for_each(|operation| operation.resent = owed.resent);
    }

    /// Notes that somebody read a value.
    pub(crate) fn note_read(&mut self, place: Place, value: u64, now: u64) {
        self.record(OWNER, &What::Read(place), now, now, &Reply::Value(value));
    }

    fn record(&mut self, client: u32, what: &What, sent: u64, returned: u64, reply: &Reply) {
        let ((tenant, counter), op, count) = match what {
            What::Advance(place, count, _) => (*place, Op::Increment, u64::from(*count)),
            What::Set(place, value) => (*place, Op::Set(*value), 1),
            What::Read(place) => (*place, Op::Read, 1),
            What::Register(..) | What::Create(_) | What::List(..) => return,
        };
        let step = model::Shape::DEFAULT.step;
        for index in 0..count {
            let outcome = match reply {
                Reply::Value(last) | Reply::Replayed(last) => {
                    Outcome::Ok(last - step * (count - 1 - index))
                }
                Reply::Refused(_) => Outcome::Refused,
                Reply::Unknown | Reply::Tenant(_) | Reply::Names(_) => Outcome::Unknown,
            };
            self.history.push(Operation {
                client,
                tenant,
                counter,
                op,
                sent,
                resent: sent,
                returned,
                outcome,
            });
        }
    }
}

fn once(key: u64, place: Place, count: u32) -> IdempotencyToken {
    let digest = |number: u64| {
        let mut digest = [0; 16];
        digest[8..].copy_from_slice(&number.to_be_bytes());
        digest
    };
    let request = u64::from(place.0) << 48 | u64::from(place.1) << 32 | u64::from(count);
    IdempotencyToken { key_hash: digest(key), request_fingerprint: digest(request) }
}

fn reply(told: Option<CommandResult>, what: &What) -> Reply {
    match (told, what) {
        (None | Some(Err(StoreError::OutcomeUnknown)), _) => Reply::Unknown,
        (Some(Ok(StoreReply::Issued(done))), _) if done.replayed => {
            Reply::Replayed(done.result.range.last.get())
        }
        (Some(Ok(StoreReply::Issued(done))), _) => Reply::Value(done.result.range.last.get()),
        (Some(Ok(StoreReply::State(done))), _) => Reply::Value(done.result.counter.value().get()),
        (Some(Ok(StoreReply::Registered(id))), _) => Reply::Tenant(id),
        (Some(Ok(StoreReply::Listed(members))), _) => {
            Reply::Names(members.iter().map(counter_name).collect())
        }
        // Only the bug of lost sets answers a set like this.
        (Some(Ok(StoreReply::Loaded(_))), What::Set(_, value)) => Reply::Value(*value),
        (Some(Ok(StoreReply::Loaded(published))), _) => {
            Reply::Value(value_of(published.record().as_deref()))
        }
        (Some(Ok(other)), _) => panic!("nobody asked for {other:?}"),
        (Some(Err(StoreError::Refused(refusal))), _) => Reply::Refused(match refusal {
            Refusal::NameTaken => "name taken",
            Refusal::CounterExists => "exists",
            Refusal::NoSuchCounter => "no counter",
            _ => "rule",
        }),
        (Some(Err(StoreError::Unavailable(_))), _) => Reply::Refused("unavailable"),
        (Some(Err(StoreError::Poisoned)), _) => Reply::Refused("poisoned"),
        (Some(Err(StoreError::Corrupt(_))), _) => Reply::Refused("damaged"),
    }
}

fn counter_name(member: &IndexEntry) -> String {
    match member {
        IndexEntry::Counter(name) => name.as_str().to_owned(),
        other => panic!("nobody asked for {other:?}"),
    }
}

fn new_tenant(name: TenantName, key: KeyId) -> NewTenant {
    let password =
        PasswordHash { memory_kib: 8, passes: 1, lanes: 1, salt: [3; 16], hash: [4; 32] };
    NewTenant { name, password, key, secret: SecretHash([5; 32]), created_unix_s: 7 }
}
