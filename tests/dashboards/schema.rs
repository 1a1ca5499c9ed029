//! The dashboards beside the schema that Grafana publishes for them.
//!
//! Job: a checker of JSON Schema draft 7, as much of it as that schema uses. Invariant: a keyword that it does not know is an error, so nothing in a
//! newer schema is passed over. It must never be needed: without `ODOMETER_GRAFANA_SCHEMA`, a file, the test is skipped and says so.

use std::path::Path;

use serde_json::{Map, Value};

use crate::grafana;
use crate::support::{say, setting};

/// Says nothing about what is valid.
const SILENT: [&str; 8] =
    ["$schema", "definitions", "title", "description", "default", "format", "deprecated", "x-deprecation-message"];

struct Checker {
    root: Value,
}

impl Checker {
    /// What is wrong with a value, each with its place.
    fn problems(&self, schema: &Value, value: &Value, place: &str) -> Vec<String> {
        let rules = schema.as_object().unwrap_or_else(|| panic!("not a schema: {schema}"));
        // In draft 7 nothing beside a reference counts.
        if let Some(reference) = rules.get("$ref").and_then(Value::as_str) {
            let found = reference.strip_prefix('#').and_then(|place| self.root.pointer(place));
            return self.problems(found.unwrap_or_else(|| panic!("no {reference}")), value, place);
        }
        let mut found = Vec::new();
        for (keyword, rule) in rules {
            match self.keyword(rules, keyword, rule, value, place) {
                Ok(problems) => found.extend(problems),
                Err(expected) => found.push(format!("{place}: {value} is not {expected}")),
            }
        }
        found
    }

    /// The problems of what is inside, or what the value itself should have been.
    fn keyword(
        &self,
        rules: &Map<String, Value>,
        keyword: &str,
        rule: &Value,
        value: &Value,
        place: &str,
    ) -> Result<Vec<String>, String> {
        let items = || rule.as_array().unwrap_or_else(|| panic!("{keyword} without a list: {rule}")).iter();
        let fitting = || items().filter(|schema| self.problems(schema, value, place).is_empty()).count();
        let number = || value.as_f64().zip(rule.as_f64());
        let is_right = match keyword {
            "type" => is_of_type(value, rule.as_str().unwrap_or_else(|| panic!("no type: {rule}"))),
            "enum" => items().any(|allowed| allowed == value),
            "const" => rule == value,
            "anyOf" => fitting() > 0,
            "oneOf" => fitting() == 1,
            "allOf" => return Ok(items().flat_map(|schema| self.problems(schema, value, place)).collect()),
            "minimum" => number().is_none_or(|(value, least)| value >= least),
            "maximum" => number().is_none_or(|(value, most)| value <= most),
            "exclusiveMinimum" => number().is_none_or(|(value, below)| value > below),
            "exclusiveMaximum" => number().is_none_or(|(value, above)| value < above),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap_or(0)),
            "required" => value
                .as_object()
                .is_none_or(|object| items().all(|name| object.contains_key(name.as_str().unwrap_or_default()))),
            "items" => {
                let inside = value.as_array().into_iter().flatten().enumerate();
                return Ok(inside.flat_map(|(at, item)| self.problems(rule, item, &format!("{place}/{at}"))).collect());
            }
            "properties" | "additionalProperties" => return Ok(self.members(rules, keyword, rule, value, place)),
            silent if SILENT.contains(&silent) => true,
            other => panic!("this checker does not know {other}: {rule}"),
        };
        if is_right { Ok(Vec::new()) } else { Err(format!("{keyword} {rule}")) }
    }

    fn members(
        &self,
        rules: &Map<String, Value>,
        keyword: &str,
        rule: &Value,
        value: &Value,
        place: &str,
    ) -> Vec<String> {
        let mut found = Vec::new();
        for (name, member) in value.as_object().into_iter().flatten() {
            let place = format!("{place}/{name}");
            let declared = rules.get("properties").and_then(|properties| properties.get(name));
            match (keyword, declared, rule) {
                ("properties", Some(schema), _) => found.extend(self.problems(schema, member, &place)),
                ("additionalProperties", None, Value::Bool(false)) => found.push(format!("{place} is not known")),
                ("additionalProperties", None, Value::Object(_)) => found.extend(self.problems(rule, member, &place)),
                _ => {}
            }
        }
        found
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "null" => value.is_null(),
        other => panic!("no type: {other}"),
    }
}

#[test]
fn each_dashboard_is_as_the_published_schema_of_grafana_wants_it() {
    let Some(path) = setting("ODOMETER_GRAFANA_SCHEMA") else {
        say("skipped: needs ODOMETER_GRAFANA_SCHEMA, the schema of a dashboard that Grafana publishes");
        return;
    };
    let root: Value = serde_json::from_slice(&std::fs::read(Path::new(&path)).unwrap()).unwrap();
    let checker = Checker { root };
    for (name, dashboard) in grafana() {
        let problems = checker.problems(&checker.root, &dashboard, "");
        assert!(problems.is_empty(), "{name}:\n{}", problems.join("\n"));
        let mut spoilt = dashboard.clone();
        spoilt["schemaVersion"] = "forty".into();
        spoilt["no_such_thing"] = 1.into();
        assert_eq!(checker.problems(&checker.root, &spoilt, "").len(), 2, "{name}: what is wrong is not seen");
    }
}
