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

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_process::Collector;

use super::catalogue::{self, Declared, Kind};
use super::logs::LogDrops;

/// The methods that have a label of their own, and `other`, which all the rest share.
pub const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
/// Why credentials are refused; each is a series from the start, so that `rate()` sees the first failure.
pub const AUTH_FAILURE_REASONS: [&str; 8] =
    ["missing", "malformed", "unknown", "expired", "ambiguous", "password", "scope", "suspended"];
/// What a rate limit covers; each is a series from the start.
pub const RATE_LIMIT_SCOPES: [&str; 3] = ["tenant", "client", "name"];
/// Faults that are a series from the start; others begin at their first occurrence.
const EXCEPTIONS: [&str; 1] = ["panic"];

/// The status codes that have a place in the table; any other takes the slow way to the same metric.
const CODES: [u16; 32] = [
    200, 201, 202, 204, 206, 301, 302, 304, 308, 400, 401, 403, 404, 405, 406, 408, 409, 411, 412, 413, 414, 415, 417,
    422, 428, 429, 431, 500, 501, 503, 505, 507,
];

static METADATA: Metadata<'static> = Metadata::new("odometer", Level::INFO, None);

/// The place of a method in [`METHODS`]; an unknown one is `other`.
#[must_use]
pub fn method_index(method: &str) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1)
}

