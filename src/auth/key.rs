//! API keys: `odo_<id>_<secret><crc>`, all hexadecimal, 93 characters.
//!
//! Job: generate, expose, parse and verify a key. The id (8 random bytes) identifies the record,
//! the secret (32 random bytes) authenticates, and the CRC32C tells a mistyped key from an unknown
//! one without a store lookup. The store keeps only the SHA-256 of the secret: 256 random bits
//! cannot be guessed, so a slow hash would add no security.
//! Invariant: a secret is wiped from memory when dropped and compared in constant time.
//! Must never: let a secret appear in Debug, a log or an error.

use std::fmt;

use aws_lc_rs::{constant_time, digest, rand};
use data_encoding::HEXLOWER;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::domain::api_key::{KeyId, SecretHash};
use crate::failpoint::failpoint;

/// The prefix of every key.
pub const PREFIX: &str = "odo_";
const SECRET_BYTES: usize = 32;
const ID_DIGITS: usize = KeyId::BYTES * 2;
const SECRET_DIGITS: usize = SECRET_BYTES * 2;
const CRC_DIGITS: usize = 8;
/// The length of a key in characters.
pub const KEY_CHARS: usize = PREFIX.len() + ID_DIGITS + 1 + SECRET_DIGITS + CRC_DIGITS;

/// An API key with its secret half.
pub struct ApiKey {
    id: KeyId,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// The string is not an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an API key: odo_, 16 hexadecimal digits, _, 72 more")]
pub struct ParseApiKeyError;

/// The random number generator failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the random number generator failed")]
pub struct RandomError;

impl ApiKey {
    /// Generates a random key.
    ///
    /// # Errors
    /// [`RandomError`] if the random number generator fails.
    pub fn generate() -> Result<Self, RandomError> {
        let mut id = [0; KeyId::BYTES];
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(&mut id).map_err(|_| RandomError)?;
        rand::fill(secret.as_mut_slice()).map_err(|_| RandomError)?;
        Ok(Self { id: KeyId(id), secret })
    }

    /// Parses a key that a client sent.
    ///
    /// # Errors
    /// [`ParseApiKeyError`] if its form is wrong or its CRC does not match: no such key was ever
    /// issued.
    pub fn parse(string: &[u8]) -> Result<Self, ParseApiKeyError> {
        let bad = (string.len() != KEY_CHARS).then_some(ParseApiKeyError);
        bad.map_or(Ok(()), Err)?;
        let (body, crc) = string.split_at(KEY_CHARS - CRC_DIGITS);
        let rest = body.strip_prefix(PREFIX.as_bytes()).ok_or(ParseApiKeyError)?;
        let (id, rest) = rest.split_at(ID_DIGITS);
        let secret = rest.strip_prefix(b"_").ok_or(ParseApiKeyError)?;
        let mut key =
            Self { id: KeyId([0; KeyId::BYTES]), secret: Zeroizing::new([0; SECRET_BYTES]) };
        let mut crc_bytes = [0; CRC_DIGITS / 2];
        // Each part has exactly two digits per byte: `decode_mut` panics at any other length.
        let decode = |digits: &[u8], bytes: &mut [u8]| HEXLOWER.decode_mut(digits, bytes).is_ok();
        let all_hex = decode(id, &mut key.id.0)
            && decode(secret, key.secret.as_mut_slice())
            && decode(crc, &mut crc_bytes);
        (all_hex && crc32c::crc32c(body).to_be_bytes() == crc_bytes)
            .then_some(key)
            .ok_or(ParseApiKeyError)
    }

    /// The public half of the key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The hash of the secret half, which the store keeps.
    pub fn secret_hash(&self) -> SecretHash {
        let digest = digest::digest(&digest::SHA256, self.secret.as_slice());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        SecretHash(hash)
    }

    /// Whether `hash` is the hash of this key's secret, compared in constant time.
    pub fn matches(&self, hash: &SecretHash) -> bool {
        constant_time::verify_slices_are_equal(&self.secret_hash().0, &hash.0).is_ok()
            || failpoint!("key-secret-not-compared")
    }

    /// The whole key as a string, to be shown once to its creator.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut key = Zeroizing::new(String::with_capacity(KEY_CHARS));
        key.push_str(PREFIX);
        HEXLOWER.encode_append(&self.id.0, &mut key);
        key.push('_');
        HEXLOWER.encode_append(self.secret.as_slice(), &mut key);
        let crc = crc32c::crc32c(key.as_bytes()).to_be_bytes();
        HEXLOWER.encode_append(&crc, &mut key);
        key
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({:?}, ..)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exposed_key_parses_and_matches_its_own_hash_only() {
        let (key, other) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        let again = ApiKey::parse(key.expose().as_bytes()).unwrap();
        assert_eq!(again.id(), key.id());
        assert!(again.matches(&key.secret_hash()));
        assert!(!again.matches(&other.secret_hash()));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let key = ApiKey::generate().unwrap().expose().as_bytes().to_vec();
        for at in 0..key.len() {
            for replacement in [b'0', b'f', b'F', b' ', 0, 0xFF] {
                let mut changed = key.clone();
                changed[at] = replacement;
                assert_eq!(ApiKey::parse(&changed).is_ok(), changed == key);
            }
            assert!(ApiKey::parse(&key[..at]).is_err());
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = ApiKey::generate().unwrap();
        let secret: String = key.expose().chars().skip(21).take(64).collect();
        assert!(!format!("{key:?}{:?}", key.secret_hash()).contains(&secret[..8]));
    }
}
