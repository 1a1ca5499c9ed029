//! The syntax of parameters: a form, a query, a JSON object and a JSON:API document, each as members:
//! pairs of a name and a [`JsonValue`].
//!
//! Job: [`members_of`]. Invariant: a member that is there twice is an error, at any depth, since two
//! readers would take two values. Must never: round a number or replace a character.

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::http::error::ApiError;

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum JsonValue {
    Null,
    Bool(bool),
    Integer(u64),
    OtherNumber,
    Text(String),
    Array(Vec<JsonValue>),
    Object(Vec<(String, JsonValue)>),
}

/// The members of query and body, each name once. An empty body has none.
///
/// # Errors
/// [`ApiError::UnsupportedMediaType`] or [`ApiError::MalformedBody`].
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
        return Err(ApiError::MalformedBody("a parameter is given twice; send each one once"));
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
    let text = first.to_str().map_err(|_| ApiError::UnsupportedMediaType)?;
    let (essence, parameters) =
        text.split_once(';').map_or((text, ""), |(essence, rest)| (essence, rest.trim()));
    match essence.trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Media::Json),
        // JSON:API: any other parameter than ext and profile must be refused, and of these this server knows none but may ignore profiles.
        "application/vnd.api+json"
            if parameters.is_empty() || parameters.starts_with("profile=") =>
        {
            Ok(Media::Json)
        }
        "application/x-www-form-urlencoded" => Ok(Media::Form),
        _ => Err(ApiError::UnsupportedMediaType),
    }
}

fn parse_form(text: &[u8]) -> Result<Vec<(String, JsonValue)>, ApiError> {
    // The form decoder replaces what is not UTF-8; a name or password must not be changed on the way.
    let decoded: Vec<(String, JsonValue)> = form_urlencoded::parse(text)
        .map(|(name, value)| (name.into_owned(), JsonValue::Text(value.into_owned())))
        .collect();
    let replaced = |text: &str| text.contains('\u{FFFD}');
    if decoded.iter().any(|(name, value)| {
        replaced(name) || matches!(value, JsonValue::Text(text) if replaced(text))
    }) {
        return Err(ApiError::MalformedBody("the parameters are not valid UTF-8"));
    }
    Ok(decoded)
}

fn parse_json_object(body: &[u8]) -> Result<Vec<(String, JsonValue)>, ApiError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| ApiError::MalformedBody("the body is not valid UTF-8"))?;
    let json: JsonValue = serde_json::from_str(text).map_err(|error| {
        if error.to_string().starts_with(DUPLICATE) {
            ApiError::MalformedBody(
                "a member of the JSON object is given twice; send each one once",
            )
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
            "a JSON:API document has its parameters in data.attributes, an object",
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

    fn visit_str<E: de::Error>(self, text: &str) -> Result<JsonValue, E> {
        Ok(JsonValue::Text(text.to_owned()))
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
