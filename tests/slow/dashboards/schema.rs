//! The dashboards beside the schema of Grafana's classic dashboard model.
//!
//! Job: each dashboard keeps to the schema, and one that is spoilt does not. `schema.json` beside
//! this file is the part of the model that the dashboards use, with its source;
//! `ODOMETER_GRAFANA_SCHEMA` names a file with another one, such as a schema that Grafana
//! publishes, which the dashboards must keep to as well.
//! Invariant: the draft that a schema names decides what its keywords mean, formats count, and the
//! schema itself has to be right by that draft.
//! Must never: ask the network for a part of a schema, or be skipped.

use jsonschema::Validator;
use serde_json::Value;

use super::grafana;
use crate::support::setting;

const OWN: &str = include_str!("schema.json");

fn validator(schema: &str) -> Validator {
    let schema: Value = serde_json::from_str(schema).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

/// What is wrong with a value, each with its place.
fn problems(schema: &Validator, value: &Value) -> Vec<String> {
    schema.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn each_dashboard_is_as_the_schema_of_grafana_wants_it() {
    let published = setting("ODOMETER_GRAFANA_SCHEMA");
    let published = published.map(|path| std::fs::read_to_string(path).unwrap());
    for schema in [OWN.to_owned()].into_iter().chain(published).map(|text| validator(&text)) {
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
}

/// The mistakes that a hand makes in these files.
#[test]
fn a_mistyped_member_or_value_is_seen_wherever_it_is() {
    let schema = validator(OWN);
    for (pointer, member, value) in [
        ("/panels/1", "tittle", Value::from("x")),
        ("/panels/1", "type", "timeserie".into()),
        ("/panels/1/gridPos", "w", 25.into()),
        ("/panels/1/targets/0", "exp", "up".into()),
        ("/panels/1/targets/0", "expr", "".into()),
        ("/panels/1/fieldConfig/defaults", "unit", 1.into()),
        ("/panels/1/fieldConfig/defaults", "thresholds", serde_json::json!({ "steps": [] })),
        ("/templating/list/0", "refesh", 1.into()),
        ("/annotations/list/0", "enabled", true.into()),
        ("/links/0", "type", "dashboard".into()),
        ("/time", "from", "yesterday".into()),
    ] {
        for (name, mut dashboard) in grafana() {
            let place = dashboard.pointer_mut(pointer);
            place.unwrap_or_else(|| panic!("{name} has no {pointer}"))[member] = value.clone();
            assert!(!problems(&schema, &dashboard).is_empty(), "{name}: {pointer}/{member}");
        }
    }
}
