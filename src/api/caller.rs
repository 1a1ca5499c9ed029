//! Who calls, and whether they may call now.
//!
//! Job: from the `Authorization` header to a [`Caller`] and the state of their limit. Invariant: a request without a valid key spends from its address's
//! bucket, one with a valid key from its tenant's; so a stranger can not spend a tenant's requests. No password is hashed before the address and the
//! name were let through.
//! Must never: reach the store's counters, or make a request wait for the note that its key was used.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};

use super::error::ApiError;
use super::{Account, Api, Noted};
use crate::auth::basic::Password;
use crate::auth::throttle::Decision;
use crate::auth::{AuthFailure, Caller, Credential, Identity, Needs, prove_key};
use crate::moment::SECONDS_A_DAY;
use crate::store::{Health, now_unix_s};
use crate::tenant::KeyId;

impl Api {
    /// Finds out who calls, takes one request from their limit, and lets them through if they may do what needs this.
    ///
    /// # Errors
    /// [`ApiError::Unauthenticated`], [`ApiError::RateLimited`], [`ApiError::InsufficientScope`], [`ApiError::TenantSuspended`], or the store's own.
    pub(super) async fn caller(
        &self,
        needs: Needs,
        headers: &HeaderMap,
        client: IpAddr,
        account: &mut Account,
    ) -> Result<Caller, ApiError> {
        let identity = match only_one(headers).and_then(|credential| Credential::of(credential.as_bytes(), needs)) {
            Ok(Credential::Password(password)) => self.prove_password(&password, needs, client, account).await?,
            Ok(Credential::Key(key)) => {
                let proved = prove_key(self.store.as_ref(), &key).await;
                let identity = proved.or_else(|failure| Err(self.stranger(failure, needs, client, account)?))?;
                let allowed = self.shared.throttle.tenant(identity.tenant(), identity.record().limit);
                account.tenant = Some(identity.tenant());
                Self::pass("tenant", allowed, account)?;
                identity
            }
            Err(failure) => return Err(self.stranger(failure, needs, client, account)?),
        };
        account.tenant = Some(identity.tenant());
        let today = u32::try_from(now_unix_s() / SECONDS_A_DAY).unwrap_or(u32::MAX);
        let unnoted = identity.unnoted(today);
        let caller = identity.allow(needs).map_err(|failure| Self::refuse(failure, needs, account))?;
        if let Some(key) = unnoted {
            self.note_use(key, today);
        }
        Ok(caller)
    }

    /// The address pays for a password, right or wrong; the name only for a wrong one.
    async fn prove_password(
        &self,
        password: &Password,
        needs: Needs,
        client: IpAddr,
        account: &mut Account,
    ) -> Result<Identity, ApiError> {
        self.limit_client(client, account)?;
        let throttle = &self.shared.throttle;
        let decision = throttle.name(password.folded());
        if decision.retry_after.is_some() {
            Self::pass("name", Some(decision), account)?;
        }
        let proved = password.prove(self.store.as_ref(), &self.shared.hashing).await;
        // Who goes away in the middle has not been told; that try is not given back.
        if !matches!(proved, Err(AuthFailure::Password)) {
            throttle.forgive(password.folded());
        }
        proved.map_err(|failure| Self::refuse(failure, needs, account))
    }

    /// What to answer somebody who proved nothing, after their address paid for it: an error, or the error that it can not pay.
    fn stranger(
        &self,
        failure: AuthFailure,
        needs: Needs,
        client: IpAddr,
        account: &mut Account,
    ) -> Result<ApiError, ApiError> {
        let is_theirs = failure.reason().is_some();
        let refused = Self::refuse(failure, needs, account);
        if is_theirs {
            self.limit_client(client, account)?;
        }
        Ok(refused)
    }

    fn refuse(failure: AuthFailure, needs: Needs, account: &mut Account) -> ApiError {
        account.noted.extend(failure.reason().map(Noted::AuthFailure));
        ApiError::refused(failure, needs)
    }

    /// Takes one request from an address's limit.
    ///
    /// # Errors
    /// [`ApiError::RateLimited`].
    pub(super) fn limit_client(&self, client: IpAddr, account: &mut Account) -> Result<(), ApiError> {
        Self::pass("client", self.shared.throttle.client(client), account)
    }

    fn pass(scope: &'static str, decision: Option<Decision>, account: &mut Account) -> Result<(), ApiError> {
        let Some(decision) = decision else { return Ok(()) };
        account.limit = Some((scope, decision));
        if decision.retry_after.is_none() {
            return Ok(());
        }
        account.noted.push(Noted::RateLimited(scope));
        Err(ApiError::RateLimited { scope, decision })
    }

    /// Has it noted that the key was used today, once a day and beside the request. If it can not be, the next request tries again.
    fn note_use(&self, key: KeyId, today: u32) {
        if self.store.health() != Health::Ready || !self.shared.noting.pin().insert(key) {
            return;
        }
        let api = self.clone();
        tokio::spawn(async move {
            let _ = api.store.note_use(key, today).await;
            api.shared.noting.pin().remove(&key);
        });
    }
}

fn only_one(headers: &HeaderMap) -> Result<&HeaderValue, AuthFailure> {
    let mut credentials = headers.get_all(AUTHORIZATION).iter();
    match (credentials.next(), credentials.next()) {
        (None, _) => Err(AuthFailure::Missing),
        (Some(_), Some(_)) => Err(AuthFailure::Ambiguous),
        (Some(credential), None) => Ok(credential),
    }
}
