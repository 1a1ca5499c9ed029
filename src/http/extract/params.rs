//! The parameters of a request as a serde type, whether they come in a query, a form, a JSON object
//! or a JSON:API document.
//!
//! Job: [`Params`] of query and body, [`QueryParams`] of the query alone.
//! Invariant: a type that denies unknown fields rejects an unknown name before any value is
//! checked, so a mistyped name is never taken for a missing parameter; `null` counts as missing.
//! Must never: show a value in an error; it may be a secret that was sent under a wrong name.

use std::fmt;
use std::vec;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::Extract;
use super::body::read_body;
use super::members::{JsonValue, members_of};
use crate::failpoint::failpoint;
use crate::http::error::ApiError;

/// The parameters in query and body.
#[derive(Debug)]
pub struct Params<T>(pub T);

/// The parameters in the query, for routes that ignore the body.
#[derive(Debug)]
pub struct QueryParams<T>(pub T);

/// No parameters: any is rejected.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

impl<T: DeserializeOwned> Params<T> {
    /// Parses query and body; the headers have the body's media type.
    ///
    /// # Errors
    /// [`ApiError::UnsupportedMediaType`], [`ApiError::MalformedBody`],
    /// [`ApiError::UnknownParameter`], [`ApiError::Invalid`].
    pub fn parse(query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        let members = members_of(query.filter(|query| !query.is_empty()), headers, body)?;
        T::deserialize(Members(members)).map(Self).map_err(ParameterError::into_api_error)
    }
}

impl<T: DeserializeOwned> Extract for Params<T> {
    async fn extract(req: &HttpRequest, payload: &mut Payload) -> Result<Self, ApiError> {
        let body = read_body(req, payload).await?;
        Self::parse(req.uri().query(), req.headers(), &body)
    }
}

impl<T: DeserializeOwned> Extract for QueryParams<T> {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        Params::parse(req.uri().query(), req.headers(), b"").map(|Params(params)| Self(params))
    }
}

/// Why the parameters cannot be deserialized.
#[derive(Debug)]
enum ParameterError {
    Unknown(Box<str>),
    Invalid { parameter: &'static str, code: &'static str, detail: String },
}

const INVALID_PARAMETER: &str = "invalid_parameter";
const INVALID_VALUE: &str = "invalid_value";

impl ParameterError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Unknown(name) => ApiError::UnknownParameter(name),
            Self::Invalid { parameter, code, detail } => {
                ApiError::Invalid { parameter, code, detail }
            }
        }
    }

    fn must_be(expected: &dyn fmt::Display) -> Self {
        <Self as de::Error>::custom(format_args!("must be {expected}"))
    }

    /// The error with this parameter and code; an unknown member keeps its own name.
    fn of(self, parameter: &'static str, code: &'static str) -> Self {
        match self {
            Self::Invalid { detail, .. } => Self::Invalid { parameter, code, detail },
            unknown @ Self::Unknown(_) => unknown,
        }
    }
}

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid parameter")
    }
}

impl std::error::Error for ParameterError {}

impl de::Error for ParameterError {
    fn custom<T: fmt::Display>(detail: T) -> Self {
        Self::Invalid { parameter: "", code: INVALID_PARAMETER, detail: detail.to_string() }
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::must_be(&expected)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::must_be(&expected)
    }

    fn unknown_field(name: &str, _: &'static [&'static str]) -> Self {
        Self::Unknown(name.into())
    }
}

/// The deserializer of all members of a request, as a struct.
struct Members(Vec<(String, JsonValue)>);

