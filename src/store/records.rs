//! Data types of the storage interface: tenants, API keys, counters, idempotency results.
//!
//! Job: plain data types of the contract in mod.rs.
//! Invariant: `Debug` of these types shows no secret; they contain hashes only.
//! Must never: decide anything; know bytes, a database or HTTP.

use std::sync::Arc;

use crate::domain::api_key::{KeyId, KeyLabel, Scopes, SecretHash};
use crate::domain::counter::{Counter, CounterConfig, CounterName, Range};
use crate::domain::tenant::{PasswordHash, TenantId, TenantLimit, TenantName};
use crate::failpoint::failpoint;

/// A tenant to be registered, with its first API key; stored atomically.
#[derive(Clone, Debug)]
pub struct NewTenant {
    /// The name; it must be unused, ignoring case.
    pub name: TenantName,
    /// The password, hashed.
    pub password: PasswordHash,
    /// The public half of the first API key, which has every scope and does not expire.
    pub key: KeyId,
    /// The hash of that key's secret half.
    pub secret: SecretHash,
    /// The time of registration, in seconds since 1970; only informative, never compared.
    pub created_unix_s: u64,
}

/// A stored tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRecord {
    /// The name as it was entered.
    pub name: TenantName,
    /// The password, hashed.
    pub password: PasswordHash,
    /// The time of registration, in seconds since 1970.
    pub created_unix_s: u64,
    /// Whether an operator suspended the tenant: all its requests are rejected.
    pub suspended: bool,
    /// The rate limit of its requests.
    pub limit: TenantLimit,
    /// Whether the tenant is marked deleted: it cannot be used any more, and its data is being
    /// purged.
    pub deleting: bool,
    /// How often all API keys were revoked at once. A key of an earlier epoch is revoked, so this
    /// one number revokes any number of keys in one change.
    pub key_epoch: u64,
}

/// A partial update of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantUpdate {
    /// Suspend (true) or resume (false).
    Suspended(bool),
    /// Set the rate limit.
    Limit(TenantLimit),
}

/// The numbers of objects that a tenant has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantUsage {
    /// Counters, `default` not counted.
    pub counters: u32,
    /// API keys, expired ones included.
    pub keys: u32,
    /// Counters ever created: the source of [`Version::generation`].
    pub counters_created: u64,
}

/// A stored API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// The tenant that owns the key.
    pub tenant: TenantId,
    /// The hash of the secret half.
    pub secret: SecretHash,
    /// The label that the tenant gave it.
    pub label: KeyLabel,
    /// What it is authorized to do.
    pub scopes: Scopes,
    /// The time of creation, in seconds since 1970.
    pub created_unix_s: u64,
    /// The time from which on it is rejected, in seconds since 1970; `None`: it does not expire.
    pub expires_unix_s: Option<u64>,
    /// The last day on which it was used, in days since 1970; `None`: never.
    pub last_used_day: Option<u32>,
    /// The tenant's [`TenantRecord::key_epoch`] when the key was added; the store sets it.
    pub epoch: u64,
}

/// The credential that authenticated the request for a change of credentials. Until the change is
/// decided, another one may have replaced the password or revoked the key; so the store proves the
/// credential again, in the decision itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The password that has this hash. A hash has a salt of its own, so it is never the hash of
    /// another password of the tenant, nor of the same password that was set again.
    Password(PasswordHash),
    /// This API key.
    Key(KeyId),
    /// None: the operator asks, over the admin socket.
    Operator,
}

impl KeyRecord {
    /// Whether the key is rejected at this time, in seconds since 1970: from the second of its
    /// expiry on.
    #[must_use]
    pub fn is_expired(&self, now_unix_s: u64) -> bool {
        let grace_s = u64::from(failpoint!("key-valid-in-second-of-expiry"));
        self.expires_unix_s.is_some_and(|expires| expires.saturating_add(grace_s) <= now_unix_s)
    }
}

/// Version of a counter: the ETag of a counter. It changes with every update and is never reused,
/// not even by a counter that is deleted and created again under the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// The number of the counter among all that its tenant ever created, from 1; 0 for `default`.
    pub generation: u64,
    /// The number of changes since the counter was created.
    pub revision: u64,
}

/// The committed state of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterState {
    /// Value and configuration.
    pub counter: Counter,
    /// The version.
    pub version: Version,
    /// The time of creation, in seconds since 1970; 0 for `default`, which always exists.
    pub created_unix_s: u64,
}

/// The precondition of a change (If-Match): the change is made only if the counter meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Any version.
    Any,
    /// One of these versions.
    OneOf(Vec<Version>),
}

impl Precondition {
    /// Whether a counter with this version meets the precondition.
    #[must_use]
    pub fn is_met_by(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(versions) => versions.iter().any(|expected| {
                let is_generation = expected.generation == version.generation;
                let is_revision = expected.revision == version.revision;
                is_revision && (is_generation || failpoint!("generation-not-compared"))
            }),
        }
    }
}

/// A counter to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCounter {
    /// Start, step and bounds.
    pub config: CounterConfig,
    /// The time of creation, in seconds since 1970.
    pub created_unix_s: u64,
    /// The largest number of counters that its tenant may have, `default` not counted.
    pub quota: u32,
}

/// The first 128 bits of a SHA-256 hash.
pub type Digest128 = [u8; 16];

/// Identifies a request that may be retried: the hash of its idempotency key and the fingerprint of
/// its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyToken {
    /// The hash of the idempotency key that the client chose.
    pub key_hash: Digest128,
    /// The hash of what is requested: another request with the same key is refused.
    pub request_fingerprint: Digest128,
}

/// Result of a durable change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied<T> {
    /// The result.
    pub result: T,
    /// Whether an earlier, identical request stored the result: then nothing was changed now.
    pub replayed: bool,
}

/// Integers that were issued, and the counter's version after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The integers.
    pub range: Range,
    /// The counter's version.
    pub version: Version,
}

/// A page of a sorted list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, at most as many as were requested.
    pub items: Vec<T>,
    /// Whether more items follow after this page.
    pub more: bool,
}

/// An item of a list of counters.
pub type ListedCounter = (CounterName, CounterState);

/// An item of a list of API keys.
pub type ListedKey = (KeyId, Arc<KeyRecord>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_rejected_from_the_second_of_its_expiry_on() {
        let expiring_at = |expires_unix_s| KeyRecord {
            tenant: TenantId(1),
            secret: SecretHash([0; 32]),
            label: KeyLabel::default(),
            scopes: Scopes::ALL,
            created_unix_s: 0,
            expires_unix_s,
            last_used_day: None,
            epoch: 0,
        };
        let key = expiring_at(Some(100));
        assert_eq!([99, 100, 101].map(|now| key.is_expired(now)), [false, true, true]);
        assert!(!expiring_at(None).is_expired(u64::MAX), "without an expiry it stays valid");
        assert!(expiring_at(Some(u64::MAX)).is_expired(u64::MAX));
    }
}
