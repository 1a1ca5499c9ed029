//! The metrics of one server: handles to record through, and the page that Prometheus reads.
//!
//! Job: [`Metrics`] owns a recorder of its own, registers what catalogue.rs declares, and renders it.
//! Invariant: the number of series is bounded by the program, never by what clients send: routes are patterns, methods
//! and codes come from fixed sets, every other label is a `&'static str`. There is no global recorder, so two servers in
//! one process do not mix.
//! Must never: carry a tenant, a path or a key as a label; allocate, hash a string or take a lock for a request whose
//! combination of labels has been seen before.
//!
//! Histograms keep their samples until [`Metrics::run_upkeep`] or [`Metrics::render`] puts them into buckets, so the
//! upkeep must run every few seconds even where nobody scrapes.

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

/// The methods that have a label of their own, and `other`, which all the rest share.
pub const METHODS: [&str; 8] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
/// Why credentials are refused; each is a series from the start, so that `rate()` sees the first failure.
pub const AUTH_FAILURE_REASONS: [&str; 8] =
    ["missing", "malformed", "unknown", "expired", "ambiguous", "password", "scope", "suspended"];
/// What a rate limit covers; each is a series from the start.
pub const RATE_LIMIT_SCOPES: [&str; 3] = ["tenant", "client", "name"];
/// Faults that are a series from the start; others begin at their first occurrence.
const EXCEPTIONS: [&str; 2] = ["internal", "panic"];

/// The status codes that have a place in the table; any other takes the slow way to the same metric.
const KNOWN_STATUS_CODES: [u16; 33] = [
    200, 201, 202, 204, 206, 301, 302, 304, 308, 400, 401, 403, 404, 405, 406, 408, 409, 411, 412,
    413, 414, 415, 417, 422, 428, 429, 431, 499, 500, 501, 503, 505, 507,
];

/// The place of a method in [`METHODS`]; an unknown one is `other`.
#[must_use]
pub fn method_index(method: &str) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1)
}

/// The place of a reason in [`AUTH_FAILURE_REASONS`], if it is one.
#[must_use]
pub fn auth_failure_index(reason: &str) -> Option<usize> {
    AUTH_FAILURE_REASONS.iter().position(|known| *known == reason)
}

/// All metrics of one server. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    recorder: Recorder,
    handle: PrometheusHandle,
    process: Collector,
    routes: &'static [&'static str],
    /// One per route, method and known code; filled when first used, so that unused combinations do not appear.
    requests: Box<[OnceLock<Counter>]>,
    /// One per route and method.
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
    /// Makes the metrics of a server; `routes` are the patterns that [`Metrics::http`] is given indexes of.
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
        let shared = Shared {
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
        Self { shared: Arc::new(shared) }
    }

    /// The page for Prometheus, in its text format.
    #[must_use]
    pub fn render(&self) -> String {
        let shared = &*self.shared;
        shared.recorder.with_local_recorder(|| shared.process.collect());
        if let Some(drops) = shared.log_drops.get() {
            shared.log_lines_dropped.absolute(drops.count());
        }
        shared.handle.render()
    }

    /// The same as data.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::parse(&self.render())
    }

    /// Puts the histograms' samples into their buckets, which frees their memory. Call it every second or so.
    pub fn run_upkeep(&self) {
        self.shared.handle.run_upkeep();
    }

    /// Reports the lines that `drops` counts. The first handle stays; later ones are ignored.
    pub fn watch_log_drops(&self, drops: LogDrops) {
        let _ = self.shared.log_drops.set(drops);
    }

    /// Counts one answered request. `route` is an index into the routes given at the start (one beyond them counts as
    /// `other`), `method` one into [`METHODS`], see [`method_index`].
    pub fn http(&self, route: usize, method: usize, status: u16, duration: Duration) {
        let shared = &*self.shared;
        let method = method.min(METHODS.len() - 1);
        let path = shared.routes.get(route).copied().unwrap_or("other");
        let row = route.saturating_mul(METHODS.len()).saturating_add(method);
        let code = KNOWN_STATUS_CODES.binary_search(&status);
        let cell = code.ok().and_then(|at| {
            shared.requests.get(row.saturating_mul(KNOWN_STATUS_CODES.len()).saturating_add(at))
        });
        match cell {
            Some(cell) => {
                cell.get_or_init(|| shared.requests_counter(path, method, status)).increment(1)
            }
            None => shared.requests_counter(path, method, status).increment(1),
        }
        match shared.durations.get(row) {
            Some(cell) => {
                cell.get_or_init(|| shared.duration_histogram(path, method)).record(duration)
            }
            None => shared.duration_histogram(path, method).record(duration),
        }
    }

    /// Makes the series of these status codes of a route, at zero: a rate sees the first failure only of a series that was there before it.
    pub fn preregister_http(&self, route: usize, method: usize, codes: &[u16]) {
        let shared = &*self.shared;
        if let Some(path) = shared.routes.get(route).filter(|_| method < METHODS.len()) {
            codes.iter().for_each(|code| drop(shared.requests_counter(path, method, *code)));
        }
    }

    /// Counts a request that failed through a fault of the server.
    pub fn exception(&self, kind: &'static str) {
        self.shared
            .recorder
            .counter(&definitions::HTTP_EXCEPTIONS, label("exception", kind))
            .increment(1);
    }

    /// Counts a request refused for its credentials; `reason` is one of [`AUTH_FAILURE_REASONS`].
    pub fn auth_failure(&self, reason: &'static str) {
        match auth_failure_index(reason) {
            Some(at) => self.shared.auth_failures[at].increment(1),
            None => {
                self.shared
                    .recorder
                    .counter(&definitions::AUTH_FAILURES, label("reason", reason))
                    .increment(1);
            }
        }
    }

    /// Counts a request refused by a rate limit; `scope` is one of [`RATE_LIMIT_SCOPES`].
    pub fn rate_limited(&self, scope: &'static str) {
        match RATE_LIMIT_SCOPES.iter().position(|known| *known == scope) {
            Some(at) => self.shared.rate_limited[at].increment(1),
            None => {
                self.shared
                    .recorder
                    .counter(&definitions::RATE_LIMITED, label("scope", scope))
                    .increment(1);
            }
        }
    }

    /// Says when the served certificate expires. Without a call the metric is absent, so that no alert takes a server
    /// without TLS for one whose certificate expired in 1970.
    pub fn certificate_expiry(&self, unix_seconds: f64) {
        self.shared.recorder.gauge(&definitions::CERTIFICATE_EXPIRY, Vec::new()).set(unix_seconds);
    }

    /// The handles that a store records through. They appear on the page from the first call on; a second call shares
    /// their values.
    #[must_use]
    pub fn store(&self) -> StoreMetrics {
        StoreMetrics::of(&self.shared.recorder)
    }

    /// The handles that the listeners record through; as many connections may be open.
    #[must_use]
    pub fn connections(&self, limit: usize) -> ConnectionMetrics {
        ConnectionMetrics::of(&self.shared.recorder, limit)
    }
}

impl Shared {
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
