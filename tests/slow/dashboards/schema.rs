//! The dashboards beside the schema that Grafana publishes for them.
//!
//! Job: each dashboard keeps to that schema, and one that is spoilt does not.
//! Invariant: the draft that the schema names decides what its keywords mean, formats count, and
//! the schema itself has to be right by that draft. It must never ask the network or the disk for a
//! part of the schema, nor be needed: without `ODOMETER_GRAFANA_SCHEMA`, a file, the test is
//! skipped and says so.

use jsonschema::Validator;
use serde_json::Value;

use super::grafana;
use crate::support::{say, setting};

/// What is wrong with a value, each with its place.
fn problems(schema: &Validator, value: &Value) -> Vec<String> {
    schema.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn each_dashboard_is_as_the_published_schema_of_grafana_wants_it() {
    let Some(path) = setting("ODOMETER_GRAFANA_SCHEMA") else {
        say(
            "skipped: needs ODOMETER_GRAFANA_SCHEMA, the schema of a dashboard that Grafana publishes",
        );
        return;
    };
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let schema = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    for (name, dashboard) in grafana() {
        let found = problems(&schema, &dashboard);
        assert!(found.is_empty(), "{name}:\n{}", found.join("\n"));
        let mut spoilt = dashboard.clone();
        spoilt["schemaVersion"] = "forty".into();
        spoilt["no_such_thing"] = 1.into();
        let found = problems(&schema, &spoilt);
        assert_eq!(found.len(), 2, "{name}: what is wrong is not seen: {found:?}");
    }
}
