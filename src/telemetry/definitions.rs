//! Every metric, declared once: name, kind, unit, help text and, for a histogram, its buckets.
//!
//! Job: the one list that dashboards, alerts and `docs/monitoring.md` can be compared with.
//! Invariant: a metric that is not in [`ALL`] does not exist; names and labels are public and do not change.
//! Must never: hold a value. Values live in the recorder, see metrics.rs.
//!
//! The unit is said in the name and the help text, as Prometheus wants it; the exporter prints no unit of its own.

use metrics::Unit;

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug)]
pub(super) struct MetricDef {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    pub(super) help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> MetricDef {
    MetricDef { name, kind: Kind::Counter, unit: Unit::Count, help }
}

const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> MetricDef {
    MetricDef { name, kind: Kind::Gauge, unit, help }
}

const fn histogram(
    name: &'static str,
    unit: Unit,
    buckets: &'static [f64],
    help: &'static str,
) -> MetricDef {
    MetricDef { name, kind: Kind::Histogram(buckets), unit, help }
}

/// 0.1 ms to 1 s: an increment takes a few tenths of a millisecond, a password check tens of milliseconds.
const HTTP_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.00075, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
];
/// 50 µs to 1 s, fine around the 130 µs that one fdatasync takes on a good disk.
const COMMIT_SECONDS: &[f64] = &[
    0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0,
];
const BATCH_SIZES: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];
const CHECKPOINT_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

pub(super) const HTTP_REQUESTS: MetricDef = counter(
    "http_server_requests_total",
    "Requests answered, by status code, method and route pattern.",
);
pub(super) const HTTP_DURATION: MetricDef = histogram(
    "http_server_request_duration_seconds",
    Unit::Seconds,
    HTTP_SECONDS,
    "Time from a request's head to its answer in seconds, by method and route pattern.",
);
pub(super) const HTTP_EXCEPTIONS: MetricDef = counter(
    "http_server_exceptions_total",
    "Requests that failed through a fault of the server, by kind of fault.",
);
pub(super) const BUILD_INFO: MetricDef = gauge(
    "odometer_build_info",
    Unit::Count,
    "Always 1; the labels say which version and revision runs.",
);
pub(super) const COMMITS: MetricDef =
    counter("odometer_commits_total", "Commits made durable; one commit carries many requests.");
pub(super) const COMMIT_DURATION: MetricDef = histogram(
    "odometer_commit_duration_seconds",
    Unit::Seconds,
    COMMIT_SECONDS,
    "Time of one commit in seconds, from deciding its values to their being durable.",
);
pub(super) const COMMIT_BATCH_SIZE: MetricDef = histogram(
    "odometer_commit_batch_size",
    Unit::Count,
    BATCH_SIZES,
    "Requests that shared one commit.",
);
pub(super) const QUEUE_DEPTH: MetricDef = gauge(
    "odometer_queue_depth",
    Unit::Count,
    "Requests waiting for the writer when it last looked.",
);
pub(super) const QUEUE_LIMIT: MetricDef = gauge(
    "odometer_queue_limit",
    Unit::Count,
    "Requests that may wait for the writer; more are shed.",
);
pub(super) const SHED: MetricDef =
    counter("odometer_shed_total", "Requests refused at once because the writer's queue was full.");
pub(super) const INCREMENTS: MetricDef =
    counter("odometer_increments_total", "Increments made durable; a range counts once.");
pub(super) const INTEGERS_ISSUED: MetricDef = counter(
    "odometer_integers_issued_total",
    "Integers made durable by increments; a range counts each of its integers.",
);
pub(super) const AUTH_FAILURES: MetricDef =
    counter("odometer_auth_failures_total", "Requests refused for their credentials, by reason.");
