//! `/api/v1/integer`: the counter `default`, compatible with the application that Odometer
//! replaces.
//!
//! Job: read, set, increment.
//! Invariant: a response has the value that the store committed; unknown parameters are ignored, as
//! that application did.
//! Must never: compute a value; the counter rule does, inside the store.

use actix_web::{Responder, get, put};
use serde::Deserialize;
use utoipa::ToSchema;

use super::dto::{Count, IncrementedInteger, IncrementedIntegerDocument, Integer, IntegerDocument};
use crate::domain::counter::{CounterName, Value};
use crate::domain::tenant::TenantId;
use crate::http::error::ApiError;
use crate::http::extract::InOrder;
use crate::http::extract::caller::{Authorized, Increment, Manage, Read};
use crate::http::extract::idempotency::{FingerprintedRequest, IdempotencyKey, IdempotentIfMatch};
use crate::http::extract::params::Params;
use crate::http::extract::values::{AnyValue, Whole};
use crate::http::jsonapi::Reply;
use crate::http::openapi::error_responses::{
    Body, Changing, Conditional, Exhausted, From, Idempotent, InvalidValue, OutOfRange, Reading,
    Refused,
};
use crate::http::state::State;
use crate::store::SetCounter;

#[derive(Deserialize, ToSchema)]
pub(crate) struct SetIntegerParams {
    /// The new value, 1 to 9007199254740991; it may be lower than the current one.
    #[schema(inline, value_type = Whole<1, { Value::DEFAULT_MAX.get() }>)]
    value: AnyValue,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct IncrementIntegerParams {
    /// The number of integers, 1 to 1000000; 1 if absent. All of them are issued, or none.
    #[schema(inline)]
    count: Option<Count>,
}

fn reply(tenant: TenantId, value: Value) -> Reply<TenantId, Integer> {
    Reply::ok(tenant, Integer { value: value.into() })
}

/// Read the value.
///
/// The value is durable. A read changes nothing.
#[utoipa::path(
    tag = "integer", security(("key" = ["read"])),
    responses(
        (status = 200, description = "The value.", body = IntegerDocument, headers(("ETag")),
         example = json!({ "data": { "id": "1", "type": "user_integer",
          "attributes": { "value": 3 } }, "jsonapi": { "version": "1.0" } })),
        Refused<(From<Read>, Reading)>,
    )
)]
#[get("/api/v1/integer")]
pub(crate) async fn read_integer(
    state: State,
    args: InOrder<(Authorized<Read>,)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller,)) = args;
    let found = state.store.get_counter(caller.tenant(), &CounterName::default_counter()).await?;
    Ok(reply(caller.tenant(), found.counter.value()).version(found.version))
}

/// Set the value.
///
/// A lower value makes integers repeat, a higher one skips some.
#[utoipa::path(
    tag = "integer", security(("key" = ["manage"])),
    params(("Idempotency-Key", Header), ("If-Match", Header)),
    request_body(content = SetIntegerParams, example = json!({ "value": 1000 })),
    responses(
        (status = 200, description = "The value that was set.", body = IntegerDocument,
         headers(("ETag"), ("Idempotency-Replayed")),
         example = json!({ "data": { "id": "1", "type": "user_integer",
          "attributes": { "value": 1000 } }, "jsonapi": { "version": "1.0" } })),
        Refused<(From<Manage>, Body, InvalidValue, OutOfRange, Changing, Idempotent, Conditional)>,
    )
)]
#[put("/api/v1/integer")]
pub(crate) async fn set_integer(
    state: State,
    args: InOrder<(Authorized<Manage>, IdempotentIfMatch, Params<SetIntegerParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, IdempotentIfMatch { key, precondition }, Params(params))) = args;
    let to = SetCounter { value: params.value.get(), rewind: false, precondition };
    let token = key.token(caller.tenant(), FingerprintedRequest::SetInteger(&to));
    let applied =
        state.store.set(caller.tenant(), &CounterName::default_counter(), to, token).await?;
    let reply = reply(caller.tenant(), applied.result.counter.value());
    Ok(reply.version(applied.result.version).replayed(applied.replayed))
}

/// Take the next integer.
///
/// Issues the value plus one, or with `count` the next `count` integers. A new counter is at 1, so
/// the first increment issues 2.
#[utoipa::path(
    tag = "integer", security(("key" = ["increment"])),
    params(("Idempotency-Key", Header)),
    request_body(content = IncrementIntegerParams),
    responses(
        (status = 200, description = "The value after the increment.",
         body = IncrementedIntegerDocument,
         headers(("ETag"), ("Idempotency-Replayed")),
         example = json!({ "data": { "id": "1", "type": "user_integer",
          "attributes": { "value": 2 } }, "jsonapi": { "version": "1.0" } })),
        Refused<(From<Increment>, Body, InvalidValue, Exhausted, Changing, Idempotent)>,
    )
)]
#[put("/api/v1/integer/increment")]
pub(crate) async fn increment_integer(
    state: State,
    args: InOrder<(Authorized<Increment>, IdempotencyKey, Params<IncrementIntegerParams>)>,
) -> Result<impl Responder, ApiError> {
    // A malformed body is rejected here, before the store issues an integer.
    let InOrder((caller, key, Params(params))) = args;
    let count = params.count.and_then(|count| u32::try_from(count.0).ok());
    let token = key.token(caller.tenant(), FingerprintedRequest::IncrementInteger(count));
    let default = CounterName::default_counter();
    let applied = state.store.advance(caller.tenant(), &default, count.unwrap_or(1), token).await?;
    let reply =
        Reply::ok(caller.tenant(), IncrementedInteger::new(&applied.result, count.is_some()));
    Ok(reply.version(applied.result.version).replayed(applied.replayed))
}
