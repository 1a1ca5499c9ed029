//! Access log and request metrics: the middleware around every request.
//!
//! Job: [`observe`]: give the request an id and a place in its trace, find the client's address,
//! call the App, and tell metrics and log the same values. A panic in a handler becomes a 500 and is
//! counted; an error becomes its document here, since here its id is known.
//! Invariant: one access event, unless successes are sampled, and one sample for each request that
//! was answered; those of the admin socket have neither. Label values are bounded; the tenant is a log field.
//! Must never: let a path, query, key or body into log or metric.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, Version};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse};
use futures_util::FutureExt;
use ipnet::IpNet;

use super::audit;
use super::client_ip::client_address;
use super::headers::add_common_headers;
use super::request_id::{TraceContext, new_request_id, request_id};
use crate::http::context::{RequestContext, RequestOutcome, SecurityEvent};
use crate::http::error::ApiError;
use crate::http::jsonapi;
use crate::http::route_table::{RouteTable, UNMATCHED};
use crate::telemetry::{
    AUTH_FAILURE_REASONS, LogThrottle, METHODS, Metrics, auth_failure_index, method_index,
};

/// As nginx says it: the client closed the connection before there was a response. Nobody is sent
/// this.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// Why a head is refused that is larger than is allowed.
pub const HEAD_TOO_LARGE: &str = "the request's head is too large: 128 headers and 32 KiB at most";

/// Which listener a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// HTTPS, for tenants.
    Public,
    /// Plain HTTP that redirects there.
    Redirect,
    /// Plain HTTP, for the operators' tools.
    Ops,
    /// The socket in the data folder, for operators. Their requests are no traffic: only what fails
    /// inside the server is told, and the audit's events.
    Admin,
}

/// What the requests of one App are observed with.
pub struct Observer {
    /// Where they are counted.
    pub metrics: Metrics,
    /// The labels of routes.
    pub routes: &'static RouteTable,
    /// Which listener they come from.
    pub listener: Listener,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Which of them are logged.
    pub sampler: Arc<AccessLogSampler>,
    /// The address that was logged last, and its text: the next request is often of the same client.
    pub last_client: RefCell<(IpAddr, Rc<str>)>,
}

/// What all observers share.
#[derive(Debug)]
pub struct AccessLogSampler {
    /// One of so many successful requests has an access event; `None` for none of them. Refused and
    /// failed ones always have one.
    sample: Option<u64>,
    succeeded: AtomicU64,
    auth_failures: [LogThrottle; AUTH_FAILURE_REASONS.len()],
}

impl AccessLogSampler {
    /// Logs one of `sample` successful requests, or none.
    #[must_use]
    pub fn new(sample: Option<u64>) -> Self {
        let auth_failures = [const { LogThrottle::new() }; AUTH_FAILURE_REASONS.len()];
        Self { sample, succeeded: AtomicU64::new(0), auth_failures }
    }

    /// Whether a request with this status is logged, and its weight if that is more than one.
    fn sample_weight(&self, status: u16) -> Option<Option<u64>> {
        match self.sample {
            Some(1) => Some(None),
            _ if status >= 400 => Some(None),
            Some(sample) => {
                // Spread, so that clients who take turns do not fall into step with it: the golden
                // ratio's multiples lie evenly.
                let number = self
                    .succeeded
                    .fetch_add(1, Ordering::Relaxed)
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15);
                (number >> 32).is_multiple_of(sample).then_some(Some(sample))
            }
            None => None,
        }
    }
}

/// What a connection found wrong with a request before the App was asked.
#[derive(Clone, Debug)]
pub struct Rejected(pub ApiError);

/// What is known of a request before it is answered.
struct RequestMeta {
    start: Instant,
    trace: Option<TraceContext>,
    /// In [`METHODS`].
    method: usize,
    version: Version,
}

