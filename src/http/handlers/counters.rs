//! `/api/v1/counters`: the tenant's counters by name.
//!
//! Job: list, create, read, set, delete, increment.
//! Invariant: a response has the state that the store committed, with its entity tag.
//! Must never: compute a value; the counter rule does, inside the store.

use actix_web::{HttpResponse, Responder, delete, get, post, put};
use serde::Deserialize;
use utoipa::ToSchema;

use super::dto::{
    Count, Counter, CounterDocument, CountersDocument, IssuedRange, RangeDocument, StepSize,
};
use super::{invalid_parameter, next_page, non_empty_page};
use crate::domain::counter::{CounterConfig, CounterName, Step, Value};
use crate::http::error::ApiError;
use crate::http::extract::InOrder;
use crate::http::extract::caller::{Authorized, Increment, Manage, Read};
use crate::http::extract::idempotency::{FingerprintedRequest, IdempotencyKey, IdempotentIfMatch};
use crate::http::extract::params::{NoParams, Params, QueryParams};
use crate::http::extract::path::PathParam;
use crate::http::extract::preconditions::IfMatch;
use crate::http::extract::values::{AnyValue, Whole};
use crate::http::jsonapi::{Page, Reply};
use crate::http::openapi::error_responses::{
    Body, Changing, Conditional, Exhausted, Exists, From, Idempotent, InvalidName,
    InvalidParameter, InvalidValue, IsDefault, NamedCounter, OutOfRange, Parameters, Quota,
    Reading, Refused, Rewind,
};
use crate::http::state::State;
use crate::store::{NewCounter, SetCounter, now_unix_s};

/// The size of a page.
pub(crate) type PageSize = Whole<1, 100>;
/// The size of a page unless the request has another.
pub(crate) const DEFAULT_PAGE_SIZE: PageSize = Whole(20);

/// The parameters of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageParams {
    #[serde(rename = "page[size]")]
    pub(crate) size: Option<PageSize>,
    #[serde(rename = "page[after]")]
    pub(crate) after: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateCounterParams {
    /// The name: 1 to 128 characters of `A-Z a-z 0-9 . _ -`.
    #[schema(pattern = "^[A-Za-z0-9._-]+$", min_length = 1, max_length = 128)]
    name: String,
    /// The value before the first increment; `min` if absent. 0 to 9223372036854775807, and `min`
    /// <= `start` <= `max`.
    #[schema(inline)]
    start: Option<AnyValue>,
    /// The amount that an increment adds, 1 to 9007199254740991; 1 if absent.
    #[schema(inline)]
    step: Option<StepSize>,
    /// The smallest value that the counter may be set to; if absent, 0 if `start` is 0, otherwise
    /// 1. 0 to 9223372036854775807, and `min` <= `start` <= `max`.
    #[schema(inline)]
    min: Option<AnyValue>,
    /// The largest value that the counter may reach; 9007199254740991 if absent, which is the
    /// largest integer that every JSON parser represents exactly. 0 to 9223372036854775807, and
    /// `min` <= `start` <= `max`.
    #[schema(inline)]
    max: Option<AnyValue>,
    /// Whether the counter may be set to a lower value without `rewind`; false if absent.
    #[serde(default)]
    rewindable: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetCounterParams {
    /// The new value, from the counter's `min` to its `max`.
    #[schema(inline)]
    value: AnyValue,
    /// Whether the new value may be lower than the current one, which makes integers repeat; false
    /// if absent.
    #[serde(default)]
    rewind: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IncrementCounterParams {
    /// The number of integers, 1 to 1000000; 1 if absent. All of them are issued, or none.
    #[schema(inline)]
    count: Option<Count>,
}

/// List the counters.
///
/// Sorted by name, including `default`. Each counter is as current as a read of it, but the list is
/// not a consistent snapshot.
#[utoipa::path(
    tag = "counters", security(("key" = ["read"])), params(("page[size]", Query), ("page[after]",
     Query)),
    responses(
        (status = 200, description = "A page of counters, and the path of the next page.",
         body = CountersDocument,
         example = json!({ "data": [{ "id": "invoices", "type": "counter", "attributes": {
             "value": 5, "start": 0, "step": 1, "min": 0, "max": 9_007_199_254_740_991_u64,
              "rewindable": false,
             "created_at": "2026-11-24T09:00:00Z" } }], "links": { "next": null },
              "jsonapi": { "version": "1.0" } })),
        Refused<(From<Read>, Parameters, InvalidParameter, InvalidValue, Reading)>,
    )
)]
#[get("/api/v1/counters")]
pub(crate) async fn list_counters(
    state: State,
    args: InOrder<(Authorized<Read>, QueryParams<PageParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, QueryParams(page))) = args;
    let Whole(size) = page.size.unwrap_or(DEFAULT_PAGE_SIZE);
    let cursor = |text: String| {
        CounterName::parse(&text).map_err(|error| invalid_parameter("page[after]", error))
    };
    let after = page.after.map(cursor).transpose()?;
    let limit = usize::try_from(size).unwrap_or(1);
    let page =
        non_empty_page(|| state.store.list_counters(caller.tenant(), after.clone(), limit)).await?;
    let last = page.items.last().filter(|_| page.more).map(|(name, _)| name.as_str());
    let next = last.map(|last| next_page("/api/v1/counters", size, last));
    let resource = |(name, found): &(CounterName, _)| {
        (name.as_str().to_owned(), Counter::new(found, name.is_default()))
    };
    Ok(Page { resources: page.items.iter().map(resource).collect(), next })
}

