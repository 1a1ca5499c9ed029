//! The journal: what was committed, in order. A commit is acknowledged because it is here, and for no other reason.
//!
//! Job: append one frame and force it to the disk ([`Journal::append`]). replay.rs reads all of them back at a start.
//!
//! ```text
//! journal/00000000000000000007.journal   zeros, written ahead, so that an append changes no size and no extent:
//!         [header][frame 81][frame 82][frame 83][torn]          0 0 0 0    fdatasync is one write to the device
//! journal/00000000000000000008.journal   a start opens a segment of its own behind whatever was torn
//!         [header: first = 84, chain = crc of 83][frame 84] 0 0 0 0 0 0
//! journal/spare                          zeros, made beside the path of a commit; renamed when it is needed
//! journal/newest                         the number of the newest segment, so that its loss is noticed
//! ```
//! Invariant: frame n+1 is written only after frame n is durable; so at most the last frame of a segment is torn, and only
//! if nobody was told of it. Each segment's header names the frame that it follows; a missing frame anywhere is a hole, and
//! a hole is an error.
//! Must never: sync twice after a failure, overwrite a frame that was acknowledged, or remove a segment that sled does not cover.
//!
//! A sync that failed may leave pages that look clean and never reached the disk. A start therefore writes the last frame and
//! the last header once more before it believes in them.

use std::collections::VecDeque;
use std::io;

use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::fs::{Directory, VfsFile};
use crate::store::embedded::journal::frame::{
    CommitSeq, LogPosition, NextFrame, SEGMENT_HEADER_BYTES, encode_checkpoint, encode_commit,
};
use crate::store::embedded::journal::reader::JournalTail;
use crate::store::embedded::journal::segment::{
    JournalDir, JournalError, SPARE, Segment, activate, io_error, make_spare, open_current, reuse_spare,
    segment_file_name,
};
use crate::store::embedded::layout::CURRENT;

/// Why nothing, or nothing known, was appended.
#[derive(Debug)]
pub enum AppendError {
    /// The segment is full and there is no spare yet. Nothing was written.
    NoSpare,
    /// A write or a sync failed: the frame may or may not be on the disk.
    Failed(io::Error),
}

/// The open journal: the one place that acknowledges.
pub struct Journal<D: Directory> {
    dir: JournalDir<D>,
    active: D::File,
    active_name: String,
    offset: u64,
    expected: NextFrame,
    next_number: u64,
    sealed_segments: VecDeque<Segment>,
    /// Bytes of these: asked for with every commit.
    sealed_bytes: u64,
    spare: Option<D::File>,
    current_marker: D::File,
    buffer: Vec<u8>,
    /// A write or a sync failed: nothing more is written, whoever asks.
    failed: bool,
}

impl<D: Directory> Journal<D> {
    /// Continues behind `tail` in a segment of its own, after making the tail durable.
    ///
    /// # Errors
    /// [`JournalError::Io`], a full disk among them; [`JournalError::Corrupt`] if one can not count on from the tail's numbers.
    pub fn start(dir: JournalDir<D>, tail: JournalTail) -> Result<Self, JournalError> {
        if tail.expected.seq.0.max(tail.expected.epoch).max(tail.next_number) > CommitSeq::MAX.0 / 2 {
            let problem = "the journal has numbers that no store reaches".to_owned();
            return Err(JournalError::Corrupt { name: segment_file_name(tail.next_number), offset: 0, problem });
        }
        tail.resync_tail(&dir)?;
        let JournalTail {
            segments: mut sealed_segments, next_number, mut expected, last_frame_written: rewrite, ..
        } = tail;
        expected.epoch += 1;
        let spare = match reuse_spare(&dir) {
            Some(spare) => spare,
            None => make_spare(&*dir.dir, dir.segment_bytes).map_err(|e| io_error(SPARE, e))?,
        };
        let active_name = segment_file_name(next_number);
        let mut current_marker = open_current(&dir).map_err(|source| io_error(CURRENT, source))?;
        let active = activate(&dir, spare, next_number, expected, &mut current_marker)
            .map_err(|source| io_error(&active_name, source))?;
        // The new segment's header proves where the one before it ends, so the zeros behind that can go: segments stay for a while, and a
        // process that dies again and again would leave many that are almost empty. One that stays long does no harm.
        if let (Some(rewrite), Some(last)) = (rewrite, sealed_segments.back_mut())
            && dir.dir.open(&rewrite.name).and_then(|mut file| file.truncate(rewrite.end as u64)).is_ok()
        {
            last.bytes = rewrite.end as u64;
        }
        Ok(Self {
            dir,
            active,
            active_name,
            offset: SEGMENT_HEADER_BYTES as u64,
            expected,
            next_number: next_number + 1,
            sealed_bytes: sealed_segments.iter().map(|segment| segment.bytes).sum(),
            sealed_segments,
            spare: None,
            current_marker,
            buffer: Vec::with_capacity(1 << 16),
            failed: false,
        })
    }

