//! Commands and replies: the messages between the store's handles and the committer.
//!
//! Job: define what can be submitted to the committer, and what it replies.
//! Invariant: a successful reply to a change means that the change is durable.
//! Must never: carry a secret that `Debug` shows.

use std::sync::Arc;

use crate::domain::api_key::KeyId;
use crate::domain::counter::CounterName;
use crate::domain::tenant::{PasswordHash, TenantId};
use crate::store::embedded::codec::key::{IndexEntry, IndexScan, RecordKey};
use crate::store::embedded::commit::cache::CommittedRecord;
use crate::store::{
    Applied, CounterState, IdempotencyToken, Issued, KeyRecord, NewCounter, NewTenant,
    Precondition, Proof, SetCounter, StoreError, TenantRecord, TenantUpdate,
};

/// A command to the committer.
#[derive(Debug)]
pub enum Command {
    /// Change a counter.
    Counter(CounterCommand),
    /// Register a tenant.
    Register(Box<NewTenant>),
    /// Change a tenant or one of its API keys.
    Tenant(TenantId, Box<TenantOp>),
    /// Record the day on which an API key was used, in days since 1970.
    TouchKey(KeyId, u32),
    /// Load a record into the cache.
    Load(RecordKey),
    /// List index entries of a tenant.
    List(IndexScan),
}

/// A change of one counter.
#[derive(Debug)]
pub struct CounterCommand {
    /// The tenant that owns the counter.
    pub tenant: TenantId,
    /// The counter's name.
    pub name: CounterName,
    /// The key of the counter's record, made from the two.
    pub key: RecordKey,
    /// The operation.
    pub op: CounterOp,
    /// The idempotency token of the request, if it has one.
    pub idempotency: Option<IdempotencyToken>,
}

impl CounterCommand {
    /// A command for the counter `name` of `tenant`.
    #[must_use]
    pub fn new(
        tenant: TenantId,
        name: CounterName,
        op: CounterOp,
        idempotency: Option<IdempotencyToken>,
    ) -> Self {
        let key = RecordKey::Counter(tenant, name.clone());
        Self { tenant, name, key, op, idempotency }
    }
}

/// An operation on a counter.
#[derive(Debug)]
pub enum CounterOp {
    /// Reserve this many integers.
    Advance(u32),
    /// Set the value.
    Set(Box<SetCounter>),
    /// Create the counter.
    Create(Box<NewCounter>),
    /// Delete the counter, if the precondition is met.
    Delete(Precondition),
}

/// An operation on a tenant.
#[derive(Debug)]
pub enum TenantOp {
    /// Suspend or resume the tenant, or set its rate limit.
    Update(TenantUpdate),
    /// Replace the password, and revoke every API key if this is true.
    Password(Proof, PasswordHash, bool),
    /// Add an API key, if the tenant has fewer than this many.
    AddKey(Proof, KeyId, KeyRecord, u32),
    /// Revoke an API key.
    RevokeKey(Proof, KeyId),
    /// Mark the tenant deleted: its name becomes free and its API keys are rejected.
    MarkDeleted(Proof),
    /// Purge: remove these objects, which nobody can use any more: their tenant is marked deleted,
    /// or they are API keys of an earlier epoch.
    PurgeMembers(Vec<IndexEntry>),
    /// Remove the tenant itself, after everything it had was purged.
    RemoveTenant,
}

impl TenantOp {
    /// The credential that a change of credentials is asked for with.
    pub(crate) fn proof(&self) -> Option<Proof> {
        match self {
            Self::Password(proof, ..)
            | Self::AddKey(proof, ..)
            | Self::RevokeKey(proof, _)
            | Self::MarkDeleted(proof) => Some(*proof),
            Self::Update(_) | Self::PurgeMembers(_) | Self::RemoveTenant => None,
        }
    }
}

/// A reply of the committer.
#[derive(Debug)]
pub enum Reply {
    /// To [`CounterOp::Advance`]: the integers that were issued.
    Issued(Applied<Issued>),
    /// To [`CounterOp::Set`] and [`CounterOp::Create`]: the new state of the counter.
    State(Applied<CounterState>),
    /// To [`Command::Register`]: the number of the new tenant.
    Registered(TenantId),
    /// To operations that change a tenant's record: the updated record.
    Tenant(Arc<TenantRecord>),
    /// Done; there is no result.
    Ack,
    /// To [`TenantOp::Password`]: the number of API keys that were revoked with it.
    PasswordChanged(u32),
    /// To [`Command::Load`]: the committed record, now and after later commits.
    Loaded(Arc<CommittedRecord>),
    /// To [`Command::List`]: the index entries.
    Listed(Vec<IndexEntry>),
}

/// The result of a command.
pub type CommandResult = Result<Reply, StoreError>;
