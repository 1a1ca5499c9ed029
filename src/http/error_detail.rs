//! The details of errors: what happened, to which input, and what to do.
//!
//! Job: [`ApiError::detail`].
//! Invariant: a detail is one or more full sentences, and it says if nothing was changed.
//! Must never: contain a secret, an internal cause, or another tenant's data.

use std::borrow::Cow;

use super::error::ApiError;
use crate::auth::{AuthFailure, AuthRequirement};
use crate::domain::api_key::Scopes;
use crate::domain::counter::CounterRefusal;

impl ApiError {
    /// What happened, to which input, and what to do. `requirement` is the route's, if known.
    ///
    /// It is a table, one row for each error.
    pub fn detail(&self, requirement: Option<AuthRequirement>) -> Cow<'static, str> {
        match self {
            Self::NotFound => {
                "There is no such path. The API begins at /api/v1/counters, /api/v1/integer, \
                 /api/v1/keys and /api/v1/tenant."
                    .into()
            }
            Self::TenantSuspended => {
                "The operator of this service suspended the tenant. Nothing was changed; \
                 contact the operator."
                    .into()
            }
            Self::BodyTimeout => {
                "The body did not arrive within 5 seconds. Nothing was changed; send the \
                 request again."
                    .into()
            }
            Self::UnsupportedMediaType => {
                "The body's media type is not supported. Send Content-Type: \
                 application/json, application/vnd.api+json (no parameters) or \
                 application/x-www-form-urlencoded."
                    .into()
            }
            Self::InvalidIdempotencyKey => {
                "An Idempotency-Key is one header of 1 to 255 visible ASCII characters, \
                 without spaces. Nothing was changed; send a valid key."
                    .into()
            }
            Self::UsernameTaken => {
                "Another tenant has this username, perhaps in another case. Nothing was \
                 changed; choose another one."
                    .into()
            }
            Self::CounterNotFound => {
                "There is no counter of this name. Create it with POST /api/v1/counters; a \
                 name is 1 to 128 characters of A-Z a-z 0-9 . _ -."
                    .into()
            }
            Self::CounterExists => {
                "A counter of this name exists already. Nothing was changed; choose another \
                 name, or use the existing counter."
                    .into()
            }
            Self::DefaultCounter => {
                "The counter default can be neither created nor deleted. Nothing was \
                 changed; set it to another value instead."
                    .into()
            }
            Self::IdempotencyKeyReused => {
                "A different request was sent with this Idempotency-Key in the last 24 \
                 hours. Nothing was changed; use a new key for a new request."
                    .into()
            }
            Self::IdempotencyFull => {
                "Each idempotency key is stored for 24 hours, and the storage is full. \
                 Nothing was changed; retry later, or ask the operator to raise \
                 --idempotency-keys."
                    .into()
            }
            Self::KeyNotFound => {
                "The tenant has no API key with this id. Nothing was changed.".into()
            }
            Self::HttpsRequired => {
                "This port only redirects GET requests to HTTPS. The request was not \
                 processed: send it over HTTPS, and replace a key that was sent in clear \
                 text."
                    .into()
            }
            Self::Overloaded => {
                "Too many requests are waiting. Nothing was changed; retry after the time \
                 given in Retry-After."
                    .into()
            }
            Self::Closing => {
                "The server is about to stop or restart. Nothing was changed; retry after \
                 the time given in Retry-After."
                    .into()
            }
            Self::StorageFull => {
                "Writes are refused until the disk has free space again; reads continue. \
                 Nothing was changed; retry after the time given in Retry-After."
                    .into()
            }
            Self::Poisoned => {
                "An earlier write failed; reads continue. Nothing was changed; retry after \
                 the restart."
                    .into()
            }
            Self::OutcomeUnknown => {
                "A write failed: this change may or may not have happened. With an \
                 Idempotency-Key, send the same request again; without one, read the current \
                 value first."
                    .into()
            }
            Self::Internal(_) => {
                "The request was not completed. Report the id of this error to the operator.".into()
            }
            Self::MethodNotAllowed(allow) => format!("This path accepts {allow}.").into(),
            Self::Unauthenticated(failure) => unauthenticated(failure, requirement).into(),
            Self::InsufficientScope(scopes) => insufficient_scope(*scopes).into(),
            Self::MalformedBody(reason) | Self::MalformedRequest(reason) => sentence(reason).into(),
            Self::BodyTooLarge(limit) => {
                format!("A body may have at most {limit} bytes. Nothing was changed.").into()
            }
            Self::Invalid { parameter, detail, .. } => {
                sentence(&format!("{parameter} {detail}")).into()
            }
            Self::UnknownParameter(name) => {
                let name = Self::redact_name(name);
                format!(
                    "This route has no parameter {name}. Nothing was changed; check the \
                     spelling."
                )
                .into()
            }
            Self::NotSupported(header) => format!(
                "This route does not support {header}. Nothing was changed; send the request \
                     without it."
            )
            .into(),
            Self::Counter(refusal) => {
                format!("{} {}", sentence(&refusal.to_string()), counter_advice(refusal)).into()
            }
            Self::PreconditionFailed(state) => {
                let value = state.counter.value();
                format!(
                    "The counter has changed; its value is {value}. Nothing was changed; read \
                     the counter, and retry with its ETag."
                )
                .into()
            }
            Self::QuotaExceeded(limit) => format!(
                "The quota of {limit} is used up. Nothing was changed; delete one that is no \
                     longer needed."
            )
            .into(),
            Self::RateLimited { scope, decision } => {
                let limit = decision.limit;
                format!(
                    "The {scope} limit of {limit} is exhausted. The request was not processed; \
                     retry after the time given in Retry-After."
                )
                .into()
            }
            Self::TenantNotFound(name) => format!("There is no tenant named {name:?}.").into(),
            Self::BackupFailed(reason) => sentence(reason).into(),
        }
    }
}

fn counter_advice(refusal: &CounterRefusal) -> &'static str {
    match refusal {
        CounterRefusal::Exhausted { .. } => {
            "No integer was issued; ask for fewer, or use another counter."
        }
        CounterRefusal::OutOfRange { .. } => "Nothing was changed; send a value within the range.",
        CounterRefusal::RewindRequired { .. } => {
            "Nothing was changed; send rewind: true if that is intended."
        }
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
