//! The syntax of parameters: what a form, a query, a JSON object and a JSON:API document say, as pairs of a name and a [`Json`].
//!
//! Job: [`pairs`], [`members`], and by which of them a body is to be read ([`media_type`]). Invariant: a member that is there twice is an error, at
//! any depth. Must never: round a number or replace a character.

use hyper::HeaderMap;
use hyper::header::CONTENT_TYPE;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::ApiError;

/// A parsed parameter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Integer(u64),
    OtherNumber,
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

pub(super) enum Media {
    Json,
    Form,
}

pub(super) fn media_type(headers: &HeaderMap) -> Result<Media, ApiError> {
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

pub(super) fn pairs(text: &[u8]) -> Result<Vec<(String, Json)>, ApiError> {
    // The form decoder replaces what is not UTF-8; a name or password must not be changed on the way.
    let decoded: Vec<(String, Json)> =
        form_urlencoded::parse(text).map(|(name, value)| (name.into_owned(), Json::Text(value.into_owned()))).collect();
    let replaced = |text: &str| text.contains('\u{FFFD}');
    if decoded.iter().any(|(name, value)| replaced(name) || matches!(value, Json::Text(text) if replaced(text))) {
        return Err(ApiError::MalformedBody("the parameters are not valid UTF-8"));
    }
    Ok(decoded)
}

pub(super) fn members(body: &[u8]) -> Result<Vec<(String, Json)>, ApiError> {
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

    fn visit_bool<E: de::Error>(self, bool: bool) -> Result<Json, E> {
        Ok(Json::Bool(bool))
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
        let mut all = Vec::new();
        while let Some(element) = elements.next_element()? {
            all.push(element);
        }
        Ok(Json::Array(all))
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
