//! Reading the journal back: every frame of every segment, in order, or the place where one is missing.
//!
//! Job: [`replay`] hands out what was committed and returns the [`JournalTail`], behind which a start goes on.
//!
//! ```text
//! [header][frame 81][frame 82]                 another segment follows, and its header proves where this one ends
//! [header][frame 83][frame 84][torn] 0 0 0 0   the last one: a torn frame is what a crash leaves; anything behind it is damage
//! ```
//! Invariant: what was acknowledged is handed out, or there is an error. One exception can not be told from a crash: damage, in place, of the
//! last frame, or of a stretch that reaches the last frame.
//! Must never: change a file, or take a file that was cut off or removed for the end.

use std::collections::VecDeque;

use crate::store::embedded::fs::{Directory, VfsFile};
use crate::store::embedded::journal::frame::{
    CommitSeq, FramePayload, FrameRead, LogPosition, NextFrame, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId,
    find_data_after, next_frame,
};
use crate::store::embedded::journal::segment::{
    JournalDir, JournalError, Segment, current_segment, io_error, parse_segment_file_name, segment_file_name,
};

/// What a replay found.
#[derive(Debug)]
pub struct JournalTail {
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) next_number: u64,
    /// What the next frame must say; the epoch is that of the last segment.
    pub(crate) expected: NextFrame,
    /// The frame before the first one that the journal still has; commits up to it are in sled and in a backup only.
    pub base: LogPosition,
    /// The newest checkpoint that the journal knows of.
    pub last_checkpoint: CommitSeq,
    /// A torn last frame, as file and offset: normal after a crash, and never acknowledged.
    pub torn: Option<(String, usize)>,
    /// How many frames were read.
    pub frames: u64,
    pub(crate) last_frame_written: Option<LastFrame>,
}

impl JournalTail {
    /// The end of a journal that has no segment yet and goes on behind `position`.
    #[must_use]
    pub fn after(position: LogPosition) -> Self {
        Self::base(SegmentHeader {
            store: StoreId::default(),
            epoch: 0,
            first_seq: position.seq.next(),
            chain: position.chain,
            bytes: 0,
        })
    }

    /// Writes the last header and the last frame once more, and syncs them: a write or a sync that failed may have left pages that look clean
    /// and never reached the disk. Nothing may be built upon the journal's end before this.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn resync_tail<D: Directory>(&self, journal: &JournalDir<D>) -> Result<(), JournalError> {
        let Some(last_frame_written) = &self.last_frame_written else { return Ok(()) };
        let again = || {
            let mut file = journal.dir.open(&last_frame_written.name)?;
            file.write_all_at(&last_frame_written.header, 0)?;
            file.write_all_at(&last_frame_written.last_frame, last_frame_written.offset as u64)?;
            file.sync()
        };
        again().map_err(|source| io_error(&last_frame_written.name, source))
    }

    /// The last frame.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        self.expected.previous()
    }
}

#[derive(Debug)]
pub(crate) struct LastFrame {
    pub(crate) name: String,
    pub(crate) header: Vec<u8>,
    pub(crate) last_frame: Vec<u8>,
    pub(crate) offset: usize,
    /// Where the frames end.
    pub(crate) end: usize,
}

