//! Who a counter belongs to: the tenant, its name and limit, and what is known of its API keys.
//!
//! Job: pure types that are checked once, at the door. Invariant: a [`TenantName`] that exists is well-formed.
//! Must never: hold a password or the secret half of a key (hashes only, which Debug does not show); know HTTP or a store.

use std::fmt;

use bitflags::bitflags;
use data_encoding::HEXLOWER;
use thiserror::Error;

use crate::rate::{BadRateLimit, RateLimit};

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
pub enum BadTenantName {
    /// Nothing was given, or only white space.
    #[error("can't be blank")]
    Blank,
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
    /// [`BadTenantName`], saying which of the three rules was broken.
    pub fn parse(text: &str) -> Result<Self, BadTenantName> {
        if text.trim().is_empty() {
            return Err(BadTenantName::Blank);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(BadTenantName::TooLong);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'%' | b'+' | b'@' | b'-');
        if !text.bytes().all(allowed) {
            return Err(BadTenantName::BadCharacter);
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
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// The public half of an API key: it finds the key's record, may be logged and shown, and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; KeyId::BYTES]);

impl KeyId {
    /// Random bytes in an id.
    pub const BYTES: usize = 8;

    /// Reads an id as [`KeyId`] is displayed: 16 hexadecimal digits in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

bitflags! {
    /// What an API key may do: one or more of *read*, *increment* and *manage*. None of them contains another.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Scopes: u8 {
        /// Read and list counters.
        const READ = 1;
        /// Take integers.
        const INCREMENT = 2;
        /// Create, set and delete counters; make, list and revoke keys.
        const MANAGE = 4;
    }
}

impl Scopes {
    /// Everything.
    pub const ALL: Self = Self::all();
    const NAMES: [(&str, Self); 3] = [("read", Self::READ), ("increment", Self::INCREMENT), ("manage", Self::MANAGE)];

    /// The scopes of these bits; `None` if there is none, or an unknown one. `from_bits` alone takes 0 too.
    #[must_use]
    pub fn some_from_bits(bits: u8) -> Option<Self> {
        Self::from_bits(bits).filter(|scopes| !scopes.is_empty())
    }

    /// The scope of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, scope)| *scope)
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(_, scope)| self.contains(*scope)).map(|(name, _)| *name)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.names().enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// What people call an API key: up to 100 visible ASCII characters and spaces, perhaps none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyLabel(String);

/// Why a text is not a [`KeyLabel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("is not 0 to 100 characters of visible ASCII and spaces")]
pub struct BadKeyLabel;

impl KeyLabel {
    /// The longest label, in bytes.
    pub const MAX_BYTES: usize = 100;

    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// [`BadKeyLabel`].
    pub fn parse(text: &str) -> Result<Self, BadKeyLabel> {
        let good = text.len() <= Self::MAX_BYTES && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        good.then(|| Self(text.to_owned())).ok_or(BadKeyLabel)
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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
    type Err = BadRateLimit;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, BadRateLimit> {
        match text {
            "default" => Ok(Self::Default),
            "off" => Ok(Self::Off),
            rate => rate.parse().map(Self::Rate),
        }
    }
}

/// The SHA-256 of an API key's secret half. It can not be turned back, and it is not shown either.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(pub [u8; 32]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
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
            ("", BadTenantName::Blank),
            (" \t", BadTenantName::Blank),
            ("a b", BadTenantName::BadCharacter),
            ("a\0", BadTenantName::BadCharacter),
            ("ä", BadTenantName::BadCharacter),
            (&"x".repeat(129), BadTenantName::TooLong),
        ] {
            assert_eq!(TenantName::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn case_does_not_make_another_name() {
        assert_eq!(TenantName::parse("ALICE").unwrap().folded(), TenantName::parse("alice").unwrap().folded());
    }

    #[test]
    fn scopes_labels_and_ids_read_back() {
        let scopes = Scopes::READ | Scopes::MANAGE;
        assert_eq!((scopes.to_string().as_str(), Scopes::some_from_bits(scopes.bits())), ("read manage", Some(scopes)));
        assert!(scopes.contains(Scopes::READ) && !scopes.contains(Scopes::INCREMENT) && !scopes.contains(Scopes::ALL));
        // The numbers are in every store.
        assert_eq!(
            [Scopes::READ, Scopes::INCREMENT, Scopes::MANAGE, Scopes::ALL].map(|scopes| scopes.bits()),
            [1, 2, 4, 7]
        );
        assert_eq!(Scopes::ALL.to_string(), "read increment manage");
        for unknown in [0, 8, 9, 0xFF] {
            assert_eq!(Scopes::some_from_bits(unknown), None, "{unknown}");
        }
        assert_eq!(
            (Scopes::named("manage"), Scopes::named("write"), Scopes::named("READ")),
            (Some(Scopes::MANAGE), None, None)
        );
        let id = KeyId([0, 1, 2, 3, 4, 5, 0xAB, 0xFF]);
        assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        for bad in ["", "0001020304050AbFF", "00010203040506AB", "+001020304050607", "000102030405060"] {
            assert_eq!(KeyId::parse(bad), None, "{bad:?}");
        }
        assert_eq!(KeyLabel::parse("build server, 2nd").unwrap().as_str(), "build server, 2nd");
        for bad in ["a\nb", "ä", &"x".repeat(101)] {
            assert_eq!(KeyLabel::parse(bad), Err(BadKeyLabel), "{bad:?}");
        }
        for limit in ["default", "off", "5/m:9"] {
            assert_eq!(limit.parse::<TenantLimit>().unwrap().to_string(), limit);
        }
    }
}
