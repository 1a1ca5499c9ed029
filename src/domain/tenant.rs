//! Who a counter belongs to: the tenant, its name and limit, and what is known of its API keys.
//!
//! Job: pure types that are checked once, at the door. Invariant: a [`TenantName`] that exists is well-formed.
//! Must never: hold a password or the secret half of a key (hashes only, which Debug does not show); know HTTP or a store.

use std::fmt;

use thiserror::Error;

use crate::domain::rate_limit::{ParseRateLimitError, RateLimit};

/// A tenant's number, from 1. It appears in documents as `id`, never in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u64);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name a tenant registers with: 1–128 of `[A-Za-z0-9._%+@-]`. Two names that differ only in case are the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantName(String);

/// Why a text is not a [`TenantName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseTenantNameError {
    /// Nothing was given, or only white space.
    #[error("can't be blank")]
    Empty,
    /// More than 128 characters.
    #[error("is too long (128 characters at most)")]
    TooLong,
    /// Another character than those allowed.
    #[error("may only have the characters A-Z a-z 0-9 . _ % + @ -")]
    BadCharacter,
}

impl TenantName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Checks `text` and keeps it as typed.
    ///
    /// # Errors
    /// [`ParseTenantNameError`], saying which of the three rules was broken.
    pub fn parse(text: &str) -> Result<Self, ParseTenantNameError> {
        if text.trim().is_empty() {
            return Err(ParseTenantNameError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(ParseTenantNameError::TooLong);
        }
        let allowed = |b: u8| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'%' | b'+' | b'@' | b'-')
        };
        if !text.bytes().all(allowed) {
            return Err(ParseTenantNameError::BadCharacter);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it is compared: lower case. Names are ASCII, so this is exact.
    #[must_use]
    pub fn normalized(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// How many requests a tenant may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TenantLimit {
    /// As `--tenant-rate-limit` says.
    #[default]
    Default,
    /// As many as it likes.
    Off,
    /// So many.
    Rate(RateLimit),
}

impl fmt::Display for TenantLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Off => f.write_str("off"),
            Self::Rate(rate) => rate.fmt(f),
        }
    }
}

impl std::str::FromStr for TenantLimit {
    type Err = ParseRateLimitError;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, ParseRateLimitError> {
        match text {
            "default" => Ok(Self::Default),
            "off" => Ok(Self::Off),
            rate => rate.parse().map(Self::Rate),
        }
    }
}

/// A password hashed with argon2id, and the parameters that made it, so that they may change later.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PasswordHash {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// Random salt.
    pub salt: [u8; 16],
    /// The hash.
    pub hash: [u8; 32],
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "Alice", "a.b_c%d+e@f-g", &"x".repeat(128)] {
            assert_eq!(TenantName::parse(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", ParseTenantNameError::Empty),
            (" \t", ParseTenantNameError::Empty),
            ("a b", ParseTenantNameError::BadCharacter),
            ("a\0", ParseTenantNameError::BadCharacter),
            ("ä", ParseTenantNameError::BadCharacter),
            (&"x".repeat(129), ParseTenantNameError::TooLong),
        ] {
            assert_eq!(TenantName::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn case_does_not_make_another_name() {
        assert_eq!(
            TenantName::parse("ALICE").unwrap().normalized(),
            TenantName::parse("alice").unwrap().normalized()
        );
    }

    #[test]
    fn limits_read_back() {
        for limit in ["default", "off", "5/m:9"] {
            assert_eq!(limit.parse::<TenantLimit>().unwrap().to_string(), limit);
        }
    }
}
