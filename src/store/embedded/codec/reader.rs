//! Takes the bytes of a key or a record apart.
//!
//! Job: read fixed-width fields, and name the kind of record in every error.
//! Invariant: reads never go past the end.
//! Must never: panic, or guess a field that is missing.

use thiserror::Error;

use crate::domain::counter::Value;

/// Bytes that are not a record of their key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{kind} record: {problem}")]
pub struct DecodeError {
    pub(crate) kind: &'static str,
    pub(crate) problem: &'static str,
}

/// Takes a record's bytes apart.
pub(crate) struct Reader<'a> {
    kind: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(kind: &'static str, rest: &'a [u8]) -> Self {
        Self { kind, rest }
    }

    pub(crate) fn bad(&self, problem: &'static str) -> DecodeError {
        DecodeError { kind: self.kind, problem }
    }

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

    pub(crate) fn value(&mut self) -> Result<Value, DecodeError> {
        Value::new(self.u64()?).ok_or(self.bad("value out of range"))
    }

    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = std::mem::take(&mut self.rest);
        std::str::from_utf8(bytes).map_err(|_| self.bad("not text"))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.bad("too long")) }
    }
}