/// All metrics of one server. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    recorder: PrometheusRecorder,
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
        let recorder = build_recorder();
        describe(&recorder);
        let process = Collector::default();
        metrics::with_local_recorder(&recorder, || process.describe());
        let build = vec![Label::new("version", version.to_owned()), Label::new("revision", revision.to_owned())];
        gauge(&recorder, &catalogue::BUILD_INFO, build).set(1.0);
        for kind in EXCEPTIONS {
            drop(counter(&recorder, &catalogue::HTTP_EXCEPTIONS, label("exception", kind)));
        }
        let shared = Shared {
            handle: recorder.handle(),
            process,
            routes,
            requests: empty_table(routes.len() * METHODS.len() * CODES.len()),
            durations: empty_table(routes.len() * METHODS.len()),
            auth_failures: AUTH_FAILURE_REASONS
                .map(|reason| counter(&recorder, &catalogue::AUTH_FAILURES, label("reason", reason))),
            rate_limited: RATE_LIMIT_SCOPES
                .map(|scope| counter(&recorder, &catalogue::RATE_LIMITED, label("scope", scope))),
            log_lines_dropped: counter(&recorder, &catalogue::LOG_DROPS, Vec::new()),
            log_drops: OnceLock::new(),
            recorder,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The page for Prometheus, in its text format.
    #[must_use]
    pub fn render(&self) -> String {
        let shared = &*self.shared;
        metrics::with_local_recorder(&shared.recorder, || shared.process.collect());
        if let Some(drops) = shared.log_drops.get() {
            shared.log_lines_dropped.absolute(drops.count());
        }
        shared.handle.render()
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
        let code = CODES.binary_search(&status);
        let cell = code.ok().and_then(|at| shared.requests.get(row.saturating_mul(CODES.len()).saturating_add(at)));
        match cell {
            Some(cell) => cell.get_or_init(|| shared.requests_counter(path, method, status)).increment(1),
            None => shared.requests_counter(path, method, status).increment(1),
        }
        match shared.durations.get(row) {
            Some(cell) => cell.get_or_init(|| shared.duration_histogram(path, method)).record(duration),
            None => shared.duration_histogram(path, method).record(duration),
        }
    }

    /// Counts a request that failed through a fault of the server.
    pub fn exception(&self, kind: &'static str) {
        counter(&self.shared.recorder, &catalogue::HTTP_EXCEPTIONS, label("exception", kind)).increment(1);
    }

    /// Counts a request refused for its credentials; `reason` is one of [`AUTH_FAILURE_REASONS`].
    pub fn auth_failure(&self, reason: &'static str) {
        match AUTH_FAILURE_REASONS.iter().position(|known| *known == reason) {
            Some(at) => self.shared.auth_failures[at].increment(1),
            None => {
                counter(&self.shared.recorder, &catalogue::AUTH_FAILURES, label("reason", reason)).increment(1);
            }
        }
    }

    /// Counts a request refused by a rate limit; `scope` is one of [`RATE_LIMIT_SCOPES`].
    pub fn rate_limited(&self, scope: &'static str) {
        match RATE_LIMIT_SCOPES.iter().position(|known| *known == scope) {
            Some(at) => self.shared.rate_limited[at].increment(1),
            None => {
                counter(&self.shared.recorder, &catalogue::RATE_LIMITED, label("scope", scope)).increment(1);
            }
        }
    }

    /// Says when the served certificate expires. Without a call the metric is absent, so that no alert takes a server
    /// without TLS for one whose certificate expired in 1970.
    pub fn certificate_expiry(&self, unix_seconds: f64) {
        gauge(&self.shared.recorder, &catalogue::CERTIFICATE_EXPIRY, Vec::new()).set(unix_seconds);
    }

    /// The handles that a store records through. They appear on the page from the first call on; a second call shares
    /// their values.
    #[must_use]
    pub fn store(&self) -> StoreMetrics {
        let recorder = &self.shared.recorder;
        StoreMetrics {
            commits: counter(recorder, &catalogue::COMMITS, Vec::new()),
            commit_duration: histogram(recorder, &catalogue::COMMIT_DURATION, Vec::new()),
            commit_batch_size: histogram(recorder, &catalogue::COMMIT_BATCH_SIZE, Vec::new()),
            queue_depth: gauge(recorder, &catalogue::QUEUE_DEPTH, Vec::new()),
            shed: counter(recorder, &catalogue::SHED, Vec::new()),
            increments: counter(recorder, &catalogue::INCREMENTS, Vec::new()),
            integers_issued: counter(recorder, &catalogue::INTEGERS_ISSUED, Vec::new()),
            idempotency_keys: gauge(recorder, &catalogue::IDEMPOTENCY_KEYS, Vec::new()),
            journal_bytes: gauge(recorder, &catalogue::JOURNAL_BYTES, Vec::new()),
            checkpoint_duration: histogram(recorder, &catalogue::CHECKPOINT_DURATION, Vec::new()),
            ready: gauge(recorder, &catalogue::STORE_READY, Vec::new()),
            disk_free: gauge(recorder, &catalogue::DISK_FREE, Vec::new()),
            heals: counter(recorder, &catalogue::HEALS, Vec::new()),
            last_backup: Some(self.clone()),
        }
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
        counter(&self.recorder, &catalogue::HTTP_REQUESTS, labels)
    }

    #[cold]
    fn duration_histogram(&self, path: &'static str, method: usize) -> Histogram {
        let labels = vec![Label::from_static_parts("method", METHODS[method]), Label::from_static_parts("path", path)];
        histogram(&self.recorder, &catalogue::HTTP_DURATION, labels)
    }
}

/// What a store records. Recording is an atomic or two; a histogram takes a `Duration` or a number.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// Commits made durable.
    pub commits: Counter,
    /// Time of one commit, in seconds.
    pub commit_duration: Histogram,
    /// Requests in one commit.
    pub commit_batch_size: Histogram,
    /// Requests waiting for the writer.
    pub queue_depth: Gauge,
    /// Requests refused because the queue was full.
    pub shed: Counter,
    /// Increments made durable; a range counts once.
    pub increments: Counter,
    /// Integers made durable; a range counts all of its own.
    pub integers_issued: Counter,
    /// Idempotency keys that are remembered.
    pub idempotency_keys: Gauge,
    /// Bytes of journal that a restart would replay.
    pub journal_bytes: Gauge,
    /// Time of one checkpoint, in seconds.
    pub checkpoint_duration: Histogram,
    /// 1 while writes are accepted, otherwise 0.
    pub ready: Gauge,
    /// Bytes free where the data folder is. 0 until first set: set it when the store opens.
    pub disk_free: Gauge,
    /// States that were rebuilt.
    pub heals: Counter,
    last_backup: Option<Metrics>,
}

