//! The table of errors: failure → status, code and title.
//!
//! Job: [`ApiError`], made from the failures of the lower modules, and the one match that gives it
//! a status, a stable code and a title; `error_detail.rs` has the details. The access log's
//! middleware writes the error document, since it knows the request's id.
//! Invariant: a status is decided here and nowhere else.
//! Must never: show the client an internal cause or another tenant's data.

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};

use crate::auth::AuthFailure;
use crate::auth::password::HashError;
use crate::auth::rate_limit::RateLimitDecision;
use crate::domain::api_key::Scopes;
use crate::domain::counter::CounterRefusal;
use crate::store::{CounterState, Refusal, StoreError, Unavailable};

/// The part of the request that an error refers to: JSON:API's `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// A parameter of a body, form or query.
    Parameter(&'a str),
    /// A header.
    Header(&'static str),
}

/// An error response.
#[derive(Clone, Debug)]
pub enum ApiError {
    /// No route has this path.
    NotFound,
    /// The path has other methods: the value of `Allow`.
    MethodNotAllowed(String),
    /// Authentication failed.
    Unauthenticated(AuthFailure),
    /// The key lacks these scopes.
    InsufficientScope(Scopes),
    /// An operator suspended the tenant.
    TenantSuspended,
    /// The body cannot be parsed: the reason.
    MalformedBody(&'static str),
    /// The head of the request violates HTTP or this server's limits: the reason.
    MalformedRequest(&'static str),
    /// The body is larger than this limit, in bytes.
    BodyTooLarge(usize),
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body is neither JSON:API nor JSON nor a form.
    UnsupportedMediaType,
    /// A parameter is missing or invalid.
    Invalid {
        /// The parameter.
        parameter: &'static str,
        /// A stable code.
        code: &'static str,
        /// The rule that it violates, as the rest of a sentence that begins with its name.
        detail: String,
    },
    /// The route has no parameter of this name.
    UnknownParameter(Box<str>),
    /// `Idempotency-Key` is malformed or occurs twice.
    InvalidIdempotencyKey,
    /// Another tenant has the name.
    UsernameTaken,
    /// The route does not support this header.
    NotSupported(&'static str),
    /// The counter refused the operation.
    Counter(CounterRefusal),
    /// The tenant has no counter of this name.
    CounterNotFound,
    /// The tenant has a counter of this name already.
    CounterExists,
    /// `default` can be neither created nor deleted.
    DefaultCounter,
    /// `If-Match` does not match this current state.
    PreconditionFailed(CounterState),
    /// The tenant has reached its quota of counters or keys.
    QuotaExceeded(u32),
    /// The idempotency key was used for another request.
    IdempotencyKeyReused,
    /// No more idempotency keys can be stored.
    IdempotencyFull,
    /// The tenant has no API key with this id.
    KeyNotFound,
    /// A rate limit is exceeded.
    RateLimited {
        /// `tenant`, `client` or `name`.
        scope: &'static str,
        /// The result of the check.
        decision: RateLimitDecision,
    },
    /// The request must not be sent over plain HTTP.
    HttpsRequired,
    /// The commit queue or the hashing queue is full.
    Overloaded,
    /// The server is shutting down.
    Closing,
    /// The disk is almost full.
    StorageFull,
    /// The store is poisoned: an earlier write failed.
    Poisoned,
    /// The write failed, and whether it is durable is unknown.
    OutcomeUnknown,
    /// No tenant has this name. For operators only: the tenant API never reveals it.
    TenantNotFound(String),
    /// The backup that an operator requested failed: the reason.
    BackupFailed(String),
    /// An internal error: the cause, for the log only.
    Internal(Arc<str>),
}

/// The status, code and title of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorSpec {
    /// The status of the response.
    pub status: StatusCode,
    /// The stable code, for programs.
    pub code: &'static str,
    /// The title, for people.
    pub title: &'static str,
}

impl ApiError {
    /// The row of the table.
    pub fn spec(&self) -> ErrorSpec {
        use CounterRefusal::{Exhausted, OutOfRange, RewindRequired};
        let (status, code, title) = match self {
            Self::NotFound => (404, "not_found", "Route not found"),
            Self::MethodNotAllowed(_) => (405, "method_not_allowed", "Method not allowed"),
            Self::Unauthenticated(_) => (401, "unauthorized", "Authentication failed"),
            Self::InsufficientScope(_) => (403, "insufficient_scope", "Insufficient scope"),
            Self::TenantSuspended => (403, "tenant_suspended", "Tenant suspended"),
            Self::MalformedBody(_) => (400, "malformed_body", "Malformed body"),
            Self::MalformedRequest(_) => (400, "malformed_request", "Malformed request"),
            Self::BodyTooLarge(_) => (413, "body_too_large", "Body too large"),
            Self::BodyTimeout => (408, "body_timeout", "Body timeout"),
            Self::UnsupportedMediaType => (415, "unsupported_media_type", "Unsupported media type"),
            Self::Invalid { code, .. } => (422, *code, "Invalid parameter"),
            Self::UnknownParameter(_) => (422, "unknown_parameter", "Unknown parameter"),
            Self::InvalidIdempotencyKey => {
                (400, "invalid_idempotency_key", "Invalid idempotency key")
            }
            Self::UsernameTaken => (409, "username_taken", "Username taken"),
            Self::NotSupported(_) => (400, "not_supported", "Not supported"),
            Self::Counter(Exhausted { .. }) => (409, "counter_exhausted", "Counter exhausted"),
            Self::Counter(OutOfRange { .. }) => (422, "value_out_of_range", "Invalid parameter"),
            Self::Counter(RewindRequired { .. }) => (409, "rewind_required", "Rewind required"),
            Self::CounterNotFound => (404, "counter_not_found", "Counter not found"),
            Self::CounterExists => (409, "counter_exists", "Counter exists"),
            Self::DefaultCounter => (409, "default_counter", "Default counter is permanent"),
            Self::PreconditionFailed(_) => (412, "precondition_failed", "Precondition failed"),
            Self::QuotaExceeded(_) => (409, "quota_exceeded", "Quota exceeded"),
            Self::IdempotencyKeyReused => (422, "idempotency_key_reused", "Idempotency key reused"),
            Self::IdempotencyFull => (503, "idempotency_full", "Idempotency storage full"),
            Self::KeyNotFound => (404, "key_not_found", "API key not found"),
            Self::RateLimited { .. } => (429, "rate_limited", "Rate limit exceeded"),
            Self::HttpsRequired => (403, "https_required", "HTTPS required"),
            Self::Overloaded => (503, "overloaded", "Server overloaded"),
            Self::Closing => (503, "closing", "Server is shutting down"),
            Self::StorageFull => (507, "storage_full", "Disk almost full"),
            Self::Poisoned => (503, "poisoned", "Store is read-only until restart"),
            Self::OutcomeUnknown => (503, "outcome_unknown", "Outcome unknown"),
            Self::TenantNotFound(_) => (404, "tenant_not_found", "Tenant not found"),
            Self::BackupFailed(_) => (500, "backup_failed", "Backup failed"),
            Self::Internal(_) => (500, "internal", "Internal server error"),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        ErrorSpec { status, code, title }
    }

    /// The part of the request that the error refers to, if it is one part.
    pub fn source(&self) -> Option<Source<'_>> {
        match self {
            Self::UnknownParameter(name) => Some(Source::Parameter(Self::redact_name(name))),
            Self::UsernameTaken => Some(Source::Parameter("username")),
            Self::InvalidIdempotencyKey => Some(Source::Header("Idempotency-Key")),
            Self::Invalid { parameter, .. } => Some(Source::Parameter(parameter)),
            Self::Counter(
                CounterRefusal::OutOfRange { .. } | CounterRefusal::RewindRequired { .. },
            ) => Some(Source::Parameter("value")),
            Self::PreconditionFailed(_) => Some(Source::Header("If-Match")),
            Self::IdempotencyKeyReused | Self::IdempotencyFull => {
                Some(Source::Header("Idempotency-Key"))
            }
            Self::CounterExists => Some(Source::Parameter("name")),
            Self::Unauthenticated(_) | Self::InsufficientScope(_) | Self::TenantSuspended => {
                Some(Source::Header("Authorization"))
            }
            Self::UnsupportedMediaType => Some(Source::Header("Content-Type")),
            _ => None,
        }
    }

    /// The value of `Retry-After`; `None` if a retry would not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { decision, .. } => decision.retry_after,
            Self::Overloaded | Self::Closing => Some(Duration::from_secs(1)),
            Self::Poisoned | Self::StorageFull => Some(Duration::from_secs(5)),
            Self::IdempotencyFull => Some(Duration::from_secs(60)),
            _ => None,
        }
    }

    /// A parameter's name as it may be shown to the client: in full if it is short enough to be the
    /// name of a parameter.
    pub(super) fn redact_name(name: &str) -> &str {
        let is_short = name.len() <= MAX_SHOWN_BYTES;
        if is_short { name } else { &name[..name.floor_char_boundary(TRUNCATED_BYTES)] }
    }

    /// The cause of an internal error, for the log only.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Internal(cause) => Some(cause),
            _ => None,
        }
    }
}

