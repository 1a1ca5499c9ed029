//! What a store keeps and hands out: tenants, keys, counters, and what was answered once.
//!
//! Job: plain types of the contract in mod.rs. Invariant: none of them shows a secret in Debug; hashes are all there is.
//! Must never: decide anything; know bytes, a database or HTTP.

use std::sync::Arc;

use crate::domain::api_key::{KeyId, KeyLabel, Scopes, SecretHash};
use crate::domain::counter::{Counter, CounterConfig, CounterName, Range};
use crate::domain::tenant::{PasswordHash, TenantId, TenantLimit, TenantName};

/// Everything that makes a tenant: it is stored as one change or not at all.
#[derive(Clone, Debug)]
pub struct NewTenant {
    /// The name; no other tenant may have it in any case.
    pub name: TenantName,
    /// The password, hashed.
    pub password: PasswordHash,
    /// The first API key's public half; the key may do everything and does not expire.
    pub key: KeyId,
    /// The hash of that key's secret half.
    pub secret: SecretHash,
    /// When, in seconds since 1970; stored for people to read, never compared.
    pub created_unix_s: u64,
}

/// What a store knows about a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRecord {
    /// The name as it was typed.
    pub name: TenantName,
    /// The password, hashed.
    pub password: PasswordHash,
    /// When it was registered, in seconds since 1970.
    pub created_unix_s: u64,
    /// An operator forbade everything until further notice.
    pub suspended: bool,
    /// How many requests it may make.
    pub limit: TenantLimit,
    /// It is being deleted: nobody may use it any more, and what it has is removed piece by piece.
    pub deleting: bool,
}

/// What is to become of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantUpdate {
    /// Everything is forbidden, or no longer.
    Suspended(bool),
    /// So many requests.
    Limit(TenantLimit),
}

/// How much a tenant has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantUsage {
    /// Counters beside `default`.
    pub counters: u32,
    /// API keys, expired ones among them.
    pub keys: u32,
    /// Counters that were ever created: it tells one from another that had its name before.
    pub counters_created: u64,
}

/// What a store knows about an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Whose key it is.
    pub tenant: TenantId,
    /// The hash of the secret half.
    pub secret: SecretHash,
    /// What people call it.
    pub label: KeyLabel,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
    /// From when on it is refused, in seconds since 1970.
    pub expires_unix_s: Option<u64>,
    /// The last day on which it was used, in days since 1970.
    pub last_used_day: Option<u32>,
}

/// Which state of a counter it is: different after every change, and never the same again, not even for a counter that was deleted and
/// created anew under the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Which of its tenant's counters it is, in the order of creation; 0 for `default`.
    pub generation: u64,
    /// How often it was changed.
    pub revision: u64,
}

/// A counter as it was committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterState {
    /// Value and shape.
    pub counter: Counter,
    /// Which state it is.
    pub version: Version,
    /// When it was created, in seconds since 1970; 0 for `default`, which always was.
    pub created_unix_s: u64,
}

/// A change that is made only if the counter is still in a state that the caller knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Whatever there is.
    Any,
    /// One of these.
    OneOf(Vec<Version>),
}

impl Precondition {
    /// Whether a counter in this state may be changed.
    #[must_use]
    pub fn is_met_by(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }
}

/// A counter to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCounter {
    /// Bounds and step.
    pub shape: CounterConfig,
    /// When, in seconds since 1970.
    pub created_unix_s: u64,
    /// How many counters its tenant may have, `default` not counted.
    pub quota: u32,
}

/// A digest of 128 bits, of SHA-256.
pub type Digest128 = [u8; 16];

/// A request that is to happen once, however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyToken {
    /// Of the key that the tenant chose for the request.
    pub key_hash: Digest128,
    /// Of what is asked for: another request with the same key is refused.
    pub request_fingerprint: Digest128,
}

/// A change that is durable, now or since an earlier request that was the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied<T> {
    /// What came of it.
    pub result: T,
    /// Whether it was answered before: nothing was changed this time.
    pub replayed: bool,
}

/// Integers that were issued, and the counter's state after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The integers.
    pub range: Range,
    /// The counter's state.
    pub version: Version,
}

/// A part of a list in the order of names, and whether more follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as were asked for.
    pub items: Vec<T>,
    /// Whether the list goes on behind them.
    pub more: bool,
}

/// A counter in a list.
pub type ListedCounter = (CounterName, CounterState);

/// A key in a list.
pub type ListedKey = (KeyId, Arc<KeyRecord>);
