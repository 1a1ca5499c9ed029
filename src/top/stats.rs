//! Statistics between two scrapes of a server's metrics.
//!
//! Job: [`Stats::between`].
//! Invariant: a number has the unit of its name; one without a measurement is null. Names are
//! public: scripts read them.
//! Must never: compare scrapes of two processes.

use serde::Serialize;

use super::scrape::{self, Labels, Scrape};

const REQUESTS: &str = "http_server_requests_total";
const DURATIONS: &str = "http_server_request_duration_seconds";
const COMMITS: &str = "odometer_commit_duration_seconds";

/// All numbers that `odometer top` shows; each name ends with its unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Stats {
    pub(super) at: String,
    pub(super) interval_s: f64,
    pub(super) version: String,
    pub(super) revision: String,
    pub(super) state: &'static str,
    pub(super) previous_shutdown: String,
    pub(super) uptime_s: f64,
    pub(super) increments_per_s: f64,
    pub(super) integers_per_s: f64,
    pub(super) increment_p50_ms: Option<f64>,
    pub(super) increment_p99_ms: Option<f64>,
    pub(super) requests_per_s: f64,
    pub(super) request_p50_ms: Option<f64>,
    pub(super) request_p99_ms: Option<f64>,
    pub(super) refused_per_s: f64,
    pub(super) failed_per_s: f64,
    pub(super) rate_limited_per_s: f64,
    pub(super) auth_failures_per_s: f64,
    pub(super) commits_per_s: f64,
    pub(super) requests_per_commit: Option<f64>,
    pub(super) commit_p50_ms: Option<f64>,
    pub(super) commit_p99_ms: Option<f64>,
    pub(super) queue_depth: f64,
    pub(super) queue_limit: f64,
    pub(super) shed_per_s: f64,
    pub(super) journal_bytes: f64,
    pub(super) checkpoints: f64,
    pub(super) checkpoint_mean_ms: Option<f64>,
    pub(super) backup_age_s: Option<f64>,
    pub(super) idempotency_keys: f64,
    pub(super) idempotency_keys_limit: f64,
    pub(super) connections: f64,
    pub(super) connections_limit: f64,
    pub(super) connections_refused_per_s: f64,
    pub(super) disk_free_bytes: f64,
    pub(super) disk_reserve_bytes: f64,
    pub(super) certificate_days_left: Option<f64>,
    pub(super) log_lines_dropped: f64,
    pub(super) resident_bytes: f64,
    pub(super) open_fds: f64,
    pub(super) max_fds: f64,
}

/// Whether the request belongs to the tenant API, not to probes or documents.
fn is_tenant_api(labels: &Labels<'_>) -> bool {
    let path = labels.get("path");
    path.starts_with("/api/") || path == "/users/create"
}

fn is_increment(labels: &Labels<'_>) -> bool {
    labels.get("path").ends_with("/increment")
}

/// Two scrapes of one process, `seconds` apart.
struct Interval<'a> {
    before: &'a Scrape,
    after: &'a Scrape,
    seconds: f64,
}

impl Interval<'_> {
    /// The value of a gauge at the end of the interval; 0 if it is absent.
    fn value(&self, name: &str) -> f64 {
        self.after.value(name).unwrap_or(0.0)
    }

    /// The increase per second of the series of a counter that `chosen` selects.
    fn rate(&self, name: &str, chosen: impl Fn(&Labels<'_>) -> bool) -> f64 {
        let increase = self.after.sum(name, &chosen) - self.before.sum(name, &chosen);
        (increase / self.seconds).max(0.0)
    }

    /// The increase per second of all series of a counter.
    fn rate_of_all(&self, name: &str) -> f64 {
        self.rate(name, |_| true)
    }

    /// Responses per second of the tenant API with status codes of this class.
    fn response_rate(&self, class: char) -> f64 {
        self.rate(REQUESTS, |labels| is_tenant_api(labels) && labels.get("code").starts_with(class))
    }

    /// A quantile of a histogram of seconds, in milliseconds.
    fn quantile_ms(
        &self,
        name: &str,
        chosen: impl Fn(&Labels<'_>) -> bool,
        quantile: f64,
    ) -> Option<f64> {
        let (before, after) =
            (self.before.buckets(name, &chosen), self.after.buckets(name, chosen));
        scrape::quantile(&before, &after, quantile).map(|seconds| seconds * 1000.0)
    }

    fn state(&self) -> &'static str {
        match (
            self.value("odometer_store_poisoned") > 0.0,
            self.value("odometer_store_ready") > 0.0,
        ) {
            (true, _) => "poisoned",
            (false, true) => "ready",
            (false, false) => "not-ready",
        }
    }
}

fn mean(sum: f64, count: f64) -> Option<f64> {
    (count > 0.0).then(|| sum / count)
}

