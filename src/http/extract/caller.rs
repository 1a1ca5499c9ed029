//! Authentication, rate limiting and authorization of a request.
//!
//! Job: [`Authorized`], the extractor: from the `Authorization` header to an [`auth::Caller`] that
//! is authorized for the route. `Attempt::authenticate` has the order of the steps.
//! Invariant: a request without a valid key takes a token of its address, one with a valid key a
//! token of its tenant, so an unauthenticated client cannot exhaust a tenant's limit. No password
//! is hashed before the rate limit of the address and the login throttle allow it.
//! Must never: access the store's counters, or make a request wait until its key's use is recorded.

use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::Extract;
use crate::auth::basic::BasicCredentials;
use crate::auth::rate_limit::RateLimitDecision;
use crate::auth::{self, AuthFailure, AuthRequirement, Credential, Principal, authenticate_key};
use crate::domain::api_key::{KeyId, Scopes};
use crate::domain::tenant::TenantId;
use crate::domain::time_format::SECONDS_PER_DAY;
use crate::failpoint::failpoint;
use crate::http::context::{RequestContext, SecurityEvent};
use crate::http::error::ApiError;
use crate::http::state::{AppState, Shared};
use crate::store::{Health, now_unix_s};

/// The authentication requirement of a route, as a type.
pub trait Requirement: 'static {
    /// The requirement as a value.
    const REQUIREMENT: AuthRequirement;
}

macro_rules! requirements {
    ($($(#[$doc:meta])* $name:ident = $requirement:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}
        impl Requirement for $name {
            const REQUIREMENT: AuthRequirement = $requirement;
        }
    )+};
}

requirements! {
    /// A key with the scope *read*.
    Read = AuthRequirement::Key(Scopes::READ);
    /// A key with the scope *increment*.
    Increment = AuthRequirement::Key(Scopes::INCREMENT);
    /// A key with the scope *manage*.
    Manage = AuthRequirement::Key(Scopes::MANAGE);
    /// A key with the scope *manage*, or the password.
    ManageOrPassword = AuthRequirement::KeyOrPassword(Some(Scopes::MANAGE));
    /// Any key, or the password.
    AnyCredential = AuthRequirement::ANY_CREDENTIAL;
    /// The password.
    PasswordOnly = AuthRequirement::Password;
}

/// The [`auth::Caller`] of a request, authorized by `R`. A handler gets a caller in no other way,
/// so one that uses its tenant cannot skip authentication.
#[derive(Debug)]
pub struct Authorized<R> {
    caller: auth::Caller,
    requirement: PhantomData<R>,
}

impl<R> Deref for Authorized<R> {
    type Target = auth::Caller;

    fn deref(&self) -> &auth::Caller {
        &self.caller
    }
}

impl<R: Requirement> Extract for Authorized<R> {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        let (state, context) = (AppState::of(req), RequestContext::of(req));
        context.outcome.borrow_mut().requirement = Some(R::REQUIREMENT);
        let attempt = Attempt { state: &state, context: &context, requirement: R::REQUIREMENT };
        let caller = attempt.authenticate(req.headers()).await?;
        Ok(Self { caller, requirement: PhantomData })
    }
}

/// An unauthenticated request within the rate limit of its address.
#[derive(Debug)]
pub struct RateLimitedClient;

impl Extract for RateLimitedClient {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        limit_client(&AppState::of(req).shared, &RequestContext::of(req))?;
        Ok(Self)
    }
}

/// One attempt to authenticate.
struct Attempt<'a> {
    state: &'a Rc<AppState>,
    context: &'a RequestContext,
    requirement: AuthRequirement,
}

