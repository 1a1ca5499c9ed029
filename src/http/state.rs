//! What handlers work with: the store as one worker uses it, and what all workers share.
//!
//! Job: [`AppState`], taken in handlers as [`State`]. Invariant: one of it for each worker, so that
//! the store may wake the worker's waiting requests together.
//! Must never: know a request.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix_web::{HttpRequest, web};

use crate::auth::password::{HashingPool, PasswordPolicy};
use crate::auth::rate_limiter::RateLimiters;
use crate::domain::api_key::KeyId;
use crate::store::Store;
use crate::telemetry::Metrics;

/// The state of one worker as a handler's argument.
pub type State = web::ThinData<Rc<AppState>>;

/// What every worker shares.
pub struct Shared {
    /// Rate limits.
    pub rate_limiters: RateLimiters,
    /// The threads that hash passwords.
    pub hashing: HashingPool,
    /// Which passwords are accepted.
    pub passwords: PasswordPolicy,
    /// How many counters a tenant may have beside `default`.
    pub counters_per_tenant: u32,
    /// API keys whose last-used day is being written.
    pub key_touches_in_flight: papaya::HashSet<KeyId>,
    /// For `/metrics`.
    pub metrics: Metrics,
    /// Whether the process is shutting down.
    pub draining: AtomicBool,
}

/// The application's state on one worker.
pub struct AppState {
    /// The worker's handle to the store.
    pub store: Arc<dyn Store>,
    /// What it shares with the others.
    pub shared: Arc<Shared>,
}

impl AppState {
    /// The state that the App of a request was built with.
    ///
    /// # Panics
    /// If the App was built without it, which is a mistake in `routes.rs`.
    #[must_use]
    pub fn of(req: &HttpRequest) -> Rc<Self> {
        let state = req.app_data::<State>().expect("routes.rs gives every App its state");
        Rc::clone(&state.0)
    }
}
