//! The metrics of one server: recording and rendering.
//!
//! Job: [`Metrics`] owns a recorder, registers the metrics of `definitions.rs`, and renders them in
//! the Prometheus text format.
//! Invariant: clients cannot increase the number of series: routes are patterns, methods and status
//! codes come from fixed sets, every other label is a `&'static str`. There is no global recorder,
//! so two servers in one process do not share metrics.
//! Must never: use a tenant, a path or a key as a label; allocate, hash a string or take a lock for
//! a request whose combination of labels occurred before.
//!
//! A histogram buffers its samples until [`Metrics::run_upkeep`] or [`Metrics::render`] sorts them
//! into buckets, so the upkeep must run every few seconds, even if Prometheus does not scrape.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Histogram, Label};
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;

use super::definitions;
use super::handles::{ConnectionMetrics, StoreMetrics};
use super::logs::LogDrops;
use super::recorder::{Recorder, label};
use super::snapshot::Snapshot;

/// The values of the label `method`; all methods without a label of their own share `other`.
pub const METHODS: [&str; 8] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
/// The reasons of failed authentications. Each is a series from the start, so that `rate()` sees
/// the first failure.
pub const AUTH_FAILURE_REASONS: [&str; 9] = [
    "missing",
    "malformed",
    "unknown",
    "expired",
    "replaced",
    "ambiguous",
    "password",
    "scope",
    "suspended",
];
/// The scopes of rate limits. Each is a series from the start.
pub const RATE_LIMIT_SCOPES: [&str; 3] = ["tenant", "client", "name"];
/// Kinds of internal errors that are a series from the start; others begin at their first
/// occurrence.
const EXCEPTIONS: [&str; 2] = ["internal", "panic"];

/// The status codes that have a slot in the table of counters, sorted. The counter of any other
/// code is registered per request, which is slower.
const KNOWN_STATUS_CODES: [u16; 33] = [
    200, 201, 202, 204, 206, 301, 302, 304, 308, 400, 401, 403, 404, 405, 406, 408, 409, 411, 412,
    413, 414, 415, 417, 422, 428, 429, 431, 499, 500, 501, 503, 505, 507,
];

/// The index of a method in [`METHODS`]; an unknown one counts as `other`.
pub fn method_index(method: &str) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1)
}

/// The index of a reason in [`AUTH_FAILURE_REASONS`]; `None` if it is not one of them.
pub fn auth_failure_index(reason: &str) -> Option<usize> {
    AUTH_FAILURE_REASONS.iter().position(|known| *known == reason)
}

/// All metrics of one server. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<MetricsInner>,
}

