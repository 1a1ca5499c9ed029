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
    CURRENT, JournalDir, JournalError, SPARE, Segment, activate, io_error, left_spare, make_spare, name_of, open_newest,
};

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
    files: JournalDir<D>,
    active: D::File,
    active_name: String,
    offset: u64,
    expected: NextFrame,
    next_number: u64,
    older: VecDeque<Segment>,
    /// Bytes of these: asked for with every commit.
    older_bytes: u64,
    spare: Option<D::File>,
    newest: D::File,
    buffer: Vec<u8>,
    /// A write or a sync failed: nothing more is written, whoever asks.
    failed: bool,
}

impl<D: Directory> Journal<D> {
    /// Continues behind `tail` in a segment of its own, after making the tail durable.
    ///
    /// # Errors
    /// [`JournalError::Io`], a full disk among them; [`JournalError::Corrupt`] if one can not count on from the tail's numbers.
    pub fn start(files: JournalDir<D>, tail: JournalTail) -> Result<Self, JournalError> {
        if tail.expected.seq.0.max(tail.expected.epoch).max(tail.next_number) > CommitSeq::LARGEST.0 / 2 {
            let problem = "the journal has numbers that no store reaches".to_owned();
            return Err(JournalError::Corrupt { name: name_of(tail.next_number), offset: 0, problem });
        }
        tail.make_durable(&files)?;
        let JournalTail { segments: mut older, next_number, mut expected, rewrite, .. } = tail;
        expected.epoch += 1;
        let spare = match left_spare(&files) {
            Some(spare) => spare,
            None => make_spare(&*files.disk, files.segment_bytes).map_err(|e| io_error(SPARE, e))?,
        };
        let active_name = name_of(next_number);
        let mut newest = open_newest(&files).map_err(|source| io_error(CURRENT, source))?;
        let active = activate(&files, spare, next_number, expected, &mut newest)
            .map_err(|source| io_error(&active_name, source))?;
        // The new segment's header proves where the one before it ends, so the zeros behind that can go: segments stay for a while, and a
        // process that dies again and again would leave many that are almost empty. One that stays long does no harm.
        if let (Some(rewrite), Some(last)) = (rewrite, older.back_mut())
            && files.disk.open(&rewrite.name).and_then(|mut file| file.trim(rewrite.end as u64)).is_ok()
        {
            last.bytes = rewrite.end as u64;
        }
        Ok(Self {
            files,
            active,
            active_name,
            offset: SEGMENT_HEADER_BYTES as u64,
            expected,
            next_number: next_number + 1,
            older_bytes: older.iter().map(|segment| segment.bytes).sum(),
            older,
            spare: None,
            newest,
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

    /// Notes that sled holds every commit up to `covered`, durably. Errors as [`Journal::append`].
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_checkpoint(&mut self, covered: CommitSeq) -> Result<LogPosition, AppendError> {
        self.buffer.clear();
        let crc = encode_checkpoint(&mut self.buffer, self.expected, covered);
        self.write_buffer(crc)
    }

    fn write_buffer(&mut self, crc: u32) -> Result<LogPosition, AppendError> {
        if self.failed {
            return Err(AppendError::Failed(io::Error::other("an earlier write of the journal failed")));
        }
        let written = self.write_behind_the_last(crc);
        self.failed = matches!(written, Err(AppendError::Failed(_)));
        written
    }

    fn write_behind_the_last(&mut self, crc: u32) -> Result<LogPosition, AppendError> {
        let length = self.buffer.len() as u64;
        if self.offset + length > self.files.segment_bytes {
            self.roll()?;
            // The frame in the buffer carries the same epoch, number and chain in the new segment.
        }
        self.active.write_all_at(&self.buffer, self.offset).map_err(AppendError::Failed)?;
        self.active.sync().map_err(AppendError::Failed)?;
        let seq = self.expected.seq;
        self.offset += length;
        self.expected = NextFrame { seq: seq.next(), chain: crc, ..self.expected };
        Ok(self.last())
    }

    fn roll(&mut self) -> Result<(), AppendError> {
        let spare = self.spare.take().ok_or(AppendError::NoSpare)?;
        let name = name_of(self.next_number);
        let file = activate(&self.files, spare, self.next_number, self.expected, &mut self.newest)
            .map_err(AppendError::Failed)?;
        self.next_number += 1;
        self.active = file;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        let last = self.last().seq;
        let bytes = self.files.segment_bytes;
        self.older_bytes += bytes;
        self.older.push_back(Segment { name: std::mem::replace(&mut self.active_name, name), last, bytes });
        Ok(())
    }

    /// Whether a spare segment should be made now.
    #[must_use]
    pub fn wants_spare(&self) -> bool {
        self.spare.is_none()
    }

    /// Takes the spare segment that was made meanwhile, under the name [`SPARE`].
    pub fn give_spare(&mut self, spare: D::File) {
        self.spare = Some(spare);
    }

    /// Forgets the segments whose every frame is at or before `covered` and returns their names, to be removed oldest first.
    pub fn release(&mut self, covered: CommitSeq) -> Vec<String> {
        let mut names = Vec::new();
        while self.older.front().is_some_and(|segment| segment.last <= covered) {
            let Some(segment) = self.older.pop_front() else { break };
            self.older_bytes -= segment.bytes;
            names.push(segment.name);
        }
        names
    }

    /// Bytes of the segments before the active one.
    #[must_use]
    pub fn older_bytes(&self) -> u64 {
        self.older_bytes
    }

    /// Bytes that all segments take on the disk, the spare one included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.older_bytes() + (1 + u64::from(self.spare.is_some())) * self.files.segment_bytes
    }

    /// Segments that hold a frame behind `covered`, the active one included.
    #[must_use]
    pub fn segments_behind(&self, covered: CommitSeq) -> usize {
        self.older.iter().rev().take_while(|segment| segment.last > covered).count() + 1
    }

    /// The last durable frame.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        self.expected.before()
    }
}
