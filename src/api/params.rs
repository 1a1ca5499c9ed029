//! The parameters of a request: a JSON:API document, a plain JSON object, a form or the query, all to one flat list.
//!
//! Job: collect them ([`Params::parse`]) and read each as what it must be. Invariant: a name is there at most once; a repeated one is an error, since two
//! readers would take two values. A parameter that is there and `null` counts as not there.
//! Must never: round. A number is an integer as it was written, or it is refused.

use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use super::error::ApiError;
use super::syntax::{Json, Media, media_type, members, pairs};
use crate::counter::{MAX_COUNT, Value};

/// The most entries of a page of a list, and how many there are if nobody says.
pub(super) const PAGE_SIZES: (u64, u64) = (100, 20);

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
        self.0.iter().any(|(other, _)| other == name)
    }

    /// Refuses what is not among `known`: a mistyped name must not be a parameter that was left out.
    ///
    /// # Errors
    /// [`ApiError::UnknownParameter`], naming the first.
    pub fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(ApiError::UnknownParameter(name.as_str().into())),
            None => Ok(()),
        }
    }

    fn get(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value).filter(|value| **value != Json::Null)
    }

    /// A text parameter; a missing one is empty.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if it is there and not a text.
    pub fn text(&self, name: &'static str) -> Result<&str, ApiError> {
        self.optional_text(name).map(Option::unwrap_or_default)
    }

    fn optional_text(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(_) => Err(invalid_parameter(name, "must be a text")),
        }
    }

    /// A list of texts: a JSON array, or one text with commas; `None` if it is missing. White space around a comma does not count.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if it is something else.
    pub fn texts(&self, name: &'static str) -> Result<Option<Vec<&str>>, ApiError> {
        let wrong = || invalid_parameter(name, "must be a list of texts");
        match self.get(name) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text.split(',').map(str::trim).collect())),
            Some(Json::Array(elements)) => {
                let texts =
                    elements.iter().map(|element| if let Json::Text(text) = element { Some(&**text) } else { None });
                texts.collect::<Option<_>>().ok_or_else(wrong).map(Some)
            }
            Some(_) => Err(wrong()),
        }
    }

    /// Yes or no; a missing one is no.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if it is neither `true` nor `false`.
    pub fn flag(&self, name: &'static str) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(false),
            Some(Json::Bool(flag)) => Ok(*flag),
            Some(Json::Text(text)) if text == "true" || text == "false" => Ok(text == "true"),
            Some(_) => Err(invalid_parameter(name, "must be true or false")),
        }
    }

    /// An integer in digits, as a number or a text, within `least` ..= `most`; `None` if it is missing.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if it is not a whole number, written with a sign, a point, an exponent or leading zeros, or outside.
    pub fn integer(&self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
        let raw = match self.get(name) {
            None => return Ok(None),
            Some(Json::Integer(raw)) => Some(*raw),
            Some(Json::Text(text)) => digits(text),
            Some(_) => None,
        };
        match raw.filter(|raw| (least..=most).contains(raw)) {
            Some(raw) => Ok(Some(raw)),
            None => Err(invalid_value(name, format!("must be a whole number from {least} to {most}, in digits only"))),
        }
    }

    /// A counter's value, if it is there: 0 ..= 2^63−1, as [`Params::integer`] reads it.
    ///
    /// # Errors
    /// [`ApiError::Invalid`].
    pub fn optional_value(&self, name: &'static str) -> Result<Option<Value>, ApiError> {
        Ok(self.integer(name, Value::ZERO.get(), Value::LARGEST.get())?.and_then(Value::new))
    }

    /// A counter's value, as [`Params::optional_value`], which must be there.
    ///
    /// # Errors
    /// [`ApiError::Invalid`].
    pub fn value(&self, name: &'static str) -> Result<Value, ApiError> {
        self.optional_value(name)?.ok_or_else(|| invalid_value(name, "is missing".to_owned()))
    }

    /// How many integers an increment is to reserve: `count`, 1 ..= [`MAX_COUNT`]; `None` if it is missing.
    ///
    /// # Errors
    /// [`ApiError::Invalid`].
    pub fn count(&self) -> Result<Option<u32>, ApiError> {
        Ok(self.integer("count", 1, MAX_COUNT.into())?.and_then(|count| u32::try_from(count).ok()))
    }

    /// A moment in seconds since 1970, from RFC 3339 in UTC; `None` if it is missing.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if it is something else, or before 1970.
    pub fn time(&self, name: &'static str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.optional_text(name)? else { return Ok(None) };
        let utc = OffsetDateTime::parse(text, &Rfc3339).ok().filter(|moment| moment.offset() == UtcOffset::UTC);
        let seconds = utc.and_then(|moment| u64::try_from(moment.unix_timestamp()).ok());
        let bad = || invalid_parameter(name, "must be a time of RFC 3339 in UTC, such as 2027-01-31T12:00:00Z");
        seconds.ok_or_else(bad).map(Some)
    }

    /// Which part of a list is wanted: `page[size]`, and the text of `page[after]` if it is there.
    ///
    /// # Errors
    /// [`ApiError::Invalid`], [`ApiError::UnknownParameter`] if there is any other parameter.
    pub fn page(&self) -> Result<(usize, Option<&str>), ApiError> {
        self.only(&["page[size]", "page[after]"])?;
        let (most, usual) = PAGE_SIZES;
        let size = self.integer("page[size]", 1, most)?.unwrap_or(usual);
        Ok((usize::try_from(size).unwrap_or(1), self.optional_text("page[after]")?))
    }
}

