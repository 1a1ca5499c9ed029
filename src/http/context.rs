//! What is known of one request, shared by middleware, extractors and handlers.
//!
//! Job: [`RequestContext`]: the client's address and the request's id from the middleware, and the
//! [`RequestOutcome`] that extractors and handlers add to.
//! Invariant: a context is made by the middleware before the request is routed, so everybody behind
//! it finds one. Must never: hold a header, a body or a credential.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use actix_web::{HttpMessage, HttpRequest};

use crate::auth::AuthRequirement;
use crate::auth::rate_limit::RateLimitDecision;
use crate::domain::api_key::KeyId;
use crate::domain::tenant::TenantId;
use crate::http::route_table::UNMATCHED;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address, of a client or of a proxy.
    Tcp(SocketAddr),
    /// A user of this machine, by the number that the kernel gave with the connection.
    Unix {
        /// The number.
        uid: u32,
    },
}

impl Peer {
    /// Its address; one of this machine has none.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        match self {
            Self::Tcp(address) => address.ip(),
            Self::Unix { .. } => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
}

/// Security-relevant events of a request, for metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecurityEvent {
    /// Authentication failed; the reason label.
    AuthFailure(&'static str),
    /// A rate limit was met; the scope label.
    RateLimited(&'static str),
    /// Credentials or tenants were changed.
    Audit(AuditEvent),
    /// An operator asked for a change.
    Operator(OperatorEvent),
    /// An operator asked for a backup; if none was made, why.
    Backup(Result<BackupMade, String>),
}

/// A change that an operator asked for, made or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorEvent {
    /// What it is called in the log.
    pub action: &'static str,
    /// Who asked: a user of the machine.
    pub uid: u32,
    /// The new limit, or the key; as it was understood, never as it was typed.
    pub detail: Option<String>,
    /// Why it was not made.
    pub problem: Option<String>,
}

/// A backup that was made and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupMade {
    /// It has everything up to this commit.
    pub commit_seq: u64,
    /// So many records are in it.
    pub records: u64,
    /// Its size.
    pub bytes: u64,
}

/// A change of credentials or tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditEvent {
    /// A key was created.
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

/// What a request led to, for the access log and the metrics.
#[derive(Debug, Default)]
pub struct RequestOutcome {
    /// Whose request it was.
    pub tenant: Option<TenantId>,
    /// What the route asked of its caller.
    pub requirement: Option<AuthRequirement>,
    /// The rate limit that the request was taken from, and its scope.
    pub limit: Option<(&'static str, RateLimitDecision)>,
    /// Security events, in the order in which they happened.
    pub events: Vec<SecurityEvent>,
    /// The code and the internal cause of an error.
    pub error: Option<(&'static str, Option<Arc<str>>)>,
}

/// See the module's text.
#[derive(Debug)]
pub struct RequestContext {
    /// The client's address.
    pub client: IpAddr,
    /// The request's id.
    pub request_id: String,
    /// The index of the matched route's pattern in the route table; [`UNMATCHED`] until it is routed.
    pub route: Cell<usize>,
    /// What the request led to so far.
    pub outcome: RefCell<RequestOutcome>,
}

impl RequestContext {
    /// The context of a request that led to nothing yet.
    #[must_use]
    pub fn new(client: IpAddr, request_id: String) -> Self {
        Self { client, request_id, route: Cell::new(UNMATCHED), outcome: RefCell::default() }
    }

    /// The context of a request.
    ///
    /// # Panics
    /// If the App has no middleware that makes one, which is a mistake in `routes.rs`.
    #[must_use]
    pub fn of(req: &HttpRequest) -> Rc<Self> {
        let extensions = req.extensions();
        Rc::clone(
            extensions.get::<Rc<Self>>().expect("the middleware gives every request its context"),
        )
    }

    /// Records a change that an audit asks for.
    pub fn audit(&self, event: AuditEvent) {
        self.note(SecurityEvent::Audit(event));
    }

    /// Records an event.
    pub fn note(&self, event: SecurityEvent) {
        self.outcome.borrow_mut().events.push(event);
    }

    /// Records whose request it is.
    pub fn set_tenant(&self, tenant: TenantId) {
        self.outcome.borrow_mut().tenant = Some(tenant);
    }
}
