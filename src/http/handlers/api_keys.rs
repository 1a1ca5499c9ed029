//! `/api/v1/keys`: the tenant's API keys.
//!
//! Job: list, create, revoke.
//! Invariant: a key is durable before it is shown, and it is shown once.
//! Must never: let a key's secret get into a list, a log or an error.

use actix_web::{HttpRequest, HttpResponse, Responder, delete, get, post};
use serde::Deserialize;
use utoipa::ToSchema;

use super::counters::{DEFAULT_PAGE_SIZE, PageParams};
use super::dto::{EXAMPLE_KEY, Key, KeysDocument, NewKey, NewKeyDocument, Scope};
use super::{credential_error, invalid_parameter, next_page, non_empty_page};
use crate::auth::key::ApiKey;
use crate::domain::api_key::{KeyId, KeyLabel, Scopes};
use crate::http::context::{AuditEvent, RequestContext};
use crate::http::error::ApiError;
use crate::http::extract::InOrder;
use crate::http::extract::caller::{Authorized, ManageOrPassword};
use crate::http::extract::params::{NoParams, Params, QueryParams};
use crate::http::extract::path::PathParam;
use crate::http::extract::preconditions::NoPreconditions;
use crate::http::extract::values::{Timestamp, Whole};
use crate::http::jsonapi::{Page, Reply};
use crate::http::openapi::error_responses::{
    Body, Changing, From, InvalidParameter, InvalidValue, NamedKey, Parameters, Quota, Reading,
    Refused,
};
use crate::http::state::State;
use crate::store::{KeyRecord, now_unix_s};

/// The quota of API keys per tenant, including expired ones.
pub(crate) const MAX_KEYS_PER_TENANT: u32 = 100;
/// The maximum of `expires_in`: ten years, in seconds.
pub(crate) const MAX_EXPIRES_IN_S: u64 = 315_360_000;
type ExpiresIn = Whole<1, MAX_EXPIRES_IN_S>;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateKeyParams {
    /// A label for the key: up to 100 visible ASCII characters and spaces.
    #[serde(default)]
    #[schema(pattern = "^[ -~]*$", min_length = 0, max_length = 100, nullable)]
    label: String,
    /// The scopes, as a list or separated by commas; all three if absent.
    #[schema(inline, value_type = Option<Vec<Scope>>)]
    scopes: Option<Vec<String>>,
    /// When the key expires: an RFC 3339 timestamp in UTC, in the future. Without this and
    /// `expires_in` it never expires.
    #[schema(inline)]
    expires_at: Option<Timestamp>,
    /// In how many seconds the key expires, 1 to 315360000 (ten years).
    #[schema(inline)]
    expires_in: Option<ExpiresIn>,
}

/// List the keys.
///
/// Sorted by id, including expired keys. The keys' secrets are not shown.
#[utoipa::path(
    tag = "keys", security(("key" = ["manage"]), ("password" = [])),
    params(("page[size]", Query), ("page[after]", Query)),
    responses(
        (status = 200, description = "A page of keys, and the path of the next page.",
         body = KeysDocument,
         example = json!({ "data": [{ "id": "5fbfa5948d5fa1ea", "type": "key", "attributes": {
             "label": "till 7", "scopes": ["increment"], "created_at": "2026-11-24T09:00:00Z",
              "expires_at": null,
             "last_used_on": null } }], "links": { "next": null },
              "jsonapi": { "version": "1.0" } })),
        Refused<(From<ManageOrPassword>, Parameters, InvalidParameter, InvalidValue, Reading)>,
    )
)]
#[get("/api/v1/keys")]
pub(crate) async fn list_keys(
    state: State,
    args: InOrder<(Authorized<ManageOrPassword>, QueryParams<PageParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, QueryParams(page))) = args;
    let Whole(size) = page.size.unwrap_or(DEFAULT_PAGE_SIZE);
    let cursor = |text: String| {
        KeyId::parse(&text).ok_or_else(|| {
            invalid_parameter("page[after]", "must be a key's id, 16 hexadecimal digits")
        })
    };
    let after = page.after.map(cursor).transpose()?;
    let limit = usize::try_from(size).unwrap_or(1);
    let page = non_empty_page(|| state.store.list_api_keys(caller.tenant(), after, limit)).await?;
    let last = page.items.last().filter(|_| page.more).map(|(id, _)| id.to_string());
    let next = last.map(|last| next_page("/api/v1/keys", size, &last));
    let resources =
        page.items.iter().map(|(id, record)| (id.to_string(), Key::from(&**record))).collect();
    Ok(Page { resources, next })
}

