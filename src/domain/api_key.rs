//! The parts of an API key: its id, label, scopes and the hash of its secret.
//!
//! Job: pure types that are validated on construction.
//! Invariant: a [`KeyLabel`] that exists is well-formed; [`Scopes`] holds known scopes only.
//! Must never: hold the secret half of a key, or show its hash in Debug.

use std::fmt;

use bitflags::bitflags;
use data_encoding::HEXLOWER;
use thiserror::Error;

/// The public half of an API key. It identifies the key's record and may be logged and shown; it
/// does not authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; KeyId::BYTES]);

impl KeyId {
    /// Random bytes in an id.
    pub const BYTES: usize = 8;

    /// Parses what `Display` writes: 16 hexadecimal digits in lower case.
    pub fn parse(string: &str) -> Option<Self> {
        HEXLOWER.decode(string.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

bitflags! {
    /// What an API key may do: one or more of *read*, *increment* and *manage*. No scope contains
    /// another.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Scopes: u8 {
        /// Read and list counters.
        const READ = 1;
        /// Increment counters.
        const INCREMENT = 2;
        /// Create, set and delete counters; create, list and revoke keys.
        const MANAGE = 4;
    }
}

impl Scopes {
    /// All three scopes.
    pub const ALL: Self = Self::all();
    const NAMES: [(&str, Self); 3] =
        [("read", Self::READ), ("increment", Self::INCREMENT), ("manage", Self::MANAGE)];

    /// The scopes of these bits; `None` if no bit or an unknown one is set. (`from_bits` accepts
    /// 0.)
    pub fn some_from_bits(bits: u8) -> Option<Self> {
        Self::from_bits(bits).filter(|scopes| !scopes.is_empty())
    }

    /// The scope with this name: `read`, `increment` or `manage`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, scope)| *scope)
    }

    /// The names of the scopes in the set.
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

/// A name for an API key that its tenant chose: 0 to 100 visible ASCII characters and spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyLabel(String);

/// The string is not a [`KeyLabel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be 0 to 100 visible ASCII characters and spaces")]
pub struct ParseKeyLabelError;

impl KeyLabel {
    /// The longest label, in bytes.
    pub const MAX_BYTES: usize = 100;

    /// Checks `string` and copies it.
    ///
    /// # Errors
    /// [`ParseKeyLabelError`] if it is longer than 100 bytes or has another character.
    pub fn parse(string: &str) -> Result<Self, ParseKeyLabelError> {
        let good = string.len() <= Self::MAX_BYTES
            && string.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        good.then(|| Self(string.to_owned())).ok_or(ParseKeyLabelError)
    }

    /// The label as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The SHA-256 of an API key's secret half. It cannot be inverted, and `Debug` hides it all the
/// same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(pub [u8; 32]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_labels_and_ids_read_back() {
        let scopes = Scopes::READ | Scopes::MANAGE;
        assert_eq!(
            (scopes.to_string().as_str(), Scopes::some_from_bits(scopes.bits())),
            ("read manage", Some(scopes))
        );
        assert!(
            scopes.contains(Scopes::READ)
                && !scopes.contains(Scopes::INCREMENT)
                && !scopes.contains(Scopes::ALL)
        );
        // The bits are part of the storage format.
        assert_eq!(
            [Scopes::READ, Scopes::INCREMENT, Scopes::MANAGE, Scopes::ALL]
                .map(|scopes| scopes.bits()),
            [1, 2, 4, 7]
        );
        assert_eq!(Scopes::ALL.to_string(), "read increment manage");
        for unknown in [0, 8, 9, 0xFF] {
            assert_eq!(Scopes::some_from_bits(unknown), None, "{unknown}");
        }
        assert_eq!(
            (Scopes::parse("manage"), Scopes::parse("write"), Scopes::parse("READ")),
            (Some(Scopes::MANAGE), None, None)
        );
        let id = KeyId([0, 1, 2, 3, 4, 5, 0xAB, 0xFF]);
        assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        for bad in
            ["", "0001020304050AbFF", "00010203040506AB", "+001020304050607", "000102030405060"]
        {
            assert_eq!(KeyId::parse(bad), None, "{bad:?}");
        }
        assert_eq!(KeyLabel::parse("build server, 2nd").unwrap().as_str(), "build server, 2nd");
        for bad in ["a\nb", "ä", &"x".repeat(101)] {
            assert_eq!(KeyLabel::parse(bad), Err(ParseKeyLabelError), "{bad:?}");
        }
    }
}
