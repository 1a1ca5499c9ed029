//! What is asked of the committer, and what it answers.
//!
//! Job: the words between the handles of the store and the one thread that decides. Invariant: an answer is durable, or an error says what is
//! known. Must never: carry a secret that Debug shows.

use std::sync::Arc;

use crate::domain::api_key::KeyId;
use crate::domain::counter::CounterName;
use crate::domain::tenant::{PasswordHash, TenantId};
use crate::store::embedded::codec::key::{IndexEntry, IndexScan, RecordKey};
use crate::store::embedded::commit::cache::CommittedRecord;
use crate::store::{
    Applied, CounterState, IdempotencyToken, Issued, KeyRecord, NewCounter, NewTenant, Precondition, SetCounter,
    StoreError, TenantRecord, TenantUpdate,
};

/// What is asked of the committer.
#[derive(Debug)]
pub enum Command {
    /// Change a counter.
    Counter(CounterCommand),
    /// Store a tenant.
    Register(Box<NewTenant>),
    /// Change what belongs to a tenant, or the tenant.
    Tenant(TenantId, Box<TenantOp>),
    /// Note the day on which a key was used.
    TouchKey(KeyId, u32),
    /// Bring a record into memory.
    Load(RecordKey),
    /// List what a tenant has.
    List(IndexScan),
}

/// A change of a counter.
#[derive(Debug)]
pub struct CounterCommand {
    /// Whose counter.
    pub tenant: TenantId,
    /// Which.
    pub name: CounterName,
    /// What is to become of it.
    pub op: CounterOp,
    /// It is to happen once.
    pub idempotency: Option<IdempotencyToken>,
}

/// What is to become of a counter.
#[derive(Debug)]
pub enum CounterOp {
    /// Reserve so many integers.
    Advance(u32),
    /// Set it.
    Set(Box<SetCounter>),
    /// Create it.
    Create(Box<NewCounter>),
    /// Delete it.
    Delete(Precondition),
}

/// A change of a tenant.
#[derive(Debug)]
pub enum TenantOp {
    /// Suspend, resume, limit.
    Update(TenantUpdate),
    /// Replace the password, and revoke these keys, which must be all it has.
    Password(PasswordHash, Option<Vec<KeyId>>),
    /// Store a key, if the tenant has less than so many.
    AddKey(KeyId, KeyRecord, u32),
    /// Revoke a key.
    RevokeKey(KeyId),
    /// Begin its deletion: the name is free, the keys are refused.
    MarkDeleted,
    /// Go on with it: these are gone.
    PurgeMembers(Vec<IndexEntry>),
    /// End it: nothing of the tenant is left.
    RemoveTenant,
}

/// What was asked for.
#[derive(Debug)]
pub enum Reply {
    /// Integers.
    Issued(Applied<Issued>),
    /// A counter that was set or created.
    State(Applied<CounterState>),
    /// A new tenant's number.
    Registered(TenantId),
    /// A tenant as it is now.
    Tenant(Arc<TenantRecord>),
    /// It is done, and there is nothing to say of it.
    Ack,
    /// Somebody was quicker: look again and ask again.
    Conflict,
    /// To [`Command::Load`]: the record as it is published, now and later.
    Loaded(Arc<CommittedRecord>),
    /// To [`Command::List`].
    Listed(Vec<IndexEntry>),
}

/// An answer or why there is none.
pub type CommandResult = Result<Reply, StoreError>;