/// Create a counter.
///
/// Bounds and step are fixed. The first increment issues `start` + `step`. The counter `default`
/// always exists.
#[utoipa::path(
    tag = "counters", security(("key" = ["manage"])), params(("Idempotency-Key", Header)),
    request_body(content = CreateCounterParams, example = json!({ "name": "invoices",
     "start": 0 })),
    responses(
        (status = 201, description = "The new counter.", body = CounterDocument,
         headers(("Location"), ("ETag"), ("Idempotency-Replayed")),
         links(
             ("readCounter" = (operation_id = "readCounter",
              parameters(("name" = "$response.body#/data/id")))),
             ("setCounter" = (operation_id = "setCounter",
              parameters(("name" = "$response.body#/data/id")))),
             ("incrementCounter" = (operation_id = "incrementCounter",
              parameters(("name" = "$response.body#/data/id")))),
             ("deleteCounter" = (operation_id = "deleteCounter",
              parameters(("name" = "$response.body#/data/id")))),
         ),
         example = json!({ "data": { "id": "invoices", "type": "counter", "attributes": {
             "value": 0, "start": 0, "step": 1, "min": 0, "max": 9_007_199_254_740_991_u64,
              "rewindable": false,
             "created_at": "2026-11-24T09:00:00Z" } }, "jsonapi": { "version": "1.0" } })),
        Refused<(From<Manage>, Parameters, Body, (InvalidName, InvalidValue, InvalidParameter),
         Exists, OutOfRange,
                 Quota, Changing, Idempotent)>,
    )
)]
#[post("/api/v1/counters")]
pub(crate) async fn create_counter(
    state: State,
    args: InOrder<(Authorized<Manage>, IdempotencyKey, Params<CreateCounterParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, key, Params(params))) = args;
    let name = CounterName::parse(&params.name).map_err(|_| ApiError::Invalid {
        parameter: "name",
        code: "invalid_name",
        detail: "must be 1 to 128 characters of A-Z a-z 0-9 . _ -".to_owned(),
    })?;
    let config = parse_config(&params)?;
    let token = key.token(caller.tenant(), FingerprintedRequest::Create(&name, &config));
    let new = NewCounter {
        config,
        created_unix_s: now_unix_s(),
        quota: state.shared.counters_per_tenant,
    };
    let applied = state.store.create(caller.tenant(), &name, new, token).await?;
    let location = format!("/api/v1/counters/{}", name.as_str());
    let attributes = Counter::new(&applied.result, name.is_default());
    let reply = Reply::created(name, attributes, location);
    Ok(reply.version(applied.result.version).replayed(applied.replayed))
}