/// A longer parameter name is cut: it may be a secret that was sent without a name.
const MAX_SHOWN_BYTES: usize = 32;
/// The length of a parameter name that is cut.
const TRUNCATED_BYTES: usize = 8;

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.spec().code)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.spec().status
    }

    /// The status alone. The access log's middleware, which wraps every App, finds the error in the
    /// response and writes the document with the request's id.
    fn error_response(&self) -> HttpResponse<BoxBody> {
        HttpResponse::new(self.status_code())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(Refusal::Counter(refusal)) => Self::Counter(refusal),
            StoreError::Refused(Refusal::NameTaken) => Self::Invalid {
                parameter: "username",
                code: "username_taken",
                detail: "has already been taken".to_owned(),
            },
            StoreError::Refused(Refusal::NoSuchCounter) => Self::CounterNotFound,
            StoreError::Refused(Refusal::CounterExists) => Self::CounterExists,
            StoreError::Refused(Refusal::DefaultCounter) => Self::DefaultCounter,
            StoreError::Refused(Refusal::PreconditionFailed(state)) => {
                Self::PreconditionFailed(state)
            }
            StoreError::Refused(Refusal::Quota(limit)) => Self::QuotaExceeded(limit),
            StoreError::Refused(Refusal::IdempotencyKeyReused) => Self::IdempotencyKeyReused,
            StoreError::Refused(Refusal::IdempotencyFull) => Self::IdempotencyFull,
            StoreError::Refused(Refusal::NoSuchKey) => Self::KeyNotFound,
            StoreError::Refused(Refusal::CredentialReplaced) => {
                Self::Unauthenticated(AuthFailure::Replaced)
            }
            // The tenant was deleted between authentication and the change.
            StoreError::Refused(Refusal::NoSuchTenant) => {
                Self::Unauthenticated(AuthFailure::Unknown)
            }
            StoreError::Unavailable(Unavailable::Overloaded) => Self::Overloaded,
            StoreError::Unavailable(Unavailable::Closing) => Self::Closing,
            StoreError::Unavailable(Unavailable::DiskLow) => Self::StorageFull,
            StoreError::OutcomeUnknown => Self::OutcomeUnknown,
            StoreError::Poisoned => Self::Poisoned,
            StoreError::Corrupt(problem) => Self::Internal(problem),
        }
    }
}

impl ApiError {
    /// The error response to a failed authentication or authorization.
    pub fn from_auth_failure(failure: AuthFailure) -> Self {
        match failure {
            AuthFailure::Store(error) => error.into(),
            AuthFailure::Hash(error) => error.into(),
            AuthFailure::Scope(scopes) => Self::InsufficientScope(scopes),
            AuthFailure::Suspended => Self::TenantSuspended,
            failure => Self::Unauthenticated(failure),
        }
    }
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Overloaded => Self::Overloaded,
            HashError::Failed => Self::Internal(error.to_string().into()),
        }
    }
}