pub(super) const RATE_LIMITED: MetricDef = counter(
    "odometer_rate_limited_total",
    "Requests refused by a rate limit, by what the limit covers.",
);
pub(super) const IDEMPOTENCY_KEYS: MetricDef = gauge(
    "odometer_idempotency_keys",
    Unit::Count,
    "Idempotency keys that are remembered, each for a day.",
);
pub(super) const IDEMPOTENCY_KEYS_LIMIT: MetricDef = gauge(
    "odometer_idempotency_keys_limit",
    Unit::Count,
    "Idempotency keys that may be remembered at once, by --idempotency-keys.",
);
pub(super) const CONNECTIONS: MetricDef = gauge(
    "odometer_connections",
    Unit::Count,
    "Connections that are open to the public and the plain HTTP listener.",
);
pub(super) const CONNECTIONS_LIMIT: MetricDef = gauge(
    "odometer_connections_limit",
    Unit::Count,
    "Connections that may be open at once, by --max-connections.",
);
pub(super) const CONNECTIONS_REFUSED: MetricDef = counter(
    "odometer_connections_refused_total",
    "Connections closed unanswered because too many were open, in total or from one address.",
);
pub(super) const JOURNAL_BYTES: MetricDef = gauge(
    "odometer_journal_bytes",
    Unit::Bytes,
    "Bytes that journal segments take on the disk, spare segment included.",
);
pub(super) const CHECKPOINT_DURATION: MetricDef = histogram(
    "odometer_checkpoint_duration_seconds",
    Unit::Seconds,
    CHECKPOINT_SECONDS,
    "Time of one checkpoint in seconds, off the path of requests.",
);
pub(super) const STATE_REBUILDS: MetricDef = counter(
    "odometer_state_rebuilds_total",
    "Damaged states that a start rebuilt from a backup and the journal.",
);
pub(super) const LAST_BACKUP: MetricDef = gauge(
    "odometer_backup_last_success_timestamp_seconds",
    Unit::Seconds,
    "When the newest automatic backup was made or found to cover everything still, in seconds since 1970; absent before the first.",
);
pub(super) const BACKUP_INTERVAL: MetricDef = gauge(
    "odometer_backup_interval_seconds",
    Unit::Seconds,
    "Time between two automatic backups in seconds, by --backup-interval; absent where they are off.",
);
pub(super) const STORE_READY: MetricDef =
    gauge("odometer_store_ready", Unit::Count, "1 while the store accepts writes, otherwise 0.");
pub(super) const STORE_POISONED: MetricDef = gauge(
    "odometer_store_poisoned",
    Unit::Count,
    "1 once a write failed; the process then ends within two seconds, otherwise 0.",
);
pub(super) const PREVIOUS_SHUTDOWN: MetricDef = gauge(
    "odometer_previous_shutdown_info",
    Unit::Count,
    "Always 1; the label says how the process before this one ended: first (there was none), clean, unclean or poisoned.",
);
pub(super) const DISK_FREE: MetricDef = gauge(
    "odometer_disk_free_bytes",
    Unit::Bytes,
    "Bytes free on the file system of the data folder.",
);
pub(super) const DISK_RESERVE: MetricDef = gauge(
    "odometer_disk_reserve_bytes",
    Unit::Bytes,
    "Bytes that have to stay free, by --min-free-disk; with fewer, writes are refused.",
);
pub(super) const CERTIFICATE_EXPIRY: MetricDef = gauge(
    "odometer_tls_certificate_expiry_timestamp_seconds",
    Unit::Seconds,
    "When the served certificate expires, in seconds since 1970.",
);
pub(super) const LOG_DROPS: MetricDef = counter(
    "odometer_log_lines_dropped_total",
    "Log lines lost because their queue was full or their target refused.",
);

/// All of the above; `process_*` comes from metrics-process.
pub(super) const ALL: [&MetricDef; 31] = [
    &HTTP_REQUESTS,
    &HTTP_DURATION,
    &HTTP_EXCEPTIONS,
    &BUILD_INFO,
    &COMMITS,
    &COMMIT_DURATION,
    &COMMIT_BATCH_SIZE,
    &QUEUE_DEPTH,
    &QUEUE_LIMIT,
    &SHED,
    &INCREMENTS,
    &INTEGERS_ISSUED,
    &AUTH_FAILURES,
    &RATE_LIMITED,
    &IDEMPOTENCY_KEYS,
    &IDEMPOTENCY_KEYS_LIMIT,
    &CONNECTIONS,
    &CONNECTIONS_LIMIT,
    &CONNECTIONS_REFUSED,
    &JOURNAL_BYTES,
    &CHECKPOINT_DURATION,
    &STATE_REBUILDS,
    &LAST_BACKUP,
    &BACKUP_INTERVAL,
    &STORE_READY,
    &STORE_POISONED,
    &PREVIOUS_SHUTDOWN,
    &DISK_FREE,
    &DISK_RESERVE,
    &CERTIFICATE_EXPIRY,
    &LOG_DROPS,
];
