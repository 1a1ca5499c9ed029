//! The API: from a request to an answer, knowing nothing of sockets.
//!
//! ```text
//! route.rs  method and path → Route      caller.rs  header → Caller, limits     counters.rs tenants.rs ops.rs  one function a route
//! params.rs body → parameters            error.rs   failure → status            document.rs answer → bytes
//! ```
//! Job: [`Api::answer`]. Order: route (404, 405) → caller (401, 429) → body (413, 415, 400) → parameters (422) → store.
//! Invariant: everything that is refused before the store was asked changed nothing.
//! Must never: emit telemetry; it returns what happened, and the edge tells it.

mod caller;
mod counters;
pub mod document;
pub mod error;
mod ops;
pub mod params;
pub mod route;
mod tenants;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Request;
use hyper::body::Incoming;
use hyper::http::request::Parts;

use self::document::Answer;
use self::error::ApiError;
use self::params::Payload;
use self::route::{Listener, NoRoute, Route};
use crate::auth::password::{HashingPool, PasswordPolicy};
use crate::auth::throttle::{Decision, Throttle};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::tenant::TenantId;

/// What every worker shares.
pub struct Shared {
    /// Rate limits.
    pub throttle: Throttle,
    /// Where passwords are hashed.
    pub hashing: HashingPool,
    /// Which passwords will do.
    pub passwords: PasswordPolicy,
    /// For `/metrics`.
    pub metrics: Metrics,
    /// Whether the process is going down.
    pub draining: AtomicBool,
}

/// The API as one worker uses it.
#[derive(Clone)]
pub struct Api {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
}

/// A failure that is counted, as its metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// Nobody was known, and why.
    AuthFailure(&'static str),
    /// A limit was met, and whose.
    RateLimited(&'static str),
}

/// What is known about a request when its answer is ready.
#[derive(Debug, Default)]
pub struct Account {
    /// The label of its route.
    pub label: usize,
    /// Whose request it was.
    pub tenant: Option<TenantId>,
    /// The limit that the request was taken from, and whose it is.
    pub limit: Option<(&'static str, Decision)>,
    /// What was counted besides, in the order it happened.
    pub noted: Vec<Noted>,
    /// The code and the cause of an error.
    pub error: Option<(&'static str, Option<Arc<str>>)>,
}

impl Api {
    /// The API of one worker, whose handle to the store it takes.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, shared: Arc<Shared>) -> Self {
        Self { store, shared }
    }

    /// Answers a request and fills in its account.
    pub async fn answer(
        &self,
        listener: Listener,
        client: IpAddr,
        request_id: &str,
        request: Request<Incoming>,
        account: &mut Account,
    ) -> Answer {
        let (head, body) = request.into_parts();
        let mut payload = Payload::new(&head.headers, body);
        let routed = self.route(listener, client, &head, &mut payload, account).await;
        payload.discard().await;
        let mut answer = match routed {
            Ok(answer) => answer,
            Err(error) => {
                let cause = match &error {
                    ApiError::Internal(cause) => Some(Arc::clone(cause)),
                    _ => None,
                };
                account.error = Some((error.row().code, cause));
                document::error(&error, request_id)
            }
        };
        if let Some((scope, decision)) = &account.limit {
            document::rate_limit(answer.headers_mut(), scope, decision);
        }
        answer
    }

    async fn route(
        &self,
        listener: Listener,
        client: IpAddr,
        head: &Parts,
        payload: &mut Payload,
        account: &mut Account,
    ) -> Result<Answer, ApiError> {
        let (label, route) = route::find(listener, &head.method, head.uri.path());
        account.label = label;
        let route = route.map_err(|none| match none {
            NoRoute::Path => ApiError::NotFound,
            NoRoute::Method(allow) => ApiError::MethodNotAllowed(allow),
        })?;
        match route {
            Route::Livez => Ok(ops::livez()),
            Route::Readyz => Ok(ops::readyz(self.store.health(), self.shared.draining.load(Ordering::Relaxed))),
            Route::Metrics => Ok(ops::metrics(&self.shared.metrics)),
            Route::Register => tenants::register(self, client, head, payload, account).await,
            Route::Read => counters::read(self, client, head, account).await,
            Route::Set => counters::set(self, client, head, payload, account).await,
            Route::Increment => counters::increment(self, client, head, payload, account).await,
        }
    }
}
