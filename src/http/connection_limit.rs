//! The limits of open connections: in total and per address.
//!
//! Job: [`ConnectionLimiter`] issues permits.
//! Invariant: a connection counts from its accept until its permit is dropped.
//! Must never: make a connection wait; above a limit it is rejected.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::telemetry::{ConnectionMetrics, LogThrottle};

/// The limits of open connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections in total.
    pub connections: usize,
    /// Connections per address.
    pub connections_per_address: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct ConnectionLimiter {
    limits: ConnectionLimits,
    metrics: ConnectionMetrics,
    /// The log throttles of rejections by the total limit and by the limit per address.
    log_throttles: [LogThrottle; 2],
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The permit of one open connection; dropping it releases it.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
}

impl ConnectionLimiter {
    /// A limiter without open connections.
    pub fn new(limits: ConnectionLimits, metrics: ConnectionMetrics) -> Arc<Self> {
        Arc::new(Self {
            limits,
            metrics,
            log_throttles: [const { LogThrottle::new() }; 2],
            open: Mutex::default(),
        })
    }

    pub(super) fn try_acquire(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let mut open = self.open();
        let own = open.by_address.get(&address).copied().unwrap_or(0);
        let is_full = open.total >= self.limits.connections;
        if is_full || own >= self.limits.connections_per_address {
            drop(open);
            self.record_rejection(is_full, address);
            return None;
        }
        open.by_address.insert(address, own + 1);
        open.total += 1;
        self.metrics.set_open(open.total);
        drop(open);
        Some(ConnectionPermit { limiter: Arc::clone(self), address })
    }

    fn record_rejection(&self, is_full: bool, address: IpAddr) {
        let metrics = &self.metrics;
        if is_full { &metrics.refused_total } else { &metrics.refused_address }.increment(1);
        let Some(suppressed) = self.log_throttles[usize::from(!is_full)].allow() else { return };
        tracing::warn!(
            event.action = "connection-refused",
            event.outcome = "failure",
            event.reason = if is_full { "max-connections" } else { "max-connections-per-address" },
            client.ip = %address,
            odometer.suppressed_events = suppressed,
            "connection rejected: limit reached"
        );
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limiter.open();
        open.total -= 1;
        self.limiter.metrics.set_open(open.total);
        if let Some(own) = open.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn a_dropped_permit_is_available_again() {
        let limits = ConnectionLimits { connections: 3, connections_per_address: 2 };
        let metrics = Metrics::new("", "", &[]);
        let limiter = ConnectionLimiter::new(limits, metrics.connections(3));
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = limiter.try_acquire(a).unwrap();
        let _second = limiter.try_acquire(a).unwrap();
        assert!(limiter.try_acquire(a).is_none());
        let _third = limiter.try_acquire(b).unwrap();
        assert!(limiter.try_acquire(b).is_none());
        let page = metrics.render();
        for line in [
            "connections 3",
            "connections_limit 3",
            "connections_refused_total{limit=\"address\"} 1",
        ] {
            assert!(page.contains(&format!("odometer_{line}\n")), "{line}\n{page}");
        }
        assert!(page.contains("odometer_connections_refused_total{limit=\"total\"} 1\n"), "{page}");
        drop(first);
        assert!(limiter.try_acquire(b).is_some());
    }
}
