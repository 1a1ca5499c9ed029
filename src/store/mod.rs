//! The storage interface: the contract that every backend must fulfil.
//!
//! Job: the trait [`Store`], its errors, and the meaning of *committed*. Two backends are planned,
//! embedded and PostgreSQL. A third, an in-memory model in the tests, passes the same contract
//! tests.
//!
//! A change is *committed* when it was decided by the counter rule on the newest state, recorded
//! together with everything that was decided before it, and forced to stable storage.
//!
//! Invariant: `Ok` is returned after the commit and never before. A read returns committed data
//! only, so a power failure cannot take back a value that a client has seen.
//! Must never: name a library or an HTTP status; let a backend reply from data that is not durable.

pub mod embedded;
mod records;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;

pub use self::records::{
    Applied, CounterState, Digest128, IdempotencyToken, Issued, KeyRecord, ListedCounter,
    ListedKey, NewCounter, NewTenant, Page, Precondition, Proof, TenantRecord, TenantUpdate,
    TenantUsage, Version,
};
use crate::domain::api_key::KeyId;
use crate::domain::counter::{CounterName, CounterRefusal, Value};
use crate::domain::tenant::{PasswordHash, TenantId, TenantName};

/// Wall-clock time in seconds since 1970, for dates: when a record or a backup was made, when an
/// API key expires, on which day it was used. It never decides a counter's value or an order, and
/// durations within a process are measured with `Instant`.
#[expect(clippy::disallowed_methods, reason = "records and backups say when they were made")]
pub fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// An API key that was found, and its tenant.
pub type FoundKey = (Arc<KeyRecord>, Arc<TenantRecord>);

