//! Events that a peer can cause as often as it likes are told seldom.
//!
//! Job: [`LogThrottle::allow`] lets one of them through in each second, and counts the others for the next one that passes; what comes after the last one is in the
//! metric beside it and nowhere else. Invariant: memory stays the same, whoever comes.
//! Must never: wait, or remember who caused it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Milliseconds between two that are told.
const INTERVAL_MS: u64 = 1000;

/// The gate of one kind of event.
#[derive(Debug, Default)]
pub struct LogThrottle {
    /// When the next one may be told, in milliseconds of [`monotonic_ms`].
    next_ms: AtomicU64,
    suppressed: AtomicU64,
}

impl LogThrottle {
    /// A gate that lets the first event through.
    #[must_use]
    pub const fn new() -> Self {
        Self { next_ms: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Whether an event is to be told now; and if so, how many were not told since the last one.
    pub fn allow(&self) -> Option<u64> {
        self.pass_at(monotonic_ms())
    }

    fn pass_at(&self, now_ms: u64) -> Option<u64> {
        let next = self.next_ms.load(Ordering::Relaxed);
        let mine = now_ms >= next
            && self
                .next_ms
                .compare_exchange(next, now_ms + INTERVAL_MS, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// Milliseconds since the process first asked, by a clock that nobody sets.
fn monotonic_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_passes_and_says_how_many_did_not() {
        let gate = LogThrottle::new();
        let passed: Vec<_> = [0, 1, 999, 1000, 1500, 2600, 2700].map(|ms| gate.pass_at(ms)).into();
        assert_eq!(passed, [Some(0), None, None, Some(2), None, Some(1), None]);
    }
}
