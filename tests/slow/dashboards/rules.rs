//! The rules beside their own tests, the runbook and the metrics of a real server.
//!
//! Job: promtool accepts rules and configuration and passes the shipped tests; each rule would be
//! missed by them; each alert says what it must and has its section in the runbook; each name that
//! rules and dashboards use exists.
//! Invariant: rules and tests are read by Prometheus and promtool, not by a second reader of YAML.
//! It must never know an alert by name.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::shipped::{Alert, Rule, read, write};
use super::{all_under, dashboards, grafana, names, prometheus, text};
use crate::support::client::Protocol;
use crate::support::server::TestServer;
use crate::support::workload::{register, runtime};

const RUNBOOK: &str = "RUNBOOK.md";
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs promtool in a folder: whether it succeeded, and all that it said, errors where they belong.
fn promtool(folder: &Path, words: &[&str], input: Stdio) -> (bool, String) {
    let (mut said, end) = std::io::pipe().unwrap();
    let mut command = Command::new("promtool");
    command.args(words).current_dir(folder).stdin(input);
    command.stdout(end.try_clone().unwrap()).stderr(end);
    let mut child = command.spawn().expect("promtool starts");
    // Its ends of the pipe go with it, and the reader ends with promtool.
    drop(command);
    let mut text = String::new();
    said.read_to_string(&mut text).expect("promtool writes text");
    (child.wait().expect("promtool ends").success(), text)
}

/// The files with tests of the rules.
fn test_files() -> Vec<String> {
    let entries = std::fs::read_dir(dashboards("prometheus")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("tests") && name.ends_with(".yml"));
    assert!(!names.is_empty(), "there are no tests of the rules");
    names
}

fn alerts(rules: &[Rule]) -> impl Iterator<Item = (&Rule, &Alert)> {
    rules.iter().filter_map(|rule| Some((rule, rule.alert.as_ref()?)))
}

#[test]
fn promtool_accepts_them_and_passes_their_tests() {
    if !prometheus::is_here() {
        return;
    }
    let folder = dashboards("prometheus");
    let files = test_files();
    let tests: Vec<&str> =
        ["test", "rules"].into_iter().chain(files.iter().map(String::as_str)).collect();
    for words in [
        &["check", "config", "prometheus.yml"],
        &["check", "rules", "recording.yml", "alerts.yml"][..],
        &tests,
    ] {
        let (succeeded, said) = promtool(&folder, words, Stdio::null());
        assert!(succeeded, "promtool {words:?}: {said}");
    }
}

/// One case of the tests that fails where every alert always fires and nothing is recorded.
struct Case {
    /// The alert or the expression that is asked, and when.
    about: String,
    /// What is expected, a line or more.
    expected: String,
}

/// promtool runs the tests beside rules with which no case can be right, so that it tells every one
/// of them.
fn cases(rules: &[Rule]) -> Vec<Case> {
    let temp = TempDir::new().unwrap();
    let mut wrong: Vec<Rule> = alerts(rules).map(|(rule, _)| rule.clone()).collect();
    for rule in &mut wrong {
        "vector(1)".clone_into(&mut rule.query);
        if let Some(alert) = &mut rule.alert {
            alert.hold_seconds = 0;
            alert.annotations.clear();
        }
    }
    write(&wrong, &temp.path().join("alerts.yml"));
    write(&[], &temp.path().join("recording.yml"));
    let mut words = vec!["test".to_owned(), "rules".to_owned()];
    for name in test_files() {
        std::fs::copy(dashboards("prometheus").join(&name), temp.path().join(&name)).unwrap();
        words.push(name);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (succeeded, said) = promtool(temp.path(), &words, Stdio::null());
    assert!(!succeeded, "the tests pass whatever the rules say: {said}");
    let split = |block: &str| {
        let (about, rest) = block.split_once("exp:")?;
        let (expected, _) = rest.split_once("got:")?;
        // What a test is called is not what it asks.
        let asked = about.lines().filter(|line| !line.trim_start().starts_with("name:"));
        Some(Case { about: asked.collect(), expected: expected.to_owned() })
    };
    said.split("\n\n").filter_map(split).collect()
}

/// Whether these labels, and `alertname`, are all in one line or braces of what is expected.
fn is_expected(rule: &Rule, alert: &Alert, case: &Case) -> bool {
    let label = |(name, value): (&String, &Value)| format!("{name}={value}");
    let wanted: Vec<String> =
        alert.labels.iter().map(label).chain([format!("alertname=\"{}\"", rule.name)]).collect();
    case.expected.split('}').any(|series| wanted.iter().all(|label| series.contains(label)))
}

#[test]
fn each_rule_would_be_missed_by_their_tests() {
    if !prometheus::is_here() {
        return;
    }
    let rules = read();
    let cases = cases(&rules);
    let mut untested = Vec::new();
    for (rule, alert) in alerts(&rules) {
        let about: Vec<&Case> =
            cases.iter().filter(|case| case.about.contains(&rule.name)).collect();
        let firing = about.iter().filter(|case| is_expected(rule, alert, case)).count();
        if firing == 0 {
            untested.push(format!("{}: no case in which it fires", rule.title()));
        }
        if firing == about.len() {
            untested.push(format!("{}: no case in which it is quiet", rule.title()));
        }
    }
    for rule in rules.iter().filter(|rule| rule.alert.is_none()) {
        if !cases.iter().any(|case| names(&case.about.replace('"', " ")).contains(&rule.name)) {
            untested.push(format!("{}: no case with its value", rule.name));
        }
    }
    assert!(untested.is_empty(), "{}", untested.join("\n"));
}

/// The anchors of the headings of a text, as GitHub and most others make them.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let kept = |letter: &char| letter.is_alphanumeric() || ['-', '_', ' '].contains(letter);
    let heading = |line: &str| {
        let text =
            line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))?;
        Some(text.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-"))
    };
    markdown.lines().filter_map(heading).collect()
}