/// Create a key.
///
/// The key is shown in this response and never again.
// A key with the scope `manage` may create keys with any scopes, and so may the password.
#[utoipa::path(
    tag = "keys", security(("key" = ["manage"]), ("password" = [])),
    request_body(content = CreateKeyParams, example = json!({ "label": "till 7",
     "scopes": ["increment"] })),
    responses(
        (status = 201, description = "The new key.", body = NewKeyDocument, headers(("Location")),
         links(("revokeKey" = (operation_id = "revokeKey",
          parameters(("id" = "$response.body#/data/id"))))),
         example = json!({ "data": { "id": "5fbfa5948d5fa1ea", "type": "key", "attributes": {
             "label": "till 7", "scopes": ["increment"], "created_at": "2026-11-24T09:00:00Z",
              "expires_at": null,
             "last_used_on": null, "api_key": EXAMPLE_KEY } },
             "jsonapi": { "version": "1.0" } })),
        Refused<(From<ManageOrPassword>, Parameters, Body, InvalidParameter, InvalidValue, Quota,
         Changing)>,
    )
)]
#[post("/api/v1/keys")]
pub(crate) async fn create_key(
    state: State,
    req: HttpRequest,
    args: InOrder<(Authorized<ManageOrPassword>, NoPreconditions, Params<CreateKeyParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, _, Params(params))) = args;
    let label =
        KeyLabel::parse(&params.label).map_err(|error| invalid_parameter("label", error))?;
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
        epoch: 0,
    };
    state
        .store
        .add_key(key.id(), record.clone(), caller.proof(), MAX_KEYS_PER_TENANT)
        .await
        .map_err(|error| credential_error(&req, error))?;
    RequestContext::of(&req).audit(AuditEvent::KeyCreated(key.id()));
    let attributes = NewKey::new(&record, key.expose().to_string());
    Ok(Reply::created(key.id(), attributes, format!("/api/v1/keys/{}", key.id())))
}

fn scopes(params: &CreateKeyParams) -> Result<Scopes, ApiError> {
    let Some(names) = &params.scopes else { return Ok(Scopes::ALL) };
    let each = names.iter().map(|name| Scopes::parse(name)).collect::<Option<Vec<_>>>();
    let union = each.and_then(|each| each.into_iter().reduce(Scopes::union));
    union.ok_or_else(|| {
        invalid_parameter("scopes", "must be one or more of read, increment, manage")
    })
}

fn expiry(params: &CreateKeyParams, now: u64) -> Result<Option<u64>, ApiError> {
    match (params.expires_at, params.expires_in) {
        (Some(_), Some(_)) => Err(invalid_parameter(
            "expires_in",
            "cannot be combined with expires_at; send one of them",
        )),
        (Some(Timestamp(at)), None) if at <= now => {
            Err(invalid_parameter("expires_at", "must be in the future"))
        }
        (at, after) => Ok(at.map(|at| at.0).or(after.map(|seconds| now + seconds.0))),
    }
}

/// Revoke a key.
///
/// The key is rejected from the next request on. A key may revoke itself.
#[utoipa::path(
    tag = "keys", security(("key" = ["manage"]), ("password" = [])), params(("id", Path)),
    responses(
        (status = 204, description = "The key is revoked."),
        Refused<(From<ManageOrPassword>, Parameters, Body, NamedKey, Changing)>,
    )
)]
#[delete("/api/v1/keys/{id}")]
pub(crate) async fn revoke_key(
    state: State,
    req: HttpRequest,
    args: InOrder<(
        Authorized<ManageOrPassword>,
        PathParam<KeyId>,
        NoPreconditions,
        Params<NoParams>,
    )>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, PathParam(id), _, _)) = args;
    let revoked = state.store.revoke_key(caller.tenant(), id, caller.proof()).await;
    revoked.map_err(|error| credential_error(&req, error))?;
    RequestContext::of(&req).audit(AuditEvent::KeyRevoked(id));
    Ok(HttpResponse::NoContent())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderMap;

    use super::*;

    fn params(query: &str) -> Result<CreateKeyParams, ApiError> {
        Params::parse(Some(query), &HeaderMap::new(), b"").map(|Params(params)| params)
    }

    #[test]
    fn scopes_are_all_or_some_and_known() {
        let scopes = |query: &str| scopes(&params(query)?);
        assert_eq!(scopes("").unwrap(), Scopes::ALL);
        assert_eq!(scopes("scopes=read,increment").unwrap(), Scopes::READ | Scopes::INCREMENT);
        assert_eq!(scopes("scopes=read,read").unwrap(), Scopes::READ);
        for bad in ["scopes=", "scopes=read,", "scopes=write", "scopes=READ"] {
            assert!(scopes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_expires_later_or_never() {
        let expiry = |query: &str| expiry(&params(query)?, 1000);
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
