//! What a header asks of a change beyond making it: once only, and only if nothing else was changed meanwhile.
//!
//! Job: `Idempotency-Key` → [`Once`]; `If-Match` → [`Expected`]; the entity tags of counters. Invariant: two requests have the same digest only if
//! operation, counter, every parameter and `If-Match` are the same.
//! Must never: ignore such a header where it is not taken: to ignore it would be to promise what it asks for.

use aws_lc_rs::digest::{Context, SHA256};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};

use super::error::ApiError;
use crate::counter::{CounterName, Shape};
use crate::store::{Digest, Expected, Once, SetTo, Version};
use crate::tenant::TenantId;

/// The header that makes a change safe to send again.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of an answer that was given before.
pub(super) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest idempotency key, in characters.
pub(super) const MAX_KEY_CHARS: usize = 255;

/// A change that can be asked for once, with everything that makes it another request. The old routes answer other documents than the new ones,
/// so theirs are other requests.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation<'a> {
    /// `PUT /api/v1/integer/increment`, with a count or without.
    IncrementInteger(Option<u32>),
    /// `PUT /api/v1/integer`.
    SetInteger(&'a SetTo),
    /// `POST /api/v1/counters/{name}/increment`.
    Increment(&'a CounterName, u32),
    /// `PUT /api/v1/counters/{name}`.
    Set(&'a CounterName, &'a SetTo),
    /// `POST /api/v1/counters`.
    Create(&'a CounterName, &'a Shape),
}

/// The client's idempotency key, if it sent one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a>(Option<&'a [u8]>);

impl<'a> Key<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`ApiError::InvalidIdempotencyKey`] if it is there twice, or is not 1 to 255 visible ASCII characters.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, ApiError> {
        let mut sent = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(key) = sent.next().map(HeaderValue::as_bytes) else { return Ok(Self(None)) };
        let good = (1..=MAX_KEY_CHARS).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
        if good && sent.next().is_none() { Ok(Self(Some(key))) } else { Err(ApiError::InvalidIdempotencyKey) }
    }

    /// What the store is to remember the request by.
    pub(super) fn once(self, tenant: TenantId, operation: Operation<'_>) -> Option<Once> {
        let key = self.0?;
        let mut named = Context::new(&SHA256);
        named.update(&tenant.0.to_be_bytes());
        named.update(key);
        Some(Once { key: half(named), request: operation.digest() })
    }
}

impl Operation<'_> {
    /// Each operation has a number, each field a fixed width or its length in front.
    fn digest(self) -> Digest {
        let mut all = Encoding(Context::new(&SHA256));
        match self {
            Self::IncrementInteger(None) => all.number(1),
            Self::IncrementInteger(Some(count)) => {
                all.number(2);
                all.number(count.into());
            }
            Self::SetInteger(to) => {
                all.number(3);
                all.set(to);
            }
            Self::Increment(name, count) => {
                all.number(4);
                all.text(name.as_str());
                all.number(count.into());
            }
            Self::Set(name, to) => {
                all.number(5);
                all.text(name.as_str());
                all.set(to);
            }
            Self::Create(name, shape) => {
                all.number(6);
                all.text(name.as_str());
                let bounds = [shape.start(), shape.min(), shape.max()].map(|value| value.get());
                bounds.into_iter().chain([shape.step().get(), shape.rewindable().into()]).for_each(|n| all.number(n));
            }
        }
        half(all.0)
    }
}

struct Encoding(Context);

impl Encoding {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn set(&mut self, to: &SetTo) {
        self.number(to.value.get());
        self.number(to.rewind.into());
        match &to.expected {
            Expected::Any => self.number(0),
            Expected::OneOf(versions) => {
                self.number(1 + versions.len() as u64);
                for Version { born, changes } in versions {
                    self.number(*born);
                    self.number(*changes);
                }
            }
        }
    }
}

fn half(context: Context) -> Digest {
    let whole = context.finish();
    let mut half = Digest::default();
    half.iter_mut().zip(whole.as_ref()).for_each(|(half, whole)| *half = *whole);
    half
}

/// Refuses headers that ask for a guarantee which a route does not give.
///
/// # Errors
/// [`ApiError::NotSupported`], naming the first that is there and not among `taken`.
pub(super) fn refuse_others(headers: &HeaderMap, taken: &[HeaderName]) -> Result<(), ApiError> {
    for (header, name) in
        [(IDEMPOTENCY_KEY, "Idempotency-Key"), (IF_MATCH, "If-Match"), (IF_NONE_MATCH, "If-None-Match")]
    {
        if headers.contains_key(&header) && !taken.contains(&header) {
            return Err(ApiError::NotSupported(name));
        }
    }
    Ok(())
}

/// The entity tag of a state.
#[must_use]
pub(super) fn etag(version: Version) -> String {
    format!("\"{}-{}\"", version.born, version.changes)
}

