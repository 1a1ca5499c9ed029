//! Metric handles of the store ([`StoreMetrics`]) and of the listeners ([`ConnectionMetrics`]).
//!
//! Job: one typed field for each metric that they record.
//! Invariant: recording costs one or two atomic operations.
//! Must never: register a metric per request.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::definitions;
use super::recorder::{Recorder, label};

/// The metrics that a store records.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// Durable commits.
    pub commits: Counter,
    /// Time of a commit in seconds.
    pub commit_duration: Histogram,
    /// Requests in a commit.
    pub commit_batch_size: Histogram,
    /// Requests waiting in the commit queue.
    pub queue_depth: Gauge,
    /// Capacity of the commit queue.
    pub queue_limit: Gauge,
    /// Requests rejected because the commit queue was full.
    pub shed: Counter,
    /// Durable increments; a range counts once.
    pub increments: Counter,
    /// Integers issued; a range counts each of its integers.
    pub integers_issued: Counter,
    /// Idempotency keys stored.
    pub idempotency_keys: Gauge,
    /// Idempotency keys that may be stored.
    pub idempotency_keys_limit: Gauge,
    /// Size of the journal's segments in bytes.
    pub journal_bytes: Gauge,
    /// Time of a checkpoint in seconds.
    pub checkpoint_duration: Histogram,
    /// 1 while writes are accepted, otherwise 0.
    pub ready: Gauge,
    /// 1 once a write failed.
    pub poisoned: Gauge,
    /// Free bytes of the data directory's file system. 0 until set, so set it when the store opens.
    pub disk_free: Gauge,
    /// Free bytes below which writes are refused.
    pub disk_reserve: Gauge,
    /// Corrupt states that were rebuilt.
    pub state_rebuilds: Counter,
    /// Registers the metrics that are absent until their value is known.
    recorder: Option<Recorder>,
}

impl StoreMetrics {
    pub(super) fn of(recorder: &Recorder) -> Self {
        let counter = |metric| recorder.counter(metric, Vec::new());
        let gauge = |metric| recorder.gauge(metric, Vec::new());
        let histogram = |metric| recorder.histogram(metric, Vec::new());
        Self {
            commits: counter(&definitions::COMMITS),
            commit_duration: histogram(&definitions::COMMIT_DURATION),
            commit_batch_size: histogram(&definitions::COMMIT_BATCH_SIZE),
            queue_depth: gauge(&definitions::QUEUE_DEPTH),
            queue_limit: gauge(&definitions::QUEUE_LIMIT),
            shed: counter(&definitions::SHED),
            increments: counter(&definitions::INCREMENTS),
            integers_issued: counter(&definitions::INTEGERS_ISSUED),
            idempotency_keys: gauge(&definitions::IDEMPOTENCY_KEYS),
            idempotency_keys_limit: gauge(&definitions::IDEMPOTENCY_KEYS_LIMIT),
            journal_bytes: gauge(&definitions::JOURNAL_BYTES),
            checkpoint_duration: histogram(&definitions::CHECKPOINT_DURATION),
            ready: gauge(&definitions::STORE_READY),
            poisoned: gauge(&definitions::STORE_POISONED),
            disk_free: gauge(&definitions::DISK_FREE),
            disk_reserve: gauge(&definitions::DISK_RESERVE),
            state_rebuilds: counter(&definitions::STATE_REBUILDS),
            recorder: Some(recorder.clone()),
        }
    }

    /// Handles that record nothing, for tests and offline commands.
    #[must_use]
    pub const fn noop() -> Self {
        Self {
            commits: Counter::noop(),
            commit_duration: Histogram::noop(),
            commit_batch_size: Histogram::noop(),
            queue_depth: Gauge::noop(),
            queue_limit: Gauge::noop(),
            shed: Counter::noop(),
            increments: Counter::noop(),
            integers_issued: Counter::noop(),
            idempotency_keys: Gauge::noop(),
            idempotency_keys_limit: Gauge::noop(),
            journal_bytes: Gauge::noop(),
            checkpoint_duration: Histogram::noop(),
            ready: Gauge::noop(),
            poisoned: Gauge::noop(),
            disk_free: Gauge::noop(),
            disk_reserve: Gauge::noop(),
            state_rebuilds: Counter::noop(),
            recorder: None,
        }
    }

    /// Sets the time of the newest automatic backup, in Unix seconds. Until then the metric is
    /// absent.
    pub fn set_last_backup(&self, created_unix_s: u64) {
        if let Some(recorder) = &self.recorder {
            #[expect(clippy::cast_precision_loss, reason = "seconds of this millennium are exact")]
            recorder.gauge(&definitions::LAST_BACKUP, Vec::new()).set(created_unix_s as f64);
        }
    }

    /// Sets the time between automatic backups. Until then the metric is absent.
    pub fn set_backup_interval(&self, interval: Duration) {
        if let Some(recorder) = &self.recorder {
            recorder.gauge(&definitions::BACKUP_INTERVAL, Vec::new()).set(interval.as_secs_f64());
        }
    }

    /// Sets how the previous process stopped: `first`, `clean`, `unclean` or `poisoned`.
    pub fn set_previous_shutdown(&self, how: &'static str) {
        if let Some(recorder) = &self.recorder {
            recorder.gauge(&definitions::PREVIOUS_SHUTDOWN, label("how", how)).set(1.0);
        }
    }
}

/// What the listeners record.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    open: Gauge,
    /// Connections rejected because the total limit was reached.
    pub refused_total: Counter,
    /// Connections rejected because the limit per address was reached.
    pub refused_address: Counter,
}

impl ConnectionMetrics {
    pub(super) fn of(recorder: &Recorder, limit: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "at most a million")]
        recorder.gauge(&definitions::CONNECTIONS_LIMIT, Vec::new()).set(limit as f64);
        let refused =
            |limit| recorder.counter(&definitions::CONNECTIONS_REFUSED, label("limit", limit));
        Self {
            open: recorder.gauge(&definitions::CONNECTIONS, Vec::new()),
            refused_total: refused("total"),
            refused_address: refused("address"),
        }
    }

    /// Handles that record nothing.
    #[must_use]
    pub const fn noop() -> Self {
        Self {
            open: Gauge::noop(),
            refused_total: Counter::noop(),
            refused_address: Counter::noop(),
        }
    }

    /// Sets the number of open connections.
    pub fn set_open(&self, connections: usize) {
        #[expect(clippy::cast_precision_loss, reason = "at most a million")]
        self.open.set(connections as f64);
    }
}
