//! Replay: reads the journal back, every frame of every segment in order.
//!
//! Job: [`replay`] passes each frame to a visitor and returns the [`JournalTail`], after which the
//! next process appends.
//!
//! ```text
//! [header][frame 81][frame 82]                 a sealed segment: the next segment's header proves
//!                                              where this one ends
//! [header][frame 83][frame 84][torn] 0 0 0 0   the last segment: a crash leaves a torn tail; data
//!                                              after it is corruption
//! ```
//! Invariant: every acknowledged frame is passed to the visitor, or replay returns an error. One
//! case cannot be told from a crash: corruption of the last frame in place, or of a range that
//! reaches the last frame.
//! Must never: change a file, or take a truncated or missing file for the end of the log.

use std::collections::VecDeque;

use crate::failpoint::failpoint;
use crate::store::embedded::fs::{Directory, VfsFile};
use crate::store::embedded::journal::frame::{
    CommitSeq, FramePayload, FrameRead, LogPosition, NextFrame, SEGMENT_HEADER_BYTES,
    SegmentHeader, find_data_after, next_frame,
};
use crate::store::embedded::journal::segment::{
    JournalDir, JournalError, Segment, current_segment, io_error, parse_segment_file_name,
    segment_file_name,
};

/// The end of the journal, as replay found it.
#[derive(Debug)]
pub struct JournalTail {
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) next_number: u64,
    /// The header fields of the next frame; the epoch is that of the last segment.
    pub(crate) next: NextFrame,
    /// The position before the first frame that the journal still has. Commits up to it are only
    /// in sled and in a backup.
    pub base: LogPosition,
    /// The newest checkpoint that the journal records.
    pub last_checkpoint: CommitSeq,
    /// A torn tail, as file name and offset: normal after a crash, and never acknowledged.
    pub torn: Option<(String, usize)>,
    /// How many frames were read.
    pub frames: u64,
    pub(crate) last_frame: Option<LastFrame>,
}

impl JournalTail {
    /// The tail of a journal that has no segment yet and continues after `position`.
    #[must_use]
    pub fn after(position: LogPosition) -> Self {
        let (seq, prev_crc) = (position.seq.next(), position.crc);
        Self::starting_at(NextFrame { epoch: 0, seq, prev_crc })
    }

    fn starting_at(next: NextFrame) -> Self {
        Self {
            segments: VecDeque::new(),
            next_number: 1,
            next,
            base: next.previous(),
            last_checkpoint: CommitSeq(0),
            torn: None,
            frames: 0,
            last_frame: None,
        }
    }

    /// Writes the last header and the last frame again and syncs them. After a failed write or
    /// `fdatasync` of an earlier process, the kernel may show them from its page cache although
    /// they never reached the device. Call this before anything relies on the journal's end.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn resync_tail<D: Directory>(&self, journal: &JournalDir<D>) -> Result<(), JournalError> {
        let last_frame = self.last_frame.as_ref().filter(|_| !failpoint!("tail-not-resynced"));
        let Some(last) = last_frame else { return Ok(()) };
        let write_again = || {
            let mut file = journal.dir.open(&last.segment)?;
            file.write_all_at(&last.header, 0)?;
            file.write_all_at(&last.frame, last.offset as u64)?;
            file.sync()
        };
        write_again().map_err(|cause| io_error(&last.segment, cause))
    }

    /// The position of the last frame.
    pub fn last(&self) -> LogPosition {
        self.next.previous()
    }
}

/// The last frame of the journal and the header of its segment, as bytes.
#[derive(Debug)]
pub(crate) struct LastFrame {
    /// The file name of the segment.
    pub(crate) segment: String,
    pub(crate) header: Vec<u8>,
    pub(crate) frame: Vec<u8>,
    pub(crate) offset: usize,
    /// The offset after the last frame.
    pub(crate) end: usize,
}