/// Observes one request.
///
/// # Errors
/// A panic of its handler, as the response to it.
pub async fn observe(
    observer: Rc<Observer>,
    mut req: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, Error> {
    let (meta, context) = observer.inspect(&req);
    let in_flight = InFlightRequest {
        observer: &observer,
        meta,
        context: Rc::clone(&context),
        is_recorded: false,
    };
    let rejected = req.extensions_mut().remove::<Rejected>();
    if let Some(Rejected(rejection)) = rejected {
        let response = in_flight.finish(HttpResponse::from_error(rejection));
        return Ok(req.into_response(response));
    }
    if *req.method() == Method::HEAD {
        // Answered as GET is; the bridge leaves the body out.
        req.head_mut().method = Method::GET;
    }
    req.extensions_mut().insert(Rc::clone(&context));
    let answered = AssertUnwindSafe(next.call(req)).catch_unwind().await;
    match answered {
        Ok(Ok(response)) => {
            let (req, response) = response.into_parts();
            if context.route.get() == UNMATCHED {
                context.route.set(observer.routes.label(&req));
            }
            Ok(ServiceResponse::new(req, in_flight.finish(response)))
        }
        Ok(Err(error)) => Err(respond_with(in_flight.finish(HttpResponse::from_error(error)))),
        Err(_) => {
            observer.metrics.exception("panic");
            let error = ApiError::Internal("a handler panicked".into());
            Err(respond_with(in_flight.finish(HttpResponse::from_error(error))))
        }
    }
}

/// A response whose request is gone, as an error, since a `ServiceResponse` has its request.
fn respond_with(response: HttpResponse) -> Error {
    InternalError::from_response("the request is gone", response).into()
}

impl Observer {
    /// Records a request whose head could not be read, `detail` says why, and returns the response.
    #[must_use]
    pub fn malformed(&self, peer: IpAddr, detail: &'static str) -> HttpResponse {
        let meta = RequestMeta {
            start: Instant::now(),
            trace: None,
            method: method_index(""),
            version: Version::HTTP_11,
        };
        let context = Rc::new(RequestContext::new(peer.to_canonical(), new_request_id()));
        let in_flight = InFlightRequest { observer: self, meta, context, is_recorded: false };
        in_flight.finish(HttpResponse::from_error(ApiError::MalformedRequest(detail)))
    }

    fn inspect(&self, req: &ServiceRequest) -> (RequestMeta, Rc<RequestContext>) {
        let (start, headers) = (Instant::now(), req.headers());
        let peer = req.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let client = client_address(&self.trusted_proxies, peer, headers);
        let meta = RequestMeta {
            start,
            trace: TraceContext::from_headers(headers),
            method: method_index(req.method().as_str()),
            version: req.version(),
        };
        (meta, Rc::new(RequestContext::new(client, request_id(headers))))
    }

    fn client_text(&self, client: IpAddr) -> Rc<str> {
        let mut last = self.last_client.borrow_mut();
        if last.0 != client {
            *last = (client, client.to_string().into());
        }
        Rc::clone(&last.1)
    }

    /// Counts the request, and logs it.
    fn record(&self, meta: &RequestMeta, context: &RequestContext, status: u16) {
        let (duration, outcome) = (meta.start.elapsed(), context.outcome.borrow());
        let is_traffic = self.listener != Listener::Admin;
        if is_traffic {
            self.metrics.http(context.route.get(), meta.method, status, duration);
        }
        for event in &outcome.events {
            match event {
                SecurityEvent::AuthFailure(reason) => {
                    self.metrics.auth_failure(reason);
                    self.log_auth_failure(reason, context, &outcome);
                }
                SecurityEvent::RateLimited(scope) => self.metrics.rate_limited(scope),
                event => audit::log(event, context, &outcome),
            }
        }
        let (code, cause) = match &outcome.error {
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
                http.request.id = context.request_id,
                "a request failed inside the server"
            );
        }
        let Some(weight) = is_traffic.then(|| self.sampler.sample_weight(status)).flatten() else {
            return;
        };
        self.log_access(meta, context, &outcome, status, duration, code, weight);
    }

    #[expect(clippy::too_many_arguments, reason = "the values of one event, each taken once")]
    fn log_access(
        &self,
        meta: &RequestMeta,
        context: &RequestContext,
        outcome: &RequestOutcome,
        status: u16,
        duration: Duration,
        code: Option<&'static str>,
        weight: Option<u64>,
    ) {
        tracing::info!(
            target: "odometer::access",
            {
                event.action = "request",
                event.outcome = event_outcome(status),
                event.duration = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
                http.request.method = METHODS[meta.method],
                http.request.id = context.request_id,
                http.response.status_code = status,
                http.version = version(meta.version),
                url.path = self.routes.patterns[context.route.get()],
                client.ip = &*self.client_text(context.client),
                trace.id = meta.trace.as_ref().map(TraceContext::id),
                organization.id = outcome.tenant.map(tracing::field::display),
                error.code = code,
                odometer.sampled = weight,
            },
            "request"
        );
    }

    /// Of one reason, one event a second, so that a brute-force attempt can not fill the disk.
    fn log_auth_failure(
        &self,
        reason: &'static str,
        context: &RequestContext,
        outcome: &RequestOutcome,
    ) {
        let throttle = auth_failure_index(reason).and_then(|at| self.sampler.auth_failures.get(at));
        let Some(suppressed) = throttle.and_then(LogThrottle::allow) else { return };
        tracing::warn!(
            event.action = "auth-failure",
            event.outcome = "failure",
            event.reason = reason,
            http.request.id = context.request_id,
            url.path = self.routes.patterns[context.route.get()],
            client.ip = tracing::field::display(context.client),
            organization.id = outcome.tenant.map(tracing::field::display),
            odometer.suppressed_events = suppressed,
            "credentials were refused"
        );
    }
}

