//! `/api/v1/integer`: the tenant's counter named `default`.
//!
//! Job: read, set, increment. Invariant: the value that is answered is the one that the store committed.
//! Must never: compute a value; that is the counter rule's, inside the store.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::http::request::Parts;

use super::document::{self, Answer};
use super::error::ApiError;
use super::params::{Params, Payload};
use super::{Account, Api};
use crate::counter::CounterName;
use crate::store::{Expected, SetTo};

pub(super) async fn read(api: &Api, client: IpAddr, head: &Parts, account: &mut Account) -> Result<Answer, ApiError> {
    let caller = api.caller(&head.headers, client, account).await?;
    let state = api.store.current(caller.tenant(), &CounterName::default_counter()).await?;
    Ok(document::integer(caller.tenant(), state.counter.value()))
}

pub(super) async fn set(
    api: &Api,
    client: IpAddr,
    head: &Parts,
    payload: &mut Payload,
    account: &mut Account,
) -> Result<Answer, ApiError> {
    let caller = api.caller(&head.headers, client, account).await?;
    refuse_promises(&head.headers)?;
    let body = payload.read().await?;
    let value = Params::parse(head.uri.query(), &head.headers, &body)?.value("value")?;
    let to = SetTo { value, rewind: false, expected: Expected::Any };
    let done = api.store.set(caller.tenant(), &CounterName::default_counter(), to, None).await?;
    Ok(document::integer(caller.tenant(), done.result.counter.value()))
}

pub(super) async fn increment(
    api: &Api,
    client: IpAddr,
    head: &Parts,
    payload: &mut Payload,
    account: &mut Account,
) -> Result<Answer, ApiError> {
    let caller = api.caller(&head.headers, client, account).await?;
    refuse_promises(&head.headers)?;
    // An increment has no parameters; a body that can not be read is refused all the same, before a number is spent on it.
    let body = payload.read().await?;
    if Params::parse(head.uri.query(), &head.headers, &body)?.has("count") {
        return Err(ApiError::NotSupported("count"));
    }
    let done = api.store.advance(caller.tenant(), &CounterName::default_counter(), 1, None).await?;
    Ok(document::integer(caller.tenant(), done.result.range.last))
}

/// Refuses headers that ask for a guarantee which this version does not give: to ignore them would be to promise.
fn refuse_promises(headers: &HeaderMap) -> Result<(), ApiError> {
    let asked = ["Idempotency-Key", "If-Match", "If-None-Match"].into_iter().find(|name| headers.contains_key(*name));
    asked.map_or(Ok(()), |name| Err(ApiError::NotSupported(name)))
}
