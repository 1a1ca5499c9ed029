//! What is asked of the committer, and what it answers.
//!
//! Job: the words between the handles of the store and the one thread that decides. Invariant: an answer is durable, or an error says what is
//! known. Must never: carry a secret that Debug shows.

use std::sync::Arc;

use crate::domain::api_key::KeyId;
use crate::domain::counter::CounterName;
use crate::domain::tenant::{PasswordHash, TenantId};
use crate::store::embedded::codec::key::{Key, Listing, Member};
use crate::store::embedded::commit::cache::Published;
use crate::store::{
    CounterState, Done, Expected, Issued, KeyRecord, NewCounter, NewTenant, Once, SetTo, StoreError, TenantChange,
    TenantRecord,
};

/// What is asked of the committer.
#[derive(Debug)]
pub enum Ask {
    /// Change a counter.
    Counter(OfCounter),
    /// Store a tenant.
    Register(Box<NewTenant>),
    /// Change what belongs to a tenant, or the tenant.
    Tenant(TenantId, Box<OfTenant>),
    /// Note the day on which a key was used.
    Used(KeyId, u32),
    /// Bring a record into memory.
    Load(Key),
    /// List what a tenant has.
    List(Listing),
}

/// A change of a counter.
#[derive(Debug)]
pub struct OfCounter {
    /// Whose counter.
    pub tenant: TenantId,
    /// Which.
    pub name: CounterName,
    /// What is to become of it.
    pub change: CounterChange,
    /// It is to happen once.
    pub once: Option<Once>,
}

/// What is to become of a counter.
#[derive(Debug)]
pub enum CounterChange {
    /// Reserve so many integers.
    Advance(u32),
    /// Set it.
    Set(Box<SetTo>),
    /// Create it.
    Create(Box<NewCounter>),
    /// Delete it.
    Delete(Expected),
}

/// A change of a tenant.
#[derive(Debug)]
pub enum OfTenant {
    /// Suspend, resume, limit.
    Change(TenantChange),
    /// Replace the password, and revoke these keys, which must be all it has.
    Password(PasswordHash, Option<Vec<KeyId>>),
    /// Store a key, if the tenant has less than so many.
    AddKey(KeyId, KeyRecord, u32),
    /// Revoke a key.
    RevokeKey(KeyId),
    /// Begin its deletion: the name is free, the keys are refused.
    Doom,
    /// Go on with it: these are gone.
    Sweep(Vec<Member>),
    /// End it: nothing of the tenant is left.
    Bury,
}

/// What was asked for.
#[derive(Debug)]
pub enum Answer {
    /// Integers.
    Issued(Done<Issued>),
    /// A counter that was set or created.
    State(Done<CounterState>),
    /// A new tenant's number.
    Registered(TenantId),
    /// A tenant as it is now.
    Tenant(Arc<TenantRecord>),
    /// It is done, and there is nothing to say of it.
    Done,
    /// Somebody was quicker: look again and ask again.
    Again,
    /// To [`Ask::Load`]: the record as it is published, now and later.
    Loaded(Arc<Published>),
    /// To [`Ask::List`].
    Listed(Vec<Member>),
}

/// An answer or why there is none.
pub type Outcome = Result<Answer, StoreError>;