/// A parameter that is of the wrong kind.
pub(super) fn invalid_parameter(parameter: &'static str, detail: impl Into<String>) -> ApiError {
    ApiError::Invalid { parameter, code: "invalid_parameter", detail: detail.into() }
}

fn invalid_value(parameter: &'static str, detail: String) -> ApiError {
    ApiError::Invalid { parameter, code: "invalid_value", detail }
}

fn digits(text: &str) -> Option<u64> {
    let canonical = (text == "0" || !text.starts_with('0')) && text.bytes().all(|byte| byte.is_ascii_digit());
    canonical.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use hyper::header::CONTENT_TYPE;

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
        for bad in ["-1", "-0", "1.0", "1.5", "1e3", "9223372036854775808", "1e400", "null", "true", "[]", "{}", "\"\""]
        {
            let body = format!(r#"{{"value":{bad}}}"#);
            let refused = parse("application/json", &body).and_then(|params| params.value("value"));
            assert!(matches!(refused, Err(ApiError::Invalid { .. } | ApiError::MalformedBody(_))), "{bad}");
        }
        for bad in ["", "007", "00", "-0", "+5", "1e3", "1.0", " 5", "5 ", "٣", "0x10", "9223372036854775808"] {
            let body = format!(r#"{{"value":"{bad}"}}"#);
            assert!(parse("application/json", &body).unwrap().value("value").is_err(), "{bad:?}");
        }
        for zero in [r#"{"value":0}"#, r#"{"value":"0"}"#] {
            assert_eq!(parse("application/json", zero).unwrap().value("value").unwrap(), Value::ZERO);
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

    #[test]
    fn lists_flags_counts_and_times_are_taken_as_written_or_refused() {
        let json = |body: &str| parse("application/json", body).unwrap();
        let form = |body: &str| parse("application/x-www-form-urlencoded", body).unwrap();
        for params in [json(r#"{"l":["read","manage"]}"#), json(r#"{"l":"read, manage"}"#), form("l=read,manage")] {
            assert_eq!(params.texts("l").unwrap(), Some(vec!["read", "manage"]));
        }
        assert_eq!((json("{}").texts("l").unwrap(), json(r#"{"l":null}"#).texts("l").unwrap()), (None, None));
        assert!(json(r#"{"l":[1]}"#).texts("l").is_err() && json(r#"{"l":{}}"#).texts("l").is_err());
        for (params, flag) in [(json(r#"{"f":true}"#), true), (form("f=true"), true), (form("f=false"), false)] {
            assert_eq!(params.flag("f").unwrap(), flag);
        }
        assert!(!json("{}").flag("f").unwrap());
        for bad in [json(r#"{"f":1}"#), form("f=yes"), form("f="), form("f=TRUE")] {
            assert!(bad.flag("f").is_err());
        }
        for (params, count) in [(form("count=1"), 1), (json(r#"{"count":1000000}"#), 1_000_000)] {
            assert_eq!(params.count().unwrap(), Some(count));
        }
        for bad in ["0", "1000001", "1.5", "-1", "", "01", "18446744073709551616"] {
            assert!(form(&format!("count={bad}")).count().is_err(), "{bad}");
        }
        assert_eq!(form("t=1970-01-02T00:00:00Z").time("t").unwrap(), Some(86_400));
        assert_eq!(form("t=2026-11-24T09%3A00%3A00.5Z").time("t").unwrap(), Some(1_795_510_800));
        assert_eq!(json(r#"{"t":null}"#).time("t").unwrap(), None);
        for bad in ["t=", "t=tomorrow", "t=2027-01-31", "t=2027-01-31T12:00:00%2B01:00", "t=1969-12-31T23:59:59Z"] {
            assert!(form(bad).time("t").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_is_bounded_and_takes_nothing_else() {
        let query = |query: &str| Params::parse(Some(query), &HeaderMap::new(), b"").unwrap();
        assert_eq!(query("").page().unwrap(), (20, None));
        assert_eq!(query("page[size]=100&page%5Bafter%5D=a").page().unwrap(), (100, Some("a")));
        for bad in ["page[size]=0", "page[size]=101", "page[size]=x", "page=1", "page[before]=a", "size=5"] {
            assert!(query(bad).page().is_err(), "{bad}");
        }
        let refused = query("a=1&b=2").only(&["a"]);
        assert!(matches!(refused, Err(ApiError::UnknownParameter(name)) if &*name == "b"));
    }
}
