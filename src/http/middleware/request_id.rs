//! Request ids and W3C trace context.
//!
//! Job: take valid ones from the client's headers, make what is missing. Invariant: an id that is
//! taken is visible ASCII and short; one that is made was never made before.
//! Must never: keep anything of a header whose value is not valid; it is discarded.

use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use data_encoding::HEXLOWER;

use crate::auth::key::PREFIX;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The request's id: the client's own, if it sent a valid one, or a new one.
pub(super) fn request_id(headers: &HeaderMap) -> String {
    let sent = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_short = |id: &str| (1..=MAX_REQUEST_ID_BYTES).contains(&id.len());
    // A key in the wrong header must not end in a log.
    let is_valid = |id: &&str| {
        is_short(id) && id.bytes().all(|b| b.is_ascii_graphic()) && !id.contains(PREFIX)
    };
    sent.filter(is_valid).map_or_else(new_request_id, str::to_owned)
}

/// An id for a request that has none of its own.
pub fn new_request_id() -> String {
    HEXLOWER.encode(&next_id().to_be_bytes())
}

/// A number that no other call in any process returns: 64 random bits of the process, then a count.
fn next_id() -> u128 {
    static PROCESS: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(|| {
        let mut bytes = [0; 8];
        // Without random bytes TLS would not have started; an id is only a name.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    });
    u128::from(*process) << 64 | u128::from(COUNT.fetch_add(1, Ordering::Relaxed))
}

/// As [`next_id`], in 64 bits: an odd multiplier keeps counts apart.
fn span_id() -> u64 {
    let (process, count) = (next_id() >> 64, next_id() & u128::from(u64::MAX));
    let [process, count] = [process, count].map(|half| u64::try_from(half).unwrap_or(1));
    process ^ count.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A W3C trace context that came along, with a span of ours.
pub(super) struct TraceContext {
    text: String,
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
        let proper = lengths && hex(trace) && hex(parent) && hex(flags) && parts.next().is_none();
        if !proper || trace.bytes().all(|b| b == b'0') || parent.bytes().all(|b| b == b'0') {
            return None;
        }
        let span = span_id();
        Some(Self { text: format!("00-{trace}-{span:016x}-{flags}") })
    }

    pub(super) fn id(&self) -> &str {
        self.text.get(3..35).unwrap_or_default()
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.text).ok()
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
    fn a_proper_request_id_is_kept_and_another_replaced() {
        assert_eq!(request_id(&headers(X_REQUEST_ID, "abc-123")), "abc-123");
        for bad in ["", "a b", &"x".repeat(129), "odo_5fbfa5948d5fa1ea_d9c3", "id-odo_5"] {
            assert_eq!(request_id(&headers(X_REQUEST_ID, bad)).len(), 32);
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn a_proper_trace_is_carried_on_with_a_span_of_ours() {
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceContext::from_headers(&headers(TRACEPARENT, sent)).unwrap();
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(
            trace.text.ends_with("-01") && trace.text.len() == sent.len() && trace.text != sent
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
