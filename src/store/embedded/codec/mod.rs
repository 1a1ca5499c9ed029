//! Records and their keys as bytes, shared by the journal, the state and backups.
//!
//! Job: encode and decode keys, records and idempotency pages.
//! Invariant: what was encoded decodes to the same value; any other bytes are an error.
//! Must never: panic on any input, or know where the bytes are stored.

pub mod counter;
pub mod idempotency_page;
pub mod key;
pub mod reader;
pub mod record;
