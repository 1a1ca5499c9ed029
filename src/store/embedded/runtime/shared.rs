//! What the threads of the store and its handles share.
//!
//! Job: hold the commit queue, the read view, the health and the poison flag in one place.
//! Invariant: once poisoned, the store stays poisoned until the process ends.
//! Must never: hold a lock across a reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::failpoint::failpoint;
use crate::store::embedded::commit::cache::ReadView;
use crate::store::embedded::commit::queue::{Queue, send_replies};
use crate::store::embedded::runtime::messages::CommitterMessage;
use crate::store::{Health, StoreError, Unavailable};
use crate::telemetry::StoreMetrics;

/// What the threads of a store and its handles share.
#[derive(Debug)]
pub(crate) struct StoreInner {
    pub(crate) queue: Queue<CommitterMessage>,
    pub(crate) read_view: ReadView,
    pub(crate) metrics: StoreMetrics,
    pub(crate) health: ArcSwap<Health>,
    pub(crate) poisoned: watch::Sender<Option<Arc<str>>>,
    pub(crate) closed: AtomicBool,
}

impl StoreInner {
    pub(crate) fn set_health(&self, health: Health) {
        self.metrics.ready.set(if health == Health::Ready { 1.0 } else { 0.0 });
        self.health.store(Arc::new(health));
    }

    /// Sets the health by whether the disk is low.
    pub(crate) fn set_disk_low(&self, low: bool) {
        self.set_health(if low {
            Health::Unavailable(Unavailable::DiskLow)
        } else {
            Health::Ready
        });
    }

    /// Records the free space; returns whether it is less than the reserve, both in bytes.
    pub(crate) fn record_disk_free(&self, free: u64, reserve: u64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        self.metrics.disk_free.set(free as f64);
        free < reserve && !failpoint!("disk-reserve-ignored")
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.borrow().is_some()
    }

    /// Returns whether this call poisoned the store; the first reason stays.
    pub(crate) fn poison(&self, reason: &str) -> bool {
        let first = self.poisoned.send_if_modified(|poisoned| {
            let first = poisoned.is_none();
            poisoned.get_or_insert_with(|| reason.into());
            first
        });
        self.metrics.poisoned.set(1.0);
        self.set_health(Health::Poisoned);
        first
    }

    /// The error of a command that comes after the end.
    pub(crate) fn closed_error(&self) -> StoreError {
        if self.is_poisoned() { StoreError::Poisoned } else { Unavailable::Closing.into() }
    }

    /// Takes no more commands, and rejects those that wait.
    pub(crate) fn close_queue(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.reject_queued();
    }

    pub(crate) fn reject_queued(&self) {
        let mut refused = Vec::new();
        while let Some(queued) = self.queue.pop() {
            refused.push((queued.responder, Err(self.closed_error())));
        }
        send_replies(refused);
    }
}
