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

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;

use crate::counter::{Counter, CounterName, CounterRefusal, Range, Value};
use crate::tenant::{KeyId, PasswordHash, SecretHash, TenantId, TenantName};

/// Seconds since 1970, by the wall clock: stored for people to read, never compared.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "records and backups say when they were made")]
pub fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The outcome of one verb, later.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Everything that makes a tenant: it is stored as one change or not at all.
#[derive(Clone, Debug)]
pub struct NewTenant {
    /// The name; no other tenant may have it in any case.
    pub name: TenantName,
    /// The password, hashed.
    pub password: PasswordHash,
    /// The first API key's public half.
    pub key: KeyId,
    /// The hash of that key's secret half.
    pub secret: SecretHash,
    /// When, in seconds since 1970; stored for people to read, never compared.
    pub created_unix_s: u64,
}

/// What a store knows about an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Whose key it is.
    pub tenant: TenantId,
    /// The hash of the secret half.
    pub secret: SecretHash,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
}

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
    fn find_key(&self, key: KeyId) -> StoreFuture<'_, Option<Arc<KeyRecord>>>;

    /// The counter as it was last committed; a counter that never changed is [`Counter::default`].
    ///
    /// At least as new as any answer that was returned before this call. *May be retried.*
    fn current(&self, tenant: TenantId, name: &CounterName) -> StoreFuture<'_, Counter>;

    /// Reserves the next `count` integers of a counter by [`Counter::advance`]: all of them or none.
    ///
    /// *Atomic*: no other change of the counter falls between them. *Durable* when it returns. *May be retried* after
    /// [`StoreError::Unavailable`] and [`StoreError::Poisoned`] without a hole; after [`StoreError::OutcomeUnknown`] a
    /// retry may leave the first range issued to nobody.
    fn advance(&self, tenant: TenantId, name: &CounterName, count: u32) -> StoreFuture<'_, Range>;

    /// Sets a counter by [`Counter::set`]. *Atomic* and *durable* as [`Store::advance`]; *may be retried* always, as
    /// far as nobody else sets or increments in between.
    fn set(&self, tenant: TenantId, name: &CounterName, value: Value) -> StoreFuture<'_, Value>;

    /// How the store is, without waiting.
    fn health(&self) -> Health;

    /// Waits until the store is poisoned, and says by what; forever, as long as all is well.
    fn poisoned(&self) -> StoreFuture<'_, Arc<str>>;

    /// A handle to the same store for one worker thread, whose waiting requests may then be woken together.
    /// Call it within the runtime of that worker.
    fn for_worker(&self) -> Arc<dyn Store>;

    /// Finishes what was accepted, brings the state to rest on the disk and refuses everything after it.
    /// Returns when the folder may be opened by another process. Calling it twice is harmless.
    fn close(&self) -> StoreFuture<'_, ()>;
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
    Damaged(Arc<str>),
}
