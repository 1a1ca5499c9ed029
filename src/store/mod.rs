//! What a store owes: the contract between the API and whatever keeps the counters.
//!
//! Job: the trait [`Store`], its errors, and the meaning of *committed*. Two implementations are planned, embedded and
//! PostgreSQL; a third, a model in memory, lives in the tests and passes the same contract suite.
//!
//! *Committed* means: decided by the counter rule on the newest state, recorded with everything that was decided before
//! it, and forced to stable storage. An `Ok` is returned after that and never before. Whatever a read returns was
//! committed too, so a value that somebody has seen can not be taken back by a power cut.
//!
//! Must never: name a library or a status of HTTP; let an implementation answer from state that is not durable.

pub mod embedded;
mod records;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;

pub use self::records::{
    Applied, CounterState, Digest128, IdempotencyToken, Issued, KeyRecord, ListedCounter, ListedKey, NewCounter,
    NewTenant, Page, Precondition, TenantRecord, TenantUpdate, TenantUsage, Version,
};
use crate::domain::api_key::KeyId;
use crate::domain::counter::{CounterName, CounterRefusal, Value};
use crate::domain::tenant::{PasswordHash, TenantId, TenantName};

/// Seconds since 1970, by the wall clock: stored for people to read, never compared.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "records and backups say when they were made")]
pub fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The outcome of one verb, later.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keeps tenants, keys and counters. Object-safe, so that callers hold an `Arc<dyn Store>` and no type parameter.
///
/// All verbs may be called from many tasks at once. The changes of one counter happen one after another, in an order
/// that respects real time: a change that returned before another was called comes first. A future that is dropped
/// gives up the answer, not the change: the change may still happen, and its outcome is then unknown to the caller.
pub trait Store: Send + Sync + 'static {
    /// Stores a tenant, its name and its first key.
    ///
    /// *Atomic* with all three. *Durable* when it returns. *May be retried* after [`StoreError::Unavailable`] and
    /// [`StoreError::Poisoned`]; after [`StoreError::OutcomeUnknown`] a retry may be refused as [`Refusal::NameTaken`].
    fn register(&self, tenant: NewTenant) -> StoreFuture<'_, TenantId>;

    /// Finds an API key by its public half; `None` if there is no such key. Proves nothing about the secret half.
    ///
    /// A key that was found once is found without touching the disk while it stays in memory. Only a durable key is
    /// found, and a revoked one is not found by any call that starts after the revocation returned. *May be retried.*
    fn api_key(&self, key: KeyId) -> StoreFuture<'_, Option<Arc<KeyRecord>>>;

    /// Finds a tenant by its number; `None` if there is none, or none any more. *May be retried.*
    fn find_tenant(&self, tenant: TenantId) -> StoreFuture<'_, Option<Arc<TenantRecord>>>;

    /// Finds whose name it is, in any case. *May be retried.*
    fn tenant_by_name(&self, name: &TenantName) -> StoreFuture<'_, Option<TenantId>>;

    /// The number of the tenant that registered last; all of them have numbers from 1. *May be retried.*
    fn last_tenant_id(&self) -> StoreFuture<'_, TenantId>;

    /// How much a tenant has. *May be retried.*
    fn usage(&self, tenant: TenantId) -> StoreFuture<'_, TenantUsage>;

    /// Changes a tenant; returns it as it is then. *Durable* when it returns, and seen by every call that starts after that. *May be retried.*
    fn change_tenant(&self, tenant: TenantId, change: TenantUpdate) -> StoreFuture<'_, Arc<TenantRecord>>;

    /// Replaces a password and, if asked to, revokes every key, *atomically*. Returns how many keys that were. *May be retried.*
    fn change_password(&self, tenant: TenantId, password: PasswordHash, revoke_keys: bool) -> StoreFuture<'_, u32>;

    /// Deletes a tenant. When it returns, the name is free and no key of it is found; counters and keys are removed from the disk too, unless
    /// it returned an error, and then by the next start. *May be retried* until it is refused as [`Refusal::NoSuchTenant`].
    fn delete_tenant(&self, tenant: TenantId) -> StoreFuture<'_, ()>;

    /// Stores another key of its tenant, if that has less than `quota`. *Durable* when it returns. A retry after [`StoreError::OutcomeUnknown`] needs
    /// a new id.
    fn add_key(&self, id: KeyId, key: KeyRecord, quota: u32) -> StoreFuture<'_, ()>;

    /// The tenant's keys behind `after`, by id, `limit` at most. *May be retried.*
    fn list_api_keys(&self, tenant: TenantId, after: Option<KeyId>, limit: usize) -> StoreFuture<'_, Page<ListedKey>>;

    /// Revokes a key of the tenant. *Durable* when it returns; the key is not found by any call that starts after that. *May be retried.*
    fn revoke_key(&self, tenant: TenantId, key: KeyId) -> StoreFuture<'_, ()>;

    /// Notes the day on which a key was used, in days since 1970, unless that is known. *May be retried.*
    fn touch_api_key(&self, key: KeyId, day: u32) -> StoreFuture<'_, ()>;

    /// The counter as it was last committed. `default` is there for every tenant, and before its first change [`CounterState::default`].
    ///
    /// At least as new as any answer that was returned before this call. *May be retried.*
    fn get_counter(&self, tenant: TenantId, name: &CounterName) -> StoreFuture<'_, CounterState>;

    /// The tenant's counters behind `after`, by name, `limit` at most, `default` among them. Each is as new as [`Store::get_counter`] says; together
    /// they are no snapshot. *May be retried.*
    fn list_counters(
        &self,
        tenant: TenantId,
        after: Option<CounterName>,
        limit: usize,
    ) -> StoreFuture<'_, Page<ListedCounter>>;

    /// Creates a counter. *Atomic* and *durable*, and with `once` *safe to retry* for a day, always, as [`Store::advance`].
    fn create(
        &self,
        tenant: TenantId,
        name: &CounterName,
        new: NewCounter,
        once: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<CounterState>>;

    /// Reserves the next `count` integers of a counter by [`Counter::advance`](crate::domain::counter::Counter::advance): all of them or none.
    ///
    /// *Atomic*: no other change of the counter falls between them. *Durable* when it returns. *May be retried* after
    /// [`StoreError::Unavailable`] and [`StoreError::Poisoned`] without a hole; after [`StoreError::OutcomeUnknown`] a
    /// retry may leave the first range issued to nobody. With `once` it may be retried always, for 24 hours in which the store runs: a request
    /// with the same key is answered as the first was, in the same commit or after it, and changes nothing; what was refused is not remembered.
    fn advance(
        &self,
        tenant: TenantId,
        name: &CounterName,
        count: u32,
        once: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<Issued>>;

    /// Sets a counter by [`Counter::set`](crate::domain::counter::Counter::set) if it is as `expected`. *Atomic* and *durable* as [`Store::advance`], and
    /// with `once` as safe to retry.
    fn set(
        &self,
        tenant: TenantId,
        name: &CounterName,
        to: SetCounter,
        once: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<CounterState>>;

    /// Deletes a counter if it is as `expected`; one of the same name that is created later is another. *Durable* when it returns.
    fn delete(&self, tenant: TenantId, name: &CounterName, expected: Precondition) -> StoreFuture<'_, ()>;

    /// How the store is, without waiting.
    fn health(&self) -> Health;

    /// Waits until the store is poisoned, and says by what; forever, as long as all is well.
    fn wait_poisoned(&self) -> StoreFuture<'_, Arc<str>>;

    /// A handle to the same store for one worker thread, whose waiting requests may then be woken together.
    /// Call it within the runtime of that worker.
    fn for_worker(&self) -> Arc<dyn Store>;

    /// Finishes what was accepted, brings the state to rest on the disk and refuses everything after it.
    /// Returns when the folder may be opened by another process. Calling it twice is harmless.
    fn close(&self) -> StoreFuture<'_, ()>;
}

/// What a counter is to be set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCounter {
    /// The value.
    pub value: Value,
    /// It may be lower than the counter's.
    pub rewind: bool,
    /// What the counter must be before.
    pub expected: Precondition,
}

/// Whether the store takes changes now, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Changes and reads.
    Ready,
    /// Reads only, until there is room again.
    Unavailable(Unavailable),
    /// Reads only, until the process is restarted: a write failed and its outcome is not known.
    Poisoned,
}

