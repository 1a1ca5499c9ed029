//! `/api/v1/integer`: the tenant's counter named `default`.
//!
//! Job: read, set, increment. Invariant: the value that is answered is the one that the store committed.
//! Must never: compute a value; that is the counter rule's, inside the store.

use std::net::IpAddr;

use hyper::Request;
use hyper::body::Incoming;

use super::document::{self, Answer};
use super::error::ApiError;
use super::params::{Params, read_body};
use super::{Account, Api};
use crate::auth::throttle::Decision;
use crate::counter::CounterName;

pub(super) async fn read(
    api: &Api,
    client: IpAddr,
    request: Request<Incoming>,
    account: &mut Account,
) -> Result<Answer, ApiError> {
    let (caller, limit) = api.caller(request.headers(), client, account).await?;
    let counter = api.store.current(caller.tenant(), &CounterName::default_counter()).await?;
    Ok(limited(document::integer(caller.tenant(), counter.value), limit))
}

pub(super) async fn set(
    api: &Api,
    client: IpAddr,
    request: Request<Incoming>,
    account: &mut Account,
) -> Result<Answer, ApiError> {
    let (caller, limit) = api.caller(request.headers(), client, account).await?;
    let (head, body) = request.into_parts();
    let body = read_body(body).await?;
    let value = Params::parse(head.uri.query(), &head.headers, &body)?.value("value")?;
    let value = api.store.set(caller.tenant(), &CounterName::default_counter(), value).await?;
    Ok(limited(document::integer(caller.tenant(), value), limit))
}

pub(super) async fn increment(
    api: &Api,
    client: IpAddr,
    request: Request<Incoming>,
    account: &mut Account,
) -> Result<Answer, ApiError> {
    let (caller, limit) = api.caller(request.headers(), client, account).await?;
    let (head, body) = request.into_parts();
    // An increment has no parameters; a body that can not be read is refused all the same, before a number is spent on it.
    let body = read_body(body).await?;
    if !body.is_empty() {
        Params::parse(None, &head.headers, &body)?;
    }
    let range = api.store.advance(caller.tenant(), &CounterName::default_counter(), 1).await?;
    Ok(limited(document::integer(caller.tenant(), range.last), limit))
}

fn limited(mut answer: Answer, limit: Option<Decision>) -> Answer {
    if let Some(decision) = limit {
        document::rate_limit(answer.headers_mut(), "tenant", &decision);
    }
    answer
}
