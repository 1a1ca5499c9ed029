//! Who calls, and whether they may call now.
//!
//! Job: from the `Authorization` header to a [`Caller`] and the state of their limit. Invariant: a request without a valid key spends from its address's
//! bucket, one with a valid key from its tenant's; so a stranger can not spend a tenant's requests.
//! Must never: reach the store's counters.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use super::error::ApiError;
use super::{Account, Api, Noted};
use crate::auth::throttle::Decision;
use crate::auth::{AuthFailure, Caller, authenticate};

impl Api {
    /// Finds out who calls and takes one request from their limit.
    ///
    /// # Errors
    /// [`ApiError::Unauthenticated`], [`ApiError::RateLimited`], or the store's own.
    pub(super) async fn caller(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        account: &mut Account,
    ) -> Result<Caller, ApiError> {
        let mut credentials = headers.get_all(AUTHORIZATION).iter();
        let found = match (credentials.next(), credentials.next()) {
            (None, _) => Err(AuthFailure::Missing),
            (Some(_), Some(_)) => Err(AuthFailure::Ambiguous),
            (Some(credential), None) => authenticate(self.store.as_ref(), credential.as_bytes()).await,
        };
        let caller = match found {
            Ok(caller) => caller,
            Err(AuthFailure::Store(error)) => return Err(error.into()),
            Err(failure) => {
                account.noted.push(Noted::AuthFailure(failure.reason()));
                self.limit_client(client, account)?;
                return Err(failure.into());
            }
        };
        account.tenant = Some(caller.tenant());
        Self::pass("tenant", self.shared.throttle.tenant(caller.tenant()), account)?;
        Ok(caller)
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
}
