//! The headers of every response.
//!
//! Job: [`add_common_headers`].
//! Invariant: a response may be cached only if its handler says so; the response to a request with
//! a trace context has one too.
//! Must never: send `Strict-Transport-Security` over plain HTTP.

use actix_web::http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY};

use super::request_id::{TRACEPARENT, TraceContext, X_REQUEST_ID};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const A_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds `Cache-Control`, `X-Request-Id`, `traceparent` and `Strict-Transport-Security`.
pub(super) fn add_common_headers(
    headers: &mut HeaderMap,
    id: &str,
    trace: Option<&TraceContext>,
    is_https: bool,
) {
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, NO_STORE);
    }
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID, value);
    }
    if let Some(value) = trace.and_then(TraceContext::header) {
        headers.insert(TRACEPARENT, value);
    }
    if is_https {
        headers.insert(STRICT_TRANSPORT_SECURITY, A_YEAR);
    }
}
