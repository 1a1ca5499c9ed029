//! The types of parameter values.
//!
//! Job: [`Whole`], an integer within bounds, and [`Timestamp`].
//! Invariant: an integer is written in decimal digits, or it is rejected.
//! Must never: round, or accept a sign, a point, an exponent or a leading zero.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::{Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use utoipa::PartialSchema;
use utoipa::openapi::{RefOr, Schema};

use crate::domain::counter::Value;
use crate::http::openapi::schema;

/// An integer from `MIN` to `MAX`. In a request it may also be a string of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<const MIN: u64, const MAX: u64>(pub u64);

/// A counter's value: 0 ..= 2^63−1.
pub type AnyValue = Whole<0, { Value::MAX.get() }>;

impl AnyValue {
    /// The counter value.
    pub fn get(self) -> Value {
        Value::new(self.0).unwrap_or(Value::MAX)
    }
}

impl From<Value> for AnyValue {
    fn from(value: Value) -> Self {
        Self(value.get())
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Whole<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(WholeVisitor)
    }
}

struct WholeVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for WholeVisitor<MIN, MAX> {
    type Value = Whole<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}, in digits only")
    }

    fn visit_u64<E: Error>(self, raw: u64) -> Result<Self::Value, E> {
        if (MIN..=MAX).contains(&raw) {
            Ok(Whole(raw))
        } else {
            Err(E::invalid_value(Unexpected::Unsigned(raw), &self))
        }
    }
}

impl<const MIN: u64, const MAX: u64> PartialSchema for Whole<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        schema::whole(MIN, MAX).into()
    }
}

impl<const MIN: u64, const MAX: u64> utoipa::ToSchema for Whole<MIN, MAX> {}

/// A Unix time in seconds, written as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp(pub u64);

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TimestampVisitor)
    }
}

struct TimestampVisitor;

impl Visitor<'_> for TimestampVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an RFC 3339 timestamp in UTC, such as 2027-01-31T12:00:00Z")
    }

    fn visit_str<E: Error>(self, string: &str) -> Result<Timestamp, E> {
        let utc = OffsetDateTime::parse(string, &Rfc3339)
            .ok()
            .filter(|time| time.offset() == UtcOffset::UTC);
        let seconds = utc.and_then(|time| u64::try_from(time.unix_timestamp()).ok());
        seconds.map(Timestamp).ok_or_else(|| E::invalid_value(Unexpected::Str(string), &self))
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        schema::timestamp().into()
    }
}

impl utoipa::ToSchema for Timestamp {}