/// The caller asked for something that is not allowed; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The counter rule said no.
    #[error(transparent)]
    Counter(#[from] CounterRefusal),
    /// Another tenant has the name, perhaps in another case.
    #[error("the name has already been taken")]
    NameTaken,
    /// The tenant has no such counter.
    #[error("there is no such counter")]
    NoSuchCounter,
    /// The tenant has a counter of that name.
    #[error("there is a counter of that name already")]
    CounterExists,
    /// `default` can be neither created nor deleted.
    #[error("the counter default always exists")]
    DefaultCounter,
    /// The counter is in another state than was expected: in this one.
    #[error("the counter is not as expected")]
    PreconditionFailed(CounterState),
    /// The tenant has as many as it may have.
    #[error("no more than {0} are allowed")]
    Quota(u32),
    /// Another request had the same idempotency key.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// As many idempotency keys are remembered as there is room for, in all or of this tenant; to forget one early would be to issue twice.
    #[error("as many idempotency keys are remembered as there is room for")]
    IdempotencyFull,
    /// The tenant has no such key.
    #[error("there is no such key")]
    NoSuchKey,
    /// There is no such tenant, or none any more.
    #[error("there is no such tenant")]
    NoSuchTenant,
}

/// Why the store takes no change for the moment. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// More requests wait than the queue holds.
    #[error("too many requests are waiting for a commit")]
    Overloaded,
    /// Less disk is free than the store keeps in reserve, or the next journal segment could not be made.
    #[error("the disk is almost full")]
    DiskLow,
    /// The process is going down.
    #[error("the store is closing")]
    Closing,
}

/// Why a verb did not answer, split by what the caller should do next.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Do something else: it was refused, nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Try again later: nothing changed.
    #[error("the store takes no change now: {0}")]
    Unavailable(#[from] Unavailable),
    /// Never blindly try again: it may or may not have been committed.
    #[error("the outcome of this change is not known")]
    OutcomeUnknown,
    /// Try again after a restart: nothing changed, and this process will change nothing any more.
    #[error("an earlier write failed; the store stopped taking changes")]
    Poisoned,
    /// A record on the disk is not what was written. Restore it; do not try again.
    #[error("a stored record is damaged: {0}")]
    Corrupt(Arc<str>),
}