impl<'de> Deserializer<'de> for Members {
    type Error = ParameterError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ParameterError> {
        let (known, unknown): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|(name, _)| fields.contains(&name.as_str()));
        visitor.visit_map(Fields {
            known,
            unknown: unknown.into_iter(),
            fields: fields.iter(),
            value: None,
        })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_map(MapDeserializer::new(std::iter::empty::<(&str, &str)>()))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Yields first the members that the type does not have, then each field of the type in order,
/// including missing ones. So the first error does not depend on the order of the members in the
/// request.
struct Fields {
    known: Vec<(String, JsonValue)>,
    unknown: vec::IntoIter<(String, JsonValue)>,
    fields: std::slice::Iter<'static, &'static str>,
    value: Option<Field>,
}

impl<'de> MapAccess<'de> for Fields {
    type Error = ParameterError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ParameterError> {
        if let Some((name, _)) = self.unknown.next()
            && !failpoint!("unknown-parameter-ignored")
        {
            self.value = Some(Field { name: "", value: None });
            return seed.deserialize(name.as_str().into_deserializer()).map(Some);
        }
        let Some(name) = self.fields.next() else { return Ok(None) };
        let at = self.known.iter().position(|(known, _)| known == name);
        let value =
            at.map(|at| self.known.swap_remove(at).1).filter(|value| *value != JsonValue::Null);
        self.value = Some(Field { name, value });
        let key: StrDeserializer<'_, ParameterError> = name.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ParameterError> {
        let field = self.value.take().unwrap_or(Field { name: "", value: None });
        seed.deserialize(field)
    }
}

/// The deserializer of one field; its value is `None` if it is missing.
struct Field {
    name: &'static str,
    value: Option<JsonValue>,
}

impl<'de> Deserializer<'de> for Field {
    type Error = ParameterError;

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        if self.value.is_none() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        let name = self.name;
        let read = match self.value {
            None => Err(<ParameterError as de::Error>::custom("is missing")),
            Some(JsonValue::Integer(raw)) => visitor.visit_u64(raw),
            Some(JsonValue::String(string)) => match digits(&string) {
                Some(raw) => visitor.visit_u64(raw),
                None => Err(de::Error::invalid_type(Unexpected::Other("string"), &visitor)),
            },
            Some(_) => Err(de::Error::invalid_type(Unexpected::Other("value"), &visitor)),
        };
        read.map_err(|error| error.of(name, INVALID_VALUE))
    }

    /// A missing flag is `false`.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        let flag = match &self.value {
            None => Ok(false),
            Some(JsonValue::Bool(flag)) => Ok(*flag),
            Some(JsonValue::String(string)) if string == "true" || string == "false" => {
                Ok(string == "true")
            }
            Some(_) => {
                Err(ParameterError::must_be(&"true or false").of(self.name, INVALID_PARAMETER))
            }
        };
        visitor.visit_bool(flag?)
    }

    /// A missing string is empty.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        let read = match self.value {
            None => visitor.visit_str(""),
            Some(JsonValue::String(string)) => visitor.visit_string(string),
            Some(_) => Err(ParameterError::must_be(&"a string")),
        };
        read.map_err(|error| error.of(self.name, INVALID_PARAMETER))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        self.deserialize_str(visitor)
    }

    /// A JSON array of strings, or one string with commas. White space around a comma is ignored.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        let strings: Option<Vec<String>> = match self.value {
            Some(JsonValue::String(string)) => {
                Some(string.split(',').map(|string| string.trim().to_owned()).collect())
            }
            Some(JsonValue::Array(elements)) => elements
                .into_iter()
                .map(
                    |element| {
                        if let JsonValue::String(string) = element { Some(string) } else { None }
                    },
                )
                .collect(),
            _ => None,
        };
        let wrong =
            || ParameterError::must_be(&"a list of strings").of(self.name, INVALID_PARAMETER);
        visitor.visit_seq(SeqDeserializer::new(strings.ok_or_else(wrong)?.into_iter()))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 u8 u16 u32 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

fn digits(string: &str) -> Option<u64> {
    let canonical = (string == "0" || !string.starts_with('0'))
        && string.bytes().all(|byte| byte.is_ascii_digit());
    canonical.then(|| string.parse().ok()).flatten()
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