/// Reads every frame in order, changing nothing, and hands each to `visit`; commits up to `skip_through` without what they say. `None`: there is no
/// segment at all.
///
/// # Errors
/// [`JournalError`] if a file can not be read or a frame that was acknowledged is missing.
pub fn replay<D: Directory>(
    journal: &JournalDir<D>,
    skip_through: CommitSeq,
    visit: &mut dyn FnMut(LogPosition, FramePayload),
) -> Result<Option<JournalTail>, JournalError> {
    let mut names = journal.dir.list().map_err(|source| io_error("", source))?;
    names.retain(|name| parse_segment_file_name(name).is_some());
    names.sort_unstable();
    let mut tail: Option<JournalTail> = None;
    let count = names.len();
    for (index, name) in names.into_iter().enumerate() {
        let bytes = journal.dir.open(&name).and_then(|file| file.read_all()).map_err(|e| io_error(&name, e))?;
        let hole = |offset, problem: String| JournalError::Corrupt { name: name.clone(), offset, problem };
        let header =
            SegmentHeader::decode(&bytes).ok_or_else(|| hole(0, "the segment header is not valid".to_owned()))?;
        if header.store != journal.store {
            return Err(hole(0, "the segment belongs to another store".to_owned()));
        }
        let tail = tail.get_or_insert_with(|| JournalTail::base(header));
        if header.first_seq != tail.expected.seq || header.chain != tail.expected.chain {
            let (wants, has) = (header.first_seq, tail.last().seq);
            return Err(hole(
                0,
                format!("the segment starts with commit {wants}, but the one before it ends with {has}"),
            ));
        }
        // Of a segment that another follows, the zeros may have been cut off; the chain proves that nothing else was.
        if index + 1 == count && (bytes.len() as u64) < header.bytes {
            return Err(hole(bytes.len(), format!("the file ends here, and was made with {} bytes", header.bytes)));
        }
        tail.expected.epoch = header.epoch;
        read_segment(tail, &name, &bytes, index + 1 == count, skip_through, visit)?;
        tail.next_number = parse_segment_file_name(&name).unwrap_or(0).saturating_add(1);
        tail.segments.push_back(Segment { name, last: tail.last().seq, bytes: bytes.len() as u64 });
    }
    let (has, current_segment) = (tail.as_ref().map_or(0, |tail| tail.next_number - 1), current_segment(journal));
    if current_segment > has {
        let problem = "the newest segment is missing: it was in use, and this journal ends before it".to_owned();
        return Err(JournalError::Corrupt { name: segment_file_name(current_segment), offset: 0, problem });
    }
    Ok(tail)
}

impl JournalTail {
    fn base(header: SegmentHeader) -> Self {
        let expected = NextFrame { epoch: header.epoch, seq: header.first_seq, chain: header.chain };
        Self {
            segments: VecDeque::new(),
            next_number: 1,
            expected,
            base: expected.previous(),
            last_checkpoint: CommitSeq(0),
            torn: None,
            frames: 0,
            last_frame_written: None,
        }
    }
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
    let torn = loop {
        match next_frame(bytes, offset, tail.expected, skip_through) {
            FrameRead::Frame { body, crc, bytes: length } => {
                if let FramePayload::Checkpoint(up_to) = body {
                    tail.last_checkpoint = tail.last_checkpoint.max(up_to);
                }
                visit(LogPosition { seq: tail.expected.seq, chain: crc }, body);
                tail.expected = NextFrame { seq: tail.expected.seq.next(), chain: crc, ..tail.expected };
                tail.frames += 1;
                last_frame = offset..offset + length;
                offset += length;
            }
            FrameRead::Zeros => break false,
            FrameRead::Invalid => break true,
        }
    };
    // Behind an older segment's end stands the next segment's header, which proves that nothing is missing.
    if is_last {
        if let Some(later) = find_data_after(bytes, offset, tail.expected) {
            let problem = format!(
                "commit {} is not readable, and no crash leaves what stands at offset {later}",
                tail.expected.seq
            );
            return Err(JournalError::Corrupt { name: name.to_owned(), offset, problem });
        }
        tail.torn = torn.then(|| (name.to_owned(), offset));
        tail.last_frame_written = Some(LastFrame {
            name: name.to_owned(),
            header: bytes.get(..SEGMENT_HEADER_BYTES).unwrap_or_default().to_vec(),
            offset: last_frame.start,
            end: offset,
            last_frame: bytes.get(last_frame).unwrap_or_default().to_vec(),
        });
    }
    Ok(())
}
