//! `Idempotency-Key`: makes a change safe to retry.
//!
//! Job: [`IdempotencyKey`] turns the header into the token that the store keeps.
//! Invariant: two requests have the same fingerprint only if operation, counter, all parameters and
//! `If-Match` are the same.
//! Must never: accept two keys, or keep the key itself.

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

/// The header of a response that was stored by an earlier request.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The maximum length of an idempotency key in characters.
pub const MAX_KEY_CHARS: usize = 255;

/// A request with everything that its fingerprint covers. The routes of `/api/v1/integer` have
/// other responses than those of `/api/v1/counters`, so their requests are different ones.
#[derive(Clone, Copy, Debug)]
pub enum FingerprintedRequest<'a> {
    /// `PUT /api/v1/integer/increment`, with or without a count.
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

/// The request's idempotency key; `None` if it has none.
#[derive(Clone, Debug)]
pub struct IdempotencyKey(Option<HeaderValue>);

impl Extract for IdempotencyKey {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        reject_unsupported(req.headers(), &[IDEMPOTENCY_KEY])?;
        Self::from_headers(req.headers())
    }
}

/// The headers of a request that supports an idempotency key and `If-Match`.
#[derive(Debug)]
pub struct IdempotentIfMatch {
    /// The idempotency key.
    pub key: IdempotencyKey,
    /// The precondition of `If-Match`.
    pub precondition: Precondition,
}

impl Extract for IdempotentIfMatch {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        let headers = req.headers();
        reject_unsupported(headers, &[IDEMPOTENCY_KEY, IF_MATCH])?;
        let key = IdempotencyKey::from_headers(headers)?;
        Ok(Self { key, precondition: parse_if_match(headers) })
    }
}

impl IdempotencyKey {
    /// Parses the header: 1 to 255 visible ASCII characters, at most one header.
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

    /// The token under which the store keeps the result; `None` without a key.
    pub fn token(
        &self,
        tenant: TenantId,
        request: FingerprintedRequest<'_>,
    ) -> Option<IdempotencyToken> {
        let key = self.0.as_ref()?;
        // The tenant is hashed with the key, so that tenants' keys are independent.
        let mut key_hash = Context::new(&SHA256);
        key_hash.update(&tenant.0.to_be_bytes());
        key_hash.update(key.as_bytes());
        Some(IdempotencyToken {
            key_hash: truncate_digest(key_hash),
            request_fingerprint: request.fingerprint(),
        })
    }
}

impl FingerprintedRequest<'_> {
    /// Hashes a canonical encoding: each operation has a number, each field a fixed width or a
    /// length prefix, so no two requests have the same encoding.
    fn fingerprint(self) -> Digest128 {
        let mut hasher = FingerprintHasher(Context::new(&SHA256));
        match self {
            Self::IncrementInteger(None) => hasher.number(1),
            Self::IncrementInteger(Some(count)) => {
                hasher.number(2);
                hasher.number(count.into());
            }
            Self::SetInteger(to) => {
                hasher.number(3);
                hasher.set(to);
            }
            Self::Increment(name, count) => {
                hasher.number(4);
                hasher.string(name.as_str());
                hasher.number(count.into());
            }
            Self::Set(name, to) => {
                hasher.number(5);
                hasher.string(name.as_str());
                hasher.set(to);
            }
            Self::Create(name, config) => {
                hasher.number(6);
                hasher.string(name.as_str());
                let bounds = [config.start(), config.min(), config.max()].map(|value| value.get());
                bounds
                    .into_iter()
                    .chain([config.step().get(), config.rewindable().into()])
                    .for_each(|n| hasher.number(n));
            }
        }
        truncate_digest(hasher.0)
    }
}

struct FingerprintHasher(Context);

impl FingerprintHasher {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn string(&mut self, string: &str) {
        self.number(string.len() as u64);
        self.0.update(string.as_bytes());
    }

    fn set(&mut self, to: &SetCounter) {
        self.number(to.value.get());
        self.number(to.rewind.into());
        match &to.precondition {
            Precondition::Any => self.number(0),
            Precondition::OneOf(versions) => {
                self.number(1 + versions.len() as u64);
                for Version { generation, revision } in versions {
                    self.number(*generation);
                    self.number(*revision);
                }
            }
        }
    }
}

/// The first half of a SHA-256.
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
        for (name, string) in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(string.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_1_to_255_visible_characters_in_one_header() {
        let read = |string: &str| {
            IdempotencyKey::from_headers(&headers(&[(IDEMPOTENCY_KEY, string)])).is_ok()
        };
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
        let name = |string: &str| CounterName::parse(string).unwrap();
        let value = |raw| Value::new(raw).unwrap();
        let set =
            |raw, rewind, precondition| SetCounter { value: value(raw), rewind, precondition };
        let version = |generation, revision| Version { generation, revision };
        let config = |step, rewindable| {
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
        let configs = [config(1, false), config(2, false), config(1, true)];
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
                configs
                    .iter()
                    .map(|config| FingerprintedRequest::Create(name, config).fingerprint()),
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
