//! What a tenant asks for, and how it is sent.
//!
//! Invariant: two operations have the same `identity` exactly when the contract calls them the same
//! request: route, name and parameters.
//! Must never: know what is answered.

use serde_json::{Map, Value, json};

use crate::support::client::{Answer, Client, Failure};
use crate::support::model::{DEFAULT_MAX, Shape};

pub(crate) const COUNTERS: &str = "/api/v1/counters";
pub(crate) const KEYS: &str = "/api/v1/keys";
pub(crate) const TENANT: &str = "/api/v1/tenant";
pub(crate) const INTEGER: &str = "/api/v1/integer";
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// Which of the two ways to the counter `default`, or the only one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `/api/v1/integer`, only for `default`.
    Old,
    /// `/api/v1/counters/{name}`.
    ByName,
}

/// The bounds of a new counter, each as it is sent or left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) start: Option<u64>,
    pub(crate) step: Option<u64>,
    pub(crate) min: Option<u64>,
    pub(crate) max: Option<u64>,
    pub(crate) rewindable: Option<bool>,
}

impl Bounds {
    /// The contract's defaults: `min` is 1, or `start` where that is 0; `start` is `min`.
    pub(crate) fn shape(&self) -> Shape {
        let min = self.min.unwrap_or(if self.start == Some(0) { 0 } else { 1 });
        Shape {
            start: self.start.unwrap_or(min),
            step: self.step.unwrap_or(1),
            min,
            max: self.max.unwrap_or(DEFAULT_MAX),
            rewindable: self.rewindable.unwrap_or(false),
        }
    }
}

/// One thing to ask for. `Increment` with a count of 1 is sent on the old way only, where it is
/// another request than none.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Read { way: Way, name: String },
    List { size: u64 },
    Create { name: String, bounds: Bounds },
    Set { way: Way, name: String, value: u64, rewind: bool, if_match: Option<String> },
    Increment { way: Way, name: String, count: Option<u64> },
    Delete { name: String, if_match: Option<String> },
    ListKeys { size: u64 },
    MakeKey { label: String, scopes: Vec<&'static str>, expires_in: Option<u64> },
    Revoke { id: String },
    Tenant,
}

impl Op {
    /// The scope that it needs.
    pub(crate) fn scope(&self) -> Option<&'static str> {
        match self {
            Self::Read { .. } | Self::List { .. } => Some("read"),
            Self::Increment { .. } => Some("increment"),
            Self::Tenant => None,
            _ => Some("manage"),
        }
    }

    /// Whether an `Idempotency-Key` is taken.
    pub(crate) fn can_be_once(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Set { .. } | Self::Increment { .. })
    }

    /// The one counter that it is about; nothing when it is about more, or about keys.
    pub(crate) fn counter(&self) -> Option<&str> {
        match self {
            Self::Read { name, .. } | Self::Create { name, .. } | Self::Set { name, .. } => {
                Some(name)
            }
            Self::Increment { name, .. } | Self::Delete { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Method and path, with the query of a list.
    pub(crate) fn route(&self) -> (&'static str, String) {
        let named = |name: &str| format!("{COUNTERS}/{name}");
        match self {
            Self::Read { way: Way::Old, .. } => ("GET", INTEGER.to_owned()),
            Self::Read { name, .. } => ("GET", named(name)),
            Self::List { size } => ("GET", format!("{COUNTERS}?page[size]={size}")),
            Self::Create { .. } => ("POST", COUNTERS.to_owned()),
            Self::Set { way: Way::Old, .. } => ("PUT", INTEGER.to_owned()),
            Self::Set { name, .. } => ("PUT", named(name)),
            Self::Increment { way: Way::Old, .. } => ("PUT", format!("{INTEGER}/increment")),
            Self::Increment { name, .. } => ("POST", format!("{}/increment", named(name))),
            Self::Delete { name, .. } => ("DELETE", named(name)),
            Self::ListKeys { size } => ("GET", format!("{KEYS}?page[size]={size}")),
            Self::MakeKey { .. } => ("POST", KEYS.to_owned()),
            Self::Revoke { id } => ("DELETE", format!("{KEYS}/{id}")),
            Self::Tenant => ("GET", TENANT.to_owned()),
        }
    }

    /// The parameters of the body; null for no body.
    pub(crate) fn parameters(&self) -> Value {
        let mut all = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            all.extend(value.map(|value| (name.to_owned(), value)));
        };
        match self {
            Self::Create { name, bounds } => {
                put("name", Some(json!(name)));
                for (bound, value) in [
                    ("start", bounds.start),
                    ("step", bounds.step),
                    ("min", bounds.min),
                    ("max", bounds.max),
                ] {
                    put(bound, value.map(|value| json!(value)));
                }
                put("rewindable", bounds.rewindable.map(Value::Bool));
            }
            Self::Set { value, rewind, .. } => {
                put("value", Some(json!(value)));
                put("rewind", rewind.then_some(Value::Bool(true)));
            }
            Self::Increment { count, .. } => put("count", count.map(|count| json!(count))),
            Self::MakeKey { label, scopes, expires_in } => {
                put("label", Some(json!(label)));
                put("scopes", Some(json!(scopes)));
                put("expires_in", expires_in.map(|seconds| json!(seconds)));
            }
            _ => {}
        }
        if all.is_empty() { Value::Null } else { Value::Object(all) }
    }

    pub(crate) fn if_match(&self) -> Option<&str> {
        match self {
            Self::Set { if_match, .. } | Self::Delete { if_match, .. } => if_match.as_deref(),
            _ => None,
        }
    }

    /// Everything that makes it the request that it is. Bounds count as they are, not as they were
    /// written; `*` asks for no more than a counter that exists, as every set does.
    pub(crate) fn identity(&self) -> String {
        let (method, path) = self.route();
        let condition = self.if_match().filter(|tag| *tag != "*");
        match self {
            Self::Create { name, bounds } => format!("{method} {path} {name} {:?}", bounds.shape()),
            _ => format!("{method} {path} {} {condition:?}", self.parameters()),
        }
    }
}

/// An operation, by whom it is asked for, and the key under which it happens once.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) op: Op,
    /// The id of the API key.
    pub(crate) by: String,
    pub(crate) once: Option<String>,
}

/// Sends it; only the transport can fail.
pub(crate) async fn send(
    client: &mut Client,
    request: &Request,
    api_key: &str,
) -> Result<Answer, Failure> {
    let (method, path) = request.op.route();
    ask(
        client,
        (method, &path),
        api_key,
        request.once.as_deref(),
        request.op.if_match(),
        &request.op.parameters(),
    )
    .await
}

/// The same for what no operation says.
pub(crate) async fn ask(
    client: &mut Client,
    (method, path): (&str, &str),
    api_key: &str,
    once: Option<&str>,
    if_match: Option<&str>,
    parameters: &Value,
) -> Result<Answer, Failure> {
    let bearer = format!("Bearer {api_key}");
    let mut headers = vec![("authorization", bearer.as_str())];
    headers.extend(once.map(|once| ("idempotency-key", once)));
    headers.extend(if_match.map(|tag| ("if-match", tag)));
    let body = if parameters.is_null() { String::new() } else { parameters.to_string() };
    headers.extend((!body.is_empty()).then_some(JSON));
    client.request(method, path, &headers, body).await
}
