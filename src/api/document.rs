//! JSON:API documents: the bytes of every answer.
//!
//! Job: [`integer`], [`user`], [`text`] and [`error()`] make the response of a handler. Invariant: each is complete JSON:API; answers to increments are written without a
//! tree of values, since they are most of all answers.
//! Must never: put a text into JSON without escaping it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

use super::error::{ApiError, Source};
use crate::auth::AuthFailure;
use crate::auth::throttle::Decision;
use crate::counter::Value;
use crate::tenant::TenantId;

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// JSON:API's media type.
pub const JSON_API: HeaderValue = HeaderValue::from_static("application/vnd.api+json");

/// The counter's value, as the old application answered it.
#[must_use]
pub fn integer(tenant: TenantId, value: Value) -> Answer {
    let body = format!(
        r#"{{"data":{{"id":"{tenant}","type":"user_integer","attributes":{{"value":{value}}}}},"jsonapi":{{"version":"1.0"}}}}"#
    );
    json(StatusCode::OK, body)
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
    let document = serde_json::json!({ "errors": [member], "jsonapi": { "version": "1.0" } });
    let mut answer = json(row.status, document.to_string());
    let headers = answer.headers_mut();
    match error {
        ApiError::MethodNotAllowed(allow) => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        ApiError::Unauthenticated(failure) => {
            let challenge = match failure {
                AuthFailure::Missing => "Bearer realm=\"odometer\"",
                _ => "Bearer realm=\"odometer\", error=\"invalid_token\"",
            };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        _ => {}
    }
    if let Some(wait) = error.retry_after() {
        // Rounded up: who comes back at that second is served.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    answer
}

/// Adds the `RateLimit` headers of draft-ietf-httpapi-ratelimit-headers.
pub fn rate_limit(headers: &mut HeaderMap, scope: &str, decision: &Decision) {
    let policy = format!("\"{scope}\";q={};w={}", decision.limit.burst, decision.window_s());
    let state = format!("\"{scope}\";r={};t={}", decision.remaining, decision.reset_s());
    for (name, text) in [("ratelimit-policy", policy), ("ratelimit", state)] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Plain text, for the operators' routes.
#[must_use]
pub fn text(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn json(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON_API);
    answer
}
