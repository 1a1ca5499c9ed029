//! Tenants: `/users/create` and `/api/v1/tenants` register one, `/api/v1/tenant` is the caller's own.
//!
//! Job: check name and password, hash, store, show the first key once; show, change the password, delete. Invariant: the key that is shown is durable.
//! Must never: hash a password before the address's limit let it through; let name, password or key reach a log.

use zeroize::Zeroizing;

use super::document::{self, Answer};
use super::error::ApiError;
use super::keys::MOST_KEYS;
use super::once::refuse_others;
use super::params::Params;
use super::{Call, Change, resource};
use crate::auth::Caller;
use crate::auth::key::ApiKey;
use crate::store::{NewTenant, Refusal, StoreError, now_unix_s};
use crate::tenant::{PasswordHash, TenantId, TenantName};

/// A tenant that is durable now.
struct Registered {
    id: TenantId,
    name: TenantName,
    created_unix_s: u64,
    key: ApiKey,
}

/// As the old application did.
pub(super) async fn register(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    call.api.limit_client(call.client, call.account)?;
    let params = call.params().await?;
    let new = store(call, &params).await?;
    Ok(document::user(new.id, &new.key.reveal()))
}

pub(super) async fn create(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    call.api.limit_client(call.client, call.account)?;
    refuse_others(call.headers(), &[])?;
    let params = call.params().await?;
    params.only(&["username", "password"])?;
    let new = store(call, &params).await.map_err(|error| match error {
        ApiError::Invalid { code: "username_taken", .. } => ApiError::UsernameTaken,
        error => error,
    })?;
    resource::new_tenant(new.id, new.name.as_str(), new.created_unix_s, &new.key.reveal())
}

async fn store(call: &mut Call<'_>, params: &Params) -> Result<Registered, ApiError> {
    let name = TenantName::parse(params.text("username")?).map_err(|bad| ApiError::Invalid {
        parameter: "username",
        code: "invalid_username",
        detail: bad.to_string(),
    })?;
    let password = hash(call, params, "password").await?;
    let key = ApiKey::generate().map_err(|error| ApiError::Internal(error.to_string().into()))?;
    let created_unix_s = now_unix_s();
    let new = NewTenant { name: name.clone(), password, key: key.id(), secret: key.secret_hash(), created_unix_s };
    let id = call.store().register(new).await?;
    call.account.tenant = Some(id);
    call.note(Change::TenantRegistered(key.id()));
    Ok(Registered { id, name, created_unix_s, key })
}

async fn hash(call: &Call<'_>, params: &Params, parameter: &'static str) -> Result<PasswordHash, ApiError> {
    let password = params.text(parameter)?;
    let detail = |bad: crate::auth::password::BadPassword| bad.to_string();
    call.api.shared.passwords.check(password).map_err(|bad| ApiError::Invalid {
        parameter,
        code: "invalid_password",
        detail: detail(bad),
    })?;
    Ok(call.api.shared.hashing.hash(Zeroizing::new(password.as_bytes().to_vec())).await?)
}

pub(super) async fn show(call: &Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    call.query()?.only(&[])?;
    let shared = &call.api.shared;
    let holdings = call.store().holdings(caller.tenant()).await?;
    let limit = shared.throttle.limit_of(caller.record().limit);
    let most = (shared.counters_per_tenant, MOST_KEYS);
    resource::tenant(caller.tenant(), caller.record(), holdings, most, limit)
}

pub(super) async fn change_password(call: &mut Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    refuse_others(call.headers(), &[])?;
    let params = call.params().await?;
    params.only(&["new_password", "revoke_keys"])?;
    let revoke_keys = params.flag("revoke_keys")?;
    let password = hash(call, &params, "new_password").await?;
    let revoked = call.store().change_password(caller.tenant(), password, revoke_keys).await?;
    call.note(Change::PasswordChanged { revoked });
    Ok(document::nothing())
}

pub(super) async fn delete(call: &mut Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    refuse_others(call.headers(), &[])?;
    call.params().await?.only(&[])?;
    match call.store().delete_tenant(caller.tenant()).await {
        Ok(()) => {}
        Err(error @ StoreError::Refused(Refusal::NoSuchTenant)) => return Err(error.into()),
        // It is gone for everybody, only not from the disk yet; the next start sees to that.
        Err(_) if call.store().find_tenant(caller.tenant()).await?.is_none() => {}
        Err(error) => return Err(error.into()),
    }
    call.note(Change::TenantDeleted);
    Ok(document::nothing())
}