/// A request from its head to its response. One whose client hangs up in between is recorded when
/// it is dropped.
struct InFlightRequest<'a> {
    observer: &'a Observer,
    meta: RequestMeta,
    context: Rc<RequestContext>,
    is_recorded: bool,
}

impl InFlightRequest<'_> {
    /// The response as it is sent, recorded.
    fn finish(mut self, response: HttpResponse) -> HttpResponse {
        let mut response = self.describe_error(response);
        let headers: &mut HeaderMap = response.headers_mut();
        if let Some((scope, decision)) = &self.context.outcome.borrow().limit {
            jsonapi::set_rate_limit(headers, scope, decision);
        }
        let is_https = self.observer.listener == Listener::Public;
        add_common_headers(headers, &self.context.request_id, self.meta.trace.as_ref(), is_https);
        self.observer.record(&self.meta, &self.context, response.status().as_u16());
        self.is_recorded = true;
        response
    }

    /// The document of an error, with the request's id.
    fn describe_error(&self, response: HttpResponse) -> HttpResponse {
        let Some(error) = response.error().and_then(Error::as_error::<ApiError>) else {
            return response;
        };
        let mut outcome = self.context.outcome.borrow_mut();
        let cause =
            if let ApiError::Internal(cause) = error { Some(Arc::clone(cause)) } else { None };
        outcome.error = Some((error.spec().code, cause));
        jsonapi::error(error, &self.context.request_id, outcome.requirement)
    }
}

impl Drop for InFlightRequest<'_> {
    fn drop(&mut self) {
        if self.is_recorded {
            return;
        }
        if let Ok(mut outcome) = self.context.outcome.try_borrow_mut() {
            outcome.error.get_or_insert(("client_gone", None));
        }
        self.observer.record(&self.meta, &self.context, CLIENT_CLOSED_REQUEST);
    }
}

fn event_outcome(status: u16) -> &'static str {
    match status {
        CLIENT_CLOSED_REQUEST => "unknown",
        500.. => "failure",
        _ => "success",
    }
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
    fn refusals_are_always_logged_and_of_the_rest_one_in_so_many() {
        for (sample, success) in [(Some(1), Some(None)), (None, None)] {
            let sampler = AccessLogSampler::new(sample);
            assert_eq!([200, 204, 308].map(|status| sampler.sample_weight(status)), [success; 3]);
            assert_eq!(
                [400, 429, 499, 503].map(|status| sampler.sample_weight(status)),
                [Some(None); 4]
            );
        }
        // Two clients who take turns: of each one in ten.
        let sampler = AccessLogSampler::new(Some(10));
        let logged: Vec<bool> =
            (0..10_000).map(|_| sampler.sample_weight(200) == Some(Some(10))).collect();
        for client in [0, 1] {
            let own = logged.iter().skip(client).step_by(2).filter(|logged| **logged).count();
            assert!((450..=550).contains(&own), "{own} of 5,000");
        }
        assert_eq!(sampler.sample_weight(404), Some(None));
    }
}
