//! The domain: pure types, and the one rule that makes a counter's next value.
//!
//! Job: define counter, tenant, API key and rate limit.
//! Invariant: every value is valid: constructors check, and nothing changes a value in place.
//! Must never: know HTTP, a store, a clock or a file.

pub mod api_key;
pub mod counter;
pub mod rate_limit;
pub mod tenant;
pub mod time_format;
