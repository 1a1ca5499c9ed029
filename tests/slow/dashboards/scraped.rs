//! A loaded server below a real Prometheus with the shipped rules.
//!
//! Job: everything is scraped, and every rule can be evaluated on what is there.
//! Invariant: not one error or warning, of a scrape, a rule or the log. It must never pass on an
//! idle server.

use std::time::Duration;

use super::prometheus::{self, Prometheus};
use super::shipped::{read, write};
use crate::support::Random;
use crate::support::server::TestServer;
use crate::support::workload::{Clock, Load, register, runtime};

/// The first scrape comes after five seconds.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn a_loaded_server_is_scraped_and_each_rule_is_evaluated_without_a_complaint() {
    if !prometheus::is_here() {
        return;
    }
    let server = TestServer::start();
    let keys = runtime().block_on(register(&server.endpoint(), "scraped", 4));
    let load = Load::start(&server.endpoint(), &keys, Clock::start(), 4, Random::run_seed());
    // As they are; only each group is evaluated at once, also those that wait for a minute.
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("rules.yml");
    write(&read(), &file);
    let prometheus = Prometheus::start(&[("loaded".to_owned(), server.ops())], &[file]);
    prometheus.wait_until_none(DEADLINE, || {
        let targets = prometheus.ask("targets", &[]);
        let up = targets["activeTargets"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|target| target["health"] == "up")
            .count();
        let mut left = if up == 1 { Vec::new() } else { vec![targets.to_string()] };
        left.extend(
            prometheus
                .rules()
                .iter()
                .filter(|rule| rule["health"] != "ok")
                .map(ToString::to_string),
        );
        left
    });
    // A rule that is loaded can still fail on what it finds later, so they are looked at once more,
    // when there is something to find.
    prometheus.wait_until_none(DEADLINE, || {
        let counted = prometheus.query("rate(odometer_increments_total[5s]) > 0");
        if counted.is_empty() { vec!["no rate of increments".to_owned()] } else { Vec::new() }
    });
    let rules = prometheus.rules();
    let sick: Vec<_> = rules
        .iter()
        .filter(|rule| rule["health"] != "ok" || !rule["lastError"].is_null())
        .collect();
    assert!(sick.is_empty(), "{sick:#?}");
    let targets = prometheus.ask("targets", &[]);
    assert_eq!(targets["activeTargets"][0]["lastError"], "", "{targets}");
    let complaints = prometheus.complaints();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    load.finish();
    server.stop();
}