    /// Appends the changes as one frame and returns its mark once it is durable.
    ///
    /// # Errors
    /// [`AppendError::NoSpare`]: nothing was written. [`AppendError::Failed`]: nobody knows; the journal must not be used again.
    pub fn append<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a RecordKey, Option<&'a Record>)>,
    ) -> Result<LogPosition, AppendError> {
        self.buffer.clear();
        let crc = encode_commit(&mut self.buffer, self.expected, changes);
        self.write_buffer(crc)
    }

    /// Notes that sled holds every commit up to `through`, durably. Errors as [`Journal::append`].
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_checkpoint(&mut self, through: CommitSeq) -> Result<LogPosition, AppendError> {
        self.buffer.clear();
        let crc = encode_checkpoint(&mut self.buffer, self.expected, through);
        self.write_buffer(crc)
    }

    fn write_buffer(&mut self, crc: u32) -> Result<LogPosition, AppendError> {
        if self.failed {
            return Err(AppendError::Failed(io::Error::other("an earlier write of the journal failed")));
        }
        let written = self.write_frame(crc);
        self.failed = matches!(written, Err(AppendError::Failed(_)));
        written
    }

    fn write_frame(&mut self, crc: u32) -> Result<LogPosition, AppendError> {
        let length = self.buffer.len() as u64;
        if self.offset + length > self.dir.segment_bytes {
            self.rotate()?;
            // The frame in the buffer carries the same epoch, number and chain in the new segment.
        }
        self.active.write_all_at(&self.buffer, self.offset).map_err(AppendError::Failed)?;
        self.active.sync().map_err(AppendError::Failed)?;
        let seq = self.expected.seq;
        self.offset += length;
        self.expected = NextFrame { seq: seq.next(), chain: crc, ..self.expected };
        Ok(self.last())
    }

    fn rotate(&mut self) -> Result<(), AppendError> {
        let spare = self.spare.take().ok_or(AppendError::NoSpare)?;
        let name = segment_file_name(self.next_number);
        let file = activate(&self.dir, spare, self.next_number, self.expected, &mut self.current_marker)
            .map_err(AppendError::Failed)?;
        self.next_number += 1;
        self.active = file;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        let last = self.last().seq;
        let bytes = self.dir.segment_bytes;
        self.sealed_bytes += bytes;
        self.sealed_segments.push_back(Segment { name: std::mem::replace(&mut self.active_name, name), last, bytes });
        Ok(())
    }

    /// Whether a spare segment should be made now.
    #[must_use]
    pub fn needs_spare(&self) -> bool {
        self.spare.is_none()
    }

    /// Takes the spare segment that was made meanwhile, under the name [`SPARE`].
    pub fn set_spare(&mut self, spare: D::File) {
        self.spare = Some(spare);
    }

    /// Forgets the segments whose every frame is at or before `through` and returns their names, to be removed oldest first.
    pub fn retire_through(&mut self, through: CommitSeq) -> Vec<String> {
        let mut names = Vec::new();
        while self.sealed_segments.front().is_some_and(|segment| segment.last <= through) {
            let Some(segment) = self.sealed_segments.pop_front() else { break };
            self.sealed_bytes -= segment.bytes;
            names.push(segment.name);
        }
        names
    }

    /// Bytes of the segments before the active one.
    #[must_use]
    pub fn sealed_bytes(&self) -> u64 {
        self.sealed_bytes
    }

    /// Bytes that all segments take on the disk, the spare one included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sealed_bytes() + (1 + u64::from(self.spare.is_some())) * self.dir.segment_bytes
    }

    /// Segments that hold a frame behind `through`, the active one included.
    #[must_use]
    pub fn segments_after(&self, through: CommitSeq) -> usize {
        self.sealed_segments.iter().rev().take_while(|segment| segment.last > through).count() + 1
    }

    /// The last durable frame.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        self.expected.previous()
    }
}
