//! The handles through which the two edges record: the disk's ([`StoreMetrics`]) and the network's ([`ConnectionMetrics`]).
//!
//! Job: name what may be recorded there. Invariant: recording is an atomic or two; a histogram takes a `Duration` or a number.
//! Must never: be registered anew for each request.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::definitions;
use super::recorder::{Recorder, label};

/// What a store records.
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
    /// Requests that may wait for it.
    pub queue_limit: Gauge,
    /// Requests refused because the queue was full.
    pub shed: Counter,
    /// Increments made durable; a range counts once.
    pub increments: Counter,
    /// Integers made durable; a range counts all of its own.
    pub integers_issued: Counter,
    /// Idempotency keys that are remembered.
    pub idempotency_keys: Gauge,
    /// Idempotency keys that may be remembered.
    pub idempotency_keys_limit: Gauge,
    /// Bytes that the journal's files take.
    pub journal_bytes: Gauge,
    /// Time of one checkpoint, in seconds.
    pub checkpoint_duration: Histogram,
    /// 1 while writes are accepted, otherwise 0.
    pub ready: Gauge,
    /// 1 once a write failed.
    pub poisoned: Gauge,
    /// Bytes free where the data folder is. 0 until first set: set it when the store opens.
    pub disk_free: Gauge,
    /// Bytes that have to stay free there.
    pub disk_reserve: Gauge,
    /// States that were rebuilt.
    pub state_rebuilds: Counter,
    /// For what is absent until it is known.
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

    /// Says when the newest automatic backup was made. Without a call the metric is absent.
    pub fn set_last_backup(&self, created_unix_s: u64) {
        if let Some(recorder) = &self.recorder {
            #[expect(clippy::cast_precision_loss, reason = "seconds of this millennium are exact")]
            recorder.gauge(&definitions::LAST_BACKUP, Vec::new()).set(created_unix_s as f64);
        }
    }

    /// Says how often automatic backups are made. Without a call the metric is absent.
    pub fn set_backup_interval(&self, interval: Duration) {
        if let Some(recorder) = &self.recorder {
            recorder.gauge(&definitions::BACKUP_INTERVAL, Vec::new()).set(interval.as_secs_f64());
        }
    }

    /// Says how the process before this one ended: one of a few fixed words.
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
    /// Connections refused because too many were open.
    pub refused_total: Counter,
    /// Connections refused because too many of one address were.
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

    /// Says how many are open.
    pub fn set_open(&self, connections: usize) {
        #[expect(clippy::cast_precision_loss, reason = "at most a million")]
        self.open.set(connections as f64);
    }
}