/// The configuration of a new counter. The minimum is 1 by default, or 0 if the start is 0.
fn parse_config(params: &CreateCounterParams) -> Result<CounterConfig, ApiError> {
    let start = params.start.map(AnyValue::get);
    let default_min = if start == Some(Value::ZERO) { Value::ZERO } else { Value::FIRST };
    let min = params.min.map_or(default_min, AnyValue::get);
    let max = params.max.map_or(Value::DEFAULT_MAX, AnyValue::get);
    let step = params.step.and_then(|step| Step::new(step.0)).unwrap_or(Step::ONE);
    CounterConfig::new(start.unwrap_or(min), step, min, max, params.rewindable).map_err(|error| {
        ApiError::Invalid {
            parameter: "start",
            code: "value_out_of_range",
            detail: error.to_string().trim_start_matches("start ").to_owned(),
        }
    })
}

/// Read a counter.
///
/// The value is durable. A read changes nothing.
#[utoipa::path(
    tag = "counters", security(("key" = ["read"])), params(("name", Path)),
    responses(
        (status = 200, description = "The counter.", body = CounterDocument, headers(("ETag")),
         example = json!({ "data": { "id": "invoices", "type": "counter", "attributes": {
             "value": 5, "start": 0, "step": 1, "min": 0, "max": 9_007_199_254_740_991_u64,
              "rewindable": false,
             "created_at": "2026-11-24T09:00:00Z" } }, "jsonapi": { "version": "1.0" } })),
        Refused<(From<Read>, Parameters, NamedCounter, Reading)>,
    )
)]
#[get("/api/v1/counters/{name}")]
pub(crate) async fn read_counter(
    state: State,
    args: InOrder<(Authorized<Read>, PathParam<CounterName>, QueryParams<NoParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, PathParam(name), _)) = args;
    let found = state.store.get_counter(caller.tenant(), &name).await?;
    let attributes = Counter::new(&found, name.is_default());
    Ok(Reply::ok(name, attributes).version(found.version))
}

/// Set a counter.
///
/// With `If-Match` this is a compare-and-set. A value lower than the current one requires `rewind`,
/// or a rewindable counter.
#[utoipa::path(
    tag = "counters", security(("key" = ["manage"])),
    params(("name", Path), ("Idempotency-Key", Header), ("If-Match", Header)),
    request_body(content = SetCounterParams, example = json!({ "value": 1000, "rewind": true })),
    responses(
        (status = 200, description = "The counter with its new value.", body = CounterDocument,
         headers(("ETag"), ("Idempotency-Replayed")),
         example = json!({ "data": { "id": "invoices", "type": "counter", "attributes": {
             "value": 1000, "start": 0, "step": 1, "min": 0, "max": 9_007_199_254_740_991_u64,
              "rewindable": false,
             "created_at": "2026-11-24T09:00:00Z" } }, "jsonapi": { "version": "1.0" } })),
        Refused<(From<Manage>, Parameters, Body, (InvalidValue, InvalidParameter), OutOfRange,
         Rewind, NamedCounter,
                 Changing, Idempotent, Conditional)>,
    )
)]
#[put("/api/v1/counters/{name}")]
pub(crate) async fn set_counter(
    state: State,
    args: InOrder<(
        Authorized<Manage>,
        PathParam<CounterName>,
        IdempotentIfMatch,
        Params<SetCounterParams>,
    )>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, PathParam(name), headers, Params(params))) = args;
    let IdempotentIfMatch { key, precondition } = headers;
    let to = SetCounter { value: params.value.get(), rewind: params.rewind, precondition };
    let token = key.token(caller.tenant(), FingerprintedRequest::Set(&name, &to));
    let applied = state.store.set(caller.tenant(), &name, to, token).await?;
    let attributes = Counter::new(&applied.result, name.is_default());
    let reply = Reply::ok(name, attributes);
    Ok(reply.version(applied.result.version).replayed(applied.replayed))
}

