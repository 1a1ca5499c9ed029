//! Every answer beside the OpenAPI document: what is not described there may not be answered.
//!
//! Invariant: status, media type and, of a refusal, the code must be among those of the operation.
//! Answers to what is no operation, such as an unknown path or a method that a path does not have,
//! are not judged here.
//! Must never: look at a value; that is the tests' own.

use std::sync::OnceLock;

use serde_json::Value;

use crate::support::client::Answer;

/// The document as it is served.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::from_slice(&odometer::http::routes::json()).expect("JSON"))
}

/// Holds an answer against the document.
#[track_caller]
pub(crate) fn assert_described(method: &str, target: &str, answer: &Answer) {
    let path = target.split('?').next().unwrap_or_default();
    let Some(item) = pattern_of(path).map(|pattern| &document()["paths"][pattern]) else { return };
    let operation = &item[method_name(method)];
    if operation.is_null() {
        return;
    }
    let case = format!("{method} {target}: {} {}", answer.status, answer.text());
    let response = resolved(&operation["responses"][answer.status.to_string()]);
    assert!(response.is_object(), "a status that is not described: {case}");
    let media_type = answer.header("content-type").split(';').next().unwrap_or_default();
    let content = &response["content"][media_type];
    assert_eq!(
        content.is_null(),
        media_type.is_empty(),
        "a media type that is not described: {case}"
    );
    let codes = &content["schema"]["allOf"][1]["properties"]["errors"]["items"]["properties"]["code"]
        ["enum"];
    if let (Some(codes), false) = (codes.as_array(), answer.body.is_empty()) {
        assert!(codes.contains(&answer.code().into()), "a code that is not described: {case}");
    }
}

/// The pattern of the document that a path has, segment by segment.
pub(crate) fn pattern_of(path: &str) -> Option<&'static str> {
    let has = |pattern: &str| {
        let is_same = |(sent, known): (&str, &str)| {
            sent == known || known.starts_with('{') && !sent.is_empty()
        };
        path.split('/').count() == pattern.split('/').count()
            && path.split('/').zip(pattern.split('/')).all(is_same)
    };
    document()["paths"].as_object()?.keys().map(String::as_str).find(|pattern| has(pattern))
}

fn method_name(method: &str) -> String {
    // HEAD is answered as GET is.
    if method == "HEAD" { "get".to_owned() } else { method.to_ascii_lowercase() }
}

fn resolved(value: &Value) -> &Value {
    value["$ref"]
        .as_str()
        .and_then(|place| document().pointer(place.strip_prefix('#')?))
        .unwrap_or(value)
}
