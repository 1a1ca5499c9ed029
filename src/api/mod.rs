//! The API: from a request to an answer, knowing nothing of sockets.
//!
//! ```text
//! route.rs    method and path → Route     caller.rs  header → Caller, limits     integer.rs counters.rs keys.rs tenants.rs ops.rs  one function a route
//! payload.rs  body → bytes                once.rs    idempotency, conditions     document.rs resource.rs answer → bytes
//! params.rs syntax.rs bytes → parameters  error.rs   failure → status            openapi/ docs.rs the routes, for machines and people
//! ```
//! Job: [`Api::answer`]. Order: route (404, 405) → caller (401, 429, 403) → headers (400) → body (413, 415, 400) → parameters (422) → store.
//! Invariant: everything that is refused before the store was asked changed nothing. A handler of a guarded route gets its [`Caller`] from here, and
//! no other way. Must never: emit telemetry; it returns what happened, and the edge tells it.

mod caller;
mod counters;
pub mod docs;
pub mod document;
pub mod error;
mod integer;
mod keys;
mod once;
pub mod openapi;
mod ops;
pub mod params;
pub mod payload;
mod resource;
pub mod route;
mod syntax;
mod tenants;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request};

use self::document::Answer;
use self::error::ApiError;
use self::params::Params;
use self::payload::Payload;
use self::route::{Guarded, Listener, NoRoute, Open, Route};
use crate::auth::Caller;
use crate::auth::password::{HashingPool, PasswordPolicy};
use crate::auth::throttle::{Decision, Throttle};
use crate::store::{Page, Store, StoreFuture};
use crate::telemetry::Metrics;
use crate::tenant::{KeyId, TenantId};

/// How often a page of a list is asked for whose entries were all removed meanwhile.
const PAGE_TRIES: usize = 4;

/// What every worker shares.
pub struct Shared {
    /// Rate limits.
    pub throttle: Throttle,
    /// Where passwords are hashed.
    pub hashing: HashingPool,
    /// Which passwords will do.
    pub passwords: PasswordPolicy,
    /// How many counters a tenant may have beside `default`.
    pub counters_per_tenant: u32,
    /// Keys whose use is being noted.
    pub noting: papaya::HashSet<KeyId>,
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

/// What is counted or told besides the request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// Nobody was known, and why.
    AuthFailure(&'static str),
    /// A limit was met, and whose.
    RateLimited(&'static str),
    /// Something that an audit asks for was changed.
    Changed(Change),
}

/// A change of who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key was made.
    KeyCreated(KeyId),
    /// A key was revoked.
    KeyRevoked(KeyId),
    /// A password was replaced, and so many keys were revoked with it.
    PasswordChanged {
        /// How many.
        revoked: u32,
    },
    /// A tenant registered; its first key.
    TenantRegistered(KeyId),
    /// A tenant was deleted, with all that it had.
    TenantDeleted,
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
        let found = route::find(listener, &head.method, head.uri.path());
        account.label = found.label;
        let route = found.route.map_err(|none| match none {
            NoRoute::Path => ApiError::NotFound,
            NoRoute::Method(allow) => ApiError::MethodNotAllowed(allow),
        })?;
        let parameter = found.parameter;
        match route {
            Route::Open(open) => {
                let mut call = Call { api: self, client, head, parameter, payload, account };
                call.open(open).await
            }
            Route::Guarded(guarded, needs) => {
                let caller = self.caller(needs, &head.headers, client, account).await?;
                let mut call = Call { api: self, client, head, parameter, payload, account };
                // A tenant may be deleted between the look at its key and the change; what its route takes is known here.
                call.guarded(guarded, &caller).await.map_err(|error| match error {
                    ApiError::Unauthenticated(failure, _) => ApiError::Unauthenticated(failure, needs),
                    error => error,
                })
            }
        }
    }
}

/// One request on its way through a handler.
struct Call<'a> {
    api: &'a Api,
    client: IpAddr,
    head: &'a Parts,
    /// The path's parameter, as it was sent.
    parameter: &'a str,
    payload: &'a mut Payload,
    account: &'a mut Account,
}

impl<'a> Call<'a> {
    async fn open(&mut self, open: Open) -> Result<Answer, ApiError> {
        let Api { store, shared } = self.api;
        match open {
            Open::Livez => Ok(ops::livez()),
            Open::Readyz => Ok(ops::readyz(store.health(), shared.draining.load(Ordering::Relaxed))),
            Open::Metrics => Ok(ops::metrics(&shared.metrics)),
            Open::Openapi => Ok(ops::openapi()),
            Open::Docs(file) => Ok(docs::answer(file)),
            Open::Register => tenants::register(self).await,
            Open::CreateTenant => tenants::create(self).await,
        }
    }

    async fn guarded(&mut self, guarded: Guarded, caller: &Caller) -> Result<Answer, ApiError> {
        match guarded {
            Guarded::ReadInteger => integer::read(self, caller).await,
            Guarded::SetInteger => integer::set(self, caller).await,
            Guarded::IncrementInteger => integer::increment(self, caller).await,
            Guarded::ListCounters => counters::list(self, caller).await,
            Guarded::CreateCounter => counters::create(self, caller).await,
            Guarded::ReadCounter => counters::read(self, caller).await,
            Guarded::SetCounter => counters::set(self, caller).await,
            Guarded::DeleteCounter => counters::delete(self, caller).await,
            Guarded::IncrementCounter => counters::increment(self, caller).await,
            Guarded::ListKeys => keys::list(self, caller).await,
            Guarded::CreateKey => keys::create(self, caller).await,
            Guarded::RevokeKey => keys::revoke(self, caller).await,
            Guarded::ShowTenant => tenants::show(self, caller).await,
            Guarded::DeleteTenant => tenants::delete(self, caller).await,
            Guarded::ChangePassword => tenants::change_password(self, caller).await,
        }
    }

    fn store(&self) -> &'a dyn Store {
        self.api.store.as_ref()
    }

    fn headers(&self) -> &'a HeaderMap {
        &self.head.headers
    }

    /// The parameters of query and body.
    async fn params(&mut self) -> Result<Params, ApiError> {
        let body = self.payload.read().await?;
        Params::parse(self.head.uri.query(), &self.head.headers, &body)
    }

    /// The parameters of the query, for routes whose body means nothing.
    fn query(&self) -> Result<Params, ApiError> {
        Params::parse(self.head.uri.query(), &self.head.headers, b"")
    }

    fn note(&mut self, change: Change) {
        self.account.noted.push(Noted::Changed(change));
    }

    /// A page that has something on it, unless the list ends there: entries that were removed between the list and the look are left out.
    async fn page<T>(&self, ask: impl Fn() -> StoreFuture<'a, Page<T>>) -> Result<Page<T>, ApiError> {
        for _ in 0..PAGE_TRIES {
            let page = ask().await?;
            if !page.items.is_empty() || !page.more {
                return Ok(page);
            }
        }
        Err(ApiError::Overloaded)
    }
}
