//! Every answer beside the OpenAPI document: what is not described there may not be answered.
//!
//! Invariant: status, media type and, of a refusal, the code must be among those of the operation. Answers to what is no operation, such as an unknown path
//! or a method that a path does not have, are not judged here.
//! Must never: look at a value; that is the tests' own.

use std::sync::OnceLock;

use odometer::api::route::{Listener, PATTERNS, find};
use serde_json::Value;

use super::client::Answer;

/// The document as it is served.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::from_slice(&odometer::api::openapi::json()).expect("JSON"))
}

/// Holds an answer against the document.
#[track_caller]
pub(crate) fn assert_described(method: &str, target: &str, answer: &Answer) {
    let (Ok(method), path) = (method.parse(), target.split('?').next().unwrap_or_default()) else { return };
    let found = find(Listener::Public, &method, path);
    let operation = &document()["paths"][PATTERNS[found.label]][method_name(&method)];
    if found.route.is_err() || operation.is_null() {
        return;
    }
    let case = format!("{method} {target}: {} {}", answer.status, answer.text());
    let response = resolved(&operation["responses"][answer.status.to_string()]);
    assert!(response.is_object(), "a status that is not described: {case}");
    let media_type = answer.header("content-type").split(';').next().unwrap_or_default();
    let content = &response["content"][media_type];
    assert_eq!(content.is_null(), media_type.is_empty(), "a media type that is not described: {case}");
    let codes = &content["schema"]["allOf"][1]["properties"]["errors"]["items"]["properties"]["code"]["enum"];
    if let (Some(codes), false) = (codes.as_array(), answer.body.is_empty()) {
        assert!(codes.contains(&answer.code().into()), "a code that is not described: {case}");
    }
}

fn method_name(method: &hyper::Method) -> String {
    // HEAD is answered as GET is.
    if *method == hyper::Method::HEAD { "get".to_owned() } else { method.as_str().to_ascii_lowercase() }
}

fn resolved(value: &Value) -> &Value {
    value["$ref"].as_str().and_then(|place| document().pointer(place.strip_prefix('#')?)).unwrap_or(value)
}
