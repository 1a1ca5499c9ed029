//! API keys: `odo_<id>_<secret><crc>`, all hexadecimal, 93 characters.
//!
//! Job: make, show once, parse and check a key. The id (8 random bytes) finds the record, the secret (32 random bytes) proves, the CRC32C tells
//! a mistyped key from an unknown one without a look into the store. Only the SHA-256 of the secret is kept: the secret has 256 bits of its
//! own, so a slow hash would add nothing but work.
//! Invariant: a secret is wiped from memory when dropped and compared in constant time.
//! Must never: appear in Debug, a log or an error.

use std::fmt;

use aws_lc_rs::{constant_time, digest, rand};
use data_encoding::HEXLOWER;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::domain::api_key::{KeyId, SecretHash};

/// What every key begins with.
pub const PREFIX: &str = "odo_";
const SECRET_BYTES: usize = 32;
const ID_DIGITS: usize = KeyId::BYTES * 2;
const SECRET_DIGITS: usize = SECRET_BYTES * 2;
const CRC_DIGITS: usize = 8;
/// Characters of a key.
pub const KEY_CHARS: usize = PREFIX.len() + ID_DIGITS + 1 + SECRET_DIGITS + CRC_DIGITS;

/// An API key with its secret half.
pub struct ApiKey {
    id: KeyId,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// A text that is no API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an API key: odo_, 16 hexadecimal digits, _, 72 more")]
pub struct ParseApiKeyError;

/// The system has no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the system gave no random bytes")]
pub struct RandomError;

impl ApiKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn generate() -> Result<Self, RandomError> {
        let mut id = [0; KeyId::BYTES];
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(&mut id).map_err(|_| RandomError)?;
        rand::fill(secret.as_mut_slice()).map_err(|_| RandomError)?;
        Ok(Self { id: KeyId(id), secret })
    }

    /// Reads a key that a caller sent.
    ///
    /// # Errors
    /// [`ParseApiKeyError`] if it has another shape or its CRC does not match: nobody was ever given such a key.
    pub fn parse(text: &[u8]) -> Result<Self, ParseApiKeyError> {
        let bad = (text.len() != KEY_CHARS).then_some(ParseApiKeyError);
        bad.map_or(Ok(()), Err)?;
        let (body, crc) = text.split_at(KEY_CHARS - CRC_DIGITS);
        let rest = body.strip_prefix(PREFIX.as_bytes()).ok_or(ParseApiKeyError)?;
        let (id, rest) = rest.split_at(ID_DIGITS);
        let secret = rest.strip_prefix(b"_").ok_or(ParseApiKeyError)?;
        let mut key =
            Self { id: KeyId([0; KeyId::BYTES]), secret: Zeroizing::new([0; SECRET_BYTES]) };
        let mut crc_bytes = [0; CRC_DIGITS / 2];
        // Each piece has exactly two digits for a byte: `decode_mut` panics at any other length.
        let decode = |digits: &[u8], bytes: &mut [u8]| HEXLOWER.decode_mut(digits, bytes).is_ok();
        let all_hex = decode(id, &mut key.id.0)
            && decode(secret, key.secret.as_mut_slice())
            && decode(crc, &mut crc_bytes);
        (all_hex && crc32c::crc32c(body).to_be_bytes() == crc_bytes)
            .then_some(key)
            .ok_or(ParseApiKeyError)
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What the store keeps of the secret half.
    #[must_use]
    pub fn secret_hash(&self) -> SecretHash {
        let digest = digest::digest(&digest::SHA256, self.secret.as_slice());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        SecretHash(hash)
    }

    /// Whether this is the key that `hash` was made of; takes the same time for every answer.
    #[must_use]
    pub fn matches(&self, hash: &SecretHash) -> bool {
        constant_time::verify_slices_are_equal(&self.secret_hash().0, &hash.0).is_ok()
    }

    /// The whole key, to be shown once to the one who asked for it.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(KEY_CHARS));
        text.push_str(PREFIX);
        HEXLOWER.encode_append(&self.id.0, &mut text);
        text.push('_');
        HEXLOWER.encode_append(self.secret.as_slice(), &mut text);
        let crc = crc32c::crc32c(text.as_bytes()).to_be_bytes();
        HEXLOWER.encode_append(&crc, &mut text);
        text
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
    fn a_revealed_key_parses_and_proves_itself_only() {
        let (key, other) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        let again = ApiKey::parse(key.expose().as_bytes()).unwrap();
        assert_eq!(again.id(), key.id());
        assert!(again.matches(&key.secret_hash()));
        assert!(!again.matches(&other.secret_hash()));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = ApiKey::generate().unwrap().expose().as_bytes().to_vec();
        for at in 0..text.len() {
            for replacement in [b'0', b'f', b'F', b' ', 0, 0xFF] {
                let mut changed = text.clone();
                changed[at] = replacement;
                assert_eq!(ApiKey::parse(&changed).is_ok(), changed == text);
            }
            assert!(ApiKey::parse(&text[..at]).is_err());
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = ApiKey::generate().unwrap();
        let secret: String = key.expose().chars().skip(21).take(64).collect();
        assert!(!format!("{key:?}{:?}", key.secret_hash()).contains(&secret[..8]));
    }
}
