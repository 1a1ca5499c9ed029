//! The application state: a worker's handle to the store, and what all workers share.
//!
//! Job: [`AppState`], which handlers take as [`State`].
//! Invariant: each worker has one of its own, so that the store can wake all waiting requests of a
//! worker at once.
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

/// A worker's state as a handler's argument.
pub type State = web::ThinData<Rc<AppState>>;

/// The state that all workers share.
pub struct Shared {
    /// The rate limiters.
    pub rate_limiters: RateLimiters,
    /// The threads that hash passwords.
    pub hashing: HashingPool,
    /// Which passwords are accepted.
    pub passwords: PasswordPolicy,
    /// The quota of counters per tenant, not counting `default`.
    pub counters_per_tenant: u32,
    /// API keys whose last-used day is being written.
    pub key_touches_in_flight: papaya::HashSet<KeyId>,
    /// The metrics, for `/metrics` and `/stats`.
    pub metrics: Metrics,
    /// Whether the process is shutting down.
    pub draining: AtomicBool,
}

/// The application's state on one worker.
pub struct AppState {
    /// The worker's handle to the store.
    pub store: Arc<dyn Store>,
    /// The state that all workers share.
    pub shared: Arc<Shared>,
}

impl AppState {
    /// The state of the App that serves a request.
    ///
    /// # Panics
    /// If the App was built without a state, which is a bug in `routes.rs`.
    pub fn of(req: &HttpRequest) -> Rc<Self> {
        let state = req.app_data::<State>().expect("routes.rs gives every App its state");
        Rc::clone(&state.0)
    }
}
