//! The write end of the journal, the store's write-ahead log (WAL).
//!
//! Job: append one frame and sync it with `fdatasync` ([`Journal::append`]); a commit may be
//! acknowledged when that returned, and not before. reader.rs reads the frames back at a start.
//!
//! ```text
//! journal/00000000000000000007.journal   filled with zeros in advance, so that an append changes
//!                                        neither size nor extents: fdatasync is one device write
//!         [header][frame 81][frame 82][frame 83][torn] 0 0 0 0
//! journal/00000000000000000008.journal   each start activates a segment of its own
//!         [header: first = 84, prev crc = crc of 83][frame 84] 0 0 0 0 0 0
//! journal/spare                          zeros, allocated off the commit path; renamed on rotation
//! journal/CURRENT                        the newest segment's number, so that its loss is noticed
//! ```
//! Invariant: frame n+1 is written only after frame n is durable, so at most the last frame of a
//! segment is torn, and only if no client got a reply about it. The header of each segment names
//! the frame before it; a missing frame is corruption, wherever it is.
//! Must never: sync again after a failed sync, overwrite an acknowledged frame, or remove a segment
//! whose commits are not in sled.
//!
//! A failed `fdatasync` may leave pages that look clean and never reached the device. A start
//! therefore writes the last frame and its segment's header again before it relies on them.

use std::collections::VecDeque;
use std::io;

use crate::failpoint::failpoint;
use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::fs::{Directory, VfsFile};
use crate::store::embedded::journal::frame::{
    CommitSeq, LogPosition, NextFrame, SEGMENT_HEADER_BYTES, encode_checkpoint, encode_commit,
};
use crate::store::embedded::journal::reader::JournalTail;
use crate::store::embedded::journal::segment::{
    JournalDir, JournalError, SPARE, Segment, activate, io_error, make_spare, open_current,
    reuse_spare, segment_file_name,
};
use crate::store::embedded::layout::CURRENT;

/// Why a frame was not appended, or may not have been.
#[derive(Debug)]
pub enum AppendError {
    /// The active segment is full and there is no spare yet. Nothing was written.
    NoSpare,
    /// A write or a sync failed: it is unknown whether the frame is durable.
    Failed(io::Error),
}

/// The open journal.
pub struct Journal<D: Directory> {
    dir: JournalDir<D>,
    active: D::File,
    active_name: String,
    offset: u64,
    next: NextFrame,
    next_number: u64,
    sealed_segments: VecDeque<Segment>,
    /// Total size of the sealed segments in bytes; a field because every commit reads it.
    sealed_bytes: u64,
    spare: Option<D::File>,
    current_marker: D::File,
    buffer: Vec<u8>,
    /// A write or a sync failed: every later append fails.
    failed: bool,
}

impl<D: Directory> Journal<D> {
    /// Makes `tail` durable and continues after it in a new segment.
    ///
    /// # Errors
    /// [`JournalError::Io`], for example if the disk is full; [`JournalError::Corrupt`] if a number
    /// of the tail is too large to count on from.
    pub fn start(dir: JournalDir<D>, tail: JournalTail) -> Result<Self, JournalError> {
        let largest = tail.next.seq.0.max(tail.next.epoch).max(tail.next_number);
        if largest > CommitSeq::MAX.0 / 2 {
            let name = segment_file_name(tail.next_number);
            let problem = format!("{largest} is larger than any number that a store reaches");
            return Err(JournalError::Corrupt { name, offset: 0, problem });
        }
        tail.resync_tail(&dir)?;
        let JournalTail { segments: mut sealed_segments, next_number, mut next, .. } = tail;
        next.epoch += 1;
        let spare = match reuse_spare(&dir) {
            Some(spare) => spare,
            None => {
                make_spare(&*dir.dir, dir.segment_bytes).map_err(|cause| io_error(SPARE, cause))?
            }
        };
        let active_name = segment_file_name(next_number);
        let mut current_marker = open_current(&dir).map_err(|cause| io_error(CURRENT, cause))?;
        let active = activate(&dir, spare, next_number, next, &mut current_marker)
            .map_err(|cause| io_error(&active_name, cause))?;
        // The new segment's header proves where the previous segment ends, so the zeros after its
        // last frame can be truncated: otherwise a process that crashes again and again would leave
        // many segments that are almost empty. If truncating fails, the zeros do no harm.
        if let (Some(last_frame), Some(last)) = (tail.last_frame, sealed_segments.back_mut()) {
            let end = last_frame.end as u64;
            let file = dir.dir.open(&last_frame.segment);
            if file.and_then(|mut file| file.truncate(end)).is_ok() {
                last.bytes = end;
            }
        }
        Ok(Self {
            dir,
            active,
            active_name,
            offset: SEGMENT_HEADER_BYTES as u64,
            next,
            next_number: next_number + 1,
            sealed_bytes: sealed_segments.iter().map(|segment| segment.bytes).sum(),
            sealed_segments,
            spare: None,
            current_marker,
            buffer: Vec::with_capacity(1 << 16),
            failed: false,
        })
    }

