//! The definition of every metric: name, kind, unit, help text and, for a histogram, buckets.
//!
//! Job: the one list. `tests/repository/docs.rs` compares its names and types with the table in
//! `docs/monitoring.md`; `tests/slow/dashboards` runs the queries of the dashboards and alerts
//! against a server that exports it.
//! Invariant: a metric that is not in [`ALL`] does not exist; names and labels are public and
//! stable.
//! Must never: hold a value; the recorder does, see `metrics.rs`.
//!
//! The unit is part of the name and the help text, as Prometheus recommends: the text format that
//! the exporter writes has no field for it.

use metrics::Unit;

/// The type of a metric in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word for it in the exposition format.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// The definition of a metric.
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

/// 0.1 ms to 1 s: an increment takes a few tenths of a millisecond, a password check tens of
/// milliseconds.
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

pub(super) const HTTP_REQUESTS: MetricDef =
    counter("http_server_requests_total", "Responses, by status code, method and route pattern.");
pub(super) const HTTP_DURATION: MetricDef = histogram(
    "http_server_request_duration_seconds",
    Unit::Seconds,
    HTTP_SECONDS,
    "Time from a request's head to its response in seconds, by method and route pattern.",
);
pub(super) const HTTP_EXCEPTIONS: MetricDef = counter(
    "http_server_exceptions_total",
    "Requests that failed because of an error inside the server, by kind of error.",
);
pub(super) const BUILD_INFO: MetricDef = gauge(
    "odometer_build_info",
    Unit::Count,
    "Always 1; the labels are the version and the revision of the build.",
);
pub(super) const COMMITS: MetricDef =
    counter("odometer_commits_total", "Durable commits; a commit holds one or more requests.");
pub(super) const COMMIT_DURATION: MetricDef = histogram(
    "odometer_commit_duration_seconds",
    Unit::Seconds,
    COMMIT_SECONDS,
    "Time of a commit in seconds, from taking its requests off the queue to the end of the sync.",
);
pub(super) const COMMIT_BATCH_SIZE: MetricDef =
    histogram("odometer_commit_batch_size", Unit::Count, BATCH_SIZES, "Requests in a commit.");
pub(super) const QUEUE_DEPTH: MetricDef = gauge(
    "odometer_queue_depth",
    Unit::Count,
    "Requests waiting in the commit queue, sampled at each commit.",
);
pub(super) const QUEUE_LIMIT: MetricDef =
    gauge("odometer_queue_limit", Unit::Count, "Capacity of the commit queue in requests.");
pub(super) const SHED: MetricDef =
    counter("odometer_shed_total", "Requests rejected because the commit queue was full.");
pub(super) const INCREMENTS: MetricDef =
    counter("odometer_increments_total", "Durable increments; a range counts once.");
pub(super) const INTEGERS_ISSUED: MetricDef = counter(
    "odometer_integers_issued_total",
    "Integers issued by durable increments; a range counts each of its integers.",
);
pub(super) const AUTH_FAILURES: MetricDef = counter(
    "odometer_auth_failures_total",
    "Requests rejected because of their credentials, by reason.",
);
pub(super) const RATE_LIMITED: MetricDef = counter(
    "odometer_rate_limited_total",
    "Requests rejected by a rate limit, by scope of the limit.",
);
pub(super) const IDEMPOTENCY_KEYS: MetricDef =
    gauge("odometer_idempotency_keys", Unit::Count, "Idempotency keys stored, each for 24 hours.");
pub(super) const IDEMPOTENCY_KEYS_LIMIT: MetricDef = gauge(
    "odometer_idempotency_keys_limit",
    Unit::Count,
    "Idempotency keys that may be stored at once, set by --idempotency-keys.",
);
pub(super) const CONNECTIONS: MetricDef = gauge(
    "odometer_connections",
    Unit::Count,
    "Open connections of the public and the plain HTTP listener.",
);
pub(super) const CONNECTIONS_LIMIT: MetricDef = gauge(
    "odometer_connections_limit",
    Unit::Count,
    "Connections that may be open at once, set by --max-connections.",
);
pub(super) const CONNECTIONS_REFUSED: MetricDef = counter(
    "odometer_connections_refused_total",
    "Connections rejected because a limit was reached, in total or from one address.",
);
pub(super) const JOURNAL_BYTES: MetricDef = gauge(
    "odometer_journal_bytes",
    Unit::Bytes,
    "Size of the journal's segments on disk in bytes, including the spare segment.",
);
pub(super) const CHECKPOINT_DURATION: MetricDef = histogram(
    "odometer_checkpoint_duration_seconds",
    Unit::Seconds,
    CHECKPOINT_SECONDS,
    "Time of a checkpoint in seconds; checkpoints run in the background.",
);
pub(super) const STATE_REBUILDS: MetricDef = counter(
    "odometer_state_rebuilds_total",
    "Corrupt states that were rebuilt from a backup and the journal at start.",
);
pub(super) const LAST_BACKUP: MetricDef = gauge(
    "odometer_backup_last_success_timestamp_seconds",
    Unit::Seconds,
    "Time of the newest automatic backup that is current, as Unix timestamp; absent before the \
     first one.",
);
pub(super) const BACKUP_INTERVAL: MetricDef = gauge(
    "odometer_backup_interval_seconds",
    Unit::Seconds,
    "Time between automatic backups in seconds, set by --backup-interval; absent if they are off.",
);
pub(super) const STORE_READY: MetricDef =
    gauge("odometer_store_ready", Unit::Count, "1 while the store accepts writes, otherwise 0.");
pub(super) const STORE_POISONED: MetricDef = gauge(
    "odometer_store_poisoned",
    Unit::Count,
    "1 once a write failed (the process then exits within two seconds), otherwise 0.",
);
pub(super) const PREVIOUS_SHUTDOWN: MetricDef = gauge(
    "odometer_previous_shutdown_info",
    Unit::Count,
    "Always 1; the label says how the previous process stopped: first (there was none), clean, \
     unclean or poisoned.",
);
pub(super) const DISK_FREE: MetricDef = gauge(
    "odometer_disk_free_bytes",
    Unit::Bytes,
    "Free space of the data directory's file system in bytes.",
);
pub(super) const DISK_RESERVE: MetricDef = gauge(
    "odometer_disk_reserve_bytes",
    Unit::Bytes,
    "Free space in bytes below which writes are refused, set by --min-free-disk.",
);
pub(super) const CERTIFICATE_EXPIRY: MetricDef = gauge(
    "odometer_tls_certificate_expiry_timestamp_seconds",
    Unit::Seconds,
    "Expiry of the served certificate, as Unix timestamp.",
);
pub(super) const LOG_DROPS: MetricDef = counter(
    "odometer_log_lines_dropped_total",
    "Log lines dropped because the queue was full or the write failed.",
);

/// All metrics but `process_*`, which the crate metrics-process defines.
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

/// Name and type of every metric but `process_*`, as documents have them.
pub fn names_and_types() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.iter().map(|metric| (metric.name, metric.kind.name()))
}
