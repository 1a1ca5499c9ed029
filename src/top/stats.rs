//! What a server did between two pages of its metrics.
//!
//! Job: [`Stats::between`]. Invariant: a figure has the unit that its name says; one that nothing
//! was measured for is null. Names are public: scripts read them.
//! Must never: compare pages of two processes.

use serde::Serialize;

use super::scrape::{Labels, Scrape, quantile};

const REQUESTS: &str = "http_server_requests_total";
const DURATIONS: &str = "http_server_request_duration_seconds";
const COMMITS: &str = "odometer_commit_duration_seconds";

/// Everything that `odometer top` shows. The names say it, with their units;
/// `docs/monitoring.md` has more of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Stats {
    pub(super) at: String,
    pub(super) interval_s: f64,
    pub(super) version: String,
    pub(super) revision: String,
    pub(super) state: &'static str,
    pub(super) last_stop: String,
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

/// Whether a request was a tenant's, and not a probe's or a reader's of documents.
fn of_api(labels: &Labels<'_>) -> bool {
    let path = labels.get("path");
    path.starts_with("/api/") || path == "/users/create"
}

fn is_increment(labels: &Labels<'_>) -> bool {
    labels.get("path").ends_with("/increment")
}

impl Stats {
    /// What happened between two pages of one process, `interval_s` seconds apart; `unix_s` and
    /// `at` are when the second one came.
    #[must_use]
    pub(super) fn between(
        before: &Scrape,
        after: &Scrape,
        interval_s: f64,
        unix_s: f64,
        at: String,
    ) -> Self {
        let now = |name| after.value(name).unwrap_or(0.0);
        let rate = |name: &str, chosen: &dyn Fn(&Labels<'_>) -> bool| {
            ((after.sum(name, chosen) - before.sum(name, chosen)) / interval_s).max(0.0)
        };
        let all = |name: &str| rate(name, &|_| true);
        let answered = |class: char| {
            rate(REQUESTS, &|labels| of_api(labels) && labels.get("code").starts_with(class))
        };
        let milliseconds = |name: &str, chosen: &dyn Fn(&Labels<'_>) -> bool, of: f64| {
            quantile(&before.buckets(name, chosen), &after.buckets(name, chosen), of)
                .map(|seconds| seconds * 1000.0)
        };
        let mean = |sum: f64, count: f64| (count > 0.0).then(|| sum / count);
        let state = match (now("odometer_store_poisoned") > 0.0, now("odometer_store_ready") > 0.0)
        {
            (true, _) => "poisoned",
            (false, true) => "ready",
            (false, false) => "not-ready",
        };
        Self {
            at,
            interval_s,
            version: after.label("odometer_build_info", "version"),
            revision: after.label("odometer_build_info", "revision"),
            state,
            last_stop: after.label("odometer_previous_shutdown_info", "how"),
            uptime_s: (unix_s - now("process_start_time_seconds")).max(0.0),
            increments_per_s: all("odometer_increments_total"),
            integers_per_s: all("odometer_integers_issued_total"),
            increment_p50_ms: milliseconds(DURATIONS, &is_increment, 0.5),
            increment_p99_ms: milliseconds(DURATIONS, &is_increment, 0.99),
            requests_per_s: rate(REQUESTS, &of_api),
            request_p50_ms: milliseconds(DURATIONS, &of_api, 0.5),
            request_p99_ms: milliseconds(DURATIONS, &of_api, 0.99),
            refused_per_s: answered('4'),
            failed_per_s: answered('5'),
            rate_limited_per_s: all("odometer_rate_limited_total"),
            auth_failures_per_s: all("odometer_auth_failures_total"),
            commits_per_s: all("odometer_commits_total"),
            requests_per_commit: mean(
                all("odometer_commit_batch_size_sum"),
                all("odometer_commit_batch_size_count"),
            ),
            commit_p50_ms: milliseconds(COMMITS, &|_| true, 0.5),
            commit_p99_ms: milliseconds(COMMITS, &|_| true, 0.99),
            queue_depth: now("odometer_queue_depth"),
            queue_limit: now("odometer_queue_limit"),
            shed_per_s: all("odometer_shed_total"),
            journal_bytes: now("odometer_journal_bytes"),
            checkpoints: now("odometer_checkpoint_duration_seconds_count"),
            checkpoint_mean_ms: mean(
                now("odometer_checkpoint_duration_seconds_sum") * 1000.0,
                now("odometer_checkpoint_duration_seconds_count"),
            ),
            backup_age_s: after
                .value("odometer_backup_last_success_timestamp_seconds")
                .map(|made| unix_s - made),
            idempotency_keys: now("odometer_idempotency_keys"),
            idempotency_keys_limit: now("odometer_idempotency_keys_limit"),
            connections: now("odometer_connections"),
            connections_limit: now("odometer_connections_limit"),
            connections_refused_per_s: all("odometer_connections_refused_total"),
            disk_free_bytes: now("odometer_disk_free_bytes"),
            disk_reserve_bytes: now("odometer_disk_reserve_bytes"),
            certificate_days_left: after
                .value("odometer_tls_certificate_expiry_timestamp_seconds")
                .map(|expiry| (expiry - unix_s) / 86_400.0),
            log_lines_dropped: now("odometer_log_lines_dropped_total"),
            resident_bytes: now("process_resident_memory_bytes"),
            open_fds: now("process_open_fds"),
            max_fds: now("process_max_fds"),
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
        let figures = Stats::between(&before, &after, 2.0, 100.0, "now".to_owned());
        assert_eq!(
            (figures.increments_per_s, figures.requests_per_s, figures.failed_per_s),
            (10.0, 12.0, 2.0)
        );
        assert_eq!((figures.increment_p50_ms, figures.commit_p99_ms), (Some(0.5), None));
        assert_eq!(
            (figures.state, figures.uptime_s, figures.backup_age_s),
            ("not-ready", 60.0, None)
        );
    }
}
