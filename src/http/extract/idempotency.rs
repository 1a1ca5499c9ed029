//! `Idempotency-Key`: a change that is made once, however often it is sent.
//!
//! Job: [`IdempotencyKey`], from the header to the token that the store keeps. Invariant: two
//! requests have the same fingerprint only if operation, counter, every parameter and `If-Match`
//! are the same. Must never: take two keys, or keep the key itself.

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH};
use aws_lc_rs::digest::{Context, SHA256};

use super::Extract;
use super::preconditions::{IDEMPOTENCY_KEY, parse_if_match, reject_unsupported};
use crate::domain::counter::{CounterConfig, CounterName};
use crate::domain::tenant::TenantId;
use crate::http::error::ApiError;
use crate::store::{Digest128, IdempotencyToken, Precondition, SetCounter, Version};

/// The header of an answer that was given before.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest idempotency key, in characters.
pub const MAX_KEY_CHARS: usize = 255;

/// A change that can be asked for once, with everything that makes it another request. The old routes answer other documents than the new ones,
/// so theirs are other requests.
#[derive(Clone, Copy, Debug)]
pub enum FingerprintedRequest<'a> {
    /// `PUT /api/v1/integer/increment`, with a count or without.
    IncrementInteger(Option<u32>),
    /// `PUT /api/v1/integer`.
    SetInteger(&'a SetCounter),
    /// `POST /api/v1/counters/{name}/increment`.
    Increment(&'a CounterName, u32),
    /// `PUT /api/v1/counters/{name}`.
    Set(&'a CounterName, &'a SetCounter),
    /// `POST /api/v1/counters`.
    Create(&'a CounterName, &'a CounterConfig),
}

/// The client's idempotency key, if it sent one.
#[derive(Clone, Debug)]
pub struct IdempotencyKey(Option<HeaderValue>);

impl Extract for IdempotencyKey {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        reject_unsupported(req.headers(), &[IDEMPOTENCY_KEY])?;
        Self::from_headers(req.headers())
    }
}

/// A change that takes an idempotency key and `If-Match`.
#[derive(Debug)]
pub struct IdempotentIfMatch {
    /// The key.
    pub key: IdempotencyKey,
    /// What `If-Match` expects.
    pub expected: Precondition,
}

impl Extract for IdempotentIfMatch {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        let headers = req.headers();
        reject_unsupported(headers, &[IDEMPOTENCY_KEY, IF_MATCH])?;
        Ok(Self { key: IdempotencyKey::from_headers(headers)?, expected: parse_if_match(headers) })
    }
}

impl IdempotencyKey {
    /// 1 to 255 visible ASCII characters in one header, or none.
    fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut sent = headers.get_all(IDEMPOTENCY_KEY);
        let Some(key) = sent.next() else { return Ok(Self(None)) };
        let is_valid = (1..=MAX_KEY_CHARS).contains(&key.len())
            && key.as_bytes().iter().all(u8::is_ascii_graphic);
        if is_valid && sent.next().is_none() {
            Ok(Self(Some(key.clone())))
        } else {
            Err(ApiError::InvalidIdempotencyKey)
        }
    }

    /// What the store is to remember the request by.
    #[must_use]
    pub fn token(
        &self,
        tenant: TenantId,
        request: FingerprintedRequest<'_>,
    ) -> Option<IdempotencyToken> {
        let key = self.0.as_ref()?;
        let mut named = Context::new(&SHA256);
        named.update(&tenant.0.to_be_bytes());
        named.update(key.as_bytes());
        Some(IdempotencyToken {
            key_hash: truncate_digest(named),
            request_fingerprint: request.fingerprint(),
        })
    }
}

impl FingerprintedRequest<'_> {
    /// Each operation has a number, each field a fixed width or its length in front.
    fn fingerprint(self) -> Digest128 {
        let mut all = FingerprintHasher(Context::new(&SHA256));
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
                bounds
                    .into_iter()
                    .chain([shape.step().get(), shape.rewindable().into()])
                    .for_each(|n| all.number(n));
            }
        }
        truncate_digest(all.0)
    }
}

