//! The rules that are shipped, as Prometheus itself read them, and the same with shorter durations.
//!
//! Job: [`read`] asks a Prometheus for them, [`shortened`] makes minutes and days of them something
//! that a test can wait for, [`write`] gives them to another Prometheus.
//! Invariant: only durations change, and a longer one never becomes shorter than a shorter one. It
//! must never change a threshold.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::dashboards;
use super::prometheus::Prometheus;

/// Durations up to so many seconds become so many. An hour is long enough for three restarts, and
/// two days are half of what the test takes. A `for` and the window that it belongs to stay equal.
const SHORTER: [(u64, u64); 10] = [
    (60, 1),
    (120, 2),
    (900, 3),
    (1800, 4),
    (3600, 20),
    (21_600, 21),
    (86_400, 22),
    (259_200, 23),
    (604_800, 24),
    (2_592_000, 25),
];

/// One rule.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) query: String,
    /// Nothing for a recording rule.
    pub(crate) alert: Option<Alert>,
}

/// What only an alert has.
#[derive(Clone, Debug)]
pub(crate) struct Alert {
    pub(crate) hold_seconds: u64,
    pub(crate) labels: Map<String, Value>,
    pub(crate) annotations: Map<String, Value>,
}

impl Rule {
    /// Name and labels, such as `OdometerDown{severity="page"}`: several alerts may have one name.
    pub(crate) fn title(&self) -> String {
        let Some(alert) = &self.alert else { return self.name.clone() };
        let labels: Vec<String> =
            alert.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}{{{}}}", self.name, labels.join(","))
    }
}

/// The files, as the configuration names them.
pub(crate) fn files() -> [PathBuf; 2] {
    ["prometheus/recording.yml", "prometheus/alerts.yml"].map(dashboards)
}

/// All of them.
#[track_caller]
pub(crate) fn read() -> Vec<Rule> {
    let prometheus = Prometheus::start(&[], &files());
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds")]
    let rule = |rule: Value| Rule {
        group: text(&rule["group"]),
        name: text(&rule["name"]),
        query: text(&rule["query"]),
        alert: (rule["type"] == "alerting").then(|| Alert {
            hold_seconds: rule["duration"].as_f64().expect("seconds") as u64,
            labels: map(&rule["labels"]),
            annotations: map(&rule["annotations"]),
        }),
    };
    prometheus.rules().into_iter().map(rule).collect()
}

/// Writes them into a file of this name, each group evaluated as often as the others.
pub(crate) fn write(rules: &[Rule], file: &Path) {
    let mut groups: Vec<(&str, Vec<Value>)> = Vec::new();
    for rule in rules {
        let content = match &rule.alert {
            None => json!({ "record": rule.name, "expr": rule.query }),
            Some(alert) => json!({
                "alert": rule.name, "expr": rule.query, "for": format!("{}s", alert.hold_seconds),
                "labels": alert.labels, "annotations": alert.annotations,
            }),
        };
        match groups.last_mut() {
            Some((group, rules)) if *group == rule.group => rules.push(content),
            _ => groups.push((&rule.group, vec![content])),
        }
    }
    let group = |(name, rules): (&str, Vec<Value>)| json!({ "name": name, "rules": rules });
    let groups: Vec<Value> = groups.into_iter().map(group).collect();
    std::fs::write(file, json!({ "groups": groups }).to_string())
        .expect("a temporary file can be written");
}

/// The same rules with shorter windows, offsets and `for`.
pub(crate) fn shortened(rules: &[Rule]) -> Vec<Rule> {
    let shorten_one = |rule: &Rule| {
        let mut rule = rule.clone();
        rule.query = shorten(&rule.query);
        if let Some(alert) = &mut rule.alert {
            alert.hold_seconds = shorter(alert.hold_seconds);
        }
        rule
    };
    rules.iter().map(shorten_one).collect()
}

fn shorter(seconds: u64) -> u64 {
    if seconds == 0 {
        return 0;
    }
    let found = SHORTER.iter().find(|(up_to, _)| seconds <= *up_to);
    found
        .unwrap_or_else(|| panic!("{seconds} s is longer than anything that a test was made for"))
        .1
}

/// A duration stands behind `[`, or behind `offset`; Prometheus prints nothing else that looks so.
fn shorten(query: &str) -> String {
    let mut short = String::new();
    for (index, part) in query.split('"').enumerate() {
        if index > 0 {
            short.push('"');
        }
        // What is between quotes is a label's value.
        short.push_str(&if index % 2 == 0 { shorten_part(part) } else { part.to_owned() });
    }
    short
}

fn shorten_part(part: &str) -> String {
    let mut short = String::new();
    let mut rest = part;
    while let Some(at) =
        ["[", "offset "].iter().filter_map(|mark| Some(rest.find(mark)? + mark.len())).min()
    {
        let (before, after) = rest.split_at(at);
        let length =
            after.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(after.len());
        short.push_str(before);
        short.push_str(&format!("{}s", shorter(seconds(&after[..length]))));
        rest = &after[length..];
    }
    short + rest
}

/// `1h30m` in seconds.
fn seconds(duration: &str) -> u64 {
    let mut total = 0;
    let mut rest = duration;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let unit = rest[digits..]
            .find(|letter: char| letter.is_ascii_digit())
            .map_or(rest.len(), |at| digits + at);
        let factor = match &rest[digits..unit] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            other => panic!("{duration}: {other} is no unit"),
        };
        total += factor
            * rest[..digits].parse::<u64>().unwrap_or_else(|_| panic!("{duration} is no duration"));
        rest = &rest[unit..];
    }
    total
}

#[test]
fn only_durations_become_shorter() {
    let query = r#"sum(increase(a_total{path=~"[5m]"}[1h30m] offset 1d)) > 21 * 86400 and b[5m]"#;
    let short = r#"sum(increase(a_total{path=~"[5m]"}[21s] offset 22s)) > 21 * 86400 and b[3s]"#;
    assert_eq!(shorten(query), short);
    assert!(SHORTER.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1));
}
