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

use super::ids::{RequestId, TRACEPARENT, Trace, X_REQUEST_ID};
use super::network::Network;
use super::plain;
use crate::api::document::{self, Answer};
use crate::api::error::ApiError;
use crate::api::route::{Listener, PATTERNS};
use crate::api::{Account, Api, Change, Noted};
use crate::telemetry::{AUTH_FAILURE_REASONS, METHODS, Metrics, Seldom, auth_failure_index, method_index};

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
    pub trusted_proxies: Arc<[Network]>,
    /// What is told of them.
    pub telling: Arc<Telling>,
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
                self.succeeded.fetch_add(1, Ordering::Relaxed).is_multiple_of(sample).then_some(Some(sample))
            }
            None => None,
        }
    }
}

impl Observer {
    /// Answers one request. `refusal`: what the connection already found wrong with it.
    pub async fn answer(&self, peer: IpAddr, request: Request<Incoming>, refusal: Option<ApiError>) -> Answer {
        let seen = self.see(peer, &request);
        let mut account = Account::default();
        let answered = match refusal {
            Some(error) => {
                account.error = Some((error.row().code, None));
                Ok(document::error(&error, seen.id.text()))
            }
            None => {
                let answer = self.api.answer(self.listener, seen.client, seen.id.text(), request, &mut account);
                AssertUnwindSafe(answer).catch_unwind().await
            }
        };
        let answer = answered.unwrap_or_else(|_| {
            self.metrics.exception("panic");
            let error = ApiError::Internal("a handler panicked".into());
            account.error = Some((error.row().code, error.cause().map(Into::into)));
            document::error(&error, seen.id.text())
        });
        self.finish(&seen, &account, answer)
    }

    /// Answers one request of the plain HTTP port; `https_port` is where HTTPS is.
    pub(super) fn redirect(&self, peer: IpAddr, request: &Request<Incoming>, https_port: u16) -> Answer {
        let seen = self.see(peer, request);
        let mut account = Account::default();
        let answer = plain::answer(request, https_port).unwrap_or_else(|error| {
            account.error = Some((error.row().code, None));
            document::error(&error, seen.id.text())
        });
        self.finish(&seen, &account, answer)
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

    /// What every answer has, and what is told of it.
    fn finish(&self, seen: &Seen, account: &Account, mut answer: Answer) -> Answer {
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
        self.tell(seen, account, answer.status().as_u16());
        answer
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
                event.outcome = if status < 500 { "success" } else { "failure" },
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

    fn told(telling: &Telling, statuses: [u16; 8]) -> Vec<Option<Option<u64>>> {
        statuses.map(|status| telling.stands_for(status)).into()
    }

    #[test]
    fn refusals_are_always_told_and_of_the_rest_one_in_so_many() {
        let statuses = [200, 200, 404, 201, 500, 204, 200, 308];
        assert_eq!(told(&Telling::new(Some(1)), statuses), [Some(None); 8]);
        let (all, third) = (Some(None), Some(Some(3)));
        assert_eq!(told(&Telling::new(Some(3)), statuses), [third, None, all, None, all, third, None, None]);
        assert_eq!(told(&Telling::new(None), statuses), [None, None, all, None, all, None, None, None]);
    }
}