#[test]
fn each_alert_says_what_it_must_and_has_its_section_in_the_runbook() {
    if !prometheus::is_here() {
        return;
    }
    let rules = read();
    let runbook = text(RUNBOOK);
    let sections: BTreeSet<&str> =
        runbook.lines().filter_map(|line| line.strip_prefix("## Odometer")).collect();
    let named: BTreeSet<&str> =
        alerts(&rules).filter_map(|(rule, _)| rule.name.strip_prefix("Odometer")).collect();
    assert_eq!(sections, named, "the alerts, and the sections of {RUNBOOK}");
    let anchors = anchors(&runbook);
    for (rule, alert) in alerts(&rules) {
        let title = rule.title();
        let severity = alert.labels.get("severity").and_then(Value::as_str).unwrap_or_default();
        assert!(["page", "ticket"].contains(&severity), "{title} has the severity {severity:?}");
        for name in ["summary", "description"] {
            let text = alert.annotations.get(name).and_then(Value::as_str).unwrap_or_default();
            assert!(!text.trim().is_empty(), "{title} has no {name}");
        }
        let url = alert.annotations.get("runbook_url").and_then(Value::as_str).unwrap_or_default();
        let wanted = format!("dashboards/{RUNBOOK}#{}", rule.name.to_lowercase());
        assert_eq!(url, wanted, "runbook_url of {title}");
        assert!(
            anchors.contains(&rule.name.to_lowercase()),
            "{RUNBOOK} has no heading {}",
            rule.name
        );
    }
}

#[test]
fn each_link_into_the_runbook_leads_to_a_heading() {
    let anchors = anchors(&text(RUNBOOK));
    let mut links = 0;
    let mut files =
        vec![(RUNBOOK.to_owned(), text(RUNBOOK)), ("SLO.md".to_owned(), text("SLO.md"))];
    files.extend(grafana().into_iter().map(|(name, dashboard)| (name, dashboard.to_string())));
    for (name, content) in files {
        let mark = if name == RUNBOOK { "](#" } else { "RUNBOOK.md#" };
        for link in content.split(mark).skip(1) {
            let end = link
                .find(|letter: char| !letter.is_alphanumeric() && !['-', '_'].contains(&letter));
            let anchor = &link[..end.unwrap_or(link.len())];
            assert!(anchors.contains(anchor), "{name}: {RUNBOOK} has no heading for #{anchor}");
            links += 1;
        }
    }
    assert!(links > 0, "nothing leads to the runbook");
}

/// What a server that has done some work says at `/metrics`.
fn page_of_a_server() -> String {
    let server = TestServer::builder().flag("--backup-interval", "1s").start();
    runtime().block_on(async {
        let key = register(&server.endpoint(), "names", 1).await.remove(0);
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        client.increment(&key).await.unwrap();
        let until = Instant::now() + DEADLINE;
        // Absent before the first.
        while server.metric("odometer_backup_last_success_timestamp_seconds").is_none() {
            assert!(Instant::now() < until, "no automatic backup");
            client.increment(&key).await.unwrap();
        }
    });
    let (_, page) = server.ops_get("/metrics");
    server.stop();
    page
}

/// The metrics of such a server, as samples name them.
fn metrics_of_a_server() -> BTreeSet<String> {
    let page = page_of_a_server();
    let mut found = BTreeSet::new();
    for line in page.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("TYPE"), Some(name), Some("histogram")) => {
                found.extend(["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")));
            }
            (Some("#"), Some("TYPE"), Some(name), Some(_)) => {
                found.insert(name.to_owned());
            }
            _ => {}
        }
    }
    found
}

/// The queries of the dashboards, annotations and variables included.
fn queries_of_dashboards() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (name, dashboard) in grafana() {
        let mut found = Vec::new();
        all_under(&dashboard, "expr", &mut found);
        all_under(&dashboard["templating"], "query", &mut found);
        queries.extend(
            found.into_iter().filter_map(|query| Some((name.clone(), query.as_str()?.to_owned()))),
        );
    }
    queries
}

#[test]
fn each_metric_and_each_recording_rule_that_is_named_exists() {
    if !prometheus::is_here() {
        return;
    }
    let rules = read();
    let is_record = |rule: &&Rule| rule.alert.is_none();
    let records: BTreeSet<String> =
        rules.iter().filter(is_record).map(|rule| rule.name.clone()).collect();
    let mut known = metrics_of_a_server();
    known.extend(records.iter().cloned());
    let mut queries: Vec<(String, String)> =
        rules.iter().map(|rule| (rule.title(), rule.query.clone())).collect();
    queries.extend(queries_of_dashboards());
    let mut used = names(&text("SLO.md"));
    for (place, query) in &queries {
        let names = names(query);
        let unknown: Vec<&String> = names.difference(&known).collect();
        assert!(unknown.is_empty(), "{place}: there is no {unknown:?} in {query}");
        used.extend(names);
    }
    let idle: Vec<&String> = records.difference(&used).collect();
    assert!(idle.is_empty(), "recorded, and used nowhere: {idle:?}");
}

#[test]
fn promtool_finds_nothing_to_say() {
    if !prometheus::is_here() {
        return;
    }
    let temp = TempDir::new().unwrap();
    let page = temp.path().join("metrics");
    std::fs::write(&page, page_of_a_server()).unwrap();
    let page = std::fs::File::open(page).unwrap();
    let (succeeded, said) = promtool(temp.path(), &["check", "metrics"], page.into());
    assert!(succeeded && said.is_empty(), "{said}");
}
