//! Tries of passwords, a few a minute for each name.
//!
//! Job: [`LoginThrottle::take`] one and [`LoginThrottle::refund`] what was no failure. Invariant: memory is fixed, and nothing is ever forgotten early: names share
//! [`BUCKETS`] buckets by a hash that only this process knows, so a stranger can neither push a name out nor choose whom to share with. A name is
//! never locked for good: [`BURST`] tries at once, one more every six seconds.
//! Must never: know whether there is such a name, or lock.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::rate_limiter::RateLimitDecision;
use crate::domain::rate_limit::RateLimit;

/// More failures in a minute than the hashing threads could produce would be needed to fill a tenth of them.
const BUCKETS: usize = 1 << 16;
/// Tries at once, and in a minute.
const BURST: NonZeroU32 = NonZeroU32::new(10).unwrap();
const MINUTE: Duration = Duration::from_secs(60);
const LIMIT: RateLimit = RateLimit { count: BURST, per: MINUTE, burst: BURST };
const EMISSION_INTERVAL_NS: u64 = 6_000_000_000;
const BURST_TOLERANCE_NS: u64 = 60_000_000_000;

/// The buckets. Each holds when it will be full again, in nanoseconds of this process (the generic cell rate algorithm).
pub(super) struct LoginThrottle {
    tat: Box<[AtomicU64]>,
    hasher: RandomState,
    start: Instant,
}

impl LoginThrottle {
    pub(super) fn new() -> Self {
        let tat = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { tat, hasher: RandomState::new(), start: Instant::now() }
    }

    pub(super) fn take(&self, name: &[u8]) -> RateLimitDecision {
        self.take_at(name, self.now_ns())
    }

    pub(super) fn refund(&self, name: &[u8]) {
        let one_less = |tat: u64| Some(tat.saturating_sub(EMISSION_INTERVAL_NS));
        let _ = self.cell(name).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    fn take_at(&self, name: &[u8], now: u64) -> RateLimitDecision {
        let one_more = |tat: u64| {
            let after = tat.max(now) + EMISSION_INTERVAL_NS;
            (after - now <= BURST_TOLERANCE_NS).then_some(after)
        };
        match self.cell(name).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(before) => {
                let left = (BURST_TOLERANCE_NS - (before.max(now) + EMISSION_INTERVAL_NS - now))
                    / EMISSION_INTERVAL_NS;
                RateLimitDecision {
                    limit: LIMIT,
                    remaining: u32::try_from(left).unwrap_or(0),
                    retry_after: None,
                }
            }
            Err(tat) => {
                let wait = Duration::from_nanos(
                    (tat + EMISSION_INTERVAL_NS).saturating_sub(now + BURST_TOLERANCE_NS).max(1),
                );
                RateLimitDecision { limit: LIMIT, remaining: 0, retry_after: Some(wait) }
            }
        }
    }

    fn cell(&self, name: &[u8]) -> &AtomicU64 {
        let at = self.hasher.hash_one(name) % BUCKETS as u64;
        &self.tat[usize::try_from(at).unwrap_or(0)]
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_tries_then_one_every_six_seconds_and_never_a_lock() {
        let (tries, second) = (LoginThrottle::new(), 1_000_000_000);
        let now = 5 * second;
        for remaining in (0..10).rev() {
            let said = tries.take_at(b"alice", now);
            assert_eq!((said.remaining, said.retry_after), (remaining, None));
        }
        for _ in 0..100 {
            assert_eq!(tries.take_at(b"alice", now).retry_after, Some(Duration::from_secs(6)));
        }
        assert_eq!(
            tries.take_at(b"alice", now + 2 * second).retry_after,
            Some(Duration::from_secs(4))
        );
        assert_eq!(tries.take_at(b"alice", now + 6 * second).retry_after, None);
        assert!(tries.take_at(b"alice", now + 6 * second).retry_after.is_some());
        assert_eq!(tries.take_at(b"alice", now + 600 * second).remaining, 9);
        assert_eq!(LIMIT.to_string(), "10/m");
    }

    #[test]
    fn what_was_no_failure_costs_nothing() {
        let tries = LoginThrottle::new();
        for _ in 0..100 {
            assert_eq!(tries.take(b"alice").retry_after, None);
            tries.refund(b"alice");
        }
        assert_eq!(tries.take(b"bob").remaining, 9);
    }
}