struct MetricsInner {
    recorder: Recorder,
    handle: PrometheusHandle,
    process: Collector,
    routes: &'static [&'static str],
    /// One counter per route, method and known code, registered when first used, so that unused
    /// combinations do not appear.
    requests: Box<[OnceLock<Counter>]>,
    /// One histogram per route and method.
    durations: Box<[OnceLock<Histogram>]>,
    auth_failures: [Counter; AUTH_FAILURE_REASONS.len()],
    rate_limited: [Counter; RATE_LIMIT_SCOPES.len()],
    log_lines_dropped: Counter,
    log_drops: OnceLock<LogDrops>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// The metrics of a server. [`Metrics::http`] takes an index into `routes`, the patterns.
    #[must_use]
    pub fn new(version: &str, revision: &str, routes: &'static [&'static str]) -> Self {
        let recorder = Recorder::new();
        let process = Collector::default();
        recorder.with_local_recorder(|| process.describe());
        let build = vec![
            Label::new("version", version.to_owned()),
            Label::new("revision", revision.to_owned()),
        ];
        recorder.gauge(&definitions::BUILD_INFO, build).set(1.0);
        for kind in EXCEPTIONS {
            drop(recorder.counter(&definitions::HTTP_EXCEPTIONS, label("exception", kind)));
        }
        let inner = MetricsInner {
            handle: recorder.handle(),
            process,
            routes,
            requests: empty_table(routes.len() * METHODS.len() * KNOWN_STATUS_CODES.len()),
            durations: empty_table(routes.len() * METHODS.len()),
            auth_failures: AUTH_FAILURE_REASONS.map(|reason| {
                recorder.counter(&definitions::AUTH_FAILURES, label("reason", reason))
            }),
            rate_limited: RATE_LIMIT_SCOPES
                .map(|scope| recorder.counter(&definitions::RATE_LIMITED, label("scope", scope))),
            log_lines_dropped: recorder.counter(&definitions::LOG_DROPS, Vec::new()),
            log_drops: OnceLock::new(),
            recorder,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Renders all metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        let inner = &*self.inner;
        inner.recorder.with_local_recorder(|| inner.process.collect());
        if let Some(drops) = inner.log_drops.get() {
            inner.log_lines_dropped.absolute(drops.count());
        }
        inner.handle.render()
    }

    /// All metrics as data.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::parse(&self.render())
    }

    /// Sorts the histograms' samples into buckets, which frees their memory. Call it about once a
    /// second.
    pub fn run_upkeep(&self) {
        self.inner.handle.run_upkeep();
    }

    /// Exports the number of dropped log lines that `drops` counts. Later calls are ignored.
    pub fn watch_log_drops(&self, drops: LogDrops) {
        let _ = self.inner.log_drops.set(drops);
    }

    /// Records a response. `route` is an index into the routes of [`Metrics::new`] (an index beyond
    /// them counts as `other`), `method` one into [`METHODS`], see [`method_index`].
    pub fn http(&self, route: usize, method: usize, status: u16, duration: Duration) {
        let inner = &*self.inner;
        let method = method.min(METHODS.len() - 1);
        let path = inner.routes.get(route).copied().unwrap_or("other");
        let row = route.saturating_mul(METHODS.len()).saturating_add(method);
        let code = KNOWN_STATUS_CODES.binary_search(&status);
        let cell = code.ok().and_then(|at| {
            inner.requests.get(row.saturating_mul(KNOWN_STATUS_CODES.len()).saturating_add(at))
        });
        match cell {
            Some(cell) => {
                cell.get_or_init(|| inner.requests_counter(path, method, status)).increment(1)
            }
            None => inner.requests_counter(path, method, status).increment(1),
        }
        match inner.durations.get(row) {
            Some(cell) => {
                cell.get_or_init(|| inner.duration_histogram(path, method)).record(duration)
            }
            None => inner.duration_histogram(path, method).record(duration),
        }
    }

    /// Registers the series of these status codes of a route at zero: `rate()` sees the first
    /// failure only if the series existed before it.
    pub fn preregister_http(&self, route: usize, method: usize, codes: &[u16]) {
        let inner = &*self.inner;
        if let Some(path) = inner.routes.get(route).filter(|_| method < METHODS.len()) {
            codes.iter().for_each(|code| drop(inner.requests_counter(path, method, *code)));
        }
    }

    /// Counts a request that failed because of an error inside the server.
    pub fn exception(&self, kind: &'static str) {
        self.inner
            .recorder
            .counter(&definitions::HTTP_EXCEPTIONS, label("exception", kind))
            .increment(1);
    }

    /// Counts a request rejected because of its credentials; `reason` is one of
    /// [`AUTH_FAILURE_REASONS`].
    pub fn auth_failure(&self, reason: &'static str) {
        match auth_failure_index(reason) {
            Some(at) => self.inner.auth_failures[at].increment(1),
            None => {
                self.inner
                    .recorder
                    .counter(&definitions::AUTH_FAILURES, label("reason", reason))
                    .increment(1);
            }
        }
    }

    /// Counts a request rejected by a rate limit; `scope` is one of [`RATE_LIMIT_SCOPES`].
    pub fn rate_limited(&self, scope: &'static str) {
        match RATE_LIMIT_SCOPES.iter().position(|known| *known == scope) {
            Some(at) => self.inner.rate_limited[at].increment(1),
            None => {
                self.inner
                    .recorder
                    .counter(&definitions::RATE_LIMITED, label("scope", scope))
                    .increment(1);
            }
        }
    }

    /// Sets the expiry of the served certificate. Until then the metric is absent, so that an alert
    /// does not take a server without TLS for one whose certificate expired in 1970.
    pub fn set_certificate_expiry(&self, unix_seconds: f64) {
        self.inner.recorder.gauge(&definitions::CERTIFICATE_EXPIRY, Vec::new()).set(unix_seconds);
    }

    /// The handles that a store records through. The first call registers the metrics; handles of
    /// later calls share their values.
    pub fn store(&self) -> StoreMetrics {
        StoreMetrics::of(&self.inner.recorder)
    }

    /// The handles that the listeners record through; `limit` connections may be open.
    pub fn connections(&self, limit: usize) -> ConnectionMetrics {
        ConnectionMetrics::of(&self.inner.recorder, limit)
    }
}

impl MetricsInner {
    #[cold]
    fn requests_counter(&self, path: &'static str, method: usize, status: u16) -> Counter {
        let labels = vec![
            Label::new("code", status.to_string()),
            Label::from_static_parts("method", METHODS[method]),
            Label::from_static_parts("path", path),
        ];
        self.recorder.counter(&definitions::HTTP_REQUESTS, labels)
    }

    #[cold]
    fn duration_histogram(&self, path: &'static str, method: usize) -> Histogram {
        let labels = vec![
            Label::from_static_parts("method", METHODS[method]),
            Label::from_static_parts("path", path),
        ];
        self.recorder.histogram(&definitions::HTTP_DURATION, labels)
    }
}

fn empty_table<T>(len: usize) -> Box<[OnceLock<T>]> {
    (0..len).map(|_| OnceLock::new()).collect()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
