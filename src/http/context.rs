//! The context of one request, shared by middleware, extractors and handlers.
//!
//! Job: [`RequestContext`]: the client's address and the request's id from the middleware, and the
//! [`RequestOutcome`] that extractors and handlers add to.
//! Invariant: the middleware makes the context before the request is routed, so extractors and
//! handlers always find one.
//! Must never: hold a header, a body or a credential.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use actix_web::{HttpMessage, HttpRequest};

use crate::auth::AuthRequirement;
use crate::auth::rate_limit::RateLimitDecision;
use crate::domain::api_key::KeyId;
use crate::domain::tenant::TenantId;

/// The index of the route label that all unmatched paths share; see
/// [`RouteTable`](super::route_table::RouteTable).
pub const UNMATCHED: usize = 0;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The address of a client or a proxy.
    Tcp(SocketAddr),
    /// A user of this machine, connected through the admin socket.
    Unix {
        /// The user id that the kernel reported for the connection.
        uid: u32,
    },
}

impl Peer {
    /// The peer's address; `0.0.0.0` for a user of this machine.
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
    /// Authentication failed: the label `reason`.
    AuthFailure(&'static str),
    /// A rate limit was exceeded: the label `scope`.
    RateLimited(&'static str),
    /// Credentials or tenants were changed.
    Audit(AuditEvent),
    /// An operator requested a change.
    Operator(OperatorEvent),
    /// An operator requested a backup: its summary, or the reason of the failure.
    Backup(Result<BackupMade, String>),
}

/// A change that an operator requested, whether it succeeded or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorEvent {
    /// The change.
    pub action: OperatorAction,
    /// The user id of the operator.
    pub uid: u32,
    /// The new limit or the key's id as parsed; never the raw input, which may contain a secret.
    pub detail: Option<String>,
    /// The reason of the failure; `None` if the change succeeded.
    pub problem: Option<String>,
}

/// A change that operators can request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorAction {
    /// Suspend a tenant.
    SuspendTenant,
    /// Resume a tenant.
    ResumeTenant,
    /// Set a tenant's rate limit.
    LimitTenant,
    /// Delete a tenant.
    DeleteTenant,
    /// Revoke an API key of a tenant.
    RevokeKey,
}

/// The summary of a backup that was made and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupMade {
    /// The last commit in the backup.
    pub commit_seq: u64,
    /// Number of records.
    pub records: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// A change of credentials or tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditEvent {
    /// A key was created.
    KeyCreated(KeyId),
    /// A key was revoked.
    KeyRevoked(KeyId),
    /// A password was changed.
    PasswordChanged {
        /// Number of keys that were revoked with it.
        revoked: u32,
    },
    /// A tenant registered: its first key.
    TenantRegistered(KeyId),
    /// A tenant was deleted, with its counters and keys.
    TenantDeleted,
}

/// The outcome of a request, for the access log and the metrics.
#[derive(Debug, Default)]
pub struct RequestOutcome {
    /// The tenant that made the request or that the request is about.
    pub tenant: Option<TenantId>,
    /// The authentication requirement of the route.
    pub requirement: Option<AuthRequirement>,
    /// The scope and the result of the rate-limit check.
    pub limit: Option<(&'static str, RateLimitDecision)>,
    /// Security events, in the order in which they happened.
    pub events: Vec<SecurityEvent>,
    /// An error's code and internal cause.
    pub error: Option<(&'static str, Option<Arc<str>>)>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct RequestContext {
    /// The client's address.
    pub client: IpAddr,
    /// The request's id.
    pub request_id: String,
    /// The route's index in the route table; [`UNMATCHED`] until the request is routed.
    pub route: Cell<usize>,
    /// The outcome so far.
    pub outcome: RefCell<RequestOutcome>,
}

impl RequestContext {
    /// The context of a new request.
    pub fn new(client: IpAddr, request_id: String) -> Self {
        Self { client, request_id, route: Cell::new(UNMATCHED), outcome: RefCell::default() }
    }

    /// The context of a request.
    ///
    /// # Panics
    /// If the App has no middleware that makes one, which is a bug in `routes.rs`.
    pub fn of(req: &HttpRequest) -> Rc<Self> {
        let extensions = req.extensions();
        Rc::clone(
            extensions.get::<Rc<Self>>().expect("the middleware gives every request its context"),
        )
    }

    /// Records an audit event.
    pub fn audit(&self, event: AuditEvent) {
        self.record(SecurityEvent::Audit(event));
    }

    /// Records a security event.
    pub fn record(&self, event: SecurityEvent) {
        self.outcome.borrow_mut().events.push(event);
    }

    /// Records the request's tenant.
    pub fn set_tenant(&self, tenant: TenantId) {
        self.outcome.borrow_mut().tenant = Some(tenant);
    }
}
