//! Tests of `params.rs`: every syntax, every type of value, and what is rejected.

use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;

use super::super::values::{AnyValue, Timestamp, Whole};
use super::*;
use crate::domain::counter::Value;

#[derive(Debug, Deserialize)]
struct Set {
    value: AnyValue,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct All {
    #[serde(rename = "l")]
    list: Option<Vec<String>>,
    #[serde(rename = "f", default)]
    flag: bool,
    count: Option<Whole<1, 1_000_000>>,
    #[serde(rename = "t")]
    time: Option<Timestamp>,
    text: String,
}

fn parse<T: DeserializeOwned>(content_type: &'static str, body: &str) -> Result<T, ApiError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Params::parse(None, &headers, body.as_bytes()).map(|Params(params)| params)
}

fn json<T: DeserializeOwned>(body: &str) -> Result<T, ApiError> {
    parse("application/json", body)
}

fn form<T: DeserializeOwned>(body: &str) -> Result<T, ApiError> {
    parse("application/x-www-form-urlencoded", body)
}

fn refusal(result: Result<All, ApiError>) -> (&'static str, &'static str) {
    match result {
        Err(ApiError::Invalid { parameter, code, .. }) => (parameter, code),
        Err(ApiError::UnknownParameter(_)) => ("", "unknown"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_three_kinds_of_body_say_the_same() {
    for (content_type, body) in [
        ("application/json", r#"{"value": 42}"#),
        ("Application/JSON; charset=utf-8", r#"{"value": "42"}"#),
        (
            "application/vnd.api+json",
            r#"{"data":{"type":"user_integer","attributes":{"value":42}}}"#,
        ),
        ("application/x-www-form-urlencoded", "value=42"),
    ] {
        assert_eq!(parse::<Set>(content_type, body).unwrap().value.0, 42, "{body}");
    }
}

#[test]
fn a_number_is_an_integer_as_written_or_refused() {
    for bad in [
        "-1",
        "-0",
        "1.0",
        "1.5",
        "1e3",
        "9223372036854775808",
        "1e400",
        "null",
        "true",
        "[]",
        "{}",
        "\"\"",
    ] {
        let refused = json::<Set>(&format!(r#"{{"value":{bad}}}"#));
        assert!(
            matches!(
                refused,
                Err(ApiError::Invalid { code: "invalid_value", .. } | ApiError::MalformedBody(_))
            ),
            "{bad}"
        );
    }
    for bad in
        ["", "007", "00", "-0", "+5", "1e3", "1.0", " 5", "5 ", "٣", "0x10", "9223372036854775808"]
    {
        assert!(json::<Set>(&format!(r#"{{"value":"{bad}"}}"#)).is_err(), "{bad:?}");
    }
    for zero in [r#"{"value":0}"#, r#"{"value":"0"}"#] {
        assert_eq!(json::<Set>(zero).unwrap().value.get(), Value::ZERO);
    }
    assert_eq!(json::<Set>(r#"{"value":9223372036854775807}"#).unwrap().value.get(), Value::MAX);
    let missing = json::<Set>("{}").unwrap_err();
    assert_eq!(missing.detail(None), "Value is missing.");
    let wrong = json::<Set>(r#"{"value":-1}"#).unwrap_err();
    assert_eq!(
        wrong.detail(None),
        "Value must be a whole number from 0 to 9223372036854775807, in digits only."
    );
}

#[test]
fn unreadable_bodies_are_malformed() {
    for body in [
        "{",
        "[]",
        "7",
        "\"x\"",
        "{\"a\":1}x",
        "{\"value\":007}",
        r#"{"a":1,"a":2}"#,
        r#"{"data":[]}"#,
        r#"{"data":{"attributes":{"v":1,"v":2}}}"#,
    ] {
        assert!(matches!(json::<Set>(body), Err(ApiError::MalformedBody(_))), "{body}");
    }
    for body in ["value=1&value=2", "a=%FF"] {
        assert!(matches!(form::<Set>(body), Err(ApiError::MalformedBody(_))), "{body}");
    }
    for content_type in
        ["text/plain", "application/vnd.api+json; version=1", "multipart/form-data; boundary=x"]
    {
        assert!(
            matches!(parse::<Set>(content_type, "{}"), Err(ApiError::UnsupportedMediaType)),
            "{content_type}"
        );
    }
}

#[test]
fn the_query_and_the_body_may_not_both_say_it() {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    assert!(Params::<Set>::parse(Some("value=2"), &headers, br#"{"value":3}"#).is_err());
    let Params(Set { value }) = Params::parse(Some("value=2"), &headers, b"").unwrap();
    assert_eq!(value.0, 2);
}

#[test]
fn lists_flags_counts_and_times_are_taken_as_written_or_refused() {
    let lists = [
        json::<All>(r#"{"l":["read","manage"]}"#),
        json(r#"{"l":"read, manage"}"#),
        form("l=read,manage"),
    ];
    for all in lists {
        assert_eq!(all.unwrap().list.unwrap(), ["read", "manage"]);
    }
    for body in ["{}", r#"{"l":null,"f":null,"count":null,"t":null,"text":null}"#] {
        let all = json::<All>(body).unwrap();
        assert_eq!(
            (all.list, all.flag, all.count, all.time, all.text),
            (None, false, None, None, String::new())
        );
    }
    for body in [r#"{"l":[1]}"#, r#"{"l":{}}"#] {
        assert_eq!(refusal(json(body)), ("l", "invalid_parameter"));
    }
    for (all, flag) in
        [(json::<All>(r#"{"f":true}"#), true), (form("f=true"), true), (form("f=false"), false)]
    {
        assert_eq!(all.unwrap().flag, flag);
    }
    for bad in [json(r#"{"f":1}"#), form("f=yes"), form("f="), form("f=TRUE")] {
        assert_eq!(refusal(bad), ("f", "invalid_parameter"));
    }
    for (all, count) in [(form::<All>("count=1"), 1), (json(r#"{"count":1000000}"#), 1_000_000)] {
        assert_eq!(all.unwrap().count, Some(Whole(count)));
    }
    for bad in ["0", "1000001", "1.5", "-1", "", "01", "18446744073709551616"] {
        assert_eq!(refusal(form(&format!("count={bad}"))), ("count", "invalid_value"), "{bad}");
    }
    assert_eq!(form::<All>("t=1970-01-02T00:00:00Z").unwrap().time, Some(Timestamp(86_400)));
    assert_eq!(
        form::<All>("t=2026-11-24T09%3A00%3A00.5Z").unwrap().time,
        Some(Timestamp(1_795_510_800))
    );
    for bad in [
        "t=",
        "t=tomorrow",
        "t=2027-01-31",
        "t=2027-01-31T12:00:00%2B01:00",
        "t=1969-12-31T23:59:59Z",
    ] {
        assert_eq!(refusal(form(bad)), ("t", "invalid_parameter"), "{bad}");
    }
    assert_eq!(refusal(json(r#"{"text":7}"#)), ("text", "invalid_parameter"));
}

#[test]
fn an_unknown_name_is_refused_first_unless_the_type_is_open() {
    assert_eq!(refusal(form("count=x&coumt=1")), ("", "unknown"));
    assert!(
        matches!(form::<NoParams>("a=1"), Err(ApiError::UnknownParameter(name)) if &*name == "a")
    );
    assert!(form::<NoParams>("").is_ok());
    assert_eq!(form::<Set>("what=ever&value=5").unwrap().value.0, 5);
    // Of two invalid parameters the error names the type's first one, in whatever order they came.
    assert_eq!(refusal(form("count=x&f=x")), ("f", "invalid_parameter"));
    assert_eq!(refusal(form("f=x&count=x")), ("f", "invalid_parameter"));
}
