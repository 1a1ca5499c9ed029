//! Whether a log line is what the Elastic Common Schema says that it is.
//!
//! Invariant: a line is one JSON object; each of its fields is one of the schema's, of its type, or
//! stands under `labels.` or `odometer.`. Every server of every test is held to it, see
//! `TestServer::written`; and each event to the table of events, each field to the index template.
//! The list stands beside this file.
//! Must never: accept a field because it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::OnceLock;

use serde_json::Value;

const FIELDS: &str = include_str!("ecs-fields.csv");
const TEMPLATE: &str = include_str!("../../dashboards/logs/elasticsearch/index-template.json");
const TABLE: &str = include_str!("../../dashboards/logs/README.md");
/// What every line has.
const ALWAYS: [&str; 7] = [
    "@timestamp",
    "log.level",
    "message",
    "ecs.version",
    "service.name",
    "service.version",
    "log.logger",
];

/// The schema's fields, and their types.
pub(crate) fn fields() -> &'static BTreeMap<&'static str, &'static str> {
    static FIELD_TYPES: OnceLock<BTreeMap<&str, &str>> = OnceLock::new();
    let rows = || {
        FIELDS
            .lines()
            .filter(|line| !line.starts_with('#'))
            .skip(1)
            .filter_map(|line| line.split_once(','))
    };
    FIELD_TYPES.get_or_init(|| rows().collect())
}

/// The events of the table: each row's first cell, which may name several.
pub(crate) fn events() -> &'static BTreeSet<&'static str> {
    static EVENTS: OnceLock<BTreeSet<&str>> = OnceLock::new();
    EVENTS.get_or_init(|| {
        let table = TABLE.split("| `event.action` |").nth(1).unwrap_or_default();
        let cells =
            table.lines().skip(2).map_while(|row| row.strip_prefix("| ")?.split(" |").next());
        cells.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`')).collect()
    })
}

/// The fields that the index template gives a type, and which.
pub(crate) fn mapped() -> &'static BTreeMap<String, String> {
    static MAPPED: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    MAPPED.get_or_init(|| {
        let template: Value = serde_json::from_str(TEMPLATE).expect("the template is JSON");
        let mut fields = BTreeMap::new();
        collect(&template["template"]["mappings"]["properties"], "", &mut fields);
        fields
    })
}

fn collect(properties: &Value, before: &str, fields: &mut BTreeMap<String, String>) {
    for (name, mapping) in properties.as_object().into_iter().flatten() {
        let name = format!("{before}{name}");
        match mapping["type"].as_str() {
            Some(kind) => drop(fields.insert(name, kind.to_owned())),
            None => collect(&mapping["properties"], &format!("{name}."), fields),
        }
    }
}

/// What is wrong with a line, if anything is.
pub(crate) fn problem(line: &str) -> Option<String> {
    let Ok(Value::Object(event)) = serde_json::from_str(line) else {
        return Some("it is no JSON object".to_owned());
    };
    if let Some(action) = event.get("event.action").and_then(Value::as_str)
        && !events().contains(action)
    {
        return Some(format!(
            "the event {action} is not in the table of dashboards/logs/README.md"
        ));
    }
    let unmapped =
        event.keys().find(|name| !name.starts_with("labels.") && !mapped().contains_key(*name));
    if let Some(name) = unmapped {
        return Some(format!("{name} has no type in the index template"));
    }
    let missing = ALWAYS
        .iter()
        .find(|name| !event.contains_key(**name))
        .map(|name| format!("it has no {name}"));
    missing.or_else(|| event.iter().find_map(|(name, value)| misfit(name, value)))
}

fn misfit(name: &str, value: &Value) -> Option<String> {
    if name.starts_with("labels.") || name.starts_with("odometer.") {
        let scalar = !value.is_object() && !value.is_array();
        return (!scalar).then(|| format!("{name} is no scalar: {value}"));
    }
    let Some(kind) = fields().get(name) else {
        return Some(format!("{name} is no field of the schema"));
    };
    let fits = match *kind {
        "keyword" | "constant_keyword" => value.is_string() || value.is_number(),
        "match_only_text" | "wildcard" | "text" => value.is_string(),
        "long" => value.is_i64() || value.is_u64(),
        "ip" => value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok()),
        "date" => value.as_str().is_some_and(|text| text.len() >= 20 && text.ends_with('Z')),
        "boolean" => value.is_boolean(),
        _ => false,
    };
    (!fits).then(|| format!("{name} is {value}, which is no {kind}"))
}
