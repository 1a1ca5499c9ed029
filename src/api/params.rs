//! The parameters of a request: a JSON:API document, a plain JSON object, a form or the query, all to one flat list.
//!
//! Job: read a body within its limits ([`Payload`]) and parse it ([`Params::parse`]). Invariant: a name is there at most once; a repeated one is an
//! error, since two readers would take two values.
//! Must never: round. A number is an integer as it was written, or it is refused.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::ApiError;
use crate::counter::Value;

/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 4096;
/// How much of a larger one is read before the answer.
const MAX_DISCARDED_BYTES: usize = 1 << 20;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// A request's body, to be read once at most.
#[derive(Debug)]
pub struct Payload {
    body: Incoming,
    /// The sender waits to be asked for the body.
    expects_continue: bool,
}

impl Payload {
    /// The body that came with `headers`.
    #[must_use]
    pub fn new(headers: &HeaderMap, body: Incoming) -> Self {
        Self { body, expects_continue: headers.contains_key(EXPECT) }
    }

    /// Reads the body, if it is small and quick enough.
    ///
    /// # Errors
    /// [`ApiError::BodyTooLarge`], [`ApiError::BodyTimeout`], [`ApiError::MalformedBody`].
    pub async fn read(&mut self) -> Result<Bytes, ApiError> {
        if self.body.size_hint().lower() > MAX_BODY_BYTES as u64 {
            return Err(ApiError::BodyTooLarge(MAX_BODY_BYTES));
        }
        self.expects_continue = false;
        tokio::time::timeout(BODY_TIMEOUT, self.frames()).await.unwrap_or(Err(ApiError::BodyTimeout))
    }

    async fn frames(&mut self) -> Result<Bytes, ApiError> {
        let mut kept = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            let broken = "the body ended before its announced end, or its chunks are broken";
            let frame = frame.map_err(|_| ApiError::MalformedBody(broken))?;
            kept.extend_from_slice(frame.data_ref().map_or(&[][..], |bytes| bytes));
            if kept.len() > MAX_BODY_BYTES {
                return Err(ApiError::BodyTooLarge(MAX_BODY_BYTES));
            }
        }
        Ok(kept.freeze())
    }

    /// Reads and throws away a bounded rest, so that its sender comes to read the answer; a sender that waits to be asked is not asked.
    pub async fn discard(&mut self) {
        if self.expects_continue || self.body.is_end_stream() {
            return;
        }
        let rest = async {
            let mut seen = 0;
            while let Some(Ok(frame)) = self.body.frame().await {
                seen += frame.data_ref().map_or(0, Bytes::len);
                if seen > MAX_DISCARDED_BYTES {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, rest).await;
    }
}

/// A parsed parameter.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Null,
    Bool,
    Integer(u64),
    OtherNumber,
    Text(String),
    Array,
    Object(Vec<(String, Json)>),
}

/// The parameters of a request, each name once.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, Json)>);

impl Params {
    /// Parses query and body; `content_type` says how to read the body. An empty body has no parameters.
    ///
    /// # Errors
    /// [`ApiError::UnsupportedMediaType`] or [`ApiError::MalformedBody`].
    pub fn parse(query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        let mut all = query.map_or(Ok(Vec::new()), |query| pairs(query.as_bytes()))?;
        if !body.is_empty() {
            if headers.contains_key(CONTENT_ENCODING) {
                return Err(ApiError::UnsupportedMediaType);
            }
            match media_type(headers)? {
                Media::Form => all.extend(pairs(body)?),
                Media::Json => all.extend(members(body)?),
            }
        }
        let mut names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(ApiError::MalformedBody("a parameter is given twice; send each one once"));
        }
        Ok(Self(all))
    }

    /// Whether a parameter is there at all.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn get(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// A text parameter; a missing one is empty.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if it is there and not a text.
    pub fn text(&self, name: &'static str) -> Result<&str, ApiError> {
        match self.get(name) {
            None | Some(Json::Null) => Ok(""),
            Some(Json::Text(text)) => Ok(text),
            Some(_) => Err(ApiError::Invalid {
                parameter: name,
                code: "invalid_parameter",
                detail: "must be a text".to_owned(),
            }),
        }
    }

    /// A counter's value: an integer in digits, as a number or a text.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if it is missing, not a whole number, written with a sign, a point, an exponent or leading zeros, or outside
    /// 1 ..= 2^63−1.
    pub fn value(&self, name: &'static str) -> Result<Value, ApiError> {
        let invalid = |detail: String| ApiError::Invalid { parameter: name, code: "invalid_value", detail };
        let raw = match self.get(name) {
            None | Some(Json::Null) => return Err(invalid("is missing".to_owned())),
            Some(Json::Integer(raw)) => Some(*raw),
            Some(Json::Text(text)) => digits(text),
            Some(_) => None,
        };
        raw.and_then(Value::new)
            .ok_or_else(|| invalid(format!("must be a whole number from 1 to {}, in digits only", Value::DEFAULT_MAX)))
    }
}

fn digits(text: &str) -> Option<u64> {
    let canonical = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    canonical.then(|| text.parse().ok()).flatten()
}

enum Media {
    Json,
    Form,
}

