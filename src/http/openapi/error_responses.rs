//! The error responses of each operation, in groups that a route declares beside its responses.
//!
//! Job: [`Refused`] makes a tuple of groups the error responses of an operation, each code under
//! its status.
//! Invariant: status, code and title come from [`ApiError::spec`], as in a real response.
//! Must never: declare a code that no response has.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::time::Duration;

use actix_web::http::StatusCode;
use utoipa::IntoResponses;
use utoipa::openapi::schema::AllOf;
use utoipa::openapi::{Content, ObjectBuilder, Ref, RefOr, Response, Schema};

use super::schema::{exactly, list, named, string};
use crate::auth::AuthFailure;
use crate::auth::rate_limit::RateLimitDecision;
use crate::domain::api_key::Scopes;
use crate::domain::counter::{CounterRefusal, Value};
use crate::domain::rate_limit::RateLimit;
use crate::http::error::{ApiError, ErrorSpec};
use crate::http::extract::caller::Requirement;
use crate::store::CounterState;

/// A group of errors.
pub(crate) trait Refusals {
    /// One example of each error.
    fn errors() -> Vec<ApiError>;
}

macro_rules! groups {
    ($($(#[$doc:meta])* $name:ident = [$($error:expr),+ $(,)?];)+) => {$(
        $(#[$doc])*
        pub(crate) enum $name {}
        impl Refusals for $name {
            fn errors() -> Vec<ApiError> {
                vec![$($error),+]
            }
        }
    )+};
}

groups! {
    /// Any request: malformed head, other method, internal error.
    Always = [
        ApiError::MalformedRequest(""),
        ApiError::MethodNotAllowed(String::new()),
        ApiError::Internal("".into()),
    ];
    /// Routes with a rate limit.
    Limited = [rate_limited()];
    /// Routes that reject unknown parameters.
    Parameters = [ApiError::MalformedBody(""), ApiError::UnknownParameter("".into())];
    /// Routes with a body.
    Body = [
        ApiError::MalformedBody(""),
        ApiError::BodyTimeout,
        ApiError::BodyTooLarge(0),
        ApiError::UnsupportedMediaType,
    ];
    /// An integer is malformed or out of bounds.
    InvalidValue = [invalid("invalid_value")];
    /// A parameter violates a rule.
    InvalidParameter = [invalid("invalid_parameter")];
    /// A counter's name is invalid.
    InvalidName = [invalid("invalid_name")];
    /// A tenant's name or password is not accepted.
    InvalidCredentials = [
        invalid("invalid_username"),
        invalid("invalid_password"),
        invalid("invalid_parameter"),
    ];
    /// A password is not accepted.
    InvalidPassword = [invalid("invalid_password"), invalid("invalid_parameter")];
    /// Another tenant has the name.
    UsernameTaken = [ApiError::UsernameTaken];
    /// Another tenant has the name, on the compatible route.
    UsernameTakenBefore = [invalid("username_taken")];
    /// Routes that read from the store.
    Reading = [ApiError::Overloaded, ApiError::Closing];
    /// Routes that change the store.
    Changing = [
        ApiError::Overloaded,
        ApiError::Closing,
        ApiError::Poisoned,
        ApiError::OutcomeUnknown,
        ApiError::StorageFull,
        ApiError::NotSupported(""),
    ];
    /// Routes that support `Idempotency-Key`.
    Idempotent = [
        ApiError::IdempotencyKeyReused,
        ApiError::IdempotencyFull,
        ApiError::InvalidIdempotencyKey,
    ];
    /// Routes that support `If-Match`.
    Conditional = [ApiError::PreconditionFailed(CounterState::default())];
    /// The path has a counter's name. A path with an empty name matches no route.
    NamedCounter = [ApiError::CounterNotFound, ApiError::NotFound];
    /// The path has a key's id.
    NamedKey = [ApiError::KeyNotFound, ApiError::NotFound];
    /// The value is outside the counter's bounds.
    OutOfRange = [ApiError::Counter(CounterRefusal::OutOfRange { requested: Z, min: Z, max: Z })];
    /// The value is lower than the current one.
    Rewind = [ApiError::Counter(CounterRefusal::RewindRequired { value: Z, requested: Z })];
    /// The increment would exceed the maximum.
    Exhausted = [ApiError::Counter(CounterRefusal::Exhausted { value: Z, max: Z, count: 1 })];
    /// The counter exists already.
    Exists = [ApiError::CounterExists, ApiError::DefaultCounter];
    /// The counter always exists.
    IsDefault = [ApiError::DefaultCounter];
    /// The tenant has reached a quota.
    Quota = [ApiError::QuotaExceeded(0)];
}

const Z: Value = Value::ZERO;

/// Routes with the requirement `R`: authentication, authorization and rate limit may fail.
pub(crate) struct From<R>(PhantomData<R>);

impl<R: Requirement> Refusals for From<R> {
    fn errors() -> Vec<ApiError> {
        let known = [
            rate_limited(),
            ApiError::Unauthenticated(AuthFailure::Unknown),
            ApiError::TenantSuspended,
        ];
        known
            .into_iter()
            .chain(R::REQUIREMENT.scopes().map(|_| ApiError::InsufficientScope(Scopes::ALL)))
            .collect()
    }
}

pub(in crate::http) fn rate_limited() -> ApiError {
    let limit =
        RateLimit { count: NonZeroU32::MIN, per: Duration::from_secs(1), burst: NonZeroU32::MIN };
    ApiError::RateLimited {
        scope: "tenant",
        decision: RateLimitDecision { limit, remaining: 0, retry_after: None },
    }
}

pub(in crate::http) fn invalid(code: &'static str) -> ApiError {
    ApiError::Invalid { parameter: "", code, detail: String::new() }
}

macro_rules! refusals_of_tuples {
    ($($group:ident)+) => {
        impl<$($group: Refusals),+> Refusals for ($($group,)+) {
            fn errors() -> Vec<ApiError> {
                [$($group::errors()),+].into_iter().flatten().collect()
            }
        }
    };
}

refusals_of_tuples!(A);
refusals_of_tuples!(A B);
refusals_of_tuples!(A B C);
refusals_of_tuples!(A B C D);
refusals_of_tuples!(A B C D E);
refusals_of_tuples!(A B C D E F);
refusals_of_tuples!(A B C D E F G);
refusals_of_tuples!(A B C D E F G H);
refusals_of_tuples!(A B C D E F G H I);
refusals_of_tuples!(A B C D E F G H I J);

/// The responses of these errors and of those that any request may get.
pub(crate) struct Refused<T>(PhantomData<T>);

impl<T: Refusals> IntoResponses for Refused<T> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut by_status: BTreeMap<StatusCode, BTreeMap<&str, &str>> = BTreeMap::new();
        for ErrorSpec { status, code, title } in
            Always::errors().iter().chain(&T::errors()).map(ApiError::spec)
        {
            by_status.entry(status).or_default().insert(code, title);
        }
        let responses = by_status
            .iter()
            .map(|(status, codes)| (status.as_str().to_owned(), response(*status, codes)));
        responses.map(|(status, response)| (status, RefOr::T(response))).collect()
    }
}