    /// Appends the record writes as one commit frame; returns its position when it is durable.
    ///
    /// # Errors
    /// [`AppendError::NoSpare`]: nothing was written. [`AppendError::Failed`]: the outcome is
    /// unknown, and the journal must not be used again.
    pub fn append<'a>(
        &mut self,
        writes: impl Iterator<Item = (&'a RecordKey, Option<&'a Record>)>,
    ) -> Result<LogPosition, AppendError> {
        self.buffer.clear();
        let crc = encode_commit(&mut self.buffer, self.next, writes);
        self.write_buffer(crc)
    }

    /// Appends a checkpoint frame: every commit up to `through` is durable in sled.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_checkpoint(&mut self, through: CommitSeq) -> Result<LogPosition, AppendError> {
        self.buffer.clear();
        let crc = encode_checkpoint(&mut self.buffer, self.next, through);
        self.write_buffer(crc)
    }

    fn write_buffer(&mut self, crc: u32) -> Result<LogPosition, AppendError> {
        if self.failed && !failpoint!("journal-written-after-a-failed-write") {
            let error = io::Error::other("an earlier write of the journal failed");
            return Err(AppendError::Failed(error));
        }
        let written = self.write_frame(crc);
        self.failed = matches!(written, Err(AppendError::Failed(_)));
        written
    }

    fn write_frame(&mut self, crc: u32) -> Result<LogPosition, AppendError> {
        let length = self.buffer.len() as u64;
        if self.offset + length > self.dir.segment_bytes {
            // The frame in the buffer stays valid: a new segment of the same process has the same
            // epoch, and sequence number and previous CRC do not depend on the segment.
            self.rotate()?;
        }
        self.active.write_all_at(&self.buffer, self.offset).map_err(AppendError::Failed)?;
        if !failpoint!("journal-frame-not-synced") {
            self.active.sync().map_err(AppendError::Failed)?;
        }
        self.offset += length;
        self.next = NextFrame { seq: self.next.seq.next(), prev_crc: crc, ..self.next };
        Ok(self.last())
    }

    fn rotate(&mut self) -> Result<(), AppendError> {
        let spare = self.spare.take().ok_or(AppendError::NoSpare)?;
        let number = self.next_number;
        self.active = activate(&self.dir, spare, number, self.next, &mut self.current_marker)
            .map_err(AppendError::Failed)?;
        self.next_number += 1;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        let name = std::mem::replace(&mut self.active_name, segment_file_name(number));
        let (last, bytes) = (self.last().seq, self.dir.segment_bytes);
        self.sealed_bytes += bytes;
        self.sealed_segments.push_back(Segment { name, last, bytes });
        Ok(())
    }

    /// Whether a spare segment should be allocated now.
    pub fn needs_spare(&self) -> bool {
        self.spare.is_none()
    }

    /// Takes the spare segment that was allocated under the name [`SPARE`].
    pub fn set_spare(&mut self, spare: D::File) {
        self.spare = Some(spare);
    }

    /// Retires the sealed segments whose last frame is at or before `through` and returns their
    /// file names, oldest first. The caller must remove the files in this order.
    #[must_use]
    pub fn retire_through(&mut self, through: CommitSeq) -> Vec<String> {
        let mut names = Vec::new();
        while self.sealed_segments.front().is_some_and(|segment| segment.last <= through) {
            let Some(segment) = self.sealed_segments.pop_front() else { break };
            self.sealed_bytes -= segment.bytes;
            names.push(segment.name);
        }
        if failpoint!("segments-removed-newest-first") {
            names.reverse();
        }
        names
    }

    /// Total size of the sealed segments in bytes.
    pub fn sealed_bytes(&self) -> u64 {
        self.sealed_bytes
    }

    /// Total size of all segments in bytes: sealed, active and spare.
    pub fn bytes(&self) -> u64 {
        self.sealed_bytes() + (1 + u64::from(self.spare.is_some())) * self.dir.segment_bytes
    }

    /// How many segments hold a frame after `through`, the active segment included.
    pub fn segments_after(&self, through: CommitSeq) -> usize {
        let after = self.sealed_segments.iter().rev().take_while(|segment| segment.last > through);
        after.count() + 1
    }

    /// The position of the last durable frame.
    pub fn last(&self) -> LogPosition {
        self.next.previous()
    }
}