impl Stats {
    /// The difference of two scrapes of one process, `interval_s` seconds apart; `unix_s` and `at`
    /// are the time of the second one.
    pub(super) fn between(
        before: &Scrape,
        after: &Scrape,
        interval_s: f64,
        unix_s: f64,
        at: String,
    ) -> Self {
        let i = Interval { before, after, seconds: interval_s };
        Self {
            at,
            interval_s,
            version: after.label("odometer_build_info", "version"),
            revision: after.label("odometer_build_info", "revision"),
            state: i.state(),
            previous_shutdown: after.label("odometer_previous_shutdown_info", "how"),
            uptime_s: (unix_s - i.value("process_start_time_seconds")).max(0.0),
            increments_per_s: i.rate_of_all("odometer_increments_total"),
            integers_per_s: i.rate_of_all("odometer_integers_issued_total"),
            increment_p50_ms: i.quantile_ms(DURATIONS, is_increment, 0.5),
            increment_p99_ms: i.quantile_ms(DURATIONS, is_increment, 0.99),
            requests_per_s: i.rate(REQUESTS, is_tenant_api),
            request_p50_ms: i.quantile_ms(DURATIONS, is_tenant_api, 0.5),
            request_p99_ms: i.quantile_ms(DURATIONS, is_tenant_api, 0.99),
            refused_per_s: i.response_rate('4'),
            failed_per_s: i.response_rate('5'),
            rate_limited_per_s: i.rate_of_all("odometer_rate_limited_total"),
            auth_failures_per_s: i.rate_of_all("odometer_auth_failures_total"),
            commits_per_s: i.rate_of_all("odometer_commits_total"),
            requests_per_commit: mean(
                i.rate_of_all("odometer_commit_batch_size_sum"),
                i.rate_of_all("odometer_commit_batch_size_count"),
            ),
            commit_p50_ms: i.quantile_ms(COMMITS, |_| true, 0.5),
            commit_p99_ms: i.quantile_ms(COMMITS, |_| true, 0.99),
            queue_depth: i.value("odometer_queue_depth"),
            queue_limit: i.value("odometer_queue_limit"),
            shed_per_s: i.rate_of_all("odometer_shed_total"),
            journal_bytes: i.value("odometer_journal_bytes"),
            checkpoints: i.value("odometer_checkpoint_duration_seconds_count"),
            checkpoint_mean_ms: mean(
                i.value("odometer_checkpoint_duration_seconds_sum") * 1000.0,
                i.value("odometer_checkpoint_duration_seconds_count"),
            ),
            backup_age_s: after
                .value("odometer_backup_last_success_timestamp_seconds")
                .map(|made| unix_s - made),
            idempotency_keys: i.value("odometer_idempotency_keys"),
            idempotency_keys_limit: i.value("odometer_idempotency_keys_limit"),
            connections: i.value("odometer_connections"),
            connections_limit: i.value("odometer_connections_limit"),
            connections_refused_per_s: i.rate_of_all("odometer_connections_refused_total"),
            disk_free_bytes: i.value("odometer_disk_free_bytes"),
            disk_reserve_bytes: i.value("odometer_disk_reserve_bytes"),
            certificate_days_left: after
                .value("odometer_tls_certificate_expiry_timestamp_seconds")
                .map(|expiry| (expiry - unix_s) / 86_400.0),
            log_lines_dropped: i.value("odometer_log_lines_dropped_total"),
            resident_bytes: i.value("process_resident_memory_bytes"),
            open_fds: i.value("process_open_fds"),
            max_fds: i.value("process_max_fds"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_and_of_the_api_alone() {
        let increment = ("path", "/api/v1/integer/increment");
        let (requests, bucket) = (REQUESTS, "http_server_request_duration_seconds_bucket");
        let before = Scrape::of(&[
            (requests, &[("code", "200"), ("path", "/readyz")], 5.0),
            (requests, &[("code", "200"), increment], 100.0),
            ("odometer_increments_total", &[], 100.0),
            ("odometer_store_ready", &[], 1.0),
        ]);
        let after = Scrape::of(&[
            (requests, &[("code", "200"), ("path", "/readyz")], 500.0),
            (requests, &[("code", "200"), increment], 120.0),
            (requests, &[("code", "503"), increment], 4.0),
            (bucket, &[increment, ("le", "0.001")], 24.0),
            (bucket, &[increment, ("le", "+Inf")], 24.0),
            ("odometer_increments_total", &[], 120.0),
            ("odometer_store_ready", &[], 0.0),
            ("process_start_time_seconds", &[], 40.0),
        ]);
        let stats = Stats::between(&before, &after, 2.0, 100.0, "now".to_owned());
        assert_eq!(
            (stats.increments_per_s, stats.requests_per_s, stats.failed_per_s),
            (10.0, 12.0, 2.0)
        );
        assert_eq!((stats.increment_p50_ms, stats.commit_p99_ms), (Some(0.5), None));
        assert_eq!((stats.state, stats.uptime_s, stats.backup_age_s), ("not-ready", 60.0, None));
    }
}
