//! By which names a request is found again: its own id, and the trace that it is part of.
//!
//! Job: take proper ones from the client's headers, make what is missing. Invariant: an id that is taken is visible ASCII and short; one that is made was
//! never made before. Must never: keep anything of a header that is not proper.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::key::PREFIX;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The request's id: the client's own, if it sent a proper one, or a new one.
pub(super) struct RequestId(String);

impl RequestId {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let is_short = |id: &str| (1..=MAX_REQUEST_ID_BYTES).contains(&id.len());
        // A key in the wrong header must not end in a log.
        let proper = |id: &&str| is_short(id) && id.bytes().all(|b| b.is_ascii_graphic()) && !id.contains(PREFIX);
        sent.filter(proper).map_or_else(Self::new, |id| Self(id.to_owned()))
    }

    pub(super) fn new() -> Self {
        Self(new_request_id())
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

/// An id for a request that has none of its own.
pub(super) fn new_request_id() -> String {
    format!("{:032x}", unique())
}

/// A number that no other call in any process returns: 64 random bits of the process, then a count.
fn unique() -> u128 {
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

/// As [`unique`], in 64 bits: an odd multiplier keeps counts apart.
fn span_id() -> u64 {
    let (process, count) = (unique() >> 64, unique() & u128::from(u64::MAX));
    let [process, count] = [process, count].map(|half| u64::try_from(half).unwrap_or(1));
    process ^ count.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A W3C trace context that came along, with a span of ours.
pub(super) struct Trace {
    text: String,
}

impl Trace {
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let sent = headers.get(TRACEPARENT)?.to_str().ok()?;
        let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = sent.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = version == "00" && trace.len() == 32 && parent.len() == 16 && flags.len() == 2;
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
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_proper_request_id_is_kept_and_another_replaced() {
        assert_eq!(RequestId::of(&headers(X_REQUEST_ID, "abc-123")).text(), "abc-123");
        for bad in ["", "a b", &"x".repeat(129), "odo_5fbfa5948d5fa1ea_d9c3", "id-odo_5"] {
            assert_eq!(RequestId::of(&headers(X_REQUEST_ID, bad)).text().len(), 32);
        }
        assert_ne!(RequestId::of(&HeaderMap::new()).text(), RequestId::of(&HeaderMap::new()).text());
    }

    #[test]
    fn a_proper_trace_is_carried_on_with_a_span_of_ours() {
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::of(&headers(TRACEPARENT, sent)).unwrap();
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(trace.text.ends_with("-01") && trace.text.len() == sent.len() && trace.text != sent);
        for bad in [
            "",
            "00",
            "00-0-0-0",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert!(Trace::of(&headers(TRACEPARENT, bad)).is_none(), "{bad}");
        }
    }
}
