//! The domain: pure types, and the one rule that makes the next value.
//!
//! Job: say what a counter, a tenant, an API key and a rate limit are.
//! Invariant: a value that exists is valid.
//! Must never: know HTTP, a store, a clock or a file.

pub mod api_key;
pub mod counter;
pub mod rate_limit;
pub mod tenant;
pub mod time_format;
