//! Whether a log line is what the Elastic Common Schema says that it is.
//!
//! Invariant: a line is one JSON object; each of its fields is one of the schema's, of its type, or stands under `labels.` or `odometer.`. Every server
//! of every test is held to it, see `TestServer::written`. The list stands beside this file. Must never: accept a field because it is there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::OnceLock;

use serde_json::Value;

const FIELDS: &str = include_str!("ecs-fields.csv");
/// What every line has.
const ALWAYS: [&str; 7] =
    ["@timestamp", "log.level", "message", "ecs.version", "service.name", "service.version", "log.logger"];

/// The schema's fields, and their types.
pub(crate) fn fields() -> &'static BTreeMap<&'static str, &'static str> {
    static FIELD_TYPES: OnceLock<BTreeMap<&str, &str>> = OnceLock::new();
    let rows = || FIELDS.lines().filter(|line| !line.starts_with('#')).skip(1).filter_map(|line| line.split_once(','));
    FIELD_TYPES.get_or_init(|| rows().collect())
}

/// What is wrong with a line, if anything is.
pub(crate) fn problem(line: &str) -> Option<String> {
    let Ok(Value::Object(event)) = serde_json::from_str(line) else { return Some("it is no JSON object".to_owned()) };
    let missing = ALWAYS.iter().find(|name| !event.contains_key(**name)).map(|name| format!("it has no {name}"));
    missing.or_else(|| event.iter().find_map(|(name, value)| misfit(name, value)))
}

fn misfit(name: &str, value: &Value) -> Option<String> {
    if name.starts_with("labels.") || name.starts_with("odometer.") {
        let scalar = !value.is_object() && !value.is_array();
        return (!scalar).then(|| format!("{name} is no scalar: {value}"));
    }
    let Some(kind) = fields().get(name) else { return Some(format!("{name} is no field of the schema")) };
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
