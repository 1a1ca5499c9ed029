//! The headers that every response has.
//!
//! Job: [`add_common_headers`]. Invariant: nothing is cached that a handler does
//! not allow to be; a request that had a trace is answered with it.
//! Must never: promise HTTPS over plain HTTP (`Strict-Transport-Security`).

use actix_web::http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY};

use super::request_id::{TRACEPARENT, TraceContext, X_REQUEST_ID};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const A_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds them.
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
