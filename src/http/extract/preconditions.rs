//! Conditional requests: `ETag` and `If-Match`.
//!
//! Job: [`IfMatch`], [`NoPreconditions`], and the entity tags of counters ([`etag`]).
//! Invariant: a tag identifies one state of one counter; every changing route declares which
//! conditional headers it supports.
//! Must never: ignore such a header on a route that does not support it, which would imply a
//! guarantee that the server does not give.

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};

use super::Extract;
use crate::failpoint::failpoint;
use crate::http::error::ApiError;
use crate::store::{Precondition, Version};

/// The header that makes a change safe to retry.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request that supports neither preconditions nor an idempotency key.
#[derive(Debug)]
pub struct NoPreconditions;

impl Extract for NoPreconditions {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        reject_unsupported(req.headers(), &[]).map(|()| Self)
    }
}

/// The precondition of a request that supports `If-Match` and no idempotency key.
#[derive(Debug)]
pub struct IfMatch(pub Precondition);

impl Extract for IfMatch {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        reject_unsupported(req.headers(), &[IF_MATCH])?;
        Ok(Self(parse_if_match(req.headers())))
    }
}

/// Rejects conditional headers that the route does not support.
///
/// # Errors
/// [`ApiError::NotSupported`] with the first one that is not in `supported`.
pub fn reject_unsupported(headers: &HeaderMap, supported: &[HeaderName]) -> Result<(), ApiError> {
    let conditional = [
        (IDEMPOTENCY_KEY, "Idempotency-Key"),
        (IF_MATCH, "If-Match"),
        (IF_NONE_MATCH, "If-None-Match"),
    ];
    match conditional
        .into_iter()
        .find(|(header, _)| headers.contains_key(header) && !supported.contains(header))
    {
        Some((_, name)) if !failpoint!("unsupported-condition-ignored") => {
            Err(ApiError::NotSupported(name))
        }
        _ => Ok(()),
    }
}

/// The entity tag of a counter's version.
pub fn etag(version: Version) -> String {
    format!("\"{}-{}\"", version.generation, version.revision)
}

/// Parses `If-Match`. A weak tag matches nothing, and neither does a tag that [`etag`] does not
/// make.
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
    let (generation, revision) = tag.strip_prefix('"')?.strip_suffix('"')?.split_once('-')?;
    let version =
        Version { generation: generation.parse().ok()?, revision: revision.parse().ok()? };
    // Only the canonical form: `"01-2"` parses to the same numbers, but is another tag.
    (etag(version) == tag).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_accepts_strong_tags_of_this_server_only() {
        let read = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|line| {
                headers.append(IF_MATCH, HeaderValue::from_bytes(line.as_bytes()).unwrap())
            });
            parse_if_match(&headers)
        };
        let version = |generation, revision| Version { generation, revision };
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
