//! `/api/v1/keys`: the tenant's API keys.
//!
//! Job: list, make, revoke. Invariant: a key that is shown is durable, and it is shown once.
//! Must never: let a secret half reach a list, a log or an error.

use super::counters::next_page;
use super::document::{self, Answer};
use super::error::ApiError;
use super::once::refuse_others;
use super::params::{Params, invalid_parameter};
use super::{Call, Change, resource, route};
use crate::auth::Caller;
use crate::auth::key::ApiKey;
use crate::store::{KeyRecord, Page, now_unix_s};
use crate::tenant::{KeyId, KeyLabel, Scopes};

/// How many keys a tenant may have, expired ones among them.
pub(super) const MOST_KEYS: u32 = 100;
/// The longest time that `expires_in` takes: ten years, in seconds.
pub(super) const LONGEST_LIFE_S: u64 = 315_360_000;

pub(super) async fn list(call: &Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    let params = call.query()?;
    let (size, after) = params.page()?;
    let cursor = |text| KeyId::parse(text).ok_or_else(|| invalid_parameter("page[after]", "must be the id of a key"));
    let after = after.map(cursor).transpose()?;
    let Page { items, more } = call.page(|| call.store().keys(caller.tenant(), after, size)).await?;
    let last = items.last().filter(|_| more).map(|(id, _)| id.to_string());
    resource::keys(&items, last.map(|last| next_page("/api/v1/keys", size, &last)))
}

/// Who may manage may make a key with any scopes; a password may do everything.
pub(super) async fn create(call: &mut Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    refuse_others(call.headers(), &[])?;
    let params = call.params().await?;
    params.only(&["label", "scopes", "expires_at", "expires_in"])?;
    let label = KeyLabel::parse(params.text("label")?).map_err(|bad| invalid_parameter("label", bad.to_string()))?;
    let (scopes, now) = (scopes(&params)?, now_unix_s());
    let expires_unix_s = expiry(&params, now)?;
    let key = ApiKey::generate().map_err(|error| ApiError::Internal(error.to_string().into()))?;
    let record = KeyRecord {
        tenant: caller.tenant(),
        secret: key.secret_hash(),
        label,
        scopes,
        created_unix_s: now,
        expires_unix_s,
        last_used_day: None,
    };
    call.store().add_key(key.id(), record.clone(), MOST_KEYS).await?;
    call.note(Change::KeyCreated(key.id()));
    resource::new_key(key.id(), &record, &key.reveal())
}

fn scopes(params: &Params) -> Result<Scopes, ApiError> {
    let Some(names) = params.texts("scopes")? else { return Ok(Scopes::ALL) };
    let all = names.into_iter().map(Scopes::named).collect::<Option<Scopes>>();
    all.filter(|scopes| !scopes.is_empty())
        .ok_or_else(|| invalid_parameter("scopes", "must be one or more of read, increment, manage"))
}

fn expiry(params: &Params, now: u64) -> Result<Option<u64>, ApiError> {
    let (at, after) = (params.time("expires_at")?, params.integer("expires_in", 1, LONGEST_LIFE_S)?);
    match (at, after) {
        (Some(_), Some(_)) => Err(invalid_parameter("expires_in", "and expires_at say the same; send one of them")),
        (Some(at), None) if at <= now => Err(invalid_parameter("expires_at", "must be in the future")),
        (at, after) => Ok(at.or(after.map(|seconds| now + seconds))),
    }
}

pub(super) async fn revoke(call: &mut Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    let id = route::decode(call.parameter).and_then(|text| KeyId::parse(&text)).ok_or(ApiError::KeyNotFound)?;
    refuse_others(call.headers(), &[])?;
    call.params().await?.only(&[])?;
    call.store().revoke_key(caller.tenant(), id).await?;
    call.note(Change::KeyRevoked(id));
    Ok(document::nothing())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::HeaderMap;

    fn params(query: &str) -> Params {
        Params::parse(Some(query), &HeaderMap::new(), b"").unwrap()
    }

    #[test]
    fn scopes_are_all_or_some_and_known() {
        assert_eq!(scopes(&params("")).unwrap(), Scopes::ALL);
        assert_eq!(scopes(&params("scopes=read,increment")).unwrap(), Scopes::READ | Scopes::INCREMENT);
        assert_eq!(scopes(&params("scopes=read,read")).unwrap(), Scopes::READ);
        for bad in ["scopes=", "scopes=read,", "scopes=write", "scopes=READ"] {
            assert!(scopes(&params(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_expires_later_or_never() {
        let expiry = |query: &str| expiry(&params(query), 1000);
        assert_eq!(expiry("").unwrap(), None);
        assert_eq!(expiry("expires_in=1").unwrap(), Some(1001));
        assert_eq!(expiry("expires_at=1970-01-01T00:16:41Z").unwrap(), Some(1001));
        for bad in [
            "expires_at=1970-01-01T00:16:40Z",
            "expires_in=0",
            "expires_in=315360001",
            "expires_in=1&expires_at=1970-01-01T00:16:41Z",
        ] {
            assert!(expiry(bad).is_err(), "{bad}");
        }
    }
}
