//! `/api/v1/integer`: the tenant's counter named `default`, as the old application had it.
//!
//! Job: read, set, increment. Invariant: the value that is answered is the one that the store committed.
//! Must never: compute a value; that is the counter rule's, inside the store.

use hyper::header::IF_MATCH;

use super::Call;
use super::document::{self, Answer};
use super::error::ApiError;
use super::once::{IDEMPOTENCY_KEY, Key, Operation, expected, refuse_others};
use crate::auth::Caller;
use crate::counter::CounterName;
use crate::store::SetTo;

pub(super) async fn read(call: &Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    let state = call.store().current(caller.tenant(), &CounterName::default_counter()).await?;
    Ok(document::integer(caller.tenant(), state.counter.value(), state.version))
}

pub(super) async fn set(call: &mut Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    let headers = call.headers();
    refuse_others(headers, &[IDEMPOTENCY_KEY, IF_MATCH])?;
    let (key, expected) = (Key::of(headers)?, expected(headers));
    let value = call.params().await?.value("value")?;
    let to = SetTo { value, rewind: false, expected };
    let once = key.once(caller.tenant(), Operation::SetInteger(&to));
    let done = call.store().set(caller.tenant(), &CounterName::default_counter(), to, once).await?;
    let answer = document::integer(caller.tenant(), done.result.counter.value(), done.result.version);
    Ok(document::replayed(answer, done.replayed))
}

pub(super) async fn increment(call: &mut Call<'_>, caller: &Caller) -> Result<Answer, ApiError> {
    let headers = call.headers();
    refuse_others(headers, &[IDEMPOTENCY_KEY])?;
    let key = Key::of(headers)?;
    // A body that can not be read is refused before a number is spent on it, even one that has no count.
    let count = call.params().await?.count()?;
    let once = key.once(caller.tenant(), Operation::IncrementInteger(count));
    let default = CounterName::default_counter();
    let done = call.store().advance(caller.tenant(), &default, count.unwrap_or(1), once).await?;
    let answer = match count {
        None => document::integer(caller.tenant(), done.result.range.last, done.result.version),
        Some(_) => document::integers(caller.tenant(), &done.result),
    };
    Ok(document::replayed(answer, done.replayed))
}