fn media_type(headers: &HeaderMap) -> Result<Media, ApiError> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(first), None) = (types.next(), types.next()) else { return Err(ApiError::UnsupportedMediaType) };
    let text = first.to_str().map_err(|_| ApiError::UnsupportedMediaType)?;
    let (essence, parameters) = text.split_once(';').map_or((text, ""), |(essence, rest)| (essence, rest.trim()));
    match essence.trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Media::Json),
        // JSON:API: any other parameter than ext and profile must be refused, and of these this server knows none but may ignore profiles.
        "application/vnd.api+json" if parameters.is_empty() || parameters.starts_with("profile=") => Ok(Media::Json),
        "application/x-www-form-urlencoded" => Ok(Media::Form),
        _ => Err(ApiError::UnsupportedMediaType),
    }
}

fn pairs(text: &[u8]) -> Result<Vec<(String, Json)>, ApiError> {
    // The form decoder replaces what is not UTF-8; a name or password must not be changed on the way.
    let decoded: Vec<(String, Json)> =
        form_urlencoded::parse(text).map(|(name, value)| (name.into_owned(), Json::Text(value.into_owned()))).collect();
    let replaced = |text: &str| text.contains('\u{FFFD}');
    if decoded.iter().any(|(name, value)| replaced(name) || matches!(value, Json::Text(text) if replaced(text))) {
        return Err(ApiError::MalformedBody("the parameters are not valid UTF-8"));
    }
    Ok(decoded)
}

fn members(body: &[u8]) -> Result<Vec<(String, Json)>, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::MalformedBody("the body is not valid UTF-8"))?;
    let json: Json = serde_json::from_str(text).map_err(|error| {
        if error.to_string().starts_with(DUPLICATE) {
            ApiError::MalformedBody("a member of the JSON object is given twice; send each one once")
        } else {
            ApiError::MalformedBody("the body is not valid JSON")
        }
    })?;
    let Json::Object(members) = json else {
        return Err(ApiError::MalformedBody("the body must be a JSON object"));
    };
    let mut data = members.iter().position(|(name, _)| name == "data");
    let Some(data) = data.take() else { return Ok(members) };
    let attributes = match members.into_iter().nth(data) {
        Some((_, Json::Object(data))) => data.into_iter().find(|(name, _)| name == "attributes"),
        _ => None,
    };
    match attributes {
        Some((_, Json::Object(attributes))) => Ok(attributes),
        _ => Err(ApiError::MalformedBody("a JSON:API document has its parameters in data.attributes, an object")),
    }
}

const DUPLICATE: &str = "duplicate member";

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E: de::Error>(self, integer: u64) -> Result<Json, E> {
        Ok(Json::Integer(integer))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        while elements.next_element::<Json>()?.is_some() {}
        Ok(Json::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut members: Vec<(String, Json)> = Vec::new();
        while let Some((name, value)) = entries.next_entry::<String, Json>()? {
            if members.iter().any(|(other, _)| *other == name) {
                return Err(de::Error::custom(DUPLICATE));
            }
            members.push((name, value));
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(content_type: &str, body: &str) -> Result<Params, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        Params::parse(None, &headers, body.as_bytes())
    }

    #[test]
    fn the_three_kinds_of_body_say_the_same() {
        for (content_type, body) in [
            ("application/json", r#"{"value": 42}"#),
            ("Application/JSON; charset=utf-8", r#"{"value": "42"}"#),
            ("application/vnd.api+json", r#"{"data":{"type":"user_integer","attributes":{"value":42}}}"#),
            ("application/x-www-form-urlencoded", "value=42"),
        ] {
            assert_eq!(parse(content_type, body).unwrap().value("value").unwrap().get(), 42, "{body}");
        }
    }

    #[test]
    fn a_number_is_an_integer_as_written_or_refused() {
        for bad in
            ["0", "-1", "-0", "1.0", "1.5", "1e3", "9223372036854775808", "1e400", "null", "true", "[]", "{}", "\"\""]
        {
            let body = format!(r#"{{"value":{bad}}}"#);
            let refused = parse("application/json", &body).and_then(|params| params.value("value"));
            assert!(matches!(refused, Err(ApiError::Invalid { .. } | ApiError::MalformedBody(_))), "{bad}");
        }
        for bad in ["", "007", "0", "-0", "+5", "1e3", "1.0", " 5", "5 ", "٣", "0x10", "9223372036854775808"] {
            let body = format!(r#"{{"value":"{bad}"}}"#);
            assert!(parse("application/json", &body).unwrap().value("value").is_err(), "{bad:?}");
        }
        let largest = parse("application/json", r#"{"value":9223372036854775807}"#).unwrap().value("value").unwrap();
        assert_eq!(largest, Value::LARGEST);
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
            assert!(matches!(parse("application/json", body), Err(ApiError::MalformedBody(_))), "{body}");
        }
        for form in ["value=1&value=2", "a=%FF"] {
            assert!(matches!(parse("application/x-www-form-urlencoded", form), Err(ApiError::MalformedBody(_))));
        }
        for content_type in ["text/plain", "application/vnd.api+json; version=1", "multipart/form-data; boundary=x"] {
            assert!(matches!(parse(content_type, "{}"), Err(ApiError::UnsupportedMediaType)), "{content_type}");
        }
    }

    #[test]
    fn the_query_and_the_body_may_not_both_say_it() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        assert!(Params::parse(Some("value=2"), &headers, br#"{"value":3}"#).is_err());
        assert_eq!(Params::parse(Some("value=2"), &headers, b"").unwrap().value("value").unwrap().get(), 2);
    }
}
