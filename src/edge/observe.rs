//! The one middleware: around every request, whichever way it came.
//!
//! Job: give the request an id and a place in its trace, find the client's address, call the API, and tell metrics and log the same values. A panic in a
//! handler becomes a 500 and is counted.
//! Invariant: one access event, unless successes are sampled, and one sample for each request that was answered. Label values are bounded; the tenant is
//! a log field.
//! Must never: let a path, query, key or body into log or metric.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::{Method, Request, Version};
use ipnet::IpNet;
use tokio::sync::mpsc::Sender;

use super::ids::{RequestId, TRACEPARENT, Trace, X_REQUEST_ID, new_request_id};
use super::plain;
use crate::api::document::{self, Answer};
use crate::api::error::ApiError;
use crate::api::route::{Listener, PATTERNS, is_audited};
use crate::api::{Account, Api, Change, Noted};
use crate::telemetry::{AUTH_FAILURE_REASONS, METHODS, Metrics, Seldom, auth_failure_index, method_index};

/// As nginx says it: the client closed the connection before there was an answer. Nobody was sent this.
const CLIENT_GONE: u16 = 499;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

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
    pub trusted_proxies: Arc<[IpNet]>,
    /// What is told of them.
    pub telling: Arc<Telling>,
    /// Held as long as something is answered; a drain waits until nobody holds it.
    pub alive: Option<Sender<()>>,
}

/// What all observers tell together.
#[derive(Debug)]
pub struct Telling {
    /// One of so many successful requests has an access event; `None` for none of them. Refused and failed ones always have one.
    sample: Option<u64>,
    succeeded: AtomicU64,
    auth_failures: [Seldom; AUTH_FAILURE_REASONS.len()],
}

impl Telling {
    /// Tells of one of `sample` successful requests, or of none.
    #[must_use]
    pub fn new(sample: Option<u64>) -> Self {
        let auth_failures = [const { Seldom::new() }; AUTH_FAILURE_REASONS.len()];
        Self { sample, succeeded: AtomicU64::new(0), auth_failures }
    }

    /// Whether a request that was answered so is told, and for how many it stands if that is more than itself.
    fn stands_for(&self, status: u16) -> Option<Option<u64>> {
        match self.sample {
            Some(1) => Some(None),
            _ if status >= 400 => Some(None),
            Some(sample) => {
                // Spread, so that clients who take turns do not fall into step with it: the golden ratio's multiples lie evenly.
                let number = self.succeeded.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                (number >> 32).is_multiple_of(sample).then_some(Some(sample))
            }
            None => None,
        }
    }
}

impl Observer {
    /// Answers one request. `refusal`: what the connection already found wrong with it.
    pub async fn answer(&self, peer: IpAddr, request: Request<Incoming>, refusal: Option<ApiError>) -> Answer {
        if refusal.is_some() || !is_audited(request.method(), request.uri().path()) {
            return self.answer_here(peer, request, refusal).await;
        }
        // A peer that hangs up ends the future that answers it. The change may be made all the same, and then it has to be told: so it has a task of its
        // own, and a drain waits for it as for a connection.
        let own = self.clone();
        let answered = tokio::spawn(async move { own.answer_here(peer, request, None).await }).await;
        answered.unwrap_or_else(|_| document::error(&ApiError::Internal("a task ended".into()), &new_request_id()))
    }

    async fn answer_here(&self, peer: IpAddr, request: Request<Incoming>, refusal: Option<ApiError>) -> Answer {
        let mut pending = Pending::new(self, self.see(peer, &request));
        let Pending { seen, account, .. } = &mut pending;
        let answered = match refusal {
            Some(error) => {
                account.error = Some((error.row().code, None));
                Ok(document::error(&error, seen.id.text()))
            }
            None => {
                let answer = self.api.answer(self.listener, seen.client, seen.id.text(), request, account);
                AssertUnwindSafe(answer).catch_unwind().await
            }
        };
        let answer = answered.unwrap_or_else(|_| {
            self.metrics.exception("panic");
            let error = ApiError::Internal("a handler panicked".into());
            account.error = Some((error.row().code, error.cause().map(Into::into)));
            document::error(&error, seen.id.text())
        });
        pending.finish(answer)
    }

