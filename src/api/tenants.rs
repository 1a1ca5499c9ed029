//! `/users/create`: a tenant registers.
//!
//! Job: check name and password, hash, store, show the first key once. Invariant: the key that is shown is durable.
//! Must never: hash a password before the address's limit let it through; let name, password or key reach a log.

use std::net::IpAddr;

use hyper::http::request::Parts;
use zeroize::Zeroizing;

use super::document::{self, Answer};
use super::error::ApiError;
use super::params::{Params, Payload};
use super::{Account, Api};
use crate::auth::key::ApiKey;
use crate::store::{NewTenant, now_unix_s};
use crate::tenant::TenantName;

pub(super) async fn register(
    api: &Api,
    client: IpAddr,
    head: &Parts,
    payload: &mut Payload,
    account: &mut Account,
) -> Result<Answer, ApiError> {
    api.limit_client(client, account)?;
    let body = payload.read().await?;
    let params = Params::parse(head.uri.query(), &head.headers, &body)?;
    let invalid = |parameter, code, detail: String| ApiError::Invalid { parameter, code, detail };
    let name = TenantName::parse(params.text("username")?)
        .map_err(|bad| invalid("username", "invalid_username", bad.to_string()))?;
    let password = Zeroizing::new(params.text("password")?.to_owned());
    api.shared.passwords.check(&password).map_err(|bad| invalid("password", "invalid_password", bad.to_string()))?;
    let password = api.shared.hashing.hash(Zeroizing::new(password.as_bytes().to_vec())).await?;
    let key = ApiKey::generate().map_err(|error| ApiError::Internal(error.to_string().into()))?;
    let tenant = NewTenant { name, password, key: key.id(), secret: key.secret_hash(), created_unix_s: now_unix_s() };
    let tenant = api.store.register(tenant).await?;
    account.tenant = Some(tenant);
    Ok(document::user(tenant, &key.reveal()))
}
