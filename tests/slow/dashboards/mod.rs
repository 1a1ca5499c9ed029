//! The dashboards, rules and runbook beside a real Prometheus that scrapes real servers.
//!
//! Job: `rules` holds the rules against their tests, the runbook and the metrics that there are;
//! `scraped` loads them; `alerts` breaks a server for each alert and sees it fire; `panels` asks
//! every query of every panel. `prometheus` is the child process, `shipped` the rules as it reads
//! them, `causes` the broken servers and `pressure` their clients, `schema` what Grafana wants of
//! its files.
//! Invariant: what is tested is read from the files that are shipped; a new alert, panel or rule is
//! in these tests by being there. It must never repeat an expression, or wait for a while instead
//! of for an answer.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `ODOMETER_GRAFANA_SCHEMA` | | A JSON schema of a dashboard, a file; the dashboards are held against it too. |

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod alerts;
mod causes;
mod panels;
mod pressure;
mod prometheus;
mod rules;
mod schema;
mod scraped;
mod shipped;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file or folder below `dashboards/`.
fn dashboards(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(dashboards(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The dashboards of Grafana, by file name.
fn grafana() -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(dashboards("grafana")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    assert!(!paths.is_empty(), "there are no dashboards");
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let json = serde_json::from_slice(&std::fs::read(&path).unwrap());
        (name.clone(), json.unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    paths.into_iter().map(read).collect()
}

/// Everything in a document under this key, however deep.
fn all_under<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(key));
            object.values().for_each(|value| all_under(value, key, found));
        }
        Value::Array(items) => items.iter().for_each(|value| all_under(value, key, found)),
        _ => {}
    }
}

/// The metrics and recording rules that an expression names; no label begins as they do.
fn names(expression: &str) -> BTreeSet<String> {
    const OURS: [&str; 4] = ["odometer_", "http_server_", "process_", "instance:"];
    let unquoted: String = expression.split('"').step_by(2).collect::<Vec<_>>().join("\"");
    let words = unquoted
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != ':');
    words
        .filter(|word| OURS.iter().any(|prefix| word.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}
