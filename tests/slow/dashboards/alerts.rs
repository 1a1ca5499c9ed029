//! Each alert, seen firing for its real cause; and a healthy server beside all that trouble, for
//! which none does.
//!
//! Job: one Prometheus with the shipped rules, their durations shortened, scrapes a server for each
//! cause.
//! Invariant: which alerts there are is read from the rules: one without a cause in [`CAUSES`]
//! fails the test. It must never count an alert that was only pending, or one of another server.

use std::time::Duration;

use super::causes::Causes;
use super::pressure::Pressure;
use super::prometheus::{self, Prometheus, Sample};
use super::shipped::{Rule, read, shortened, write};
use crate::support::{has_program, require, say};

const SCRAPED: Duration = Duration::from_secs(30);
const FIRED: Duration = Duration::from_secs(120);

/// Which server is in the trouble that an alert is for; more than one where it has several forms.
const CAUSES: [(&str, &str); 20] = [
    ("OdometerDown", "stopped"),
    ("OdometerNotReady", "full"),
    ("OdometerDiskLow", "full"),
    ("OdometerErrorBudgetBurn", "full"),
    ("OdometerPoisoned", "poisoned"),
    ("OdometerRestarted", "killed"),
    ("OdometerCommitSlow", "slow"),
    ("OdometerLatencyBudgetBurn", "slower"),
    ("OdometerDurabilityBudgetBurn", "slower"),
    ("OdometerShedding", "stuck"),
    ("OdometerConnectionsNearLimit", "crowded"),
    ("OdometerConnectionsRefused", "crowded"),
    ("OdometerConnectionsRefused", "besieged"),
    ("OdometerIdempotencyKeysNearLimit", "remembering"),
    ("OdometerDiskFilling", "filling"),
    ("OdometerStateRebuilt", "state-rebuilt"),
    ("OdometerBackupOld", "unsaved"),
    ("OdometerCertificateExpiring", "expiring"),
    ("OdometerLogLinesDropped", "mute"),
    ("OdometerAuthFailureSurge", "guessed"),
];
/// An exception is a fault of the program itself: a test that could bring one about would be the
/// report of a bug. Its cases in tests.yml stand for it.
const WITHOUT_CAUSE: [&str; 1] = ["OdometerExceptions"];
/// What may fire for the healthy server too: shortened, a few slow seconds of a machine that twenty
/// processes share are as bad as hours of them.
const SLOWNESS: [&str; 3] =
    ["OdometerCommitSlow", "OdometerLatencyBudgetBurn", "OdometerDurabilityBudgetBurn"];

/// Everything that has fired since the start.
fn fired(prometheus: &Prometheus) -> Vec<Sample> {
    prometheus.query(r#"count_over_time(ALERTS{alertstate="firing"}[1h])"#)
}

/// Whether one of these is this alert, with its own labels, for one of its servers.
fn is_among(rule: &Rule, fired: &[Sample]) -> bool {
    let Some(alert) = &rule.alert else { return true };
    let instances: Vec<&str> = CAUSES
        .iter()
        .filter(|(name, _)| *name == rule.name)
        .map(|(_, instance)| *instance)
        .collect();
    fired.iter().any(|sample| {
        let has_labels = alert.labels.iter().all(|(name, value)| sample.label(name) == value);
        sample.label("alertname") == rule.name
            && has_labels
            && instances.contains(&sample.label("instance"))
    })
}

#[test]
fn each_alert_fires_for_its_real_cause_and_none_for_a_healthy_server() {
    let has_strace = require("strace", has_program("strace"));
    if !prometheus::is_here() || !has_strace {
        return;
    }
    let rules = shortened(&read());
    let is_expected = |rule: &&Rule, causes: &Causes| {
        let mut servers = CAUSES
            .iter()
            .filter(|(name, _)| *name == rule.name)
            .map(|(_, server)| *server)
            .peekable();
        let is_known = rule.alert.is_none()
            || servers.peek().is_some()
            || WITHOUT_CAUSE.contains(&rule.name.as_str());
        assert!(is_known, "{} has no cause here", rule.name);
        rule.alert.is_some() && servers.any(|server| causes.has(server))
    };
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("rules.yml");
    write(&rules, &file);
    let mut causes = Causes::start();
    let expected: Vec<&Rule> = rules.iter().filter(|rule| is_expected(rule, &causes)).collect();
    let prometheus = Prometheus::start(&causes.addresses(), &[file]);
    let all = causes.addresses().len();
    prometheus.wait_until_none(SCRAPED, || {
        let up = prometheus.query("up == 1").len();
        if up == all { Vec::new() } else { vec![format!("{up} of {all} servers were scraped")] }
    });
    let pressure = Pressure::start(&causes);
    bring_trouble(&mut causes, &prometheus);
    prometheus.wait_until_none(FIRED, || {
        let fired = fired(&prometheus);
        expected
            .iter()
            .filter(|rule| !is_among(rule, &fired))
            .map(|rule| format!("{}: {}", rule.title(), rule.query))
            .collect()
    });
    let fired = fired(&prometheus);
    let healthy = fired.iter().filter(|sample| sample.label("instance") == "healthy");
    let (tolerated, wrong): (Vec<_>, Vec<_>) =
        healthy.partition(|sample| SLOWNESS.contains(&sample.label("alertname")));
    assert!(wrong.is_empty(), "the healthy server is complained about: {wrong:?}");
    let slowness = tolerated.len();
    say(&format!(
        "alerts: {} fired, and {slowness} of slowness for the healthy server",
        expected.len()
    ));
    drop(pressure);
}

/// What happens at one moment, and not all the time.
fn bring_trouble(causes: &mut Causes, prometheus: &Prometheus) {
    causes.stop_one();
    causes.poison_one();
    for restarts in 1..=3 {
        causes.kill_one();
        // A start is told to the second, from a clock that may be a second behind.
        let start = r#"process_start_time_seconds{instance="killed"}"#;
        let seen = format!("changes({start}[1h]) >= {restarts} and time() - {start} > 2");
        prometheus.wait_until_none(SCRAPED, || {
            let is_seen = !prometheus.query(&seen).is_empty();
            let known = || {
                prometheus
                    .query(&format!("{start} or up{{instance=\"killed\"}} or changes({start}[1h])"))
            };
            if is_seen {
                Vec::new()
            } else {
                vec![format!("start {restarts} of the killed server: {:?}", known())]
            }
        });
    }
    // The half minute before must be there to be compared with.
    prometheus.wait_until_none(SCRAPED, || {
        let known = prometheus
            .query(r#"count_over_time(odometer_disk_free_bytes{instance="healthy"}[1h]) > 20"#);
        if known.is_empty() {
            vec!["twenty scrapes of the free disk".to_owned()]
        } else {
            Vec::new()
        }
    });
    causes.fill_disk();
}
