//! THE table: failure → status, code and text.
//!
//! Job: [`ApiError`], made from the failures of the lower rooms, and the one match that gives it a
//! status, a stable code and a title. The middleware writes the document, since it knows the id.
//! Invariant: a text says what happened and what to do; it never holds a secret, a cause inside the server, or another tenant's data.
//! Must never: exist twice. A status is decided here and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};

use crate::auth::password::HashError;
use crate::auth::rate_limit::RateLimitDecision;
use crate::auth::{AuthFailure, AuthRequirement};
use crate::domain::api_key::Scopes;
use crate::domain::counter::CounterRefusal;
use crate::store::{CounterState, Refusal, StoreError, Unavailable};

/// Where in the request the fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// A parameter of a body, form or query.
    Parameter(&'a str),
    /// A header.
    Header(&'static str),
}

/// A request that is not answered as it asked.
#[derive(Clone, Debug)]
pub enum ApiError {
    /// No such path.
    NotFound,
    /// The path has other methods: the value of `Allow`.
    MethodNotAllowed(String),
    /// No valid credential came along.
    Unauthenticated(AuthFailure),
    /// The key may not do this: these scopes are needed.
    InsufficientScope(Scopes),
    /// An operator suspended the tenant.
    TenantSuspended,
    /// The body can not be read as what it claims to be.
    MalformedBody(&'static str),
    /// The head of the request is not HTTP as this server speaks it.
    MalformedRequest(&'static str),
    /// More than the limit, in bytes.
    BodyTooLarge(usize),
    /// The body did not arrive in time.
    BodyTimeout,
    /// Neither JSON:API nor JSON nor a form.
    UnsupportedMediaType,
    /// A parameter is missing or wrong.
    Invalid {
        /// Which.
        parameter: &'static str,
        /// A stable code.
        code: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A parameter that this route does not know.
    UnknownParameter(Box<str>),
    /// `Idempotency-Key` is not what such a key is.
    InvalidIdempotencyKey,
    /// Another tenant has the name.
    UsernameTaken,
    /// A header or parameter asks for what this version does not do.
    NotSupported(&'static str),
    /// The counter rule said no.
    Counter(CounterRefusal),
    /// The tenant has no such counter.
    CounterNotFound,
    /// The tenant has a counter of that name.
    CounterExists,
    /// `default` can be neither created nor deleted.
    DefaultCounter,
    /// `If-Match` names another state than this one.
    PreconditionFailed(CounterState),
    /// The tenant has as many of something as it may have.
    QuotaExceeded(u32),
    /// The idempotency key was used for another request.
    IdempotencyKeyReused,
    /// No more idempotency keys can be remembered.
    IdempotencyFull,
    /// The tenant has no such API key.
    KeyNotFound,
    /// A limit was met.
    RateLimited {
        /// `tenant`, `client` or `name`.
        scope: &'static str,
        /// What the bucket said.
        decision: RateLimitDecision,
    },
    /// A key or a body came over plain HTTP.
    HttpsRequired,
    /// Too much waits.
    Overloaded,
    /// The process is going down.
    Closing,
    /// There is no room on the disk.
    StorageFull,
    /// The store was poisoned.
    Poisoned,
    /// It may or may not have happened.
    OutcomeUnknown,
    /// No tenant has this name. For operators only: the tenants' API never says so.
    TenantNotFound(String),
    /// An operator asked for a backup, and none could be made: why.
    BackupFailed(String),
    /// Our fault: the cause, for the log only.
    Internal(Arc<str>),
}

/// A row of the table: how an error is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorSpec {
    /// The status of the answer.
    pub status: StatusCode,
    /// The stable code, for programs.
    pub code: &'static str,
    /// The same for people.
    pub title: &'static str,
}

impl ApiError {
    /// The table.
    #[must_use]
    pub fn spec(&self) -> ErrorSpec {
        use StatusCode as S;
        let (status, code, title) = match self {
            Self::NotFound => (S::NOT_FOUND, "not_found", "No such route"),
            Self::MethodNotAllowed(_) => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
            }
            Self::Unauthenticated(_) => (S::UNAUTHORIZED, "unauthorized", "No valid credential"),
            Self::InsufficientScope(_) => {
                (S::FORBIDDEN, "insufficient_scope", "The API key may not do this")
            }
            Self::TenantSuspended => (S::FORBIDDEN, "tenant_suspended", "The tenant is suspended"),
            Self::MalformedBody(_) => {
                (S::BAD_REQUEST, "malformed_body", "The body can not be read")
            }
            Self::MalformedRequest(_) => {
                (S::BAD_REQUEST, "malformed_request", "The request can not be read")
            }
            Self::BodyTooLarge(_) => {
                (S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large")
            }
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "body_timeout", "The body took too long"),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type")
            }
            Self::Invalid { code, .. } => {
                (S::UNPROCESSABLE_ENTITY, *code, "A parameter is not valid")
            }
            Self::UnknownParameter(_) => {
                (S::UNPROCESSABLE_ENTITY, "unknown_parameter", "A parameter is not known")
            }
            Self::InvalidIdempotencyKey => {
                (S::BAD_REQUEST, "invalid_idempotency_key", "The idempotency key is not valid")
            }
            Self::UsernameTaken => (S::CONFLICT, "username_taken", "The name is taken"),
            Self::NotSupported(_) => (S::BAD_REQUEST, "not_supported", "Not supported here"),
            Self::Counter(CounterRefusal::Exhausted { .. }) => {
                (S::CONFLICT, "counter_exhausted", "The counter is at its maximum")
            }
            Self::Counter(CounterRefusal::OutOfRange { .. }) => {
                (S::UNPROCESSABLE_ENTITY, "value_out_of_range", "A parameter is not valid")
            }
            Self::Counter(CounterRefusal::RewindRequired { .. }) => {
                (S::CONFLICT, "rewind_required", "The value is lower than the counter's")
            }
            Self::CounterNotFound => (S::NOT_FOUND, "counter_not_found", "No such counter"),
            Self::CounterExists => (S::CONFLICT, "counter_exists", "The counter exists"),
            Self::DefaultCounter => {
                (S::CONFLICT, "default_counter", "The counter default always exists")
            }
            Self::PreconditionFailed(_) => {
                (S::PRECONDITION_FAILED, "precondition_failed", "The counter is not as expected")
            }
            Self::QuotaExceeded(_) => (S::CONFLICT, "quota_exceeded", "No more are allowed"),
            Self::IdempotencyKeyReused => (
                S::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "The idempotency key was used for another request",
            ),
            Self::IdempotencyFull => (
                S::SERVICE_UNAVAILABLE,
                "idempotency_full",
                "No more idempotency keys can be remembered",
            ),
            Self::KeyNotFound => (S::NOT_FOUND, "key_not_found", "No such API key"),
            Self::RateLimited { .. } => (S::TOO_MANY_REQUESTS, "rate_limited", "Too many requests"),
            Self::HttpsRequired => (S::FORBIDDEN, "https_required", "Use HTTPS"),
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "The server is busy"),
            Self::Closing => (S::SERVICE_UNAVAILABLE, "closing", "The server is going down"),
            Self::StorageFull => {
                (S::INSUFFICIENT_STORAGE, "storage_full", "The disk is almost full")
            }
            Self::Poisoned => (
                S::SERVICE_UNAVAILABLE,
                "poisoned",
                "The server takes no changes until it restarts",
            ),
            Self::OutcomeUnknown => {
                (S::SERVICE_UNAVAILABLE, "outcome_unknown", "The outcome is not known")
            }
            Self::TenantNotFound(_) => (S::NOT_FOUND, "tenant_not_found", "No such tenant"),
            Self::BackupFailed(_) => {
                (S::INTERNAL_SERVER_ERROR, "backup_failed", "No backup was made")
            }
            Self::Internal(_) => (S::INTERNAL_SERVER_ERROR, "internal", "The server failed"),
        };
        ErrorSpec { status, code, title }
    }

    /// What happened, to which input, and what to do; `needs` is what the route asks of its caller.
    #[must_use]
    pub fn detail(&self, requirement: Option<AuthRequirement>) -> String {
        match self {
            Self::NotFound => {
                "There is no such path. The API begins at /api/v1/counters, /api/v1/integer, /api/v1/keys and /api/v1/tenant.".to_owned()
            }
            Self::MethodNotAllowed(allow) => format!("This path takes {allow}."),
            Self::Unauthenticated(failure) => {
                let hint = credential_hint(requirement.unwrap_or(AuthRequirement::ANY_CREDENTIAL));
                format!("{} {hint}", sentence(&failure.to_string()))
            },
            Self::InsufficientScope(scopes) => {
                format!("This requirement a key with the scope {scopes}. Nothing was changed; use another key, or make one with POST /api/v1/keys.")
            }
            Self::TenantSuspended => "The operator of this service suspended the tenant. Nothing was changed; ask them.".to_owned(),
            Self::MalformedBody(detail) | Self::MalformedRequest(detail) => sentence(detail),
            Self::BodyTooLarge(limit) => format!("A body may have {limit} bytes at most."),
            Self::BodyTimeout => "The body must arrive within 5 seconds. Nothing was changed.".to_owned(),
            Self::UnsupportedMediaType => {
                "Send Content-Type: application/json, application/vnd.api+json (no parameters) \
                 or application/x-www-form-urlencoded."
                    .to_owned()
            }
            Self::Invalid { parameter, detail, .. } => sentence(&format!("{parameter} {detail}")),
            Self::UnknownParameter(name) => {
                format!("This route has no parameter {}. Nothing was changed; see whether it is mistyped.", redact_name(name))
            }
            Self::InvalidIdempotencyKey => {
                "An Idempotency-Key is one header of 1 to 255 visible ASCII characters, without spaces. Nothing was changed.".to_owned()
            }
            Self::UsernameTaken => "Another tenant has this username, perhaps in another case. Choose another.".to_owned(),
            Self::NotSupported(what) => {
                format!(
                    "{what} asks for what this route does not do. Nothing was changed; send the request without it."
                )
            }
            Self::Counter(refusal) => sentence(&refusal.to_string()),
            Self::CounterNotFound => {
                "There is no counter of that name. Create it with POST /api/v1/counters; names are 1 to 128 of A-Z a-z 0-9 . _ -.".to_owned()
            }
            Self::CounterExists => "There is a counter of that name already; it was not changed.".to_owned(),
            Self::DefaultCounter => "The counter default can be neither created nor deleted; set it instead.".to_owned(),
            Self::PreconditionFailed(state) => format!(
                "The counter was changed since: it is at {} now. Read it, and try again with the ETag of that.",
                state.counter.value()
            ),
            Self::QuotaExceeded(limit) => format!("{limit} are allowed, and there are that many. Delete one that is not needed."),
            Self::IdempotencyKeyReused => {
                "Another request was sent with this Idempotency-Key in the last 24 hours. Use a new key for a new request.".to_owned()
            }
            Self::IdempotencyFull => {
                "Each key is remembered for 24 hours, and there is no room for another. Nothing was changed; try again later, or ask the \
                 operator to raise --idempotency-keys."
                    .to_owned()
            }
            Self::KeyNotFound => "There is no such key.".to_owned(),
            Self::RateLimited { scope, decision } => {
                format!("The {scope} limit of {} is used up. Wait as Retry-After says.", decision.limit)
            }
            Self::HttpsRequired => {
                "This port only sends GET requests on to HTTPS. Nothing that came by it was honoured: send it over HTTPS, and replace \
                 a key that was sent in clear."
                    .to_owned()
            }
            Self::Overloaded => "Too many requests are waiting. Nothing was changed; try again shortly.".to_owned(),
            Self::Closing => "Nothing was changed; try again shortly.".to_owned(),
            Self::StorageFull => {
                "Changes are refused until there is room again. Nothing was changed; reads go on.".to_owned()
            }
            Self::Poisoned => "An earlier write failed. Nothing was changed; try again after the restart.".to_owned(),
            Self::OutcomeUnknown => {
                "A write failed: this change may or may not have happened. With an Idempotency-Key, send it again as it was; without one, read first."
                    .to_owned()
            }
            Self::TenantNotFound(name) => format!("There is no tenant named {name:?}."),
            Self::BackupFailed(why) => sentence(why),
            Self::Internal(_) => "The request was not completed. Tell the operator the id of this error.".to_owned(),
        }
    }

    /// Where the fault is, if it is in one place.
    #[must_use]
    pub fn source(&self) -> Option<Source<'_>> {
        match self {
            Self::UnknownParameter(name) => Some(Source::Parameter(redact_name(name))),
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

    /// When to try again, where trying again makes sense.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { decision, .. } => decision.retry_after,
            Self::Overloaded | Self::Closing => Some(Duration::from_secs(1)),
            Self::Poisoned | Self::StorageFull => Some(Duration::from_secs(5)),
            Self::IdempotencyFull => Some(Duration::from_secs(60)),
            _ => None,
        }
    }

    /// The cause that only the log may know.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Internal(cause) => Some(cause),
            _ => None,
        }
    }
}

