//! What a client asks for, as a command to the store, and what it is told, in the words of the
//! checker.
//!
//! Job: [`What::command`] and [`Reply::of`]. Invariant: two requests have the same fingerprint only
//! if they are the same; a refusal is told by its name.
//! Must never: know when something was sent, or by which client.

use odometer::domain::api_key::{KeyId, SecretHash};
use odometer::domain::counter::{CounterConfig, CounterName, Value};
use odometer::domain::tenant::{PasswordHash, TenantId, TenantName};
use odometer::store::embedded::codec::key::{IndexEntry, IndexKind, IndexScan, RecordKey};
use odometer::store::embedded::codec::record::Record;
use odometer::store::embedded::commit::command::{
    Command, CommandResult, CounterCommand, CounterOp, Reply as StoreReply,
};
use odometer::store::{
    IdempotencyToken, NewCounter, NewTenant, Precondition, Refusal, SetCounter, StoreError,
    Unavailable,
};

use crate::bugs::Bug;
use crate::support::model;

pub(crate) const TENANTS: u64 = 3;
pub(crate) const COUNTERS: u64 = 2;

/// A counter, as the history names it.
pub(crate) type Place = (u32, u32);

/// What a client asked for; the last number of a change is its idempotency key, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// This many integers.
    Advance(Place, u32, Option<u64>),
    Set(Place, u64, Option<u64>),
    Read(Place),
    Register(TenantName, KeyId),
    Create(Place, Option<u64>),
    /// The counters of a tenant, and which of them were known when it was asked.
    List(u32, Vec<String>),
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The last value of a range, the value set, the value read, or that of a new counter.
    Value(u64),
    /// The same of a change that was made before.
    Replayed(u64),
    Tenant(TenantId),
    Names(Vec<String>),
    /// Not done.
    Refused(&'static str),
    Unknown,
}

/// The refusal of a key that was used for another request.
pub(crate) const REUSED: &str = "key reused";
/// The refusal of a key for which there is no room.
pub(crate) const FULL: &str = "keys full";

fn counter_of(place: Place) -> (TenantId, CounterName) {
    let name = if place.1 == 0 { "default" } else { "second" };
    (tenant_of(place.0), CounterName::parse(name).expect("a good name"))
}

/// The tenant, as the store numbers it.
pub(crate) fn tenant_of(tenant: u32) -> TenantId {
    TenantId(u64::from(tenant) + 1)
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

/// A counter's value; one that no client touched or created holds 1.
pub(crate) fn value_of(record: Option<&Record>) -> u64 {
    match record {
        Some(Record::Counter(state)) => state.counter.value().get(),
        _ => model::Counter::default().value,
    }
}

fn digest(number: u64) -> [u8; 16] {
    let mut digest = [0; 16];
    digest[8..].copy_from_slice(&number.to_be_bytes());
    digest
}

impl What {
    /// The place of a change, and its idempotency key.
    pub(crate) fn change(&self) -> Option<(Place, Option<u64>)> {
        match self {
            Self::Advance(place, _, key) | Self::Set(place, _, key) | Self::Create(place, key) => {
                Some((*place, *key))
            }
            Self::Read(_) | Self::Register(..) | Self::List(..) => None,
        }
    }

    /// The idempotency key, which is one of its tenant.
    pub(crate) fn key(&self) -> Option<(u32, u64)> {
        self.change().and_then(|(place, key)| Some((place.0, key?)))
    }

    /// The tenant and the token of a request with an idempotency key.
    pub(crate) fn token(&self) -> Option<(TenantId, IdempotencyToken)> {
        let (tenant, key) = self.key()?;
        let (kind, place, number) = match self {
            Self::Advance(place, count, _) => (1, *place, u64::from(*count)),
            Self::Set(place, value, _) => (2, *place, *value),
            _ => (3, self.change()?.0, 0),
        };
        let request = kind << 56 | u64::from(place.0) << 48 | u64::from(place.1) << 32 | number;
        let token =
            IdempotencyToken { key_hash: digest(key), request_fingerprint: digest(request) };
        Some((tenant_of(tenant), token))
    }

    /// What the tally calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Advance(..) => "advance",
            Self::Set(..) => "set",
            Self::Read(_) => "read",
            Self::Register(..) => "register",
            Self::Create(..) => "create",
            Self::List(..) => "list",
        }
    }

    /// The command that is sent at this step.
    pub(crate) fn command(&self, bug: Option<Bug>, step: u64) -> Command {
        let token = self.token().map(|(_, token)| token);
        let change = |place: Place, op| {
            let (tenant, name) = counter_of(place);
            Command::Counter(CounterCommand::new(tenant, name, op, token))
        };
        match self {
            Self::Advance(place, count, _) => {
                let more = u32::from(bug == Some(Bug::ValueSkipped) && step.is_multiple_of(16));
                change(*place, CounterOp::Advance(count + more))
            }
            Self::Set(place, ..) if bug == Some(Bug::SetLost) => Command::Load(key(*place)),
            Self::Set(place, value, _) => {
                let value = Value::new(*value).expect("a small value");
                let to = SetCounter { value, rewind: true, precondition: Precondition::Any };
                change(*place, CounterOp::Set(Box::new(to)))
            }
            Self::Read(place) => Command::Load(key(*place)),
            Self::Register(name, key) => {
                Command::Register(Box::new(new_tenant(name.clone(), *key)))
            }
            Self::Create(place, _) => {
                let config = CounterConfig::DEFAULT;
                let new = NewCounter { config, created_unix_s: 7, quota: 1 };
                change(*place, CounterOp::Create(Box::new(new)))
            }
            Self::List(tenant, _) => Command::List(IndexScan {
                tenant: tenant_of(*tenant),
                index_kind: IndexKind::Counters,
                after: None,
                limit: 9,
            }),
        }
    }
}

