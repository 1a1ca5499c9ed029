//! Tests of `metrics.rs`, in a file of their own because of its length.

use super::*;

const ROUTES: &[&str] = &["/livez", "/api/v1/counters/{name}", "other"];

fn metrics() -> Metrics {
    Metrics::new("1.2.3", "abc\"def", ROUTES)
}

fn series(page: &str) -> usize {
    page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
}

/// The rendered metrics after each was recorded once.
fn full_page() -> String {
    let metrics = metrics();
    let store = metrics.store();
    metrics.http(1, method_index("PUT"), 200, Duration::from_micros(300));
    store.set_last_backup(1);
    store.set_backup_interval(Duration::from_secs(60));
    store.set_previous_shutdown("first");
    drop(metrics.connections(10));
    metrics.set_certificate_expiry(1.9e9);
    store.commit_duration.record(Duration::from_micros(134));
    store.commit_batch_size.record(64.0);
    metrics.render()
}

#[test]
fn the_page_has_every_metric_with_help_and_type() {
    let page = full_page();
    for metric in definitions::ALL {
        let kind = metric.kind.name();
        assert!(
            page.contains(&format!("# HELP {} {}\n", metric.name, metric.help)),
            "{}",
            metric.name
        );
        assert!(page.contains(&format!("# TYPE {} {kind}\n", metric.name)), "{}", metric.name);
    }
    assert!(page.contains("# TYPE process_cpu_seconds_total counter\n"), "{page}");
    assert!(
        page.contains("odometer_build_info{version=\"1.2.3\",revision=\"abc\\\"def\"} 1\n"),
        "{page}"
    );
    assert!(page.contains("odometer_commit_batch_size_bucket{le=\"64\"} 1\n"), "{page}");
    assert!(page.contains("odometer_commit_batch_size_bucket{le=\"32\"} 0\n"), "{page}");
}

#[test]
fn known_labels_start_at_zero_and_unused_routes_are_absent() {
    let metrics = metrics();
    let page = metrics.render();
    for reason in AUTH_FAILURE_REASONS {
        assert!(
            page.contains(&format!("odometer_auth_failures_total{{reason=\"{reason}\"}} 0\n")),
            "{reason}"
        );
    }
    for scope in RATE_LIMIT_SCOPES {
        assert!(
            page.contains(&format!("odometer_rate_limited_total{{scope=\"{scope}\"}} 0\n")),
            "{scope}"
        );
    }
    assert!(page.contains("odometer_log_lines_dropped_total 0\n"));
    assert!(!page.contains("http_server_requests_total") && !page.contains("certificate_expiry"));
    metrics.preregister_http(1, method_index("PUT"), &[200, 503]);
    metrics.preregister_http(99, 0, &[200]);
    let page = metrics.render();
    for code in [200, 503] {
        let line = format!(
            "http_server_requests_total{{code=\"{code}\",method=\"PUT\",\
             path=\"/api/v1/counters/{{name}}\"}} 0\n"
        );
        assert!(page.contains(&line), "{page}");
    }
    assert_eq!(page.matches("http_server_requests_total{").count(), 2);
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
        "http_server_requests_total{code=\"418\",method=\"other\",\
         path=\"/api/v1/counters/{name}\"} 10000",
        "http_server_requests_total{code=\"404\",method=\"other\",path=\"other\"} 10000",
        "http_server_request_duration_seconds_bucket{method=\"GET\",path=\"/livez\",\
         le=\"0.0001\"} 0",
        "http_server_request_duration_seconds_bucket{method=\"GET\",path=\"/livez\",\
         le=\"0.00025\"} 10000",
        "http_server_request_duration_seconds_bucket{method=\"GET\",path=\"/livez\",\
         le=\"+Inf\"} 10000",
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
    StoreMetrics::noop().commits.increment(1);
}

#[test]
fn lost_log_lines_are_reported() {
    let metrics = metrics();
    let drops = LogDrops::default();
    metrics.watch_log_drops(drops.clone());
    drops.add(5);
    assert!(metrics.render().contains("odometer_log_lines_dropped_total 5\n"));
}

#[test]
fn codes_are_sorted_for_the_search() {
    assert!(KNOWN_STATUS_CODES.is_sorted_by(|a, b| a < b));
    assert_eq!((method_index("GET"), method_index("get"), method_index("OPTIONS")), (0, 7, 6));
}
