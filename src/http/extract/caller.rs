//! Who calls, and whether they may call now.
//!
//! Job: [`Caller`]: from the `Authorization` header to a tenant that may do what the route needs.
//! Invariant: a request without a valid key spends from its address's rate limit, one with a valid
//! key from its tenant's, so an unauthenticated client can not spend a tenant's requests. No
//! password is hashed before the address's and the name's limits let it through.
//! Must never: reach the store's counters, or make a request wait until its key's use is recorded.

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
use crate::domain::time_format::SECONDS_PER_DAY;
use crate::http::context::{RequestContext, SecurityEvent};
use crate::http::error::ApiError;
use crate::http::state::{AppState, Shared};
use crate::store::{Health, now_unix_s};

/// What a route asks of its caller, as a type.
pub trait Requirement: 'static {
    /// The same as a value.
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

/// Somebody who proved who they are and may do what `R` says. Nothing else makes one, so a handler
/// that names a tenant has authenticated it.
#[derive(Debug)]
pub struct Caller<R> {
    caller: auth::Caller,
    requirement: PhantomData<R>,
}

impl<R> Deref for Caller<R> {
    type Target = auth::Caller;

    fn deref(&self) -> &auth::Caller {
        &self.caller
    }
}

impl<R: Requirement> Extract for Caller<R> {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        let (state, context) = (AppState::of(req), RequestContext::of(req));
        context.outcome.borrow_mut().requirement = Some(R::REQUIREMENT);
        let attempt = Attempt { state: &state, context: &context, requirement: R::REQUIREMENT };
        let caller = attempt.authenticate(req.headers()).await?;
        Ok(Self { caller, requirement: PhantomData })
    }
}

/// An address that may go on without a credential: one request of its rate limit was taken.
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
        let identity = match credential {
            Ok(Credential::Password(password)) => self.verify_password(&password).await?,
            Ok(Credential::Key(key)) => {
                match authenticate_key(self.state.store.as_ref(), &key).await {
                    Ok(identity) => {
                        let decision = self
                            .state
                            .shared
                            .rate_limiters
                            .check_tenant(identity.tenant(), identity.record().limit);
                        self.context.set_tenant(identity.tenant());
                        enforce_limit("tenant", decision, self.context)?;
                        identity
                    }
                    Err(failure) => return Err(self.reject_unauthenticated(failure)),
                }
            }
            Err(failure) => return Err(self.reject_unauthenticated(failure)),
        };
        self.context.set_tenant(identity.tenant());
        let today = u32::try_from(now_unix_s() / SECONDS_PER_DAY).unwrap_or(u32::MAX);
        let untouched = identity.key_to_touch(today);
        let caller =
            identity.authorize(self.requirement).map_err(|failure| self.auth_error(failure))?;
        if let Some(key) = untouched {
            touch_key(self.state, key, today);
        }
        Ok(caller)
    }

    /// Every password attempt counts against the address; only a failed one against the name.
    async fn verify_password(&self, password: &BasicCredentials) -> Result<Principal, ApiError> {
        let shared = &self.state.shared;
        limit_client(shared, self.context)?;
        let decision = shared.rate_limiters.check_login(password.normalized_name());
        if decision.retry_after.is_some() {
            enforce_limit("name", Some(decision), self.context)?;
        }
        let proved = password.authenticate(self.state.store.as_ref(), &shared.hashing).await;
        // A client that disconnected got no reply, and does not come here: its attempt still counts.
        if !matches!(proved, Err(AuthFailure::Password)) {
            shared.rate_limiters.refund_login(password.normalized_name());
        }
        proved.map_err(|failure| self.auth_error(failure))
    }

    /// Rejects an unauthenticated request, and counts it against the client's address, which may
    /// be over its limit already: then that is the error.
    fn reject_unauthenticated(&self, failure: AuthFailure) -> ApiError {
        let is_the_clients_fault = failure.reason().is_some();
        let error = self.auth_error(failure);
        let limited = is_the_clients_fault.then(|| limit_client(&self.state.shared, self.context));
        limited.and_then(Result::err).unwrap_or(error)
    }

    fn auth_error(&self, failure: AuthFailure) -> ApiError {
        let event = failure.reason().map(SecurityEvent::AuthFailure);
        self.context.outcome.borrow_mut().events.extend(event);
        ApiError::from_auth_failure(failure)
    }
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
    if decision.retry_after.is_none() {
        return Ok(());
    }
    outcome.events.push(SecurityEvent::RateLimited(scope));
    Err(ApiError::RateLimited { scope, decision })
}

/// Records that the key was used today, once a day and beside the request. Where that fails, the
/// next request tries again.
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
