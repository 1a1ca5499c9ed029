//! What the server does when it is asked about tenants and keys.
//!
//! Job: [`carry_out`] answers one request, row by row, through a channel that may be slow. Invariant: every change is one event in the log, with
//! the tenant, who asked (the user id of the peer) and how it ended. Must never: show a secret, or the hash of one.

use std::sync::Arc;

use super::{KeyRow, Order, Reply, TenantRow};
use crate::auth::key::ApiKey;
use crate::moment::{date, rfc3339};
use crate::rate::BadRateLimit;
use crate::store::{Refusal, Store, StoreError, TenantChange, TenantRecord};
use crate::tenant::{KeyId, TenantId, TenantLimit, TenantName};

/// Keys that are asked of the store at once.
const PAGE: usize = 100;

/// Where rows go; an error ends the answer.
pub(super) type Rows<'a> = &'a mut (dyn FnMut(Reply) -> std::io::Result<()> + Send);

/// Why an order was not, or not wholly, carried out.
pub(super) enum Failure {
    /// One sentence for whoever asked.
    Said(String),
    /// Whoever asked is gone.
    Gone(std::io::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Gone(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Said(match error {
            StoreError::Refused(Refusal::NoSuchKey) => "the tenant has no such key".to_owned(),
            other => other.to_string(),
        })
    }
}

/// Hands out a row for every tenant.
pub(super) async fn list(store: &dyn Store, rows: Rows<'_>) -> Result<(), Failure> {
    let TenantId(last) = store.last_tenant().await?;
    for id in (1..=last).map(TenantId) {
        if let Some(record) = store.find_tenant(id).await? {
            rows(row(store, id, &record).await?)?;
        }
    }
    Ok(())
}

/// Carries out an order about one tenant. `user` asked for it.
pub(super) async fn carry_out(
    store: &dyn Store,
    name: &str,
    order: &Order,
    user: u32,
    rows: Rows<'_>,
) -> Result<(), Failure> {
    let (id, record) = find(store, name).await?;
    match order {
        Order::Show => return Ok(rows(row(store, id, &record).await?)?),
        Order::KeyList => return list_keys(store, id, rows).await,
        _ => {}
    }
    let result = change(store, id, order, rows).await;
    tell(order, id, user, &result);
    result
}

async fn change(store: &dyn Store, id: TenantId, order: &Order, rows: Rows<'_>) -> Result<(), Failure> {
    let change = match order {
        Order::Suspend => TenantChange::Suspended(true),
        Order::Resume => TenantChange::Suspended(false),
        Order::Limit(text) => {
            let bad = |bad: BadRateLimit| Failure::Said(format!("that is no limit: {bad}; or off, or default"));
            TenantChange::Limit(text.parse().map_err(bad)?)
        }
        Order::KeyRevoke(text) => {
            let bad = || Failure::Said("that is not a key's id, 16 hexadecimal digits".to_owned());
            return Ok(store.revoke_key(id, key_id(text).ok_or_else(bad)?).await?);
        }
        Order::Delete => return Ok(store.delete_tenant(id).await?),
        Order::Show | Order::KeyList => return Ok(()),
    };
    let record = store.change_tenant(id, change).await?;
    Ok(rows(row(store, id, &record).await?)?)
}

/// The id, also of a whole key: that is what is at hand when one was found where it should not be.
fn key_id(text: &str) -> Option<KeyId> {
    KeyId::parse(text).or_else(|| ApiKey::parse(text.as_bytes()).ok().map(|key| key.id()))
}

async fn find(store: &dyn Store, name: &str) -> Result<(TenantId, Arc<TenantRecord>), Failure> {
    let none = || Failure::Said(format!("there is no tenant named {name:?}"));
    let parsed = TenantName::parse(name).map_err(|_| none())?;
    let id = store.find_name(&parsed).await?.ok_or_else(none)?;
    let record = store.find_tenant(id).await?.ok_or_else(none)?;
    Ok((id, record))
}

async fn row(store: &dyn Store, id: TenantId, record: &TenantRecord) -> Result<Reply, Failure> {
    let holdings = store.holdings(id).await?;
    Ok(Reply::Tenant(TenantRow {
        id: id.0,
        name: record.name.as_str().to_owned(),
        created_at: rfc3339(record.created_unix_s),
        suspended: record.suspended,
        limit: record.limit.to_string(),
        counters: holdings.counters,
        keys: holdings.keys,
    }))
}

async fn list_keys(store: &dyn Store, id: TenantId, rows: Rows<'_>) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let page = store.keys(id, after, PAGE).await?;
        for (key, record) in &page.items {
            after = Some(*key);
            rows(Reply::Key(KeyRow {
                id: key.to_string(),
                label: record.label.as_str().to_owned(),
                scopes: record.scopes.to_string(),
                created_at: rfc3339(record.created_unix_s),
                expires_at: record.expires_unix_s.map(rfc3339),
                last_used_on: record.last_used_day.map(date),
            }))?;
        }
        if !page.more || page.items.is_empty() {
            return Ok(());
        }
    }
}

/// One event for a change, whether it was made or not.
fn tell(order: &Order, tenant: TenantId, user: u32, result: &Result<(), Failure>) {
    let action = match order {
        Order::Suspend => "tenant-suspended",
        Order::Resume => "tenant-resumed",
        Order::Delete => "tenant-deleted",
        Order::Limit(_) => "tenant-limited",
        Order::KeyRevoke(_) => "key-revoked",
        Order::Show | Order::KeyList => return,
    };
    // What was understood, and never what was typed: that may be a secret in the wrong place.
    let detail = match order {
        Order::Limit(text) => text.parse::<TenantLimit>().ok().map(|limit| limit.to_string()),
        Order::KeyRevoke(text) => key_id(text).map(|id| id.to_string()),
        _ => None,
    };
    let problem = match result {
        Err(Failure::Said(problem)) => Some(problem.as_str()),
        // It was done; only the answer did not arrive.
        Ok(()) | Err(Failure::Gone(_)) => None,
    };
    tracing::info!(
        event.action = action,
        event.outcome = if problem.is_some() { "failure" } else { "success" },
        organization.id = tracing::field::display(tenant),
        user.id = user,
        odometer.detail = detail,
        error.message = problem,
        "an operator asked for it through the admin socket"
    );
}
