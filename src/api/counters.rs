//! `/api/v1/counters`: the tenant's counters by name.
//!
//! Job: list, create, read, set, delete, increment. Invariant: what is answered is what the store committed, with the entity tag of that state.
//! Must never: compute a value; that is the counter rule's, inside the store.

use hyper::StatusCode;
use hyper::header::IF_MATCH;

use super::document::{self, Answer};
use super::error::ApiError;
use super::once::{IDEMPOTENCY_KEY, Key, Operation, expected, refuse_others};
use super::params::{Params, invalid_parameter};
use super::{Call, resource, route};
use crate::auth::Caller;
use crate::counter::{CounterName, Shape, Step, Value};
use crate::store::{NewCounter, Page, SetTo, now_unix_s};

const NEW: [&str; 6] = ["name", "start", "step", "min", "max", "rewindable"];

pub(super) async fn list(call: &Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    let params = call.query()?;
    let (size, after) = params.page()?;
    let cursor = |text| CounterName::parse(text).map_err(|bad| invalid_parameter("page[after]", bad.to_string()));
    let after = after.map(cursor).transpose()?;
    let Page { items, more } = call.page(|| call.store().counters(caller.tenant(), after.clone(), size)).await?;
    let last = items.last().filter(|_| more).map(|(name, _)| name.as_str());
    resource::counters(&items, last.map(|last| next_page("/api/v1/counters", size, last)))
}

/// The path of the page behind `last`, which has no character that a query would not keep.
pub(super) fn next_page(path: &str, size: usize, last: &str) -> String {
    format!("{path}?page[size]={size}&page[after]={last}")
}

pub(super) async fn create(call: &mut Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    let headers = call.headers();
    refuse_others(headers, &[IDEMPOTENCY_KEY])?;
    let key = Key::of(headers)?;
    let params = call.params().await?;
    params.only(&NEW)?;
    let name = CounterName::parse(params.text("name")?).map_err(|_| ApiError::Invalid {
        parameter: "name",
        code: "invalid_name",
        detail: "must be 1 to 128 characters of A-Z a-z 0-9 . _ -".to_owned(),
    })?;
    let shape = shape(&params)?;
    let once = key.once(caller.tenant(), Operation::Create(&name, &shape));
    let new = NewCounter { shape, created_unix_s: now_unix_s(), quota: call.api.shared.counters_per_tenant };
    let done = call.store().create(caller.tenant(), &name, new, once).await?;
    let answer = resource::counter(StatusCode::CREATED, &name, &done.result)?;
    Ok(document::replayed(document::located(answer, resource::counter_path(&name)), done.replayed))
}

/// A new counter counts from 1, unless it is to start at 0.
fn shape(params: &Params) -> Result<Shape, ApiError> {
    let start = params.optional_value("start")?;
    let least = if start == Some(Value::ZERO) { Value::ZERO } else { Value::FIRST };
    let min = params.optional_value("min")?.unwrap_or(least);
    let max = params.optional_value("max")?.unwrap_or(Value::DEFAULT_MAX);
    let step = params.integer("step", Step::ONE.get(), Step::LARGEST.get())?.and_then(Step::new).unwrap_or(Step::ONE);
    Shape::new(start.unwrap_or(min), step, min, max, params.flag("rewindable")?).map_err(|bad| ApiError::Invalid {
        parameter: "start",
        code: "value_out_of_range",
        detail: bad.to_string().trim_start_matches("start ").to_owned(),
    })
}

pub(super) async fn read(call: &Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    let name = name(call)?;
    call.query()?.only(&[])?;
    let state = call.store().current(caller.tenant(), &name).await?;
    resource::counter(StatusCode::OK, &name, &state)
}

pub(super) async fn set(call: &mut Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    let name = name(call)?;
    let headers = call.headers();
    refuse_others(headers, &[IDEMPOTENCY_KEY, IF_MATCH])?;
    let (key, expected) = (Key::of(headers)?, expected(headers));
    let params = call.params().await?;
    params.only(&["value", "rewind"])?;
    let to = SetTo { value: params.value("value")?, rewind: params.flag("rewind")?, expected };
    let once = key.once(caller.tenant(), Operation::Set(&name, &to));
    let done = call.store().set(caller.tenant(), &name, to, once).await?;
    Ok(document::replayed(resource::counter(StatusCode::OK, &name, &done.result)?, done.replayed))
}

pub(super) async fn delete(call: &mut Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    let name = name(call)?;
    let headers = call.headers();
    refuse_others(headers, &[IF_MATCH])?;
    let expected = expected(headers);
    call.params().await?.only(&[])?;
    call.store().delete(caller.tenant(), &name, expected).await?;
    Ok(document::nothing())
}

pub(super) async fn increment(call: &mut Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    let name = name(call)?;
    let headers = call.headers();
    refuse_others(headers, &[IDEMPOTENCY_KEY])?;
    let key = Key::of(headers)?;
    let params = call.params().await?;
    params.only(&["count"])?;
    let count = params.count()?.unwrap_or(1);
    let once = key.once(caller.tenant(), Operation::Increment(&name, count));
    let done = call.store().advance(caller.tenant(), &name, count, once).await?;
    Ok(document::replayed(document::issued(&name, &done.result), done.replayed))
}

/// The counter that the path names. What can be no name is the name of no counter.
fn name(call: &Call<'_>) -> Result<CounterName, ApiError> {
    let text = route::decode(call.parameter).ok_or(ApiError::CounterNotFound)?;
    CounterName::parse(&text).map_err(|_| ApiError::CounterNotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::HeaderMap;

    #[test]
    fn a_new_counters_bounds_follow_from_what_is_given() {
        let shape = |query: &str| shape(&Params::parse(Some(query), &HeaderMap::new(), b"").unwrap());
        let bounds = |query: &str| {
            let shape = shape(query).unwrap();
            (shape.start().get(), shape.min().get(), shape.max().get(), shape.step().get())
        };
        let max = Value::DEFAULT_MAX.get();
        assert_eq!(bounds(""), (1, 1, max, 1));
        assert_eq!(bounds("start=0"), (0, 0, max, 1));
        assert_eq!(bounds("start=5"), (5, 1, max, 1));
        assert_eq!(bounds("min=7&step=3"), (7, 7, max, 3));
        assert_eq!(bounds("min=0"), (0, 0, max, 1));
        assert_eq!(bounds("min=2&start=4&max=4"), (4, 2, 4, 1));
        assert_eq!(bounds("max=9223372036854775807").2, Value::LARGEST.get());
        for bad in
            ["min=5&start=4", "start=6&max=5", "max=0", "step=0", "min=-1", "min=2&start=0", "start=9007199254740992"]
        {
            assert!(matches!(shape(bad), Err(ApiError::Invalid { .. })), "{bad}");
        }
    }
}