impl Attempt<'_> {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<auth::Caller, ApiError> {
        let credential = single_authorization_header(headers).and_then(|credential| {
            Credential::from_header(credential.as_bytes(), self.requirement)
        });
        let principal = match credential {
            Ok(Credential::Password(password)) => self.verify_password(&password).await?,
            Ok(Credential::Key(key)) => {
                match authenticate_key(self.state.store.as_ref(), &key).await {
                    Ok(principal) => {
                        let tenant = if failpoint!("rate-limit-per-key") {
                            TenantId(u64::from_be_bytes(key.id().0))
                        } else {
                            principal.tenant()
                        };
                        let decision = self
                            .state
                            .shared
                            .rate_limiters
                            .check_tenant(tenant, principal.record().limit);
                        self.context.set_tenant(principal.tenant());
                        enforce_limit("tenant", decision, self.context)?;
                        principal
                    }
                    Err(failure) => return Err(self.reject_unauthenticated(failure)),
                }
            }
            Err(failure) => return Err(self.reject_unauthenticated(failure)),
        };
        self.context.set_tenant(principal.tenant());
        let today = u32::try_from(now_unix_s() / SECONDS_PER_DAY).unwrap_or(u32::MAX);
        let key_to_touch = principal.key_to_touch(today);
        let caller =
            principal.authorize(self.requirement).map_err(|failure| self.auth_error(failure))?;
        if let Some(key) = key_to_touch {
            touch_key(self.state, key, today);
        }
        Ok(caller)
    }

    /// Verifies user name and password. Every attempt takes a token of the address; only failed
    /// ones count against the name.
    async fn verify_password(&self, password: &BasicCredentials) -> Result<Principal, ApiError> {
        let shared = &self.state.shared;
        limit_client(shared, self.context)?;
        let decision = shared.rate_limiters.check_login(password.normalized_name());
        if decision.retry_after.is_some() && !failpoint!("login-throttle-not-enforced") {
            enforce_limit("name", Some(decision), self.context)?;
        }
        let result = password.authenticate(self.state.store.as_ref(), &shared.hashing).await;
        // If the client disconnects, the future is dropped above, and the attempt counts.
        if !matches!(result, Err(AuthFailure::Password)) {
            shared.rate_limiters.refund_login(password.normalized_name());
        }
        result.map_err(|failure| self.auth_error(failure))
    }

    /// Rejects an unauthenticated request and takes a token of the client's address. If there is
    /// none left, the exceeded limit is the error.
    fn reject_unauthenticated(&self, failure: AuthFailure) -> ApiError {
        let is_client_error = failure.reason().is_some();
        let error = self.auth_error(failure);
        let limited = is_client_error.then(|| limit_client(&self.state.shared, self.context));
        limited.and_then(Result::err).unwrap_or(error)
    }

    fn auth_error(&self, failure: AuthFailure) -> ApiError {
        auth_error(self.context, failure)
    }
}

/// The error of a failed authentication, which is recorded as a security event.
pub(crate) fn auth_error(context: &RequestContext, failure: AuthFailure) -> ApiError {
    let event = failure.reason().map(SecurityEvent::AuthFailure);
    context.outcome.borrow_mut().events.extend(event);
    ApiError::from_auth_failure(failure)
}

fn limit_client(shared: &Shared, context: &RequestContext) -> Result<(), ApiError> {
    enforce_limit("client", shared.rate_limiters.check_client(context.client), context)
}

fn enforce_limit(
    scope: &'static str,
    decision: Option<RateLimitDecision>,
    context: &RequestContext,
) -> Result<(), ApiError> {
    let Some(decision) = decision else { return Ok(()) };
    let mut outcome = context.outcome.borrow_mut();
    outcome.limit = Some((scope, decision));
    if decision.retry_after.is_none() || failpoint!("rate-limit-not-enforced") {
        return Ok(());
    }
    outcome.events.push(SecurityEvent::RateLimited(scope));
    Err(ApiError::RateLimited { scope, decision })
}

/// Records in the background, once a day, that the key was used today. If that fails, the next
/// request tries again.
fn touch_key(state: &Rc<AppState>, key: KeyId, today: u32) {
    if state.store.health() != Health::Ready
        || !state.shared.key_touches_in_flight.pin().insert(key)
    {
        return;
    }
    let (store, shared) = (Arc::clone(&state.store), Arc::clone(&state.shared));
    tokio::spawn(async move {
        let _ = store.touch_api_key(key, today).await;
        shared.key_touches_in_flight.pin().remove(&key);
    });
}

fn single_authorization_header(headers: &HeaderMap) -> Result<&HeaderValue, AuthFailure> {
    let mut credentials = headers.get_all(AUTHORIZATION);
    match (credentials.next(), credentials.next()) {
        (None, _) => Err(AuthFailure::Missing),
        (Some(_), Some(_)) => Err(AuthFailure::Ambiguous),
        (Some(credential), None) => Ok(credential),
    }
}
