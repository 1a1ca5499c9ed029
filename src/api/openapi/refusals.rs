//! Which refusals an operation can answer with, in groups.
//!
//! Job: rows of the one table of errors, so that status, code and title of the document are those that are answered. Invariant: a row comes from
//! [`ApiError::row`]; nothing here decides a status.
//! Must never: name a code that no answer has.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::api::error::{ApiError, Row};
use crate::auth::throttle::Decision;
use crate::auth::{AuthFailure, Needs};
use crate::counter::{CounterRefusal, Value};
use crate::rate::RateLimit;
use crate::store::CounterState;
use crate::tenant::Scopes;

/// What any request may be answered: the head is unreadable, the path has other methods, the server failed.
pub(super) fn always() -> Vec<Row> {
    vec![
        ApiError::MalformedRequest("").row(),
        ApiError::MethodNotAllowed(String::new()).row(),
        ApiError::Internal("".into()).row(),
    ]
}

/// What spends from a limit may find it used up.
pub(super) fn limited() -> Vec<Row> {
    let limit = RateLimit { count: NonZeroU32::MIN, per: Duration::from_secs(1), burst: NonZeroU32::MIN };
    let decision = Decision { limit, remaining: 0, retry_after: None };
    vec![ApiError::RateLimited { scope: "tenant", decision }.row()]
}

/// Nobody is known, they may not do this, or an operator forbade everything.
pub(super) fn caller(needs: Needs) -> Vec<Row> {
    let mut rows = limited();
    rows.push(ApiError::Unauthenticated(AuthFailure::Unknown, needs).row());
    rows.push(ApiError::TenantSuspended.row());
    rows.extend(needs.scopes().map(|_| ApiError::InsufficientScope(Scopes::ALL).row()));
    rows
}

/// Parameters can not be read, or one is not known.
pub(super) fn parameters() -> Vec<Row> {
    vec![ApiError::MalformedBody("").row(), ApiError::UnknownParameter("".into()).row()]
}

/// A body can not be read.
pub(super) fn body() -> Vec<Row> {
    vec![
        ApiError::MalformedBody("").row(),
        ApiError::BodyTimeout.row(),
        ApiError::BodyTooLarge(0).row(),
        ApiError::UnsupportedMediaType.row(),
    ]
}

/// A parameter breaks its rule: the codes say which.
pub(super) fn invalid<const N: usize>(codes: [&'static str; N]) -> Vec<Row> {
    codes.map(|code| ApiError::Invalid { parameter: "", code, detail: String::new() }.row()).into()
}

/// The store is asked.
pub(super) fn asking() -> Vec<Row> {
    vec![ApiError::Overloaded.row(), ApiError::Closing.row()]
}

/// The store is asked for a change.
pub(super) fn changing() -> Vec<Row> {
    let change = [ApiError::Poisoned, ApiError::OutcomeUnknown, ApiError::StorageFull, ApiError::NotSupported("")];
    asking().into_iter().chain(change.map(|error| error.row())).collect()
}

/// The change may carry an `Idempotency-Key`.
pub(super) fn once() -> Vec<Row> {
    vec![ApiError::IdempotencyKeyReused.row(), ApiError::IdempotencyFull.row(), ApiError::InvalidIdempotencyKey.row()]
}

/// The change may carry `If-Match`.
pub(super) fn conditional() -> Vec<Row> {
    vec![ApiError::PreconditionFailed(CounterState::default()).row()]
}

/// The path names a counter. A path that is not one at all, such as an empty name, has no route.
pub(super) fn named_counter() -> Vec<Row> {
    vec![ApiError::CounterNotFound.row(), ApiError::NotFound.row()]
}

/// The path names a key.
pub(super) fn named_key() -> Vec<Row> {
    vec![ApiError::KeyNotFound.row(), ApiError::NotFound.row()]
}

/// The value does not fit the counter.
pub(super) fn out_of_range() -> Vec<Row> {
    let (requested, min, max) = (Value::ZERO, Value::ZERO, Value::ZERO);
    vec![ApiError::Counter(CounterRefusal::OutOfRange { requested, min, max }).row()]
}

/// The value is lower than the counter's.
pub(super) fn rewind() -> Vec<Row> {
    vec![ApiError::Counter(CounterRefusal::RewindRequired { value: Value::ZERO, requested: Value::ZERO }).row()]
}

/// The maximum would be passed.
pub(super) fn exhausted() -> Vec<Row> {
    vec![ApiError::Counter(CounterRefusal::Exhausted { value: Value::ZERO, max: Value::ZERO, count: 1 }).row()]
}

/// The counter is there already.
pub(super) fn exists() -> Vec<Row> {
    vec![ApiError::CounterExists.row(), ApiError::DefaultCounter.row()]
}

/// The counter always exists.
pub(super) fn default_counter() -> Vec<Row> {
    vec![ApiError::DefaultCounter.row()]
}

/// The tenant has as many as it may have.
pub(super) fn quota() -> Vec<Row> {
    vec![ApiError::QuotaExceeded(0).row()]
}

/// Another tenant has the name; the old route says 422 for it, see [`invalid`].
pub(super) fn username_taken() -> Vec<Row> {
    vec![ApiError::UsernameTaken.row()]
}