    /// Answers one request of the plain HTTP port; `https_port` is where HTTPS is.
    pub(super) fn redirect(&self, peer: IpAddr, request: &Request<Incoming>, https_port: u16) -> Answer {
        let mut pending = Pending::new(self, self.see(peer, request));
        let answer = plain::answer(request, https_port).unwrap_or_else(|error| pending.refuse(&error));
        pending.finish(answer)
    }

    /// The document for a head that could not be read, `detail` says why: its id, and a body without anything of the head.
    pub(super) fn malformed(&self, peer: IpAddr, detail: &'static str) -> (String, Answer) {
        let seen = Seen {
            start: Instant::now(),
            client: peer.to_canonical(),
            id: RequestId::new(),
            trace: None,
            is_head: false,
            method: method_index(""),
            version: Version::HTTP_11,
        };
        let mut pending = Pending::new(self, seen);
        let answer = pending.refuse(&ApiError::MalformedRequest(detail));
        (pending.seen.id.text().to_owned(), pending.finish(answer))
    }

    fn see(&self, peer: IpAddr, request: &Request<Incoming>) -> Seen {
        Seen {
            start: Instant::now(),
            client: self.client_address(peer, request.headers()),
            id: RequestId::of(request.headers()),
            trace: Trace::of(request.headers()),
            is_head: *request.method() == Method::HEAD,
            method: method_index(request.method().as_str()),
            version: request.version(),
        }
    }

    /// What every answer has.
    fn dress(&self, seen: &Seen, answer: &mut Answer) {
        if seen.is_head {
            // HTTP/2 must send no body here; the length stays what GET would say.
            let length = answer.body().size_hint().exact().unwrap_or(0);
            answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            *answer.body_mut() = Full::default();
        }
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(value) = HeaderValue::from_str(seen.id.text()) {
            headers.insert(X_REQUEST_ID, value);
        }
        if let Some(value) = seen.trace.as_ref().and_then(Trace::header) {
            headers.insert(TRACEPARENT, value);
        }
        if self.listener == Listener::Public {
            headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        }
    }

    fn tell(&self, seen: &Seen, account: &Account, status: u16) {
        let duration = seen.start.elapsed();
        self.metrics.http(account.label, seen.method, status, duration);
        for noted in &account.noted {
            match noted {
                Noted::AuthFailure(reason) => {
                    self.metrics.auth_failure(reason);
                    self.tell_auth_failure(reason, seen, account);
                }
                Noted::RateLimited(scope) => self.metrics.rate_limited(scope),
                Noted::Changed(change) => tell_change(*change, seen, account),
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
                event.outcome = "failure",
                error.code = code,
                error.message = cause,
                http.request.id = seen.id.text(),
                "a request failed inside the server"
            );
        }
        let Some(stands_for) = self.telling.stands_for(status) else { return };
        tracing::info!(
            target: "odometer::access",
            {
                event.action = "request",
                event.outcome = outcome(status),
                event.duration = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
                http.request.method = METHODS[seen.method],
                http.request.id = seen.id.text(),
                http.response.status_code = status,
                http.version = version(seen.version),
                url.path = PATTERNS[account.label],
                client.ip = tracing::field::display(seen.client),
                trace.id = seen.trace.as_ref().map(Trace::id),
                organization.id = account.tenant.map(tracing::field::display),
                error.code = code,
                odometer.sampled = stands_for,
            },
            "request"
        );
    }

    /// Of one reason, one event a second: somebody who guesses must not fill the disk.
    fn tell_auth_failure(&self, reason: &'static str, seen: &Seen, account: &Account) {
        let gate = auth_failure_index(reason).and_then(|at| self.telling.auth_failures.get(at));
        let Some(kept_back) = gate.and_then(Seldom::pass) else { return };
        tracing::warn!(
            event.action = "auth-failure",
            event.outcome = "failure",
            event.reason = reason,
            http.request.id = seen.id.text(),
            url.path = PATTERNS[account.label],
            client.ip = tracing::field::display(seen.client),
            organization.id = account.tenant.map(tracing::field::display),
            odometer.kept_back = kept_back,
            "credentials were refused"
        );
    }