/// What `If-Match` expects. A weak tag matches nothing, and neither does what is no tag of ours.
pub(super) fn expected(headers: &HeaderMap) -> Expected {
    let lines: Vec<&[u8]> = headers.get_all(IF_MATCH).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() || lines == [b"*"] {
        return Expected::Any;
    }
    let tags = lines.iter().flat_map(|line| line.split(|byte| *byte == b','));
    Expected::OneOf(tags.filter_map(|tag| version(std::str::from_utf8(tag.trim_ascii()).ok()?)).collect())
}

fn version(tag: &str) -> Option<Version> {
    let (born, changes) = tag.strip_prefix('"')?.strip_suffix('"')?.split_once('-')?;
    let version = Version { born: born.parse().ok()?, changes: changes.parse().ok()? };
    // Only as it was written: no other text is the same tag.
    (etag(version) == tag).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::{Step, Value};

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, text) in lines {
            headers.append(name, HeaderValue::from_bytes(text.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_1_to_255_visible_characters_and_there_once() {
        let read = |text: &str| Key::of(&headers(&[(IDEMPOTENCY_KEY, text)])).is_ok();
        assert!(read("a") && read("!\"~") && read(&"x".repeat(255)));
        for bad in ["", " ", "a b", "a\tb", "ä", &"x".repeat(256)] {
            assert!(!read(bad), "{bad:?}");
        }
        assert!(Key::of(&headers(&[(IDEMPOTENCY_KEY, "a"), (IDEMPOTENCY_KEY, "a")])).is_err());
        assert!(Key::of(&HeaderMap::new()).unwrap().0.is_none());
    }

    #[test]
    fn another_request_has_another_digest() {
        let name = |text: &str| CounterName::parse(text).unwrap();
        let value = |raw| Value::new(raw).unwrap();
        let set = |raw, rewind, expected| SetTo { value: value(raw), rewind, expected };
        let version = |born, changes| Version { born, changes };
        let shape =
            |step, rewindable| Shape::new(value(1), Step::new(step).unwrap(), value(1), value(9), rewindable).unwrap();
        let (a, b, default) = (name("a"), name("b"), CounterName::default_counter());
        let sets = [
            set(1, false, Expected::Any),
            set(2, false, Expected::Any),
            set(1, true, Expected::Any),
            set(1, false, Expected::OneOf(vec![])),
            set(1, false, Expected::OneOf(vec![version(1, 2)])),
            set(1, false, Expected::OneOf(vec![version(2, 1)])),
            set(1, false, Expected::OneOf(vec![version(1, 2), version(2, 1)])),
        ];
        let shapes = [shape(1, false), shape(2, false), shape(1, true)];
        let mut digests = vec![
            Operation::IncrementInteger(None).digest(),
            Operation::IncrementInteger(Some(1)).digest(),
            Operation::IncrementInteger(Some(2)).digest(),
        ];
        for name in [&a, &b, &default] {
            digests.extend([1, 2].map(|count| Operation::Increment(name, count).digest()));
            digests.extend(sets.iter().map(|to| Operation::Set(name, to).digest()));
            digests.extend(shapes.iter().map(|shape| Operation::Create(name, shape).digest()));
        }
        digests.extend(sets.iter().map(|to| Operation::SetInteger(to).digest()));
        let count = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), count);
        let sent = headers(&[(IDEMPOTENCY_KEY, "k")]);
        let key = |tenant| Key::of(&sent).unwrap().once(TenantId(tenant), Operation::IncrementInteger(None)).unwrap();
        assert_eq!(key(1), key(1));
        assert_ne!(key(1).key, key(2).key);
    }

    #[test]
    fn if_match_takes_our_strong_tags_only() {
        let read = |lines: &[&str]| expected(&headers(&lines.iter().map(|line| (IF_MATCH, *line)).collect::<Vec<_>>()));
        let version = |born, changes| Version { born, changes };
        assert_eq!((read(&[]), read(&["*"])), (Expected::Any, Expected::Any));
        assert_eq!(read(&["\"1-2\""]), Expected::OneOf(vec![version(1, 2)]));
        let several = Expected::OneOf(vec![version(1, 2), version(3, 4), version(0, 5)]);
        assert_eq!(read(&["\"1-2\" , W/\"8-8\",\"3-4\"", "\"x\", \"0-5\""]), several);
        for garbage in ["", "1-2", "W/\"1-2\"", "\"01-2\"", "\"+1-2\"", "\"1-2", "*, \"x\"", "\"1-2-3\"", "\"-\"", "ä"]
        {
            assert_eq!(read(&[garbage]), Expected::OneOf(vec![]), "{garbage}");
        }
        assert_eq!(read(&["*", "*"]), Expected::OneOf(vec![]));
    }
}
