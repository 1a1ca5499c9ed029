//! What each error means to a client, for the page `docs/errors.md`.
//!
//! Job: [`error_reference`], every error with the row of the table in `error.rs`, what it means and
//! whether to send the same request again. `tests/repository/docs.rs` writes the page from it.
//! Invariant: an error without a meaning does not compile. Must never: name a status, code or title
//! of its own.

use std::time::Duration;

use super::error::{ApiError, ErrorSpec};
use super::openapi::error_responses::{invalid as invalid_parameter, rate_limited};
use crate::auth::AuthFailure;
use crate::domain::api_key::Scopes;
use crate::domain::counter::{CounterRefusal, Value};
use crate::store::CounterState;

/// An error as the page describes it.
#[derive(Clone, Copy, Debug)]
pub struct ErrorReference {
    /// Status, code and title.
    pub spec: ErrorSpec,
    /// What happened, in one or two sentences.
    pub meaning: &'static str,
    /// Whether the same request, unchanged, may succeed later; and what to do instead.
    pub retry: &'static str,
    /// The `Retry-After` that comes with it, if that is always the same.
    pub retry_after: Option<Duration>,
}

/// Every error, one of each code, in the order in which docs/errors.md has them.
pub fn error_reference() -> Vec<ErrorReference> {
    samples().iter().map(describe).collect()
}

fn describe(error: &ApiError) -> ErrorReference {
    let (meaning, retry) = meaning(error);
    ErrorReference { spec: error.spec(), meaning, retry, retry_after: error.retry_after() }
}

/// One of each code. A list of its own, so that a test can compare it with the codes that the
/// OpenAPI document names.
fn samples() -> Vec<ApiError> {
    const Z: Value = Value::ZERO;
    let mut samples = vec![
        ApiError::MalformedBody(""),
        ApiError::MalformedRequest(""),
        ApiError::NotSupported(""),
        ApiError::InvalidIdempotencyKey,
        ApiError::Unauthenticated(AuthFailure::Unknown),
        ApiError::InsufficientScope(Scopes::ALL),
        ApiError::TenantSuspended,
        ApiError::HttpsRequired,
        ApiError::NotFound,
        ApiError::CounterNotFound,
        ApiError::KeyNotFound,
        ApiError::TenantNotFound(String::new()),
        ApiError::MethodNotAllowed(String::new()),
        ApiError::BodyTimeout,
        ApiError::Counter(CounterRefusal::Exhausted { value: Z, max: Z, count: 1 }),
        ApiError::CounterExists,
        ApiError::DefaultCounter,
        ApiError::Counter(CounterRefusal::RewindRequired { value: Z, requested: Z }),
        ApiError::QuotaExceeded(0),
        ApiError::UsernameTaken,
        ApiError::PreconditionFailed(CounterState::default()),
        ApiError::BodyTooLarge(0),
        ApiError::UnsupportedMediaType,
    ];
    samples.extend([
        invalid_parameter("invalid_username"),
        invalid_parameter("invalid_password"),
        invalid_parameter("username_taken"),
        invalid_parameter("invalid_name"),
        invalid_parameter("invalid_parameter"),
        invalid_parameter("invalid_value"),
        ApiError::UnknownParameter("".into()),
        ApiError::Counter(CounterRefusal::OutOfRange { requested: Z, min: Z, max: Z }),
        ApiError::IdempotencyKeyReused,
        rate_limited(),
        ApiError::Internal("".into()),
        ApiError::BackupFailed(String::new()),
        ApiError::Overloaded,
        ApiError::Closing,
        ApiError::Poisoned,
        ApiError::OutcomeUnknown,
        ApiError::IdempotencyFull,
        ApiError::StorageFull,
    ]);
    samples
}