struct FingerprintHasher(Context);

impl FingerprintHasher {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn set(&mut self, to: &SetCounter) {
        self.number(to.value.get());
        self.number(to.rewind.into());
        match &to.expected {
            Precondition::Any => self.number(0),
            Precondition::OneOf(versions) => {
                self.number(1 + versions.len() as u64);
                for Version { generation: born, revision: changes } in versions {
                    self.number(*born);
                    self.number(*changes);
                }
            }
        }
    }
}

fn truncate_digest(context: Context) -> Digest128 {
    let whole = context.finish();
    let mut half = Digest128::default();
    half.iter_mut().zip(whole.as_ref()).for_each(|(half, whole)| *half = *whole);
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::counter::{Step, Value};

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, text) in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(text.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_1_to_255_visible_characters_and_there_once() {
        let read =
            |text: &str| IdempotencyKey::from_headers(&headers(&[(IDEMPOTENCY_KEY, text)])).is_ok();
        assert!(read("a") && read("!\"~") && read(&"x".repeat(255)));
        for bad in ["", " ", "a b", "a\tb", "ä", &"x".repeat(256)] {
            assert!(!read(bad), "{bad:?}");
        }
        assert!(
            IdempotencyKey::from_headers(&headers(&[
                (IDEMPOTENCY_KEY, "a"),
                (IDEMPOTENCY_KEY, "a")
            ]))
            .is_err()
        );
        assert!(IdempotencyKey::from_headers(&HeaderMap::new()).unwrap().0.is_none());
    }

    #[test]
    fn another_request_has_another_digest() {
        let name = |text: &str| CounterName::parse(text).unwrap();
        let value = |raw| Value::new(raw).unwrap();
        let set = |raw, rewind, expected| SetCounter { value: value(raw), rewind, expected };
        let version = |born, changes| Version { generation: born, revision: changes };
        let shape = |step, rewindable| {
            CounterConfig::new(value(1), Step::new(step).unwrap(), value(1), value(9), rewindable)
                .unwrap()
        };
        let (a, b, default) = (name("a"), name("b"), CounterName::default_counter());
        let sets = [
            set(1, false, Precondition::Any),
            set(2, false, Precondition::Any),
            set(1, true, Precondition::Any),
            set(1, false, Precondition::OneOf(vec![])),
            set(1, false, Precondition::OneOf(vec![version(1, 2)])),
            set(1, false, Precondition::OneOf(vec![version(2, 1)])),
            set(1, false, Precondition::OneOf(vec![version(1, 2), version(2, 1)])),
        ];
        let shapes = [shape(1, false), shape(2, false), shape(1, true)];
        let mut digests = vec![
            FingerprintedRequest::IncrementInteger(None).fingerprint(),
            FingerprintedRequest::IncrementInteger(Some(1)).fingerprint(),
            FingerprintedRequest::IncrementInteger(Some(2)).fingerprint(),
        ];
        for name in [&a, &b, &default] {
            digests.extend(
                [1, 2].map(|count| FingerprintedRequest::Increment(name, count).fingerprint()),
            );
            digests.extend(sets.iter().map(|to| FingerprintedRequest::Set(name, to).fingerprint()));
            digests.extend(
                shapes.iter().map(|shape| FingerprintedRequest::Create(name, shape).fingerprint()),
            );
        }
        digests.extend(sets.iter().map(|to| FingerprintedRequest::SetInteger(to).fingerprint()));
        let count = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), count);
        let sent = headers(&[(IDEMPOTENCY_KEY, "k")]);
        let key = |tenant| {
            IdempotencyKey::from_headers(&sent)
                .unwrap()
                .token(TenantId(tenant), FingerprintedRequest::IncrementInteger(None))
                .unwrap()
        };
        assert_eq!(key(1), key(1));
        assert_ne!(key(1).key_hash, key(2).key_hash);
    }
}
