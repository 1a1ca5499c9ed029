//! The documents of counters, keys and tenants.
//!
//! Job: one function for each resource, alone or in a list. Invariant: members stand in the order of their fields; a secret is in the answer to its
//! creation and in no other. Must never: decide a status other than the one it is given.

use hyper::StatusCode;
use serde::Serialize;

use super::document::{Answer, json, located, tagged};
use super::error::ApiError;
use crate::counter::CounterName;
use crate::moment::{date, rfc3339};
use crate::rate::RateLimit;
use crate::store::{CounterState, Holdings, KeyRecord, ListedCounter, ListedKey, TenantRecord};
use crate::tenant::{KeyId, TenantId};

#[derive(Serialize)]
struct Document<D> {
    data: D,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<Links>,
    jsonapi: JsonApi,
}

#[derive(Serialize)]
struct Links {
    next: Option<String>,
}

#[derive(Serialize)]
struct JsonApi {
    version: &'static str,
}

#[derive(Serialize)]
struct Resource<A> {
    id: String,
    r#type: &'static str,
    attributes: A,
}

#[derive(Serialize)]
struct CounterAttributes {
    value: u64,
    start: u64,
    step: u64,
    min: u64,
    max: u64,
    rewindable: bool,
    created_at: Option<String>,
}

#[derive(Serialize)]
struct KeyAttributes<'a> {
    label: &'a str,
    scopes: Vec<&'static str>,
    created_at: String,
    expires_at: Option<String>,
    last_used_on: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
}

#[derive(Serialize)]
struct NewTenantAttributes<'a> {
    username: &'a str,
    created_at: String,
    api_key: &'a str,
}

#[derive(Serialize)]
struct TenantAttributes<'a> {
    username: &'a str,
    created_at: String,
    counters: OfHowMany,
    keys: OfHowMany,
    rate_limit: Option<String>,
}

/// How many there are and may be.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct OfHowMany {
    pub(super) count: u32,
    pub(super) limit: u32,
}

/// One counter.
pub(super) fn counter(status: StatusCode, name: &CounterName, state: &CounterState) -> Result<Answer, ApiError> {
    Ok(tagged(alone(status, counter_resource(name, state))?, state.version))
}

/// The path of a counter.
pub(super) fn counter_path(name: &CounterName) -> String {
    format!("/api/v1/counters/{}", name.as_str())
}

/// Counters, and the path of the next ones.
pub(super) fn counters(counters: &[ListedCounter], next: Option<String>) -> Result<Answer, ApiError> {
    list(counters.iter().map(|(name, state)| counter_resource(name, state)).collect(), next)
}

fn counter_resource(name: &CounterName, state: &CounterState) -> Resource<CounterAttributes> {
    let shape = state.counter.shape();
    let attributes = CounterAttributes {
        value: state.counter.value().get(),
        start: shape.start().get(),
        step: shape.step().get(),
        min: shape.min().get(),
        max: shape.max().get(),
        rewindable: shape.rewindable(),
        created_at: (!name.is_default()).then(|| rfc3339(state.created_unix_s)),
    };
    Resource { id: name.as_str().to_owned(), r#type: "counter", attributes }
}

/// A key that was just made, with its secret: the only time.
pub(super) fn new_key(id: KeyId, record: &KeyRecord, api_key: &str) -> Result<Answer, ApiError> {
    let answer = alone(StatusCode::CREATED, key_resource(id, record, Some(api_key)))?;
    Ok(located(answer, format!("/api/v1/keys/{id}")))
}

/// Keys, and the path of the next ones.
pub(super) fn keys(keys: &[ListedKey], next: Option<String>) -> Result<Answer, ApiError> {
    list(keys.iter().map(|(id, record)| key_resource(*id, record, None)).collect(), next)
}

fn key_resource<'a>(id: KeyId, record: &'a KeyRecord, api_key: Option<&'a str>) -> Resource<KeyAttributes<'a>> {
    let attributes = KeyAttributes {
        label: record.label.as_str(),
        scopes: record.scopes.names().collect(),
        created_at: rfc3339(record.created_unix_s),
        expires_at: record.expires_unix_s.map(rfc3339),
        last_used_on: record.last_used_day.map(date),
        api_key,
    };
    Resource { id: id.to_string(), r#type: "key", attributes }
}

/// A tenant that just registered, with its first key: the only time.
pub(super) fn new_tenant(id: TenantId, username: &str, created_unix_s: u64, api_key: &str) -> Result<Answer, ApiError> {
    let attributes = NewTenantAttributes { username, created_at: rfc3339(created_unix_s), api_key };
    let answer = alone(StatusCode::CREATED, Resource { id: id.to_string(), r#type: "tenant", attributes })?;
    Ok(located(answer, "/api/v1/tenant".to_owned()))
}

/// A tenant, what it has of how much, and its limit.
pub(super) fn tenant(
    id: TenantId,
    record: &TenantRecord,
    holdings: Holdings,
    (most_counters, most_keys): (u32, u32),
    limit: Option<RateLimit>,
) -> Result<Answer, ApiError> {
    let attributes = TenantAttributes {
        username: record.name.as_str(),
        created_at: rfc3339(record.created_unix_s),
        counters: OfHowMany { count: holdings.counters, limit: most_counters },
        keys: OfHowMany { count: holdings.keys, limit: most_keys },
        rate_limit: limit.map(|limit| limit.to_string()),
    };
    alone(StatusCode::OK, Resource { id: id.to_string(), r#type: "tenant", attributes })
}

fn alone<A: Serialize>(status: StatusCode, data: Resource<A>) -> Result<Answer, ApiError> {
    document(status, &Document { data, links: None, jsonapi: JsonApi { version: "1.0" } })
}

fn list<A: Serialize>(data: Vec<Resource<A>>, next: Option<String>) -> Result<Answer, ApiError> {
    document(StatusCode::OK, &Document { data, links: Some(Links { next }), jsonapi: JsonApi { version: "1.0" } })
}

fn document<D: Serialize>(status: StatusCode, document: &D) -> Result<Answer, ApiError> {
    let body = serde_json::to_vec(document).map_err(|error| ApiError::Internal(error.to_string().into()))?;
    Ok(json(status, body))
}