    /// The address of the one who asks: the last address in `X-Forwarded-For` that no trusted proxy wrote, if a trusted proxy sent it.
    fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if self.trusted_proxies.is_empty() {
            return client;
        }
        let lines: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            if !contains(&self.trusted_proxies, client) {
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

/// Whether an address is in one of these networks. An IPv4 address that a dual-stack socket reports
/// mapped into IPv6 (`::ffff:10.0.0.1`) counts as the IPv4 address it is.
fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// The audit's line: who may do what was changed, by whom and which key, never a secret.
fn tell_change(change: Change, seen: &Seen, account: &Account) {
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
        http.request.id = seen.id.text(),
        client.ip = tracing::field::display(seen.client),
        organization.id = account.tenant.map(tracing::field::display),
        odometer.key_id = key.map(tracing::field::display),
        odometer.keys_revoked = revoked,
        "who may do what was changed"
    );
}

/// A request from its head to its answer. One whose peer goes away in between is told as such.
struct Pending<'a> {
    observer: &'a Observer,
    seen: Seen,
    account: Account,
    is_told: bool,
}

impl<'a> Pending<'a> {
    fn new(observer: &'a Observer, seen: Seen) -> Self {
        Self { observer, seen, account: Account::default(), is_told: false }
    }

    fn refuse(&mut self, error: &ApiError) -> Answer {
        self.account.error = Some((error.row().code, None));
        document::error(error, self.seen.id.text())
    }

    fn finish(mut self, mut answer: Answer) -> Answer {
        self.observer.dress(&self.seen, &mut answer);
        self.observer.tell(&self.seen, &self.account, answer.status().as_u16());
        self.is_told = true;
        answer
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        self.account.error.get_or_insert(("client_gone", None));
        self.observer.tell(&self.seen, &self.account, CLIENT_GONE);
    }
}

fn outcome(status: u16) -> &'static str {
    match status {
        CLIENT_GONE => "unknown",
        500.. => "failure",
        _ => "success",
    }
}

/// What is known of a request before it is answered.
struct Seen {
    start: Instant,
    client: IpAddr,
    id: RequestId,
    trace: Option<Trace>,
    is_head: bool,
    /// In [`METHODS`].
    method: usize,
    version: Version,
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_follows_the_prefix() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.168.1.7/32", "192.168.1.7", "192.168.1.8"),
            ("10.1.2.128/25", "10.1.2.129", "10.1.2.127"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1/128", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
            ("::/0", "2001:db8::1", "8.8.8.8"),
        ] {
            let network = [text.parse().unwrap()];
            assert!(contains(&network, inside.parse().unwrap()), "{inside} in {text}");
            assert!(!contains(&network, outside.parse().unwrap()), "{outside} not in {text}");
        }
        assert!(!contains(&[], IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn refusals_are_always_told_and_of_the_rest_one_in_so_many() {
        for (sample, success) in [(Some(1), Some(None)), (None, None)] {
            let telling = Telling::new(sample);
            assert_eq!([200, 204, 308].map(|status| telling.stands_for(status)), [success; 3]);
            assert_eq!([400, 429, 499, 503].map(|status| telling.stands_for(status)), [Some(None); 4]);
        }
        // Two clients who take turns: of each one in ten.
        let telling = Telling::new(Some(10));
        let told: Vec<bool> = (0..10_000).map(|_| telling.stands_for(200) == Some(Some(10))).collect();
        for client in [0, 1] {
            let own = told.iter().skip(client).step_by(2).filter(|told| **told).count();
            assert!((450..=550).contains(&own), "{own} of 5,000");
        }
        assert_eq!(telling.stands_for(404), Some(None));
    }
}
