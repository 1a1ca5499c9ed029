//! Slow work on the journal's folder, beside the path of a commit: making the next segment, removing old ones, minding the room.
//!
//! Job: [`SegmentAllocator`] takes the committer's orders and tells it what became of them. It starts no thread and reads no clock.
//! Invariant: a spare that was ordered comes, as soon as there is room for it; until then changes are refused.
//! Must never: leave half a spare behind, take the room that is held in reserve, or remove a segment before an older one.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::store::embedded::commit::committer::{BackgroundTask, CommitterEvent};
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::segment::make_spare;

/// See the module's text.
pub struct SegmentAllocator<D: Directory> {
    disk: Arc<D>,
    segment_bytes: u64,
    wants_spare: bool,
    spare_failed: bool,
    told_low: Option<bool>,
    /// Segments that are to go, oldest first.
    going: VecDeque<String>,
    /// A sync of the folder failed: what it holds after a power cut is not known, and nothing more is removed.
    is_stuck: bool,
}

/// What a look at the grounds led to.
pub struct Poll<F> {
    /// To be told to the committer.
    pub tidings: Vec<CommitterEvent<F>>,
    /// Why a spare could not be made, the first time.
    pub failed: Option<io::Error>,
}

impl<D: Directory> SegmentAllocator<D> {
    /// The grounds of a journal with segments of so many bytes.
    pub fn new(disk: Arc<D>, segment_bytes: u64) -> Self {
        Self {
            disk,
            segment_bytes,
            wants_spare: false,
            spare_failed: false,
            told_low: None,
            going: VecDeque::new(),
            is_stuck: false,
        }
    }

    /// Takes an order. Those of the keeper are left alone.
    pub fn hear(&mut self, order: BackgroundTask) {
        match order {
            BackgroundTask::MakeSpare => self.wants_spare = true,
            BackgroundTask::Remove(names) => self.going.extend(names),
            BackgroundTask::Flush(..) | BackgroundTask::Load(_) | BackgroundTask::List(..) => {}
        }
    }

    /// Removes what is to go, oldest first and each durably before the next: neither a failure nor a power cut may leave a segment without
    /// the one behind it. What could not be removed is tried again by the next call, before anything younger.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn clear(&mut self) -> io::Result<()> {
        while let Some(name) = self.going.front().filter(|_| !self.is_stuck) {
            self.disk.remove(name)?;
            self.going.pop_front();
            self.disk.sync_folder().inspect_err(|_| self.is_stuck = true)?;
        }
        Ok(())
    }

    /// Does what there is to do. `is_low`: less is free than the reserve.
    pub fn look(&mut self, is_low: bool) -> Poll<D::File> {
        let mut look = Poll { tidings: Vec::new(), failed: None };
        if self.wants_spare && !is_low {
            match make_spare(&*self.disk, self.segment_bytes) {
                Ok(spare) => {
                    (self.wants_spare, self.spare_failed) = (false, false);
                    look.tidings.push(CommitterEvent::Spare(spare));
                }
                Err(error) => {
                    // It is tried again with every look, and told once.
                    look.failed = (!self.spare_failed).then_some(error);
                    self.spare_failed = true;
                }
            }
        }
        let low = is_low || self.spare_failed;
        if self.told_low != Some(low) {
            self.told_low = Some(low);
            look.tidings.push(CommitterEvent::DiskLow(low));
        }
        look
    }
}