impl StoreMetrics {
    /// Handles that record nothing, for tests and offline commands.
    #[must_use]
    pub const fn unrecorded() -> Self {
        Self {
            commits: Counter::noop(),
            commit_duration: Histogram::noop(),
            commit_batch_size: Histogram::noop(),
            queue_depth: Gauge::noop(),
            shed: Counter::noop(),
            increments: Counter::noop(),
            integers_issued: Counter::noop(),
            idempotency_keys: Gauge::noop(),
            journal_bytes: Gauge::noop(),
            checkpoint_duration: Histogram::noop(),
            ready: Gauge::noop(),
            disk_free: Gauge::noop(),
            heals: Counter::noop(),
            last_backup: None,
        }
    }
}

impl StoreMetrics {
    /// Says when the newest automatic backup was made. Without a call the metric is absent.
    pub fn tell_backup(&self, created_unix_s: u64) {
        if let Some(metrics) = &self.last_backup {
            #[expect(clippy::cast_precision_loss, reason = "seconds of this millennium are exact")]
            gauge(&metrics.shared.recorder, &catalogue::LAST_BACKUP, Vec::new()).set(created_unix_s as f64);
        }
    }
}

fn build_recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for metric in catalogue::ALL {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                .expect("the catalogue gives every histogram at least one bucket");
        }
    }
    builder.build_recorder()
}

fn describe(recorder: &PrometheusRecorder) {
    for metric in catalogue::ALL {
        let (name, unit, help) = (metric.name.into(), Some(metric.unit), metric.help.into());
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram(_) => recorder.describe_histogram(name, unit, help),
        }
    }
}

fn counter(recorder: &PrometheusRecorder, metric: &Declared, labels: Vec<Label>) -> Counter {
    debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
    recorder.register_counter(&Key::from_parts(metric.name, labels), &METADATA)
}

fn gauge(recorder: &PrometheusRecorder, metric: &Declared, labels: Vec<Label>) -> Gauge {
    debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
    recorder.register_gauge(&Key::from_parts(metric.name, labels), &METADATA)
}

fn histogram(recorder: &PrometheusRecorder, metric: &Declared, labels: Vec<Label>) -> Histogram {
    debug_assert!(matches!(metric.kind, Kind::Histogram(_)), "{}", metric.name);
    recorder.register_histogram(&Key::from_parts(metric.name, labels), &METADATA)
}

fn label(key: &'static str, value: &'static str) -> Vec<Label> {
    vec![Label::from_static_parts(key, value)]
}

