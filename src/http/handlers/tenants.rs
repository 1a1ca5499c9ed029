//! Tenants: `/users/create` and `/api/v1/tenants` register one, `/api/v1/tenant` is the caller's
//! own.
//!
//! Job: register (check name and password, hash, store, show the first key once), show, change the
//! password, delete.
//! Invariant: a key is durable before it is shown.
//! Must never: hash a password before the rate limit of the address allows it; let a name, a
//! password or a key get into a log.

use actix_web::{HttpRequest, HttpResponse, Responder, delete, get, post, put};
use serde::Deserialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::api_keys::MAX_KEYS_PER_TENANT;
use super::credential_error;
use super::dto::{
    EXAMPLE_KEY, NewTenant, NewTenantDocument, QuotaUsage, Tenant, TenantDocument, User,
    UserDocument,
};
use crate::auth::key::ApiKey;
use crate::domain::tenant::{PasswordHash, TenantId, TenantName};
use crate::domain::time_format::rfc3339;
use crate::http::context::{AuditEvent, RequestContext};
use crate::http::error::ApiError;
use crate::http::extract::InOrder;
use crate::http::extract::caller::{AnyCredential, Authorized, PasswordOnly, RateLimitedClient};
use crate::http::extract::params::{NoParams, Params, QueryParams};
use crate::http::extract::preconditions::NoPreconditions;
use crate::http::jsonapi::Reply;
use crate::http::openapi::error_responses::{
    Body, Changing, From, InvalidCredentials, InvalidPassword, Limited, Parameters, Reading,
    Refused, UsernameTaken, UsernameTakenBefore,
};
use crate::http::state::State;
use crate::store::{self, StoreError, now_unix_s};

#[derive(Deserialize, ToSchema)]
pub(crate) struct CreateUserParams {
    /// The name: 1 to 128 characters of `A-Z a-z 0-9 . _ % + @ -`. Names that differ only in case
    /// are the same name.
    #[schema(pattern = "^[A-Za-z0-9._%+@-]+$", min_length = 1, max_length = 128)]
    username: String,
    /// The password: 8 to 256 bytes of UTF-8, not among the most common passwords. The operator may
    /// configure another minimum.
    // A schema counts characters, and a character may have four bytes: 8 bytes may be 2 characters.
    #[schema(format = Password, min_length = 2, max_length = 256)]
    password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTenantParams {
    /// The name: 1 to 128 characters of `A-Z a-z 0-9 . _ % + @ -`. Names that differ only in case
    /// are the same name.
    #[schema(pattern = "^[A-Za-z0-9._%+@-]+$", min_length = 1, max_length = 128)]
    username: String,
    /// The password: 8 to 256 bytes of UTF-8, not among the most common passwords. The operator may
    /// configure another minimum.
    #[schema(format = Password, min_length = 2, max_length = 256)]
    password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePasswordParams {
    /// The password: 8 to 256 bytes of UTF-8, not among the most common passwords. The operator may
    /// configure another minimum.
    #[schema(format = Password, min_length = 2, max_length = 256)]
    new_password: String,
    /// Whether all keys of the tenant are revoked too; false if absent.
    #[serde(default)]
    revoke_keys: bool,
}

/// A registered tenant, durable in the store.
struct Registered {
    id: TenantId,
    name: TenantName,
    created_unix_s: u64,
    key: ApiKey,
}

/// Register a tenant (compatible route).
///
/// The route of the application that Odometer replaces. The key has all scopes; it is shown in this
/// response and never again.
#[utoipa::path(
    tag = "tenants",
    request_body(content = CreateUserParams, example = json!({ "username": "alice",
     "password": "correct-horse-battery" })),
    responses(
        (status = 200, description = "The new tenant and its key.", body = UserDocument,
         example = json!({ "data": { "id": "1", "type": "user", "attributes": {
             "api_key": EXAMPLE_KEY } },
             "jsonapi": { "version": "1.0" } })),
        Refused<(Limited, Body, InvalidCredentials, UsernameTakenBefore, Changing)>,
    )
)]
#[post("/users/create")]
pub(crate) async fn register_user(
    state: State,
    req: HttpRequest,
    args: InOrder<(RateLimitedClient, Params<CreateUserParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((_, Params(CreateUserParams { username, password }))) = args;
    let new = register(&state, &req, &username, &password).await?;
    Ok(Reply::ok(new.id, User { api_key: new.key.expose().to_string() }))
}

/// Register a tenant.
///
/// The key has all scopes; it is shown in this response and never again.
#[utoipa::path(
    tag = "tenants",
    request_body(content = CreateTenantParams, example = json!({ "username": "bob",
     "password": "correct-horse-battery" })),
    responses(
        (status = 201, description = "The new tenant and its first key.", body = NewTenantDocument,
         headers(("Location")),
         example = json!({ "data": { "id": "2", "type": "tenant", "attributes": {
             "username": "bob", "created_at": "2026-11-24T09:00:00Z",
             "api_key": EXAMPLE_KEY } },
             "jsonapi": { "version": "1.0" } })),
        Refused<(Limited, Parameters, Body, InvalidCredentials, UsernameTaken, Changing)>,
    )
)]
#[post("/api/v1/tenants")]
pub(crate) async fn register_tenant(
    state: State,
    req: HttpRequest,
    args: InOrder<(RateLimitedClient, NoPreconditions, Params<CreateTenantParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((_, _, Params(CreateTenantParams { username, password }))) = args;
    let new = register(&state, &req, &username, &password).await.map_err(|error| match error {
        ApiError::Invalid { code: "username_taken", .. } => ApiError::UsernameTaken,
        error => error,
    })?;
    let attributes = NewTenant {
        username: new.name.as_str().to_owned(),
        created_at: rfc3339(new.created_unix_s),
        api_key: new.key.expose().to_string(),
    };
    Ok(Reply::created(new.id, attributes, "/api/v1/tenant".to_owned()))
}

async fn register(
    state: &State,
    req: &HttpRequest,
    name: &str,
    password: &str,
) -> Result<Registered, ApiError> {
    let name = TenantName::parse(name).map_err(|error| ApiError::Invalid {
        parameter: "username",
        code: "invalid_username",
        detail: error.to_string(),
    })?;
    let password = hash(state, "password", password).await?;
    let key = ApiKey::generate().map_err(|error| ApiError::Internal(error.to_string().into()))?;
    let created_unix_s = now_unix_s();
    let (id, secret) = (key.id(), key.secret_hash());
    let new = store::NewTenant { name: name.clone(), password, key: id, secret, created_unix_s };
    let id = state.store.register(new).await?;
    let context = RequestContext::of(req);
    context.set_tenant(id);
    context.audit(AuditEvent::TenantRegistered(key.id()));
    Ok(Registered { id, name, created_unix_s, key })
}

async fn hash(
    state: &State,
    parameter: &'static str,
    password: &str,
) -> Result<PasswordHash, ApiError> {
    state.shared.passwords.check(password).map_err(|error| ApiError::Invalid {
        parameter,
        code: "invalid_password",
        detail: error.to_string(),
    })?;
    Ok(state.shared.hashing.hash(Zeroizing::new(password.as_bytes().to_vec())).await?)
}

/// Read the tenant.
///
/// The tenant is the one that the credential belongs to.
#[utoipa::path(
    tag = "tenants", security(("key" = []), ("password" = [])),
    responses(
        (status = 200, description = "The tenant.", body = TenantDocument,
         example = json!({ "data": { "id": "1", "type": "tenant", "attributes": {
             "username": "alice", "created_at": "2026-11-24T09:00:00Z", "counters": { "count": 1,
              "limit": 1000 },
             "keys": { "count": 2, "limit": 100 }, "rate_limit": "1000/s:2000" } },
              "jsonapi": { "version": "1.0" } })),
        Refused<(From<AnyCredential>, Parameters, Reading)>,
    )
)]
#[get("/api/v1/tenant")]
pub(crate) async fn read_tenant(
    state: State,
    args: InOrder<(Authorized<AnyCredential>, QueryParams<NoParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, _)) = args;
    let (shared, record) = (&state.shared, caller.record());
    let usage = state.store.usage(caller.tenant()).await?;
    let attributes = Tenant {
        username: record.name.as_str().to_owned(),
        created_at: rfc3339(record.created_unix_s),
        counters: QuotaUsage::new(usage.counters, shared.counters_per_tenant),
        keys: QuotaUsage::new(usage.keys, MAX_KEYS_PER_TENANT),
        rate_limit: shared.rate_limiters.limit_of(record.limit).map(|limit| limit.to_string()),
    };
    Ok(Reply::ok(caller.tenant(), attributes))
}

