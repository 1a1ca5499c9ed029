//! `ETag` and `If-Match`: a change only if nothing else was changed meanwhile.
//!
//! Job: [`IfMatch`], [`NoPreconditions`]; the entity tags of counters ([`etag`]). Invariant: a tag
//! names one state of one counter, and every change says which of these headers it takes.
//! Must never: ignore such a header where it is not taken, which would imply a guarantee that is
//! not given.

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};

use super::Extract;
use crate::http::error::ApiError;
use crate::store::{Precondition, Version};

/// The header that makes a change safe to send again.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A change that takes no precondition and no idempotency key.
#[derive(Debug)]
pub struct NoPreconditions;

impl Extract for NoPreconditions {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        reject_unsupported(req.headers(), &[]).map(|()| Self)
    }
}

/// A change that takes `If-Match` alone: what the header expects.
#[derive(Debug)]
pub struct IfMatch(pub Precondition);

impl Extract for IfMatch {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        reject_unsupported(req.headers(), &[IF_MATCH])?;
        Ok(Self(parse_if_match(req.headers())))
    }
}

/// Rejects headers that ask for a guarantee which a route does not give.
///
/// # Errors
/// [`ApiError::NotSupported`], naming the first that is there and not among `taken`.
pub fn reject_unsupported(headers: &HeaderMap, taken: &[HeaderName]) -> Result<(), ApiError> {
    let asked = [
        (IDEMPOTENCY_KEY, "Idempotency-Key"),
        (IF_MATCH, "If-Match"),
        (IF_NONE_MATCH, "If-None-Match"),
    ];
    match asked
        .into_iter()
        .find(|(header, _)| headers.contains_key(header) && !taken.contains(header))
    {
        Some((_, name)) => Err(ApiError::NotSupported(name)),
        None => Ok(()),
    }
}

/// The entity tag of a state.
#[must_use]
pub fn etag(version: Version) -> String {
    format!("\"{}-{}\"", version.generation, version.revision)
}

/// What `If-Match` expects. A weak tag matches nothing, and neither does what is no tag of ours.
pub fn parse_if_match(headers: &HeaderMap) -> Precondition {
    let lines: Vec<&[u8]> = headers.get_all(IF_MATCH).map(HeaderValue::as_bytes).collect();
    if lines.is_empty() || lines == [b"*"] {
        return Precondition::Any;
    }
    let tags = lines.iter().flat_map(|line| line.split(|byte| *byte == b','));
    Precondition::OneOf(
        tags.filter_map(|tag| version(std::str::from_utf8(tag.trim_ascii()).ok()?)).collect(),
    )
}

fn version(tag: &str) -> Option<Version> {
    let (born, changes) = tag.strip_prefix('"')?.strip_suffix('"')?.split_once('-')?;
    let version = Version { generation: born.parse().ok()?, revision: changes.parse().ok()? };
    // Only as it was written: no other text is the same tag.
    (etag(version) == tag).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_takes_our_strong_tags_only() {
        let read = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|line| {
                headers.append(IF_MATCH, HeaderValue::from_bytes(line.as_bytes()).unwrap())
            });
            parse_if_match(&headers)
        };
        let version = |born, changes| Version { generation: born, revision: changes };
        assert_eq!((read(&[]), read(&["*"])), (Precondition::Any, Precondition::Any));
        assert_eq!(read(&["\"1-2\""]), Precondition::OneOf(vec![version(1, 2)]));
        let several = Precondition::OneOf(vec![version(1, 2), version(3, 4), version(0, 5)]);
        assert_eq!(read(&["\"1-2\" , W/\"8-8\",\"3-4\"", "\"x\", \"0-5\""]), several);
        for garbage in [
            "",
            "1-2",
            "W/\"1-2\"",
            "\"01-2\"",
            "\"+1-2\"",
            "\"1-2",
            "*, \"x\"",
            "\"1-2-3\"",
            "\"-\"",
            "ä",
        ] {
            assert_eq!(read(&[garbage]), Precondition::OneOf(vec![]), "{garbage}");
        }
        assert_eq!(read(&["*", "*"]), Precondition::OneOf(vec![]));
    }
}
