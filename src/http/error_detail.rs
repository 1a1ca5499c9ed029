//! The details of errors: what happened, to which input, and what to do.
//!
//! Job: [`ApiError::detail`].
//! Invariant: a detail is one or more full sentences, and it says if nothing was changed.
//! Must never: contain a secret, an internal cause, or another tenant's data.

use super::error::ApiError;
use crate::auth::{AuthFailure, AuthRequirement};
use crate::domain::api_key::Scopes;

const NOT_FOUND: &str = "There is no such path. The API begins at /api/v1/counters, \
    /api/v1/integer, /api/v1/keys and /api/v1/tenant.";
const TENANT_SUSPENDED: &str = "The operator of this service suspended the tenant. \
    Nothing was changed; contact the operator.";
const BODY_TIMEOUT: &str = "The body did not arrive within 5 seconds. \
    Nothing was changed; send the request again.";
const UNSUPPORTED_MEDIA_TYPE: &str = "The body's media type is not supported. \
    Send Content-Type: application/json, application/vnd.api+json (no parameters) \
    or application/x-www-form-urlencoded.";
const INVALID_IDEMPOTENCY_KEY: &str = "An Idempotency-Key is one header of 1 to 255 visible ASCII \
    characters, without spaces. Nothing was changed; send a valid key.";
const USERNAME_TAKEN: &str = "Another tenant has this username, perhaps in another case. \
    Nothing was changed; choose another one.";
const COUNTER_NOT_FOUND: &str = "There is no counter of this name. Create it with \
    POST /api/v1/counters; a name is 1 to 128 characters of A-Z a-z 0-9 . _ -.";
const COUNTER_EXISTS: &str = "A counter of this name exists already. \
    Nothing was changed; choose another name, or use the existing counter.";
const DEFAULT_COUNTER: &str = "The counter default can be neither created nor deleted. \
    Nothing was changed; set it to another value instead.";
const IDEMPOTENCY_KEY_REUSED: &str = "A different request was sent with this Idempotency-Key in \
    the last 24 hours. Nothing was changed; use a new key for a new request.";
const IDEMPOTENCY_FULL: &str = "Each idempotency key is stored for 24 hours, and the storage is \
    full. Nothing was changed; retry later, or ask the operator to raise --idempotency-keys.";
const KEY_NOT_FOUND: &str = "The tenant has no API key with this id. Nothing was changed.";
const HTTPS_REQUIRED: &str = "This port only redirects GET requests to HTTPS. The request was not \
    processed: send it over HTTPS, and replace a key that was sent in clear text.";
const OVERLOADED: &str = "Too many requests are waiting. Nothing was changed; retry after the time \
    given in Retry-After.";
const CLOSING: &str = "The server is about to stop or restart. Nothing was changed; retry after \
    the time given in Retry-After.";
const STORAGE_FULL: &str = "Writes are refused until the disk has free space again; reads \
    continue. Nothing was changed; retry after the time given in Retry-After.";
const POISONED: &str = "An earlier write failed; reads continue. Nothing was changed; retry after \
    the restart.";
const OUTCOME_UNKNOWN: &str = "A write failed: this change may or may not have happened. With an \
    Idempotency-Key, send the same request again; without one, read the current value first.";
const CHECK_SPELLING: &str = "Nothing was changed; check the spelling.";
const SEND_WITHOUT: &str = "Nothing was changed; send the request without it.";
const READ_AGAIN: &str = "Nothing was changed; read the counter, and retry with its ETag.";
const DELETE_ONE: &str = "Nothing was changed; delete one that is no longer needed.";
const RETRY_AFTER: &str = "The request was not processed; retry after the time given in \
    Retry-After.";
const INTERNAL: &str =
    "The request was not completed. Report the id of this error to the operator.";