/// Delete a counter.
///
/// A counter that is created later with the same name is a new one. The counter `default` cannot be
/// deleted.
#[utoipa::path(
    tag = "counters", security(("key" = ["manage"])), params(("name", Path), ("If-Match", Header)),
    responses(
        (status = 204, description = "The counter is deleted."),
        Refused<(From<Manage>, Parameters, Body, NamedCounter, IsDefault, Changing, Conditional)>,
    )
)]
#[delete("/api/v1/counters/{name}")]
pub(crate) async fn delete_counter(
    state: State,
    args: InOrder<(Authorized<Manage>, PathParam<CounterName>, IfMatch, Params<NoParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, PathParam(name), IfMatch(precondition), _)) = args;
    state.store.delete(caller.tenant(), &name, precondition).await?;
    Ok(HttpResponse::NoContent())
}

/// Take the next integers of a counter.
///
/// Issues the value plus the step, or with `count` the next `count` integers, a step apart; all of
/// them or none.
#[utoipa::path(
    tag = "counters", security(("key" = ["increment"])), params(("name", Path), ("Idempotency-Key",
     Header)),
    request_body(content = IncrementCounterParams, example = json!({ "count": 1 })),
    responses(
        (status = 200, description = "The issued integers.", body = RangeDocument,
         headers(("ETag"), ("Idempotency-Replayed")),
         example = json!({ "data": { "id": "invoices", "type": "counter",
             "attributes": { "value": 3, "first": 3, "last": 3, "count": 1 } },
              "jsonapi": { "version": "1.0" } })),
        Refused<(From<Increment>, Parameters, Body, InvalidValue, Exhausted, NamedCounter, Changing,
         Idempotent)>,
    )
)]
#[post("/api/v1/counters/{name}/increment")]
pub(crate) async fn increment_counter(
    state: State,
    args: InOrder<(
        Authorized<Increment>,
        PathParam<CounterName>,
        IdempotencyKey,
        Params<IncrementCounterParams>,
    )>,
) -> Result<impl Responder, ApiError> {
    let InOrder((caller, PathParam(name), key, Params(params))) = args;
    let count = params.count.and_then(|count| u32::try_from(count.0).ok()).unwrap_or(1);
    let token = key.token(caller.tenant(), FingerprintedRequest::Increment(&name, count));
    let applied = state.store.advance(caller.tenant(), &name, count, token).await?;
    let reply = Reply::ok(name, IssuedRange::from(&applied.result));
    Ok(reply.version(applied.result.version).replayed(applied.replayed))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderMap;

    use super::*;

    #[test]
    fn a_new_counters_bounds_follow_from_what_is_given() {
        let config = |query: &str| {
            let query = format!("name=x&{query}");
            let Params(params) =
                Params::parse(Some(query.trim_end_matches('&')), &HeaderMap::new(), b"")?;
            parse_config(&params)
        };
        let bounds = |query: &str| {
            let config = config(query).unwrap();
            (config.start().get(), config.min().get(), config.max().get(), config.step().get())
        };
        let max = Value::DEFAULT_MAX.get();
        assert_eq!(bounds(""), (1, 1, max, 1));
        assert_eq!(bounds("start=0"), (0, 0, max, 1));
        assert_eq!(bounds("start=5"), (5, 1, max, 1));
        assert_eq!(bounds("min=7&step=3"), (7, 7, max, 3));
        assert_eq!(bounds("min=0"), (0, 0, max, 1));
        assert_eq!(bounds("min=2&start=4&max=4"), (4, 2, 4, 1));
        assert_eq!(bounds("max=9223372036854775807").2, Value::MAX.get());
        for bad in [
            "min=5&start=4",
            "start=6&max=5",
            "max=0",
            "step=0",
            "min=-1",
            "min=2&start=0",
            "start=9007199254740992",
        ] {
            assert!(matches!(config(bad), Err(ApiError::Invalid { .. })), "{bad}");
        }
    }
}