/// Reads every frame in order, without changing a file, and passes each to `visit`; the records of
/// commits up to `skip_through` are not decoded. `None`: the directory has no segment.
///
/// # Errors
/// [`JournalError`] if a file cannot be read or an acknowledged frame is missing.
pub fn replay<D: Directory>(
    journal: &JournalDir<D>,
    skip_through: CommitSeq,
    visit: &mut dyn FnMut(LogPosition, FramePayload),
) -> Result<Option<JournalTail>, JournalError> {
    let mut names = journal.dir.list().map_err(|cause| io_error("", cause))?;
    names.retain(|name| parse_segment_file_name(name).is_some());
    // The numbers in the names have leading zeros, so this is the order of the log.
    names.sort_unstable();
    let mut tail: Option<JournalTail> = None;
    let count = names.len();
    for (index, name) in names.into_iter().enumerate() {
        let is_last = index + 1 == count;
        let read = journal.dir.open(&name).and_then(|file| file.read_all());
        let bytes = read.map_err(|cause| io_error(&name, cause))?;
        let header = check_header(journal, &name, &bytes, is_last, tail.as_ref())?;
        let tail = tail.get_or_insert_with(|| {
            let (seq, prev_crc) = (header.first_seq, header.prev_crc);
            JournalTail::starting_at(NextFrame { epoch: header.epoch, seq, prev_crc })
        });
        tail.next.epoch = header.epoch;
        read_segment(tail, &name, &bytes, is_last, skip_through, visit)?;
        tail.next_number = parse_segment_file_name(&name).unwrap_or(0).saturating_add(1);
        let (last, bytes) = (tail.last().seq, bytes.len() as u64);
        tail.segments.push_back(Segment { name, last, bytes });
    }
    let last_number = tail.as_ref().map_or(0, |tail| tail.next_number - 1);
    let current = current_segment(journal);
    if current > last_number && !failpoint!("current-not-compared") {
        let problem = "the file is missing: it was the newest segment when the store last ran";
        return Err(JournalError::Corrupt {
            name: segment_file_name(current),
            offset: 0,
            problem: problem.to_owned(),
        });
    }
    Ok(tail)
}

/// Decodes the header of a segment and checks that it continues the segments before it (`tail`).
fn check_header<D>(
    journal: &JournalDir<D>,
    name: &str,
    bytes: &[u8],
    is_last: bool,
    tail: Option<&JournalTail>,
) -> Result<SegmentHeader, JournalError> {
    let corrupt = |offset, problem: String| {
        Err(JournalError::Corrupt { name: name.to_owned(), offset, problem })
    };
    let Some(header) = SegmentHeader::decode(bytes) else {
        return corrupt(0, "the segment header is not valid".to_owned());
    };
    if header.store != journal.store && !failpoint!("segment-of-another-store") {
        return corrupt(0, "the segment belongs to another store".to_owned());
    }
    if let Some(tail) = tail
        && (header.first_seq, header.prev_crc) != (tail.next.seq, tail.next.prev_crc)
        && !failpoint!("segment-chain-not-compared")
    {
        let (first, last) = (header.first_seq, tail.last());
        let problem = if first == tail.next.seq {
            format!("the segment does not continue commit {} of the one before it", last.seq)
        } else {
            let last = last.seq;
            format!("the segment starts with commit {first}, the one before it ends with {last}")
        };
        return corrupt(0, problem);
    }
    // The zeros at the end of a sealed segment may have been truncated; the chain of CRCs proves
    // that nothing else was. The last segment has no successor that could prove it.
    let is_short = is_last && (bytes.len() as u64) < header.allocated_bytes;
    if is_short && !failpoint!("truncated-segment-accepted") {
        let allocated = header.allocated_bytes;
        let problem = format!("the file is truncated here; it was created with {allocated} bytes");
        return corrupt(bytes.len(), problem);
    }
    Ok(header)
}

fn read_segment(
    tail: &mut JournalTail,
    name: &str,
    bytes: &[u8],
    is_last: bool,
    skip_through: CommitSeq,
    visit: &mut dyn FnMut(LogPosition, FramePayload),
) -> Result<(), JournalError> {
    let mut offset = SEGMENT_HEADER_BYTES;
    let mut last_frame = offset..offset;
    let is_torn = loop {
        match next_frame(bytes, offset, tail.next, skip_through) {
            FrameRead::Frame { payload, crc, bytes: length } => {
                if let FramePayload::Checkpoint(through) = payload {
                    tail.last_checkpoint = tail.last_checkpoint.max(through);
                }
                let seq = tail.next.seq;
                visit(LogPosition { seq, crc }, payload);
                tail.next = NextFrame { seq: seq.next(), prev_crc: crc, ..tail.next };
                tail.frames += 1;
                last_frame = offset..offset + length;
                offset += length;
            }
            FrameRead::Zeros => break false,
            FrameRead::Invalid => break true,
        }
    };
    // The end of a sealed segment needs no check: the next segment's header names its last frame.
    if !is_last {
        return Ok(());
    }
    let later = find_data_after(bytes, offset, tail.next);
    if let Some(later) = later.filter(|_| is_torn || !failpoint!("zeros-end-the-journal")) {
        let seq = tail.next.seq;
        let problem = format!(
            "commit {seq} is not readable, and data that no crash leaves follows at offset {later}"
        );
        return Err(JournalError::Corrupt { name: name.to_owned(), offset, problem });
    }
    tail.torn = is_torn.then(|| (name.to_owned(), offset));
    tail.last_frame = Some(LastFrame {
        segment: name.to_owned(),
        header: bytes.get(..SEGMENT_HEADER_BYTES).unwrap_or_default().to_vec(),
        offset: last_frame.start,
        end: offset,
        frame: bytes.get(last_frame).unwrap_or_default().to_vec(),
    });
    Ok(())
}