/// Change the password.
///
/// The old password is rejected from the next request on, and in requests that have not been
/// decided yet. So are all keys, with `revoke_keys`: one change revokes every key that exists then.
#[utoipa::path(
    tag = "tenants", security(("password" = [])),
    request_body(content = ChangePasswordParams,
        example = json!({ "new_password": "staple-battery-horse", "revoke_keys": false })),
    responses(
        (status = 204, description = "The password is changed."),
        Refused<(From<PasswordOnly>, Parameters, Body, InvalidPassword, Changing)>,
    ),
    extensions(("x-curl" = json!("-u bob:correct-horse-battery")))
)]
#[put("/api/v1/tenant/password")]
pub(crate) async fn change_password(
    state: State,
    req: HttpRequest,
    args: InOrder<(Authorized<PasswordOnly>, NoPreconditions, Params<ChangePasswordParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, _, Params(params))) = args;
    let password = hash(&state, "new_password", &params.new_password).await?;
    let revoked = state
        .store
        .change_password(caller.tenant(), caller.proof(), password, params.revoke_keys)
        .await
        .map_err(|error| credential_error(&req, error))?;
    RequestContext::of(&req).audit(AuditEvent::PasswordChanged { revoked });
    Ok(HttpResponse::NoContent())
}

/// Delete the tenant.
///
/// The tenant's keys are rejected from the next request on, its counters are deleted, and its name
/// is free again. This cannot be undone.
#[utoipa::path(
    tag = "tenants", security(("password" = [])),
    responses(
        (status = 204, description = "The tenant is deleted."),
        Refused<(From<PasswordOnly>, Parameters, Body, Changing)>,
    ),
    extensions(("x-curl" = json!("-u bob:staple-battery-horse")))
)]
#[delete("/api/v1/tenant")]
pub(crate) async fn delete_tenant(
    state: State,
    req: HttpRequest,
    args: InOrder<(Authorized<PasswordOnly>, NoPreconditions, Params<NoParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, _, _)) = args;
    match state.store.delete_tenant(caller.tenant(), caller.proof()).await {
        Ok(()) => {}
        Err(error @ StoreError::Refused(_)) => return Err(credential_error(&req, error)),
        // The tenant is marked deleted, only its purge failed; the next start resumes the purge.
        Err(_) if state.store.find_tenant(caller.tenant()).await?.is_none() => {}
        Err(error) => return Err(error.into()),
    }
    RequestContext::of(&req).audit(AuditEvent::TenantDeleted);
    Ok(HttpResponse::NoContent())
}
