//! `/api/v1/integer`: the tenant's counter named `default`, as the old application had it.
//!
//! Job: read, set, increment. Invariant: the value that is answered is the one that the store
//! committed; parameters that the old application did not know are ignored, as it did.
//! Must never: compute a value; that is the counter rule's, inside the store.

use actix_web::{Responder, get, put};
use serde::Deserialize;
use utoipa::ToSchema;

use super::dto::{Count, IncrementedInteger, IncrementedIntegerDocument, Integer, IntegerDocument};
use crate::domain::counter::{CounterName, Value};
use crate::domain::tenant::TenantId;
use crate::http::error::ApiError;
use crate::http::extract::InOrder;
use crate::http::extract::caller::{Caller, Increment, Manage, Read};
use crate::http::extract::idempotency::{FingerprintedRequest, IdempotencyKey, IdempotentIfMatch};
use crate::http::extract::params::Params;
use crate::http::extract::values::{AnyValue, Whole};
use crate::http::jsonapi::Reply;
use crate::http::openapi::error_responses::{
    AdminArgs, Body, Changing, Conditional, Exhausted, From, Idempotent, InvalidValue, OutOfRange,
    Refused,
};
use crate::http::state::State;
use crate::store::SetCounter;

#[derive(Deserialize, ToSchema)]
pub(crate) struct SetIntegerParams {
    /// 1 to 9007199254740991, higher or lower than before.
    #[schema(inline, value_type = Whole<1, { Value::DEFAULT_MAX.get() }>)]
    value: AnyValue,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct IncrementIntegerParams {
    /// How many integers, 1 to 1000000: a range of them, all or none. Without it one.
    #[schema(inline)]
    count: Option<Count>,
}

fn reply(tenant: TenantId, value: Value) -> Reply<TenantId, Integer> {
    Reply::ok(tenant, Integer { value: value.into() })
}

/// Read the value.
///
/// Never changes anything. What it shows is on disk.
#[utoipa::path(
    tag = "integer", security(("key" = ["read"])),
    responses(
        (status = 200, description = "The value.", body = IntegerDocument, headers(("ETag")),
         example = json!({ "data": { "id": "1", "type": "user_integer", "attributes": { "value": 3 } }, "jsonapi": { "version": "1.0" } })),
        Refused<(From<Read>, AdminArgs)>,
    )
)]
#[get("/api/v1/integer")]
pub(crate) async fn read_integer(
    state: State,
    asked: InOrder<(Caller<Read>,)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller,)) = asked;
    let found = state.store.get_counter(caller.tenant(), &CounterName::default_counter()).await?;
    Ok(reply(caller.tenant(), found.counter.value()).version(found.version))
}

/// Set the value.
///
/// A lower value makes numbers repeat, and a higher one skips some: that is what it is for.
#[utoipa::path(
    tag = "integer", security(("key" = ["manage"])),
    params(("Idempotency-Key", Header), ("If-Match", Header)),
    request_body(content = SetIntegerParams, example = json!({ "value": 1000 })),
    responses(
        (status = 200, description = "The value that was set.", body = IntegerDocument,
         headers(("ETag"), ("Idempotency-Replayed")),
         example = json!({ "data": { "id": "1", "type": "user_integer", "attributes": { "value": 1000 } }, "jsonapi": { "version": "1.0" } })),
        Refused<(From<Manage>, Body, InvalidValue, OutOfRange, Changing, Idempotent, Conditional)>,
    )
)]
#[put("/api/v1/integer")]
pub(crate) async fn set_integer(
    state: State,
    asked: InOrder<(Caller<Manage>, IdempotentIfMatch, Params<SetIntegerParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, IdempotentIfMatch { key, expected }, Params(params))) = asked;
    let to = SetCounter { value: params.value.get(), rewind: false, expected };
    let once = key.token(caller.tenant(), FingerprintedRequest::SetInteger(&to));
    let done = state.store.set(caller.tenant(), &CounterName::default_counter(), to, once).await?;
    let reply = reply(caller.tenant(), done.result.counter.value());
    Ok(reply.version(done.result.version).replayed(done.replayed))
}

/// Take the next integer.
///
/// The value plus one, or with `count` the next so many. A new counter stands at 1, so the first increment answers 2.
#[utoipa::path(
    tag = "integer", security(("key" = ["increment"])),
    params(("Idempotency-Key", Header)),
    request_body(content = IncrementIntegerParams),
    responses(
        (status = 200, description = "The value after the increment.", body = IncrementedIntegerDocument,
         headers(("ETag"), ("Idempotency-Replayed")),
         example = json!({ "data": { "id": "1", "type": "user_integer", "attributes": { "value": 2 } }, "jsonapi": { "version": "1.0" } })),
        Refused<(From<Increment>, Body, InvalidValue, Exhausted, Changing, Idempotent)>,
    )
)]
#[put("/api/v1/integer/increment")]
pub(crate) async fn increment_integer(
    state: State,
    asked: InOrder<(Caller<Increment>, IdempotencyKey, Params<IncrementIntegerParams>)>,
) -> Result<impl Responder, ApiError> {
    // A body that can not be read is refused before a number is spent on it.
    let InOrder((caller, key, Params(params))) = asked;
    let count = params.count.and_then(|count| u32::try_from(count.0).ok());
    let once = key.token(caller.tenant(), FingerprintedRequest::IncrementInteger(count));
    let default = CounterName::default_counter();
    let done = state.store.advance(caller.tenant(), &default, count.unwrap_or(1), once).await?;
    let reply = Reply::ok(caller.tenant(), IncrementedInteger::new(&done.result, count.is_some()));
    Ok(reply.version(done.result.version).replayed(done.replayed))
}
