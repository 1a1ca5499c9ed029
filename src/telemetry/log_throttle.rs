//! Rate limiting of log events that a remote peer can cause at will.
//!
//! Job: [`LogThrottle::allow`] allows one event per second and counts the suppressed ones; the next
//! allowed event reports their number. (Events suppressed after the last allowed one are counted
//! only by the metric that every such event has.)
//! Invariant: memory is constant.
//! Must never: wait, or keep anything about the peer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Milliseconds between two allowed events.
const INTERVAL_MS: u64 = 1000;

/// The throttle of one kind of event.
#[derive(Debug, Default)]
pub struct LogThrottle {
    /// When the next event is allowed, in milliseconds of [`monotonic_ms`].
    next_ms: AtomicU64,
    suppressed: AtomicU64,
}

impl LogThrottle {
    /// A throttle that allows the first event.
    #[must_use]
    pub const fn new() -> Self {
        Self { next_ms: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// `Some` if the event may be logged now: the number of events suppressed since the last
    /// allowed one.
    pub fn allow(&self) -> Option<u64> {
        self.allow_at(monotonic_ms())
    }

    fn allow_at(&self, now_ms: u64) -> Option<u64> {
        let next = self.next_ms.load(Ordering::Relaxed);
        // Of several threads with an event at the same time, the exchange allows one.
        let is_allowed = now_ms >= next
            && self
                .next_ms
                .compare_exchange(next, now_ms + INTERVAL_MS, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_allowed {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// Milliseconds since the first call, by the monotonic clock.
fn monotonic_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_a_second_is_allowed_and_reports_the_suppressed_ones() {
        let throttle = LogThrottle::new();
        let allowed = [0, 1, 999, 1000, 1500, 2600, 2700].map(|ms| throttle.allow_at(ms));
        assert_eq!(allowed, [Some(0), None, None, Some(2), None, Some(1), None]);
    }
}