impl Reply {
    /// What the store told; `None` if it told nothing.
    pub(crate) fn of(told: Option<CommandResult>, what: &What) -> Self {
        let value = |value, replayed: bool| {
            if replayed { Self::Replayed(value) } else { Self::Value(value) }
        };
        match told {
            None | Some(Err(StoreError::OutcomeUnknown)) => Self::Unknown,
            Some(Ok(StoreReply::Issued(done))) => {
                value(done.result.range.last.get(), done.replayed)
            }
            Some(Ok(StoreReply::State(done))) => {
                value(done.result.counter.value().get(), done.replayed)
            }
            Some(Ok(StoreReply::Registered(id))) => Self::Tenant(id),
            Some(Ok(StoreReply::Listed(members))) => {
                Self::Names(members.iter().map(counter_name).collect())
            }
            Some(Ok(StoreReply::Loaded(published))) => match what {
                // Only the bug of lost sets answers a set like this.
                What::Set(_, value, _) => Self::Value(*value),
                _ => Self::Value(value_of(published.record().as_deref())),
            },
            Some(Ok(other)) => panic!("no client asked for {other:?}"),
            Some(Err(error)) => Self::Refused(refusal(&error)),
        }
    }

    /// What the tally calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Value(_) | Self::Tenant(_) | Self::Names(_) => "done",
            Self::Replayed(_) => "replayed",
            Self::Refused(why) => why,
            Self::Unknown => "unknown",
        }
    }
}

fn refusal(error: &StoreError) -> &'static str {
    match error {
        StoreError::Refused(Refusal::NameTaken) => "name taken",
        StoreError::Refused(Refusal::CounterExists) => "exists",
        StoreError::Refused(Refusal::NoSuchCounter) => "no counter",
        StoreError::Refused(Refusal::NoSuchTenant) => "no tenant",
        StoreError::Refused(Refusal::IdempotencyKeyReused) => REUSED,
        StoreError::Refused(Refusal::IdempotencyFull) => FULL,
        StoreError::Refused(_) => "rule",
        StoreError::Unavailable(Unavailable::Overloaded) => "overloaded",
        StoreError::Unavailable(Unavailable::DiskLow) => "disk low",
        StoreError::Unavailable(Unavailable::Closing) => "closing",
        StoreError::Poisoned => "poisoned",
        StoreError::Corrupt(_) => "damaged",
        StoreError::OutcomeUnknown => "unknown",
    }
}

fn counter_name(member: &IndexEntry) -> String {
    match member {
        IndexEntry::Counter(name) => name.as_str().to_owned(),
        other => panic!("no client asked for {other:?}"),
    }
}

fn new_tenant(name: TenantName, key: KeyId) -> NewTenant {
    let password =
        PasswordHash { memory_kib: 8, passes: 1, lanes: 1, salt: [3; 16], hash: [4; 32] };
    NewTenant { name, password, key, secret: SecretHash([5; 32]), created_unix_s: 7 }
}
