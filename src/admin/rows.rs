//! What goes over the admin socket as JSON, the same types at both ends.
//!
//! Job: a row for a tenant or a key, and pages of them. Invariant: names and order of the fields
//! are public: scripts read them, from the socket and from the commands. Must never: hold a secret,
//! or the hash of one.

use serde::{Deserialize, Serialize};

/// What an operator may know of a tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TenantRow {
    /// Its number, as logs say it in `organization.id`.
    pub id: u64,
    /// Its name, as it was typed.
    pub name: String,
    /// When it registered, RFC 3339.
    pub created_at: String,
    /// Whether it is suspended.
    pub suspended: bool,
    /// How many requests it may make: `default`, `off`, or a rate.
    pub limit: String,
    /// Named counters that it has.
    pub counters: u32,
    /// API keys that it has.
    pub keys: u32,
}

/// What an operator may know of a key: never its secret, nor the hash of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyRow {
    /// Its public half.
    pub id: String,
    /// What its tenant calls it.
    pub label: String,
    /// What it may do.
    pub scopes: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// From when on it is refused, RFC 3339; none: never.
    pub expires_at: Option<String>,
    /// The last day on which it was used; none: never.
    pub last_used_on: Option<String>,
}

/// Some of the tenants, by their numbers.
#[derive(Debug, Serialize, Deserialize)]
pub struct TenantPage {
    /// The tenants.
    pub tenants: Vec<TenantRow>,
    /// The `after` of the next page; none: there are no more.
    pub next: Option<u64>,
}

/// Some of a tenant's keys, by their ids.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<KeyRow>,
    /// The `after` of the next page; none: there are no more.
    pub next: Option<String>,
}

/// How many requests a tenant may make, as it is sent to change it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLimit {
    /// `default`, `off`, or a rate such as `100/s:200`.
    pub limit: String,
}
