//! The result of a rate-limit check.
//!
//! Job: [`RateLimitDecision`], which the rate limiters and the login throttle return.
//! Invariant: all times are rounded up, so a client that waits for `retry_after` is served.
//! Must never: count requests or read a clock.

use std::time::Duration;

use crate::domain::rate_limit::RateLimit;

/// Result of a rate-limit check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitDecision {
    /// The limit that was checked.
    pub limit: RateLimit,
    /// Requests left in the bucket.
    pub remaining: u32,
    /// `Some` if the request exceeds the limit: the time until one request is allowed again.
    pub retry_after: Option<Duration>,
}

impl RateLimitDecision {
    /// Seconds until the bucket is full again, rounded up.
    pub fn reset_s(&self) -> u64 {
        let burst = self.limit.burst.get();
        refill_s(self.limit, burst - self.remaining.min(burst))
    }

    /// Seconds until an empty bucket is full, rounded up.
    pub fn window_s(&self) -> u64 {
        refill_s(self.limit, self.limit.burst.get())
    }
}

/// Seconds in which the bucket gains `requests`, rounded up.
fn refill_s(limit: RateLimit, requests: u32) -> u64 {
    (u64::from(requests) * limit.per.as_secs()).div_ceil(u64::from(limit.count.get()))
}