/// Boxed future returned by the operations of [`Store`].
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Persistent storage of tenants, API keys and counters. Object-safe, so that callers hold an
/// `Arc<dyn Store>` and need no type parameter.
///
/// Every operation may be called from many tasks at once. The changes of one counter are made one
/// after another, in an order that respects real time: a change that returned before another was
/// called comes first. Dropping a future gives up the reply, not the change: the change may still
/// be made, and its outcome is then unknown to the caller.
///
/// Every operation returns a [`StoreError`] if it fails. *May be retried* means that after any
/// error but a refusal, a second call has the effect of one.
pub trait Store: Send + Sync + 'static {
    /// Registers a tenant with its name and its first API key; returns the tenant's number.
    ///
    /// *Atomic* with all three. *Durable* when it returns. *May be retried* after
    /// [`StoreError::Unavailable`] and [`StoreError::Poisoned`]; after
    /// [`StoreError::OutcomeUnknown`] a retry may be refused as [`Refusal::NameTaken`].
    fn register(&self, tenant: NewTenant) -> StoreFuture<'_, TenantId>;

    /// Looks an API key up by its public half, with its tenant; `None` if there is none, or its
    /// tenant was deleted. Does not verify the secret half.
    ///
    /// A cached key is found without reading the disk. Only a durable key is found, and a revoked
    /// key is not found by any call that starts after the revocation returned, whether it was
    /// revoked alone or with all others of its tenant. *May be retried.*
    fn api_key(&self, key: KeyId) -> StoreFuture<'_, Option<FoundKey>>;

    /// Looks a tenant up by number; `None` if there is none, or it was deleted. *May be retried.*
    fn find_tenant(&self, tenant: TenantId) -> StoreFuture<'_, Option<Arc<TenantRecord>>>;

    /// Looks a tenant up by name, ignoring case. *May be retried.*
    fn tenant_by_name(&self, name: &TenantName) -> StoreFuture<'_, Option<TenantId>>;

    /// The number of the last registered tenant; numbers are assigned from 1 without gaps. *May be
    /// retried.*
    fn last_tenant_id(&self) -> StoreFuture<'_, TenantId>;

    /// Numbers of counters and API keys of a tenant. *May be retried.*
    fn usage(&self, tenant: TenantId) -> StoreFuture<'_, TenantUsage>;

    /// Updates a tenant; returns the updated record. *Durable* when it returns, and seen by every
    /// call that starts after that. *May be retried.*
    fn change_tenant(
        &self,
        tenant: TenantId,
        update: TenantUpdate,
    ) -> StoreFuture<'_, Arc<TenantRecord>>;

    /// Replaces a password and, if `revoke_keys`, revokes every API key, *atomically*. Returns the
    /// number of revoked keys. *May be retried* with a new [`Proof`]: the old password's is refused
    /// as [`Refusal::CredentialReplaced`] once the change is made.
    fn change_password(
        &self,
        tenant: TenantId,
        proof: Proof,
        password: PasswordHash,
        revoke_keys: bool,
    ) -> StoreFuture<'_, u32>;

    /// Deletes a tenant. When it returns, the name is free and no API key of the tenant is found.
    /// Its data is purged from the disk too; if this returned an error, the next start does so.
    /// Refused as [`Refusal::CredentialReplaced`] if the proof does not hold any more. *May be
    /// retried* until it is refused as [`Refusal::NoSuchTenant`].
    fn delete_tenant(&self, tenant: TenantId, proof: Proof) -> StoreFuture<'_, ()>;

    /// Adds an API key, if its tenant has fewer than `quota` and the proof still holds when this is
    /// decided: a credential that was replaced or revoked by then adds no key. *Durable* when it
    /// returns. A retry after [`StoreError::OutcomeUnknown`] needs a new id.
    fn add_key(&self, id: KeyId, key: KeyRecord, proof: Proof, quota: u32) -> StoreFuture<'_, ()>;

    /// The tenant's API keys with an id greater than `after`, in ascending order, at most `limit`.
    /// *May be retried.*
    fn list_api_keys(
        &self,
        tenant: TenantId,
        after: Option<KeyId>,
        limit: usize,
    ) -> StoreFuture<'_, Page<ListedKey>>;

    /// Revokes an API key of the tenant, if the proof still holds. *Durable* when it returns; the
    /// key is not found by any call that starts after that. *May be retried.*
    fn revoke_key(&self, tenant: TenantId, key: KeyId, proof: Proof) -> StoreFuture<'_, ()>;

    /// Records the day on which an API key was used, in days since 1970, unless that day or a later
    /// one is recorded. *May be retried.*
    fn touch_api_key(&self, key: KeyId, day: u32) -> StoreFuture<'_, ()>;

    /// The committed state of a counter. `default` exists for every tenant, before its first change
    /// as [`CounterState::default`].
    ///
    /// At least as new as every reply that was returned before this call. *May be retried.*
    fn get_counter(&self, tenant: TenantId, name: &CounterName) -> StoreFuture<'_, CounterState>;

    /// The tenant's counters with a name greater than `after`, in ascending order, at most `limit`,
    /// `default` among them. Each is as new as [`Store::get_counter`] guarantees; together they are
    /// not a snapshot. *May be retried.*
    fn list_counters(
        &self,
        tenant: TenantId,
        after: Option<CounterName>,
        limit: usize,
    ) -> StoreFuture<'_, Page<ListedCounter>>;

    /// Creates a counter. *Atomic* and *durable*; with an idempotency token it may always be
    /// retried, as [`Store::advance`].
    fn create(
        &self,
        tenant: TenantId,
        name: &CounterName,
        new: NewCounter,
        idempotency: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<CounterState>>;

    /// Reserves the next `count` integers of a counter by
    /// [`Counter::advance`](crate::domain::counter::Counter::advance): all of them or none.
    ///
    /// *Atomic*: no other change of the counter falls between them. *Durable* when it returns. *May
    /// be retried* after [`StoreError::Unavailable`] and [`StoreError::Poisoned`] without a gap;
    /// after [`StoreError::OutcomeUnknown`] a retry may skip the first range: it was allocated, but
    /// no client received it.
    ///
    /// With an idempotency token it may always be retried, for 24 hours of store uptime: a request
    /// with the same key gets the result of the first one, in the same commit or after it, and
    /// changes nothing. Refused requests are not stored under the key.
    fn advance(
        &self,
        tenant: TenantId,
        name: &CounterName,
        count: u32,
        idempotency: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<Issued>>;

    /// Sets a counter by [`Counter::set`](crate::domain::counter::Counter::set) if it meets the
    /// precondition. *Atomic* and *durable*; with an idempotency token it may always be retried, as
    /// [`Store::advance`].
    fn set(
        &self,
        tenant: TenantId,
        name: &CounterName,
        to: SetCounter,
        idempotency: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<CounterState>>;

    /// Deletes a counter if it meets the precondition. A counter of the same name that is created
    /// later is another one, with another [`Version`]. *Durable* when it returns.
    fn delete(
        &self,
        tenant: TenantId,
        name: &CounterName,
        precondition: Precondition,
    ) -> StoreFuture<'_, ()>;

    /// The health of the store, without waiting.
    fn health(&self) -> Health;

    /// Waits until the store is poisoned and returns the reason; does not return while the store
    /// works.
    fn wait_poisoned(&self) -> StoreFuture<'_, Arc<str>>;

    /// A handle to the same store for one worker thread, whose waiting requests are then woken
    /// together. Call it within the async runtime of that worker.
    fn for_worker(&self) -> Arc<dyn Store>;

    /// Finishes the accepted requests, writes a final checkpoint and rejects every later request.
    /// When it returns, another process may open the data directory. Calling it twice is harmless.
    fn close(&self) -> StoreFuture<'_, ()>;
}

/// Arguments of [`Store::set`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCounter {
    /// The new value.
    pub value: Value,
    /// Allow a value below the current one.
    pub rewind: bool,
    /// The precondition that the counter must meet.
    pub precondition: Precondition,
}

/// Whether the store accepts changes, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Changes and reads are accepted.
    Ready,
    /// Read-only until the reason is gone.
    Unavailable(Unavailable),
    /// Read-only until the process is restarted: a write failed and its outcome is unknown.
    Poisoned,
}

