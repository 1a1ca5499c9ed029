//! The one middleware: around every request, whichever way it came.
//!
//! Job: give the request an id and a place in its trace, find the client's address, call the API, and tell metrics and log the same values. A panic in a
//! handler becomes a 500 and is counted.
//! Invariant: one access event and one sample for each request that was answered. Label values are bounded; the tenant is a log field.
//! Must never: let a path, query, key or body into log or metric.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::{Method, Request, Version};

use super::network::Network;
use crate::api::document::{self, Answer};
use crate::api::error::ApiError;
use crate::api::route::{Listener, PATTERNS};
use crate::api::{Account, Api, Change, Noted};
use crate::telemetry::{METHODS, Metrics, method_index};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// What requests are observed with; one for each listener and worker.
#[derive(Clone)]
pub struct Observer {
    /// Where they go.
    pub api: Api,
    /// Where they are counted.
    pub metrics: Metrics,
    /// Which listener they come from.
    pub listener: Listener,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: std::sync::Arc<[Network]>,
}

impl Observer {
    /// Answers one request. `refusal`: what the connection already found wrong with it.
    pub async fn answer(&self, peer: IpAddr, request: Request<Incoming>, refusal: Option<ApiError>) -> Answer {
        let start = Instant::now();
        let client = self.client_address(peer, request.headers());
        let id = RequestId::of(request.headers());
        let trace = Trace::of(request.headers());
        let is_head = *request.method() == Method::HEAD;
        let method = method_index(request.method().as_str());
        let version = request.version();
        let mut account = Account::default();
        let answered = match refusal {
            Some(error) => {
                account.error = Some((error.row().code, None));
                Ok(document::error(&error, id.text()))
            }
            None => {
                let answer = self.api.answer(self.listener, client, id.text(), request, &mut account);
                AssertUnwindSafe(answer).catch_unwind().await
            }
        };
        let mut answer = answered.unwrap_or_else(|_| {
            self.metrics.exception("panic");
            let error = ApiError::Internal("a handler panicked".into());
            account.error = Some((error.row().code, error.cause().map(Into::into)));
            document::error(&error, id.text())
        });
        if is_head {
            // HTTP/2 must send no body here; the length stays what GET would say.
            let length = answer.body().size_hint().exact().unwrap_or(0);
            answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            *answer.body_mut() = Full::default();
        }
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(value) = HeaderValue::from_str(id.text()) {
            headers.insert(X_REQUEST_ID, value);
        }
        if let Some(value) = trace.as_ref().and_then(Trace::header) {
            headers.insert(TRACEPARENT, value);
        }
        if self.listener == Listener::Public {
            headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        }
        self.tell(&Told {
            start,
            client,
            id: &id,
            trace: trace.as_ref(),
            method,
            version,
            account: &account,
            status: answer.status().as_u16(),
        });
        answer
    }

    fn tell(&self, told: &Told<'_>) {
        let duration = told.start.elapsed();
        let account = told.account;
        self.metrics.http(account.label, told.method, told.status, duration);
        for noted in &account.noted {
            match noted {
                Noted::AuthFailure(reason) => self.metrics.auth_failure(reason),
                Noted::RateLimited(scope) => self.metrics.rate_limited(scope),
                Noted::Changed(change) => tell_change(*change, told),
            }
        }
        let (code, cause) = match &account.error {
            Some((code, cause)) => (Some(*code), cause.as_deref()),
            None => (None, None),
        };
        if let Some(cause) = cause {
            self.metrics.exception("internal");
            tracing::error!(
                event.action = "request-failed",
                error.code = code,
                error.message = cause,
                http.request.id = told.id.text(),
                "a request failed inside the server"
            );
        }
        let outcome = if told.status < 500 { "success" } else { "failure" };
        let version = if told.version == Version::HTTP_2 { "2" } else { "1.1" };
        tracing::info!(
            target: "odometer::access",
            {
                event.action = "request",
                event.outcome = outcome,
                event.duration = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
                http.request.method = METHODS[told.method],
                http.request.id = told.id.text(),
                http.response.status_code = told.status,
                http.version = version,
                url.path = PATTERNS[account.label],
                client.ip = tracing::field::display(told.client),
                trace.id = told.trace.map(Trace::id),
                organization.id = account.tenant.map(tracing::field::display),
                error.code = code,
            },
            "request"
        );
    }

    /// The address of the one who asks: the last address in `X-Forwarded-For` that no trusted proxy wrote, if a trusted proxy sent it.
    fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let trusted = |address: IpAddr| self.trusted_proxies.iter().any(|network| network.contains(address));
        let mut client = peer.to_canonical();
        if self.trusted_proxies.is_empty() {
            return client;
        }
        let lines: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            if !trusted(client) {
                break;
            }
            match hop.trim().parse::<IpAddr>() {
                Ok(address) => client = address.to_canonical(),
                Err(_) => break,
            }
        }
        client
    }
}

/// The audit's line: who may do what was changed, by whom and which key, never a secret.
fn tell_change(change: Change, told: &Told<'_>) {
    let (action, key, revoked) = match change {
        Change::KeyCreated(key) => ("key-created", Some(key), None),
        Change::KeyRevoked(key) => ("key-revoked", Some(key), None),
        Change::PasswordChanged { revoked } => ("password-changed", None, Some(revoked)),
        Change::TenantRegistered(key) => ("tenant-registered", Some(key), None),
        Change::TenantDeleted => ("tenant-deleted", None, None),
    };
    tracing::info!(
        event.action = action,
        event.outcome = "success",
        http.request.id = told.id.text(),
        client.ip = tracing::field::display(told.client),
        organization.id = told.account.tenant.map(tracing::field::display),
        odometer.key_id = key.map(tracing::field::display),
        odometer.keys_revoked = revoked,
        "who may do what was changed"
    );
}

struct Told<'a> {
    start: Instant,
    client: IpAddr,
    id: &'a RequestId,
    trace: Option<&'a Trace>,
    method: usize,
    version: Version,
    account: &'a Account,
    status: u16,
}

/// The request's id: the client's own, if it sent a proper one, or a new one.
struct RequestId(String);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let proper =
            |id: &&str| !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES && id.bytes().all(|b| b.is_ascii_graphic());
        sent.filter(proper).map_or_else(|| Self(new_request_id()), |id| Self(id.to_owned()))
    }

    fn text(&self) -> &str {
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
struct Trace {
    text: String,
}

impl Trace {
    fn of(headers: &HeaderMap) -> Option<Self> {
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

    fn id(&self) -> &str {
        self.text.get(3..35).unwrap_or_default()
    }

    fn header(&self) -> Option<HeaderValue> {
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
        for bad in ["", "a b", &"x".repeat(129)] {
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
