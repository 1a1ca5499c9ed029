//! The login throttle: limits password attempts per user name, with the generic cell rate algorithm
//! (GCRA) over a fixed table.
//!
//! ```text
//! theoretical arrival time (TAT): when the bucket would be empty of attempts, if no more came
//!   attempt at `now`:  new TAT = max(TAT, now) + emission interval
//!                      allowed if new TAT − now <= burst tolerance, and only then stored
//!   refund:            TAT − emission interval
//! ```
//! The emission interval is the time that one attempt costs: 6 s, for ten attempts a minute. The
//! burst tolerance, 60 s, is how far the TAT may run ahead of the clock: ten attempts at once. (The
//! textbook compares the TAT *before* the attempt, so its tolerance is one interval less.)
//!
//! Job: [`LoginThrottle::take`] counts an attempt, [`LoginThrottle::refund`] takes it back.
//! Invariant: memory is fixed, and no attempt is forgotten early: names share [`BUCKETS`] buckets
//! by a hash with a random key, so an attacker can neither evict a name nor choose one to share a
//! bucket with. A name is never locked out for good: one attempt more every six seconds.
//! Must never: know whether a name exists, or take a lock.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::rate_limit::RateLimitDecision;
use crate::domain::rate_limit::RateLimit;

/// Enough that collisions are rare: in a minute the hashing threads cannot verify enough passwords
/// to touch a tenth of the buckets.
const BUCKETS: usize = 1 << 16;
/// Attempts at once, and attempts in a minute.
const BURST: NonZeroU32 = NonZeroU32::new(10).unwrap();
const MINUTE: Duration = Duration::from_secs(60);
const LIMIT: RateLimit = RateLimit { count: BURST, per: MINUTE, burst: BURST };
/// How far a theoretical arrival time may run ahead of the clock: [`BURST`] emission intervals.
const BURST_TOLERANCE_NS: u64 = MINUTE.as_secs() * 1_000_000_000;
/// GCRA's T: the time that one attempt costs.
const EMISSION_INTERVAL_NS: u64 = BURST_TOLERANCE_NS / BURST.get() as u64;

/// See the module's documentation.
pub(super) struct LoginThrottle {
    /// Theoretical arrival times (TAT) of the buckets, in nanoseconds since `start`.
    tat: Box<[AtomicU64]>,
    hasher: RandomState,
    start: Instant,
}

impl LoginThrottle {
    pub(super) fn new() -> Self {
        let tat = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { tat, hasher: RandomState::new(), start: Instant::now() }
    }

    /// Counts an attempt at the password of `name`, if the bucket allows one.
    pub(super) fn take(&self, name: &[u8]) -> RateLimitDecision {
        self.take_at(name, self.now_ns())
    }

    /// Takes an attempt back.
    pub(super) fn refund(&self, name: &[u8]) {
        let one_less = |tat: u64| Some(tat.saturating_sub(EMISSION_INTERVAL_NS));
        let _ = self.bucket(name).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    fn take_at(&self, name: &[u8], now: u64) -> RateLimitDecision {
        // A TAT in the past means that the bucket is full: it counts as now, so that an idle name
        // does not save up more than one burst.
        let next_tat = |tat: u64| tat.max(now) + EMISSION_INTERVAL_NS;
        let attempt =
            |tat: u64| Some(next_tat(tat)).filter(|next| next - now <= BURST_TOLERANCE_NS);
        match self.bucket(name).fetch_update(Ordering::Relaxed, Ordering::Relaxed, attempt) {
            Ok(before) => {
                // What is left of the tolerance holds this many attempts more.
                let ahead = next_tat(before) - now;
                let left = (BURST_TOLERANCE_NS - ahead) / EMISSION_INTERVAL_NS;
                RateLimitDecision {
                    limit: LIMIT,
                    remaining: u32::try_from(left).unwrap_or(0),
                    retry_after: None,
                }
            }
            Err(tat) => {
                // The attempt is allowed once the clock has come near enough to its TAT.
                let early = (tat + EMISSION_INTERVAL_NS).saturating_sub(now + BURST_TOLERANCE_NS);
                let wait = Duration::from_nanos(early.max(1));
                RateLimitDecision { limit: LIMIT, remaining: 0, retry_after: Some(wait) }
            }
        }
    }

    fn bucket(&self, name: &[u8]) -> &AtomicU64 {
        let index = self.hasher.hash_one(name) % BUCKETS as u64;
        &self.tat[usize::try_from(index).unwrap_or(0)]
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_attempts_then_one_every_six_seconds_and_never_a_lockout() {
        let (throttle, second) = (LoginThrottle::new(), 1_000_000_000);
        let now = 5 * second;
        for remaining in (0..10).rev() {
            let decision = throttle.take_at(b"alice", now);
            assert_eq!((decision.remaining, decision.retry_after), (remaining, None));
        }
        for _ in 0..100 {
            assert_eq!(throttle.take_at(b"alice", now).retry_after, Some(Duration::from_secs(6)));
        }
        assert_eq!(
            throttle.take_at(b"alice", now + 2 * second).retry_after,
            Some(Duration::from_secs(4))
        );
        assert_eq!(throttle.take_at(b"alice", now + 6 * second).retry_after, None);
        assert!(throttle.take_at(b"alice", now + 6 * second).retry_after.is_some());
        assert_eq!(throttle.take_at(b"alice", now + 600 * second).remaining, 9);
        assert_eq!(LIMIT.to_string(), "10/m");
    }

    #[test]
    fn a_refunded_attempt_costs_nothing() {
        let throttle = LoginThrottle::new();
        for _ in 0..100 {
            assert_eq!(throttle.take(b"alice").retry_after, None);
            throttle.refund(b"alice");
        }
        assert_eq!(throttle.take(b"bob").remaining, 9);
    }
}