/// The client asked for something that is not allowed; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Refused by the counter rule.
    #[error(transparent)]
    Counter(#[from] CounterRefusal),
    /// Another tenant has the name, ignoring case.
    #[error("the name has already been taken")]
    NameTaken,
    /// The tenant has no counter of that name.
    #[error("there is no such counter")]
    NoSuchCounter,
    /// The tenant already has a counter of that name.
    #[error("a counter of that name already exists")]
    CounterExists,
    /// `default` can be neither created nor deleted.
    #[error("the counter default always exists")]
    DefaultCounter,
    /// The counter does not meet the precondition; its current state.
    #[error("the counter does not meet the precondition")]
    PreconditionFailed(CounterState),
    /// The tenant has reached this quota.
    #[error("no more than {0} are allowed")]
    Quota(u32),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// The idempotency table, or the tenant's share of it, is full. Evicting a live key early could
    /// allocate a number twice.
    #[error("the limit of stored idempotency keys is reached")]
    IdempotencyFull,
    /// The tenant has no such API key.
    #[error("there is no such key")]
    NoSuchKey,
    /// There is no such tenant, or it was deleted.
    #[error("there is no such tenant")]
    NoSuchTenant,
    /// The credential that asked for the change was replaced, revoked or suspended meanwhile.
    #[error("the credential is not valid any more")]
    CredentialReplaced,
}

/// Why the store does not accept a change at the moment. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// The commit queue is full.
    #[error("too many requests are waiting for a commit")]
    Overloaded,
    /// Free disk space is below the reserve, or the next journal segment could not be allocated.
    #[error("the disk is almost full")]
    DiskLow,
    /// The process is shutting down.
    #[error("the store is closing")]
    Closing,
}

/// Why an operation failed, divided by what the caller should do next.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Do something else: it was refused, nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Retry later: nothing changed.
    #[error("the store accepts no changes now: {0}")]
    Unavailable(#[from] Unavailable),
    /// Do not retry blindly: the change may or may not have been committed.
    #[error("the outcome of this change is not known")]
    OutcomeUnknown,
    /// Retry after a restart: nothing changed, and this process accepts no further changes.
    #[error("an earlier write failed; the store accepts no further changes")]
    Poisoned,
    /// A record on the disk is not what was written. Restore it; do not retry.
    #[error("a stored record is corrupt: {0}")]
    Corrupt(Arc<str>),
}
