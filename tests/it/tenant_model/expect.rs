//! Comparing an answer with what the contract draws.
//!
//! Invariant: documents are compared whole. Must never: know a tenant.

use std::fmt::Debug;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::client::Answer;

/// A refusal: status, code, and what must stand in `source`.
pub(crate) type Refusal = (u16, &'static str, Value);

const JSON_API: &str = "application/vnd.api+json";

pub(crate) fn same<T: PartialEq + Debug>(what: &str, told: T, expected: T) -> Result<(), String> {
    if told == expected { Ok(()) } else { Err(format!("{what}: {told:?} instead of {expected:?}")) }
}

/// A moment of RFC 3339 in UTC.
pub(crate) fn moment(told: &Value) -> Result<OffsetDateTime, String> {
    let moment = told
        .as_str()
        .filter(|text| text.ends_with('Z'))
        .and_then(|t| OffsetDateTime::parse(t, &Rfc3339).ok());
    moment.ok_or_else(|| format!("{told} is no moment"))
}

/// What every answer has.
pub(crate) fn check_common(answer: &Answer) -> Result<(), String> {
    same("cache-control", answer.header("cache-control"), "no-store")?;
    same("x-request-id is there", answer.header("x-request-id").is_empty(), false)?;
    let content_type = if answer.status == 204 { "" } else { JSON_API };
    same("content-type", answer.header("content-type"), content_type)
}

/// This one resource and nothing else.
pub(crate) fn same_body(answer: &Answer, data: &Value) -> Result<(), String> {
    same("body", answer.json(), json!({ "data": data, "jsonapi": { "version": "1.0" } }))
}

pub(crate) fn check_nothing(answer: &Answer) -> Result<(), String> {
    same("status", answer.status, 204)?;
    same("body", answer.text(), String::new())
}

/// The first page of a list.
pub(crate) fn check_page(
    answer: &Answer,
    data: &Value,
    path: &str,
    size: u64,
    last: Option<&String>,
) -> Result<(), String> {
    let next = last.map(|last| format!("{path}?page[size]={size}&page[after]={last}"));
    same("status", answer.status, 200)?;
    same(
        "body",
        answer.json(),
        json!({ "data": data, "links": { "next": next }, "jsonapi": { "version": "1.0" } }),
    )
}

/// A document of one error: status, code, and what must stand in `source`.
pub(crate) fn check_refusal(
    answer: &Answer,
    (status, code, source): &Refusal,
) -> Result<(), String> {
    same("status", answer.status, *status)?;
    same("code", &*answer.code(), *code)?;
    let document = answer.json();
    let error = &document["errors"][0];
    same("errors", document["errors"].as_array().map(Vec::len), Some(1))?;
    same("jsonapi", &document["jsonapi"], &json!({ "version": "1.0" }))?;
    same("error.status", &error["status"], &json!(status.to_string()))?;
    same("error.id", &error["id"], &json!(answer.header("x-request-id")))?;
    same("error.source", &error["source"], source)?;
    same("idempotency-replayed", answer.header("idempotency-replayed"), "")
}
