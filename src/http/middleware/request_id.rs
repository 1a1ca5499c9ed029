//! Request ids and W3C trace context.
//!
//! Job: accept valid ids from the client's headers, generate missing ones.
//! Invariant: an accepted id is short and visible ASCII; a generated one is unique.
//! Must never: keep any part of an invalid header; it is discarded.

use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use data_encoding::HEXLOWER;

use crate::auth::key::PREFIX;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The request's id: the client's, if it is valid, or a new one.
pub(super) fn request_id(headers: &HeaderMap) -> String {
    let sent = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_short = |id: &str| (1..=MAX_REQUEST_ID_BYTES).contains(&id.len());
    // An API key in the wrong header must not get into the log.
    let is_valid = |id: &&str| {
        is_short(id) && id.bytes().all(|b| b.is_ascii_graphic()) && !id.contains(PREFIX)
    };
    sent.filter(is_valid).map_or_else(new_request_id, str::to_owned)
}

/// Generates a request id.
pub fn new_request_id() -> String {
    HEXLOWER.encode(&next_id().to_be_bytes())
}

/// A number that no other call in any process returns: 64 random bits of the process and a counter.
fn next_id() -> u128 {
    static PROCESS: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(|| {
        let mut bytes = [0; 8];
        // Without random bytes TLS would not have started, and an id is no secret.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    });
    u128::from(*process) << 64 | u128::from(COUNT.fetch_add(1, Ordering::Relaxed))
}

/// As [`next_id`], in 64 bits: multiplication by an odd number maps different counts to different
/// values.
fn span_id() -> u64 {
    let (process, count) = (next_id() >> 64, next_id() & u128::from(u64::MAX));
    let [process, count] = [process, count].map(|half| u64::try_from(half).unwrap_or(1));
    process ^ count.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The client's W3C trace context, with a new span id.
pub(super) struct TraceContext {
    traceparent: String,
}

impl TraceContext {
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let sent = headers.get(TRACEPARENT)?.to_str().ok()?;
        let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = sent.split('-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths =
            version == "00" && trace.len() == 32 && parent.len() == 16 && flags.len() == 2;
        let is_valid = lengths && hex(trace) && hex(parent) && hex(flags) && parts.next().is_none();
        if !is_valid || trace.bytes().all(|b| b == b'0') || parent.bytes().all(|b| b == b'0') {
            return None;
        }
        let span = span_id();
        Some(Self { traceparent: format!("00-{trace}-{span:016x}-{flags}") })
    }

    pub(super) fn id(&self) -> &str {
        self.traceparent.get(3..35).unwrap_or_default()
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.traceparent).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn a_valid_request_id_is_kept_and_an_invalid_one_replaced() {
        assert_eq!(request_id(&headers(X_REQUEST_ID, "abc-123")), "abc-123");
        for bad in ["", "a b", &"x".repeat(129), "odo_5fbfa5948d5fa1ea_d9c3", "id-odo_5"] {
            assert_eq!(request_id(&headers(X_REQUEST_ID, bad)).len(), 32);
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn a_valid_trace_context_is_continued_with_a_new_span() {
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceContext::from_headers(&headers(TRACEPARENT, sent)).unwrap();
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(
            trace.traceparent.ends_with("-01")
                && trace.traceparent.len() == sent.len()
                && trace.traceparent != sent
        );
        for bad in [
            "",
            "00",
            "00-0-0-0",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert!(TraceContext::from_headers(&headers(TRACEPARENT, bad)).is_none(), "{bad}");
        }
    }
}