impl ApiError {
    /// What happened, to which input, and what to do. `requirement` is the route's, if known.
    pub fn detail(&self, requirement: Option<AuthRequirement>) -> String {
        let fixed = match self {
            Self::NotFound => NOT_FOUND,
            Self::TenantSuspended => TENANT_SUSPENDED,
            Self::BodyTimeout => BODY_TIMEOUT,
            Self::UnsupportedMediaType => UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidIdempotencyKey => INVALID_IDEMPOTENCY_KEY,
            Self::UsernameTaken => USERNAME_TAKEN,
            Self::CounterNotFound => COUNTER_NOT_FOUND,
            Self::CounterExists => COUNTER_EXISTS,
            Self::DefaultCounter => DEFAULT_COUNTER,
            Self::IdempotencyKeyReused => IDEMPOTENCY_KEY_REUSED,
            Self::IdempotencyFull => IDEMPOTENCY_FULL,
            Self::KeyNotFound => KEY_NOT_FOUND,
            Self::HttpsRequired => HTTPS_REQUIRED,
            Self::Overloaded => OVERLOADED,
            Self::Closing => CLOSING,
            Self::StorageFull => STORAGE_FULL,
            Self::Poisoned => POISONED,
            Self::OutcomeUnknown => OUTCOME_UNKNOWN,
            Self::Internal(_) => INTERNAL,
            Self::MethodNotAllowed(allow) => return format!("This path accepts {allow}."),
            Self::Unauthenticated(failure) => return unauthenticated(failure, requirement),
            Self::InsufficientScope(scopes) => return insufficient_scope(*scopes),
            Self::MalformedBody(reason) | Self::MalformedRequest(reason) => {
                return sentence(reason);
            }
            Self::BodyTooLarge(limit) => {
                return format!("A body may have at most {limit} bytes. Nothing was changed.");
            }
            Self::Invalid { parameter, detail, .. } => {
                return sentence(&format!("{parameter} {detail}"));
            }
            Self::UnknownParameter(name) => {
                let name = Self::redact_name(name);
                return format!("This route has no parameter {name}. {CHECK_SPELLING}");
            }
            Self::NotSupported(header) => {
                return format!("This route does not support {header}. {SEND_WITHOUT}");
            }
            Self::Counter(refusal) => return sentence(&refusal.to_string()),
            Self::PreconditionFailed(state) => {
                let value = state.counter.value();
                return format!("The counter has changed; its value is {value}. {READ_AGAIN}");
            }
            Self::QuotaExceeded(limit) => {
                return format!("The quota of {limit} is used up. {DELETE_ONE}");
            }
            Self::RateLimited { scope, decision } => {
                let limit = decision.limit;
                return format!("The {scope} limit of {limit} is exhausted. {RETRY_AFTER}");
            }
            Self::TenantNotFound(name) => return format!("There is no tenant named {name:?}."),
            Self::BackupFailed(reason) => return sentence(reason),
        };
        fixed.to_owned()
    }
}

fn unauthenticated(failure: &AuthFailure, requirement: Option<AuthRequirement>) -> String {
    let hint = credential_hint(requirement.unwrap_or(AuthRequirement::ANY_CREDENTIAL));
    format!("{} {hint}", sentence(&failure.to_string()))
}

fn insufficient_scope(scopes: Scopes) -> String {
    format!(
        "The request needs a key with the scope {scopes}. \
         Nothing was changed; use another key, or create one with POST /api/v1/keys."
    )
}

/// Which credential the route accepts, and how to send it.
fn credential_hint(requirement: AuthRequirement) -> &'static str {
    match requirement {
        AuthRequirement::Key(_) => "Send your API key as: Authorization: Bearer <key>.",
        AuthRequirement::KeyOrPassword(_) => {
            "Send your API key as: Authorization: Bearer <key>, \
             or username and password as: Authorization: Basic <base64>."
        }
        AuthRequirement::Password => {
            "Send username and password as: Authorization: Basic <base64>."
        }
    }
}

/// The string with a capital letter and a full stop.
fn sentence(string: &str) -> String {
    let mut characters = string.chars();
    let first = characters.next().map(|c| c.to_ascii_uppercase());
    let end = if string.ends_with('.') { "" } else { "." };
    first.into_iter().chain(characters).chain(end.chars()).collect()
}
