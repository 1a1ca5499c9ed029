//! Whether anything goes on over an HTTP/2 connection.
//!
//! Job: count the requests of a connection that are being answered ([`IdleTracker::begin`]) and wait until there was none for too long
//! ([`IdleTracker::idle`]). HTTP's library ends a peer that does not answer its pings, and keeps one that does nothing else.
//! Invariant: a connection on which a request is being answered is never idle. Must never: wake up with every request; the timer is moved when it fires.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// See the module's text.
#[derive(Debug)]
pub(super) struct IdleTracker(Mutex<IdleState>);

#[derive(Debug)]
struct IdleState {
    open: usize,
    begun: bool,
    /// When the connection was made, or the last request ended.
    since: Instant,
}

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub(super) struct InFlightGuard(Arc<IdleTracker>);

impl IdleTracker {
    /// A connection that was made now.
    pub(super) fn start() -> Arc<Self> {
        Arc::new(Self(Mutex::new(IdleState { open: 0, begun: false, since: Instant::now() })))
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> InFlightGuard {
        let mut state = self.state();
        state.open += 1;
        state.begun = true;
        drop(state);
        InFlightGuard(Arc::clone(self))
    }

    /// Whether there was a request at all.
    pub(super) fn has_begun(&self) -> bool {
        self.state().begun
    }

    /// Waits until the first request did not begin within `first`, or none was being answered for as long as `between`.
    pub(super) async fn idle(&self, first: Duration, between: Duration) {
        loop {
            let due = {
                let state = self.state();
                let limit = if state.begun { between } else { first };
                // What is being answered now ends now, at the earliest.
                let since = if state.open > 0 { Instant::now() } else { state.since };
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
        state.open -= 1;
        state.since = Instant::now();
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
    fn a_peer_that_asks_nothing_is_idle_soon_and_one_that_asked_later() {
        run(async {
            let activity = IdleTracker::start();
            activity.idle(SHORT, LONG).await;
            drop(activity.begin());
            assert!(activity.has_begun());
            assert!(
                activity.idle(SHORT, LONG).now_or_never().is_none(),
                "it may be idle for longer between two requests"
            );
            activity.idle(LONG, SHORT).await;
        });
    }

    #[test]
    fn what_is_being_answered_is_not_idle_however_long_it_takes() {
        run(async {
            let activity = IdleTracker::start();
            let (slow, quick) = (activity.begin(), activity.begin());
            drop(quick);
            let waited = tokio::time::timeout(50 * SHORT, activity.idle(SHORT, SHORT)).await;
            assert!(waited.is_err(), "a connection with a request on it was called idle");
            drop(slow);
            activity.idle(SHORT, SHORT).await;
        });
    }
}
