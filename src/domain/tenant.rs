//! The tenant, who owns counters: its id, name, rate limit and password hash.
//!
//! Job: pure types that are validated on construction.
//! Invariant: a [`TenantName`] is well-formed.
//! Must never: hold a password (only its hash, which Debug hides); know HTTP or a store.

use std::fmt;

use thiserror::Error;

use crate::domain::rate_limit::{ParseRateLimitError, RateLimit};

/// A tenant's number, from 1. Responses show it as `id`; it is never part of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u64);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name that a tenant registers: 1–128 of `[A-Za-z0-9._%+@-]`. Names that differ only in case
/// are the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantName(String);

/// Why a string is not a [`TenantName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseTenantNameError {
    /// The string is empty or only white space.
    #[error("can't be blank")]
    Empty,
    /// The string has more than 128 characters.
    #[error("is too long (128 characters at most)")]
    TooLong,
    /// The string has a character that is not allowed.
    #[error("may only have the characters A-Z a-z 0-9 . _ % + @ -")]
    InvalidCharacter,
}

impl TenantName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Checks `string` and copies it, with its case.
    ///
    /// # Errors
    /// [`ParseTenantNameError`], saying which of the three rules was broken.
    pub fn parse(string: &str) -> Result<Self, ParseTenantNameError> {
        if string.trim().is_empty() {
            return Err(ParseTenantNameError::Empty);
        }
        if string.len() > Self::MAX_BYTES {
            return Err(ParseTenantNameError::TooLong);
        }
        let allowed = |b: u8| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'%' | b'+' | b'@' | b'-')
        };
        if !string.bytes().all(allowed) {
            return Err(ParseTenantNameError::InvalidCharacter);
        }
        Ok(Self(string.to_owned()))
    }

    /// The name as the tenant registered it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in lower case, for comparison. Names are ASCII, so this is exact.
    pub fn normalized(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// The rate limit of one tenant's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TenantLimit {
    /// The limit of `--tenant-rate-limit`.
    #[default]
    Default,
    /// No limit.
    Off,
    /// This limit.
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

    /// Parses what `Display` writes: `default`, `off` or a rate.
    fn from_str(string: &str) -> Result<Self, ParseRateLimitError> {
        match string {
            "default" => Ok(Self::Default),
            "off" => Ok(Self::Off),
            rate => rate.parse().map(Self::Rate),
        }
    }
}

/// A password's argon2id hash with its parameters, so that a later version may use others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PasswordHash {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Degree of parallelism.
    pub lanes: u32,
    /// The random salt.
    pub salt: [u8; 16],
    /// The hash itself.
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
            ("a b", ParseTenantNameError::InvalidCharacter),
            ("a\0", ParseTenantNameError::InvalidCharacter),
            ("ä", ParseTenantNameError::InvalidCharacter),
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
