//! The thread of the segment allocator.
//!
//! Job: run the allocator's tasks and check the free disk space every 500 ms.
//! Invariant: every result is sent to the committer as an event.
//! Must never: touch a segment that is in use.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::store::embedded::commit::committer::{BackgroundTask, CommitterEvent};
use crate::store::embedded::fs::{Directory, OsDirectory};
use crate::store::embedded::runtime::messages::CommitterMessage;
use crate::store::embedded::runtime::segment_allocator::SegmentAllocator;
use crate::store::embedded::runtime::shared::StoreInner;

const DISK_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Main loop: handles tasks, and checks the free disk space every 500 ms.
pub(crate) fn run_segment_allocator(
    shared: &StoreInner,
    dir: &Arc<OsDirectory>,
    inbox: &Receiver<BackgroundTask>,
    segment_bytes: u64,
    min_free_bytes: u64,
) {
    let mut allocator = SegmentAllocator::new(Arc::clone(dir), segment_bytes);
    let (mut remove_failed, mut was_low) = (false, false);
    loop {
        match inbox.recv_timeout(DISK_CHECK_INTERVAL) {
            Ok(task) => allocator.enqueue(task),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let removed = allocator.remove_retired();
        // A failed removal is tried again with every poll, and logged once.
        if let Err(error) = &removed
            && !remove_failed
        {
            tracing::warn!(
                event.action = "journal-remove-failed",
                error.message = %error,
                "old journal segments could not be removed"
            );
        }
        remove_failed = removed.is_err();
        // If the free space cannot be determined, the disk counts as full.
        let free = dir.available_bytes().unwrap_or(0);
        let poll = allocator.poll(shared.record_disk_free(free, min_free_bytes));
        if let Some(error) = poll.failed {
            tracing::warn!(
                event.action = "journal-segment-failed",
                error.message = %error,
                "the next journal segment could not be made; free some disk space"
            );
        }
        for event in poll.events {
            if let CommitterEvent::DiskLow(low) = event {
                log_disk_state(low, was_low, min_free_bytes);
                was_low = low;
            }
            shared.queue.send_control(CommitterMessage::Event(event));
        }
    }
}

fn log_disk_state(low: bool, was_low: bool, min_free_bytes: u64) {
    if low {
        tracing::warn!(
            event.action = "disk-low",
            odometer.min_free_bytes = min_free_bytes,
            "the disk is almost full: writes are refused until space is free, reads continue"
        );
    } else if was_low {
        tracing::info!(
            event.action = "disk-recovered",
            odometer.min_free_bytes = min_free_bytes,
            "disk space recovered: writes accepted"
        );
    }
}
