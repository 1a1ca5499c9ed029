//! The access log and the request metrics.
//!
//! Job: [`observe`] gives a request its id, trace context and client address, calls the App, and
//! records the same values in metrics and log. A panic in a handler becomes a 500 and is counted.
//! Error documents are written here, where the request's id is known.
//! Invariant: each request with a response is counted once and has one access event, unless
//! successes are sampled; requests of the admin socket have neither. Label values are bounded; the
//! tenant is a log field only.
//! Must never: let a path, query, key or body into a log or a metric.

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
use crate::failpoint::failpoint;
use crate::http::context::{RequestContext, RequestOutcome, SecurityEvent, UNMATCHED};
use crate::http::error::ApiError;
use crate::http::jsonapi;
use crate::http::route_table::RouteTable;
use crate::telemetry::{
    AUTH_FAILURE_REASONS, LogThrottle, METHODS, Metrics, auth_failure_index, method_index,
};

/// nginx's status for a client that disconnected before the response. It appears in metrics and log
/// only.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// The detail of the error for a head that exceeds a limit.
pub const HEAD_TOO_LARGE: &str = "the request's head is too large: 128 headers and 32 KiB at most";

/// The listener of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// HTTPS, for tenants.
    Public,
    /// Plain HTTP, redirects to HTTPS.
    Redirect,
    /// Plain HTTP, for operators' tools.
    Ops,
    /// The admin socket, for operators. Its requests do not count as traffic: only internal errors
    /// and audit events are logged.
    Admin,
}

/// The observer of one App's requests.
pub struct Observer {
    /// The metrics to record in.
    pub metrics: Metrics,
    /// The labels of routes.
    pub routes: &'static RouteTable,
    /// The App's listener.
    pub listener: Listener,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Decides which requests are logged.
    pub sampler: Arc<AccessLogSampler>,
    /// The address logged last and its formatted form: the next request often has the same client.
    pub last_client: RefCell<(IpAddr, Rc<str>)>,
}

/// The sampling of the access log and the throttles of authentication failures, shared by all
/// observers.
#[derive(Debug)]
pub struct AccessLogSampler {
    /// One in `sample` successful requests is logged; none if `None`. Rejected and failed requests
    /// are always logged.
    sample: Option<u64>,
    succeeded: AtomicU64,
    auth_failures: [LogThrottle; AUTH_FAILURE_REASONS.len()],
}

impl AccessLogSampler {
    /// A sampler that logs one in `sample` successful requests, or none.
    pub fn new(sample: Option<u64>) -> Self {
        let auth_failures = [const { LogThrottle::new() }; AUTH_FAILURE_REASONS.len()];
        Self { sample, succeeded: AtomicU64::new(0), auth_failures }
    }

    /// `Some` if a request with this status is logged: its sampling weight, if that is more than 1.
    fn sample_weight(&self, status: u16) -> Option<Option<u64>> {
        match self.sample {
            Some(1) => Some(None),
            _ if status >= 400 => Some(None),
            Some(sample) => {
                // Not every Nth request: clients whose requests alternate in step with N would
                // be logged always or never. Multiples of the golden ratio are spread evenly.
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

/// An error that the connection found before it called the App, as a request extension.
#[derive(Clone, Debug)]
pub struct Rejected(pub ApiError);

/// Metadata of a request, known before its response.
struct RequestMeta {
    start: Instant,
    trace: Option<TraceContext>,
    /// In [`METHODS`].
    method: usize,
    version: Version,
    /// Whether the response goes over TLS.
    is_https: bool,
}

/// Observes one request. See the module's documentation.
///
/// # Errors
/// The response, in the form of an error, if the App returned an error or a handler panicked.
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
        // Handled as GET; the bridge removes the body of the response.
        req.head_mut().method = Method::GET;
    }
    req.extensions_mut().insert(Rc::clone(&context));
    let result = AssertUnwindSafe(next.call(req)).catch_unwind().await;
    match result {
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

/// The response as an error: a `ServiceResponse` needs the request, which the App has consumed.
fn respond_with(response: HttpResponse) -> Error {
    InternalError::from_response("the request was consumed", response).into()
}

impl Observer {
    /// Records a request whose head could not be parsed (`detail` is the reason) and returns the
    /// response. `is_https`: it goes over TLS; a client that speaks plain HTTP to the HTTPS port
    /// gets it in clear.
    pub fn malformed(&self, peer: IpAddr, detail: &'static str, is_https: bool) -> HttpResponse {
        let meta = RequestMeta {
            start: Instant::now(),
            trace: None,
            method: method_index(""),
            version: Version::HTTP_11,
            is_https: is_https || failpoint!("hsts-in-a-plain-400"),
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
            is_https: self.listener == Listener::Public || failpoint!("hsts-over-plain-http"),
        };
        (meta, Rc::new(RequestContext::new(client, request_id(headers))))
    }

    fn formatted_client(&self, client: IpAddr) -> Rc<str> {
        let mut last = self.last_client.borrow_mut();
        if last.0 != client {
            *last = (client, client.to_string().into());
        }
        Rc::clone(&last.1)
    }

    /// Records the request in the metrics and logs it.
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
                "request failed: internal error"
            );
        }
        let Some(weight) = is_traffic.then(|| self.sampler.sample_weight(status)).flatten() else {
            return;
        };
        self.log_access(meta, context, &outcome, status, duration, code, weight);
    }

    #[expect(clippy::too_many_arguments, reason = "the values of one event")]
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
                client.ip = &*self.formatted_client(context.client),
                trace.id = meta.trace.as_ref().map(TraceContext::id),
                organization.id = outcome.tenant.map(tracing::field::display),
                error.code = code,
                odometer.sampled = weight,
            },
            "request"
        );
    }

    /// Logs a failed authentication, at most one per reason and second, so that a brute-force
    /// attack cannot fill the disk.
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
            "authentication failed"
        );
    }
}

/// A request from its head to its response. If the client disconnects before the response,
/// actix-web drops the future, and with it this guard, which records the request.
struct InFlightRequest<'a> {
    observer: &'a Observer,
    meta: RequestMeta,
    context: Rc<RequestContext>,
    is_recorded: bool,
}

impl InFlightRequest<'_> {
    /// Completes the response and records the request.
    fn finish(mut self, response: HttpResponse) -> HttpResponse {
        let mut response = self.describe_error(response);
        let headers: &mut HeaderMap = response.headers_mut();
        if let Some((scope, decision)) = &self.context.outcome.borrow().limit {
            jsonapi::set_rate_limit(headers, scope, decision);
        }
        let RequestMeta { trace, is_https, .. } = &self.meta;
        add_common_headers(headers, &self.context.request_id, trace.as_ref(), *is_https);
        self.observer.record(&self.meta, &self.context, response.status().as_u16());
        self.is_recorded = true;
        response
    }

    /// Replaces an error by its document, with the request's id.
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
    fn errors_are_always_logged_and_successes_are_sampled() {
        for (sample, success) in [(Some(1), Some(None)), (None, None)] {
            let sampler = AccessLogSampler::new(sample);
            assert_eq!([200, 204, 308].map(|status| sampler.sample_weight(status)), [success; 3]);
            assert_eq!(
                [400, 429, 499, 503].map(|status| sampler.sample_weight(status)),
                [Some(None); 4]
            );
        }
        // Two clients whose requests alternate: one in ten of each is logged.
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