/// The error response with one of these codes.
fn response(status: StatusCode, codes: &BTreeMap<&str, &str>) -> Response {
    let one_of = string().enum_values(Some(codes.keys().copied()));
    let member =
        ObjectBuilder::new().property("status", exactly(status.as_str())).property("code", one_of);
    let narrowed = ObjectBuilder::new().property("errors", list(member.build()));
    let schema: Schema = AllOf::builder().item(named("Errors")).item(narrowed).build().into();
    let meanings: Vec<String> =
        codes.iter().map(|(code, title)| format!("`{code}`: {title}")).collect();
    let content = Content::new(Some(schema));
    let mut response = Response::builder()
        .description(format!("{}.", meanings.join(". ")))
        .content("application/vnd.api+json", content);
    let special: &[&str] = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => &["WWW-Authenticate"],
        StatusCode::METHOD_NOT_ALLOWED => &["Allow"],
        StatusCode::PRECONDITION_FAILED => &["ETag"],
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::INSUFFICIENT_STORAGE => &["Retry-After"],
        _ => &[],
    };
    for name in special.iter().chain(&["X-Request-Id", "RateLimit-Policy", "RateLimit"]) {
        response = response.header_ref(*name, Ref::new(format!("#/components/headers/{name}")));
    }
    response.build()
}

/// The name of an error response in the components: its status and codes.
pub(crate) fn component_name(status: &str, response: &Response) -> Option<String> {
    let code = response.description.split('`').skip(1).step_by(2).collect::<Vec<_>>().join("-");
    let is_error = response.content.contains_key("application/vnd.api+json") && status >= "400";
    is_error.then(|| format!("{status}-{code}"))
}
