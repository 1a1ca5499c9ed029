//! JSON:API documents: the bytes of every answer.
//!
//! Job: [`integer`], [`issued`], [`user`], [`text`] and [`error()`] make the response of a handler; resource.rs those that are less frequent. Invariant:
//! each is complete JSON:API; answers to increments are written without a tree of values, since they are most of all answers.
//! Must never: put a text into JSON without escaping it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};

use super::error::{ApiError, Source};
use super::once::{IDEMPOTENCY_REPLAYED, etag};
use crate::auth::throttle::Decision;
use crate::auth::{AuthFailure, Needs};
use crate::counter::{CounterName, Value};
use crate::store::{Issued, Version};
use crate::tenant::TenantId;

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// JSON:API's media type.
pub const JSON_API: HeaderValue = HeaderValue::from_static("application/vnd.api+json");

/// The value of the counter `default`, as the old application answered it.
#[must_use]
pub fn integer(tenant: TenantId, value: Value, version: Version) -> Answer {
    let body = format!(
        r#"{{"data":{{"id":"{tenant}","type":"user_integer","attributes":{{"value":{value}}}}},"jsonapi":{{"version":"1.0"}}}}"#
    );
    tagged(json(StatusCode::OK, body), version)
}

/// Integers of the counter `default`, where more than one may have been asked for.
#[must_use]
pub fn integers(tenant: TenantId, issued: &Issued) -> Answer {
    issued_as(&tenant, "user_integer", issued)
}

/// Integers of a counter. A name has no character that needs an escape.
#[must_use]
pub fn issued(name: &CounterName, issued: &Issued) -> Answer {
    issued_as(&name.as_str(), "counter", issued)
}

fn issued_as(id: &dyn std::fmt::Display, kind: &str, Issued { range, version }: &Issued) -> Answer {
    let (first, last, count) = (range.first, range.last, range.count);
    let body = format!(
        r#"{{"data":{{"id":"{id}","type":"{kind}","attributes":{{"value":{last},"first":{first},"last":{last},"count":{count}}}}},"jsonapi":{{"version":"1.0"}}}}"#
    );
    tagged(json(StatusCode::OK, body), *version)
}

/// A new tenant and its key, as the old application answered it.
#[must_use]
pub fn user(tenant: TenantId, api_key: &str) -> Answer {
    // A key is hexadecimal and needs no escape.
    let body = format!(
        r#"{{"data":{{"id":"{tenant}","type":"user","attributes":{{"api_key":"{api_key}"}}}},"jsonapi":{{"version":"1.0"}}}}"#
    );
    json(StatusCode::OK, body)
}

/// It is done, and there is nothing to show.
#[must_use]
pub fn nothing() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// The document of an error.
#[must_use]
pub fn error(error: &ApiError, request_id: &str) -> Answer {
    let row = error.row();
    let mut member = serde_json::json!({
        "id": request_id,
        "status": row.status.as_str(),
        "code": row.code,
        "title": row.title,
        "detail": error.detail(),
    });
    match error.source() {
        Some(Source::Parameter(name)) => member["source"] = serde_json::json!({ "parameter": name }),
        Some(Source::Header(name)) => member["source"] = serde_json::json!({ "header": name }),
        None => {}
    }
    if let ApiError::PreconditionFailed(state) = error {
        member["meta"] = serde_json::json!({ "value": state.counter.value().get() });
    }
    let document = serde_json::json!({ "errors": [member], "jsonapi": { "version": "1.0" } });
    let mut answer = json(row.status, document.to_string());
    tell_in_headers(error, answer.headers_mut());
    answer
}

fn tell_in_headers(error: &ApiError, headers: &mut HeaderMap) {
    match error {
        ApiError::MethodNotAllowed(allow) => insert(headers, ALLOW, allow.clone()),
        ApiError::Unauthenticated(failure, needs) => challenge(headers, failure, *needs),
        ApiError::InsufficientScope(scopes) => {
            insert(headers, WWW_AUTHENTICATE, format!("Bearer error=\"insufficient_scope\", scope=\"{scopes}\""));
        }
        ApiError::PreconditionFailed(state) => insert(headers, ETAG, etag(state.version)),
        _ => {}
    }
    if let Some(wait) = error.retry_after() {
        // Rounded up: who comes back at that second is served.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
}

fn challenge(headers: &mut HeaderMap, failure: &AuthFailure, needs: Needs) {
    if needs.takes_key() {
        let bearer = match failure {
            AuthFailure::Missing => "Bearer realm=\"odometer\"",
            _ => "Bearer realm=\"odometer\", error=\"invalid_token\"",
        };
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(bearer));
    }
    if needs.takes_password() {
        let basic = HeaderValue::from_static("Basic realm=\"odometer\", charset=\"UTF-8\"");
        headers.append(WWW_AUTHENTICATE, basic);
    }
}

/// Adds the `RateLimit` headers of draft-ietf-httpapi-ratelimit-headers.
pub fn rate_limit(headers: &mut HeaderMap, scope: &str, decision: &Decision) {
    let policy = format!("\"{scope}\";q={};w={}", decision.limit.burst, decision.window_s());
    let state = format!("\"{scope}\";r={};t={}", decision.remaining, decision.reset_s());
    insert(headers, HeaderName::from_static("ratelimit-policy"), policy);
    insert(headers, HeaderName::from_static("ratelimit"), state);
}

/// With the entity tag of this state.
#[must_use]
pub fn tagged(mut answer: Answer, version: Version) -> Answer {
    insert(answer.headers_mut(), ETAG, etag(version));
    answer
}

/// With the path of what was created.
#[must_use]
pub fn located(mut answer: Answer, path: String) -> Answer {
    insert(answer.headers_mut(), LOCATION, path);
    answer
}

/// With a word about it, if it was given before.
#[must_use]
pub fn replayed(mut answer: Answer, replayed: bool) -> Answer {
    if replayed {
        answer.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    answer
}

/// What is no JSON:API document, as it stands.
#[must_use]
pub fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    typed(status, HeaderValue::from_static(content_type), body)
}

/// A JSON:API document of these bytes.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, JSON_API, body)
}

fn typed(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// All texts that come here are visible ASCII.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}
