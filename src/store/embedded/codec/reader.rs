//! A cursor over the bytes of a key or a record.
//!
//! Job: read fixed-width big-endian fields, and name the kind of record in every error.
//! Invariant: no read goes past the end.
//! Must never: panic, or replace a missing field by a default.

use thiserror::Error;

use crate::domain::counter::Value;

/// Bytes that are not a key, or not a record of their key's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{kind} record: {problem}")]
pub struct DecodeError {
    pub(crate) kind: &'static str,
    pub(crate) problem: &'static str,
}

/// A cursor over the bytes of a key or a record.
pub(crate) struct Reader<'a> {
    kind: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(kind: &'static str, rest: &'a [u8]) -> Self {
        Self { kind, rest }
    }

    /// An error about this kind of record.
    pub(crate) fn bad(&self, problem: &'static str) -> DecodeError {
        DecodeError { kind: self.kind, problem }
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(self.bad("too short"))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next 8 bytes as a counter's value.
    pub(crate) fn value(&mut self) -> Result<Value, DecodeError> {
        Value::new(self.u64()?).ok_or(self.bad("value out of range"))
    }

    /// All remaining bytes as a string.
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = std::mem::take(&mut self.rest);
        std::str::from_utf8(bytes).map_err(|_| self.bad("not valid UTF-8"))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that no bytes remain.
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.bad("too long")) }
    }
}
