//! Segment preallocation, deletion of retired segments, free-space check.
//!
//! Job: [`SegmentAllocator`] carries out the committer's tasks on the journal's directory, beside
//! the path of a commit, and returns events. It starts no thread and reads no clock.
//! Invariant: a requested segment is created as soon as disk space allows; until then the
//! committer refuses changes.
//! Must never: leave half a spare behind, use the space that is held in reserve, or remove a
//! segment before an older one.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::failpoint::failpoint;
use crate::store::embedded::commit::committer::{BackgroundTask, CommitterEvent};
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::segment::make_spare;

/// See the module's text.
pub struct SegmentAllocator<D: Directory> {
    dir: Arc<D>,
    segment_bytes: u64,
    spare_requested: bool,
    spare_failed: bool,
    last_low: Option<bool>,
    /// Segments to be removed, oldest first.
    pending_removals: VecDeque<String>,
    /// A sync of the directory failed: which removals survive a power cut is unknown, so nothing
    /// more is removed.
    removals_halted: bool,
}

/// What a poll led to.
pub struct Poll<F> {
    /// To be sent to the committer.
    pub events: Vec<CommitterEvent<F>>,
    /// Why a spare could not be made; only at the first failure in a row.
    pub failed: Option<io::Error>,
}

impl<D: Directory> SegmentAllocator<D> {
    /// An allocator for a journal whose segments have `segment_bytes`.
    pub fn new(dir: Arc<D>, segment_bytes: u64) -> Self {
        Self {
            dir,
            segment_bytes,
            spare_requested: false,
            spare_failed: false,
            last_low: None,
            pending_removals: VecDeque::new(),
            removals_halted: false,
        }
    }

    /// Takes a task. Those of the checkpoint scheduler are ignored.
    pub fn enqueue(&mut self, task: BackgroundTask) {
        match task {
            BackgroundTask::MakeSpare => self.spare_requested = true,
            BackgroundTask::Remove(names) => self.pending_removals.extend(names),
            BackgroundTask::Stage(..) | BackgroundTask::Load(_) | BackgroundTask::List(..) => {}
        }
    }

    /// Removes retired segments, oldest first and each durably before the next: neither a failure
    /// nor a power cut may leave a segment without the one behind it. A failed removal is tried
    /// again by the next call, before anything younger.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn remove_retired(&mut self) -> io::Result<()> {
        while let Some(name) = self.pending_removals.front().filter(|_| !self.removals_halted) {
            self.dir.remove(name)?;
            self.pending_removals.pop_front();
            if !failpoint!("segment-removal-not-synced") {
                self.dir.sync_dir().inspect_err(|_| self.removals_halted = true)?;
            }
        }
        Ok(())
    }

    /// Makes a requested spare, and reports a change of the disk's state. `is_low`: less is free
    /// than the reserve.
    pub fn poll(&mut self, is_low: bool) -> Poll<D::File> {
        let mut poll = Poll { events: Vec::new(), failed: None };
        if self.spare_requested && !is_low {
            match make_spare(&*self.dir, self.segment_bytes) {
                Ok(spare) => {
                    (self.spare_requested, self.spare_failed) = (false, false);
                    poll.events.push(CommitterEvent::Spare(spare));
                }
                Err(error) => {
                    // It is tried again with every poll, and reported once.
                    poll.failed = (!self.spare_failed).then_some(error);
                    self.spare_failed = true;
                }
            }
        }
        let low = is_low || self.spare_failed;
        if self.last_low != Some(low) {
            self.last_low = Some(low);
            poll.events.push(CommitterEvent::DiskLow(low));
        }
        poll
    }
}