/// What an error means, and whether to send the same request again. It is a table: a variant that
/// has no row here does not compile.
fn meaning(error: &ApiError) -> (&'static str, &'static str) {
    match error {
        ApiError::MalformedBody(_) => (
            "The body is not valid JSON or UTF-8, ended early, or has a parameter twice.",
            "no; correct it",
        ),
        ApiError::MalformedRequest(_) => (
            "The head is not valid HTTP/1.1 or too large, has both `Transfer-Encoding` and \
             `Content-Length`, or is plain HTTP on the HTTPS port.",
            "no; correct it",
        ),
        ApiError::NotSupported(_) => (
            "`Idempotency-Key`, `If-Match` or `If-None-Match` asks for what this route does not \
             do; nothing was changed.",
            "without it",
        ),
        ApiError::InvalidIdempotencyKey => (
            "The key is not 1 to 255 visible ASCII characters, or is there twice.",
            "no; correct it",
        ),
        ApiError::InsufficientScope(_) => (
            "The key is valid and may not do this: `WWW-Authenticate` names the scope.",
            "with another key",
        ),
        ApiError::TenantSuspended => ("The operator suspended the tenant.", "no; ask the operator"),
        ApiError::HttpsRequired => (
            "A key or a body came to the plain HTTP port. The request was not processed, and the \
             key should be considered lost.",
            "over HTTPS",
        ),
        ApiError::Unauthenticated(_) => (
            "No key, a mistyped, unknown, revoked or expired key, a wrong username or password, \
             or two `Authorization` headers. `WWW-Authenticate` says what the route takes.",
            "no; send the right one",
        ),
        ApiError::NotFound => {
            ("There is no such path. A slash at the end makes another path.", "no")
        }
        ApiError::CounterNotFound => ("The tenant has no such counter.", "no"),
        ApiError::KeyNotFound => ("The tenant has no such API key.", "no"),
        ApiError::TenantNotFound(_) => {
            ("No tenant has this name. Only the admin socket answers this.", "no")
        }
        ApiError::MethodNotAllowed(_) => ("The path has other methods: see `Allow`.", "no"),
        ApiError::BodyTimeout => ("The body did not arrive within 5 s.", "yes"),
        ApiError::Counter(CounterRefusal::Exhausted { .. }) => (
            "The counter is at its maximum, or so near that the range does not fit.",
            "no; set it, if you may",
        ),
        ApiError::Counter(CounterRefusal::RewindRequired { .. }) => (
            "The value is lower than the counter's, so numbers would repeat.",
            "with `rewind=true`, if that is wanted",
        ),
        ApiError::Counter(CounterRefusal::OutOfRange { .. }) => (
            "The value is below the counter's minimum or above its maximum; or the start of a new \
             counter is.",
            "no",
        ),
        ApiError::CounterExists => ("The tenant has a counter of this name.", "no"),
        ApiError::DefaultCounter => {
            ("The counter `default` can be neither created nor deleted.", "no")
        }
        ApiError::QuotaExceeded(_) => {
            ("The tenant has as many counters or keys as it may have.", "no; delete one")
        }
        ApiError::PreconditionFailed(_) => (
            "The counter is in another state than `If-Match` says. `meta.value` and `ETag` tell \
             which.",
            "no; read, decide, then send it with the new tag",
        ),
        ApiError::UsernameTaken => (
            "Another tenant has the name, perhaps in another case; the answer of \
             `/api/v1/tenants`.",
            "no; choose another name",
        ),
        ApiError::BodyTooLarge(_) => ("The body has more than 4,096 bytes.", "no"),
        ApiError::UnsupportedMediaType => {
            ("The body is neither JSON, JSON:API nor a form; or it is compressed.", "no")
        }
        ApiError::Invalid { code, .. } => invalid(code),
        ApiError::UnknownParameter(_) => (
            "The route has no such parameter; `source.parameter` names it.",
            "no; see whether it is mistyped",
        ),
        ApiError::IdempotencyKeyReused => (
            "Another request was sent with this key: another route, counter or parameter.",
            "no; use a new key for a new request",
        ),
        ApiError::RateLimited { .. } => (
            "A rate limit is used up: of the tenant, of the address, or of the login name whose \
             password was wrong too often.",
            "after `Retry-After`",
        ),
        ApiError::BackupFailed(_) => (
            "An operator asked for a backup, and none could be made; `detail` says why. Only the \
             admin socket answers this.",
            "yes, once the cause is removed",
        ),
        ApiError::Overloaded => {
            ("Too many requests or passwords wait already.", "after `Retry-After`")
        }
        ApiError::Closing => ("The server is shutting down.", "after `Retry-After`"),
        ApiError::Poisoned => (
            "An earlier write failed; nothing is changed any more until the restart.",
            "after `Retry-After`",
        ),
        ApiError::OutcomeUnknown => (
            "A write failed under this very change: it may or may not have happened.",
            "with the same `Idempotency-Key`; without one **read first, never blindly**",
        ),
        ApiError::IdempotencyFull => (
            "As many idempotency keys are stored as there is room for; nothing was changed.",
            "after `Retry-After`",
        ),
        ApiError::StorageFull => {
            ("The disk is almost full; reads go on.", "after `Retry-After`, once there is room")
        }
        ApiError::Internal(_) => (
            "The server failed; the log has the cause under the error's `id`.",
            "read first, and tell the operator",
        ),
    }
}

fn invalid(code: &str) -> (&'static str, &'static str) {
    match code {
        "invalid_username" => ("The name breaks a rule; `detail` says which.", "no"),
        "invalid_password" => ("The password breaks a rule; `detail` says which.", "no"),
        "username_taken" => (
            "Another tenant has the name, perhaps in another case; the answer of `/users/create`.",
            "no; choose another name",
        ),
        "invalid_name" => {
            ("The name is not one of a counter: 1 to 128 of `A-Z a-z 0-9 . _ -`.", "no")
        }
        "invalid_value" => (
            "The number is missing, negative, above what the parameter takes, fractional, or not \
             in plain digits.",
            "no",
        ),
        _ => (
            "The parameter is of the wrong type, such as a number for a password, or not one of \
             the values that it may have.",
            "no",
        ),
    }
}