/// What would be taken instead.
fn credential_hint(requirement: AuthRequirement) -> &'static str {
    match requirement {
        AuthRequirement::Key(_) => "Send your API key as: Authorization: Bearer <key>.",
        AuthRequirement::KeyOrPassword(_) => {
            "Send your API key as: Authorization: Bearer <key>, or username and password as: Authorization: Basic <base64>."
        }
        AuthRequirement::Password => {
            "This route takes username and password as: Authorization: Basic <base64>."
        }
    }
}

/// A parameter's name as it may be shown to whoever sent it: whole if it could be a name, its beginning if it is longer than any, which may be a
/// secret that was sent without a name.
fn redact_name(name: &str) -> &str {
    if name.len() <= MAX_SHOWN_BYTES {
        name
    } else {
        &name[..name.floor_char_boundary(TRUNCATED_BYTES)]
    }
}

const MAX_SHOWN_BYTES: usize = 32;
const TRUNCATED_BYTES: usize = 8;

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_ascii_uppercase());
    let end = if text.ends_with('.') { "" } else { "." };
    first.into_iter().chain(characters).chain(end.chars()).collect()
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.spec().code)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.spec().status
    }

    /// The status alone. The access log's middleware, around every route, finds the error in the
    /// response and writes the document, with the request's id in it.
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
            // Deleted between the look at its key and the change.
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
    /// Why a caller was not let through.
    #[must_use]
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