fn empty_table<T>(len: usize) -> Box<[OnceLock<T>]> {
    (0..len).map(|_| OnceLock::new()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::telemetry::logs::drops_for_tests;

    const ROUTES: &[&str] = &["/livez", "/api/v1/counters/{name}", "other"];

    fn metrics() -> Metrics {
        Metrics::new("1.2.3", "abc\"def", ROUTES)
    }

    fn series(page: &str) -> usize {
        page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
    }

    /// Everything recorded once, so that every metric is on the page.
    fn full_page() -> String {
        let metrics = metrics();
        let store = metrics.store();
        metrics.http(1, method_index("PUT"), 200, Duration::from_micros(300));
        metrics.store().tell_backup(1);
        metrics.certificate_expiry(1.9e9);
        store.commit_duration.record(Duration::from_micros(134));
        store.commit_batch_size.record(64.0);
        metrics.render()
    }

    #[test]
    fn the_page_has_every_metric_with_help_and_type() {
        let page = full_page();
        for metric in catalogue::ALL {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            assert!(page.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
            assert!(page.contains(&format!("# TYPE {} {kind}\n", metric.name)), "{}", metric.name);
        }
        assert!(page.contains("# TYPE process_cpu_seconds_total counter\n"), "{page}");
        assert!(page.contains("odometer_build_info{version=\"1.2.3\",revision=\"abc\\\"def\"} 1\n"), "{page}");
        assert!(page.contains("odometer_commit_batch_size_bucket{le=\"64\"} 1\n"), "{page}");
        assert!(page.contains("odometer_commit_batch_size_bucket{le=\"32\"} 0\n"), "{page}");
    }

    /// Skipped, and says so, where promtool (Debian's `prometheus` package) is not installed.
    #[test]
    #[expect(clippy::print_stderr, reason = "a skipped check says so")]
    fn promtool_finds_nothing_to_say() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let tool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut tool) = tool else {
            eprintln!("skipped: promtool is not installed");
            return;
        };
        tool.stdin.take().unwrap().write_all(full_page().as_bytes()).unwrap();
        let said = tool.wait_with_output().unwrap();
        let text = [said.stdout, said.stderr].concat();
        assert!(said.status.success() && text.is_empty(), "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn known_labels_start_at_zero_and_unused_routes_are_absent() {
        let page = metrics().render();
        for reason in AUTH_FAILURE_REASONS {
            assert!(page.contains(&format!("odometer_auth_failures_total{{reason=\"{reason}\"}} 0\n")), "{reason}");
        }
        for scope in RATE_LIMIT_SCOPES {
            assert!(page.contains(&format!("odometer_rate_limited_total{{scope=\"{scope}\"}} 0\n")), "{scope}");
        }
        assert!(page.contains("odometer_log_lines_dropped_total 0\n"));
        assert!(!page.contains("http_server_requests_total") && !page.contains("certificate_expiry"));
    }

    #[test]
    fn many_calls_do_not_grow_the_series() {
        let metrics = metrics();
        let all = |times: usize| {
            for _ in 0..times {
                metrics.http(0, method_index("GET"), 200, Duration::from_micros(150));
                metrics.http(1, method_index("BREW"), 418, Duration::from_millis(2));
                metrics.http(usize::MAX, usize::MAX, 404, Duration::ZERO);
                metrics.auth_failure("expired");
                metrics.auth_failure("surprising");
                metrics.rate_limited("tenant");
                metrics.exception("poisoned");
            }
            metrics.run_upkeep();
        };
        all(1);
        let before = series(&metrics.render());
        all(9_999);
        let page = metrics.render();
        assert_eq!(series(&page), before);
        for expected in [
            "http_server_requests_total{code=\"200\",method=\"GET\",path=\"/livez\"} 10000",
            "http_server_requests_total{code=\"418\",method=\"other\",path=\"/api/v1/counters/{name}\"} 10000",
            "http_server_requests_total{code=\"404\",method=\"other\",path=\"other\"} 10000",
            "http_server_request_duration_seconds_bucket{method=\"GET\",path=\"/livez\",le=\"0.0001\"} 0",
            "http_server_request_duration_seconds_bucket{method=\"GET\",path=\"/livez\",le=\"0.00025\"} 10000",
            "http_server_request_duration_seconds_bucket{method=\"GET\",path=\"/livez\",le=\"+Inf\"} 10000",
            "http_server_request_duration_seconds_count{method=\"GET\",path=\"/livez\"} 10000",
            "odometer_auth_failures_total{reason=\"expired\"} 10000",
            "odometer_auth_failures_total{reason=\"surprising\"} 10000",
            "odometer_rate_limited_total{scope=\"tenant\"} 10000",
            "http_server_exceptions_total{exception=\"poisoned\"} 10000",
        ] {
            assert!(page.contains(&format!("{expected}\n")), "{expected}\n{page}");
        }
    }

    #[test]
    fn two_servers_do_not_mix() {
        let (one, other) = (metrics(), metrics());
        one.store().commits.increment(7);
        assert!(one.clone().render().contains("odometer_commits_total 7\n"));
        drop(other.store());
        assert!(other.render().contains("odometer_commits_total 0\n"));
        StoreMetrics::unrecorded().commits.increment(1);
    }

    #[test]
    fn lost_log_lines_are_reported() {
        let metrics = metrics();
        let (drops, refused) = drops_for_tests();
        metrics.watch_log_drops(drops);
        refused.store(5, Ordering::Relaxed);
        assert!(metrics.render().contains("odometer_log_lines_dropped_total 5\n"));
    }

    #[test]
    fn codes_are_sorted_for_the_search() {
        assert!(CODES.is_sorted_by(|a, b| a < b));
        assert_eq!((method_index("GET"), method_index("get"), method_index("OPTIONS")), (0, 7, 6));
    }
}
