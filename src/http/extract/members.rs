//! The syntax of parameters: a query, a form, a JSON object or a JSON:API document, parsed into
//! members, pairs of a name and a [`JsonValue`].
//!
//! Job: [`members_of`].
//! Invariant: a duplicate member is an error, at any depth, since two parsers could pick different
//! values.
//! Must never: round a number or replace a character.

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::http::error::ApiError;

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum JsonValue {
    Null,
    Bool(bool),
    Integer(u64),
    /// A number that is not an unsigned 64-bit integer.
    OtherNumber,
    String(String),
    Array(Vec<JsonValue>),
    Object(Vec<(String, JsonValue)>),
}

/// The members of query and body. An empty body has none.
///
/// # Errors
/// [`ApiError::UnsupportedMediaType`] or [`ApiError::MalformedBody`], which includes a name that
/// occurs twice.
pub(super) fn members_of(
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Vec<(String, JsonValue)>, ApiError> {
    let mut members = query.map_or(Ok(Vec::new()), |query| parse_form(query.as_bytes()))?;
    if !body.is_empty() {
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(ApiError::UnsupportedMediaType);
        }
        match media_type(headers)? {
            Media::Form => members.extend(parse_form(body)?),
            Media::Json => members.extend(parse_json_object(body)?),
        }
    }
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(ApiError::MalformedBody("a parameter occurs twice; send each one once"));
    }
    Ok(members)
}

enum Media {
    Json,
    Form,
}

fn media_type(headers: &HeaderMap) -> Result<Media, ApiError> {
    let mut types = headers.get_all(CONTENT_TYPE);
    let (Some(first), None) = (types.next(), types.next()) else {
        return Err(ApiError::UnsupportedMediaType);
    };
    let string = first.to_str().map_err(|_| ApiError::UnsupportedMediaType)?;
    let (essence, parameters) =
        string.split_once(';').map_or((string, ""), |(essence, rest)| (essence, rest.trim()));
    match essence.trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Media::Json),
        // JSON:API: a server must reject any media type parameter but ext and profile; an unknown
        // extension must be rejected too, a profile may be ignored.
        "application/vnd.api+json"
            if parameters.is_empty() || parameters.starts_with("profile=") =>
        {
            Ok(Media::Json)
        }
        "application/x-www-form-urlencoded" => Ok(Media::Form),
        _ => Err(ApiError::UnsupportedMediaType),
    }
}

fn parse_form(string: &[u8]) -> Result<Vec<(String, JsonValue)>, ApiError> {
    // The decoder replaces invalid UTF-8 by U+FFFD, which would change a name or a password.
    let decoded: Vec<(String, JsonValue)> = form_urlencoded::parse(string)
        .map(|(name, value)| (name.into_owned(), JsonValue::String(value.into_owned())))
        .collect();
    let replaced = |string: &str| string.contains('\u{FFFD}');
    if decoded.iter().any(|(name, value)| {
        replaced(name) || matches!(value, JsonValue::String(string) if replaced(string))
    }) {
        return Err(ApiError::MalformedBody("the parameters are not valid UTF-8"));
    }
    Ok(decoded)
}

fn parse_json_object(body: &[u8]) -> Result<Vec<(String, JsonValue)>, ApiError> {
    let string = std::str::from_utf8(body)
        .map_err(|_| ApiError::MalformedBody("the body is not valid UTF-8"))?;
    let json: JsonValue = serde_json::from_str(string).map_err(|error| {
        if error.to_string().starts_with(DUPLICATE) {
            ApiError::MalformedBody("a member of the JSON object occurs twice; send each one once")
        } else {
            ApiError::MalformedBody("the body is not valid JSON")
        }
    })?;
    let JsonValue::Object(members) = json else {
        return Err(ApiError::MalformedBody("the body must be a JSON object"));
    };
    let mut data = members.iter().position(|(name, _)| name == "data");
    let Some(data) = data.take() else { return Ok(members) };
    let attributes = match members.into_iter().nth(data) {
        Some((_, JsonValue::Object(data))) => {
            data.into_iter().find(|(name, _)| name == "attributes")
        }
        _ => None,
    };
    match attributes {
        Some((_, JsonValue::Object(attributes))) => Ok(attributes),
        _ => Err(ApiError::MalformedBody(
            "a JSON:API document must have its parameters in the object data.attributes",
        )),
    }
}

const DUPLICATE: &str = "duplicate member";

impl<'de> Deserialize<'de> for JsonValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = JsonValue;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<JsonValue, E> {
        Ok(JsonValue::Null)
    }

    fn visit_bool<E: de::Error>(self, bool: bool) -> Result<JsonValue, E> {
        Ok(JsonValue::Bool(bool))
    }

    fn visit_u64<E: de::Error>(self, integer: u64) -> Result<JsonValue, E> {
        Ok(JsonValue::Integer(integer))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<JsonValue, E> {
        Ok(JsonValue::OtherNumber)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<JsonValue, E> {
        Ok(JsonValue::OtherNumber)
    }

    fn visit_str<E: de::Error>(self, string: &str) -> Result<JsonValue, E> {
        Ok(JsonValue::String(string.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<JsonValue, A::Error> {
        let mut all = Vec::new();
        while let Some(element) = elements.next_element()? {
            all.push(element);
        }
        Ok(JsonValue::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<JsonValue, A::Error> {
        let mut members: Vec<(String, JsonValue)> = Vec::new();
        while let Some((name, value)) = entries.next_entry::<String, JsonValue>()? {
            if members.iter().any(|(other, _)| *other == name) {
                return Err(de::Error::custom(DUPLICATE));
            }
            members.push((name, value));
        }
        Ok(JsonValue::Object(members))
    }
}
