//! The idle timeout of an HTTP/2 connection.
//!
//! Job: count the requests in flight on a connection ([`IdleTracker::begin`]) and wait until there
//! was none for too long ([`IdleTracker::idle`]). hyper closes a connection whose peer does not
//! answer its pings, but keeps one whose peer does nothing else.
//! Invariant: a connection with a request in flight is never idle.
//! Must never: wake up for every request; the timer is only moved when it fires.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct IdleTracker(Mutex<IdleState>);

#[derive(Debug)]
struct IdleState {
    in_flight: usize,
    /// Whether there was a request at all.
    begun: bool,
    /// When the connection was accepted, or the last request ended.
    idle_since: Instant,
}

/// A request in flight, until the guard is dropped.
#[derive(Debug)]
pub(super) struct InFlightGuard(Arc<IdleTracker>);

impl IdleTracker {
    /// The tracker of a new connection.
    pub(super) fn start() -> Arc<Self> {
        let state = IdleState { in_flight: 0, begun: false, idle_since: Instant::now() };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Counts a request that begins.
    pub(super) fn begin(self: &Arc<Self>) -> InFlightGuard {
        let mut state = self.state();
        state.in_flight += 1;
        state.begun = true;
        drop(state);
        InFlightGuard(Arc::clone(self))
    }

    /// Whether there was a request at all.
    pub(super) fn has_begun(&self) -> bool {
        self.state().begun
    }

    /// Waits until the first request did not begin within `first`, or no request was in flight for
    /// as long as `between`.
    pub(super) async fn idle(&self, first: Duration, between: Duration) {
        loop {
            let due = {
                let state = self.state();
                let limit = if state.begun { between } else { first };
                // A request in flight ends now at the earliest, so the connection is not idle for
                // at least `limit` from now. Then the state is checked again.
                let since = if state.in_flight > 0 { Instant::now() } else { state.idle_since };
                since + limit
            };
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, IdleState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight -= 1;
        state.idle_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(3600);

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn a_peer_without_a_request_is_idle_soon_and_one_that_had_a_request_later() {
        run(async {
            let tracker = IdleTracker::start();
            tracker.idle(SHORT, LONG).await;
            drop(tracker.begin());
            assert!(tracker.has_begun());
            assert!(
                tracker.idle(SHORT, LONG).now_or_never().is_none(),
                "it may be idle for longer between two requests"
            );
            tracker.idle(LONG, SHORT).await;
        });
    }

    #[test]
    fn a_request_in_flight_is_not_idle_however_long_it_takes() {
        run(async {
            let tracker = IdleTracker::start();
            let (slow, quick) = (tracker.begin(), tracker.begin());
            drop(quick);
            let waited = tokio::time::timeout(50 * SHORT, tracker.idle(SHORT, SHORT)).await;
            assert!(waited.is_err(), "a connection with a request in flight counted as idle");
            drop(slow);
            tracker.idle(SHORT, SHORT).await;
        });
    }
}
