//! The JSON types of the admin socket, shared by client and server.
//!
//! Job: a row of a tenant or a key, and pages of them.
//! Invariant: names and order of the fields are public: scripts read them from the commands'
//! output.
//! Must never: hold a secret or its hash.

use serde::{Deserialize, Serialize};

/// A tenant, as operators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TenantRow {
    /// The tenant's number; logs have it as `organization.id`.
    pub id: u64,
    /// The tenant's name, as registered.
    pub name: String,
    /// The time of the registration, RFC 3339.
    pub created_at: String,
    /// Whether the tenant is suspended.
    pub suspended: bool,
    /// The rate limit: `default`, `off`, or a rate.
    pub limit: String,
    /// Number of named counters.
    pub counters: u32,
    /// Number of API keys.
    pub keys: u32,
}

/// An API key, as operators see it: without its secret or the hash of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyRow {
    /// The public half of the key.
    pub id: String,
    /// The label that the tenant gave it.
    pub label: String,
    /// The scopes, separated by spaces.
    pub scopes: String,
    /// The time of the creation, RFC 3339.
    pub created_at: String,
    /// The time of the expiry, RFC 3339; `None` if it never expires.
    pub expires_at: Option<String>,
    /// The date of the last use; `None` if it was never used.
    pub last_used_on: Option<String>,
}

/// A page of tenants, by number.
#[derive(Debug, Serialize, Deserialize)]
pub struct TenantPage {
    /// The tenants.
    pub tenants: Vec<TenantRow>,
    /// The `after` of the next page; `None` if this is the last one.
    pub next: Option<u64>,
}

/// A page of a tenant's keys, by id.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<KeyRow>,
    /// The `after` of the next page; `None` if this is the last one.
    pub next: Option<String>,
}

/// The body of a request that changes a tenant's rate limit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLimit {
    /// `default`, `off`, or a rate such as `100/s:200`.
    pub limit: String,
}
