//! The target `frame`: the journal, from the bytes of one frame to a start behind the last.
//!
//! Job: take the input for a folder of segments, read it as the server does, go on behind its end,
//! and read it again.
//! Invariant: a frame that is accepted encodes to the same bytes; reading changes nothing, ends,
//! and says the same when it is done again.
//! Must never: take a journal for whole after a start that was not whole before it.
//!
//! An input is flags, then files one after another: a byte that stands for the name, a length of
//! two bytes, the content. A length that is too large means the rest.

use std::iter;
use std::sync::Arc;

use odometer::store::embedded::codec::key::RecordKey;
use odometer::store::embedded::codec::record::Record;
use odometer::store::embedded::journal::frame::{
    CommitSeq, FramePayload, FrameRead, LogPosition, NextFrame, SEGMENT_HEADER_BYTES,
    SegmentHeader, align_up, encode_checkpoint, encode_commit, find_data_after, next_frame,
};
use odometer::store::embedded::journal::reader::{JournalTail, replay};
use odometer::store::embedded::journal::segment::{JournalDir, JournalError, SPARE};
use odometer::store::embedded::journal::writer::Journal;
use odometer::store::embedded::layout::CURRENT;

use super::memory::{Contents, MemoryDisk};
use super::{FOLLOW, MEND, mend_header, mend_record};

const MAGIC: [u8; 8] = *b"ODOJRNL1";
const FRAME_HEADER_BYTES: usize = 32;
const KIND_COMMIT: u32 = 1;
const SEGMENT_BYTES: u64 = 1024;

/// The target.
pub(crate) fn frame(input: &[u8]) -> bool {
    let Some((&flags, rest)) = input.split_first() else { return false };
    let mut files = split(rest);
    let mut before = None;
    for bytes in
        files.iter_mut().filter(|(name, _)| name.ends_with(".journal")).map(|(_, bytes)| bytes)
    {
        mend_segment(bytes, flags, &mut before);
    }
    let read = files.values().map(|bytes| walk(bytes)).max().unwrap_or(0);
    go_on(&files) && read > 0
}

fn split(mut rest: &[u8]) -> Contents {
    let mut files = Contents::new();
    while let Some((&[name, high, low], behind)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
        let (bytes, behind) = behind.split_at(length);
        files.insert(name_for(name), bytes.to_vec());
        rest = behind;
    }
    files
}

fn name_for(byte: u8) -> String {
    let segment = |number: u64| format!("{number:020}.journal");
    match byte {
        0 => CURRENT.to_owned(),
        1 => SPARE.to_owned(),
        255 => segment(u64::MAX),
        254 => segment(u64::MAX / 2),
        253 => format!("+{:019}.journal", 7),
        number => segment(u64::from(number) - 2),
    }
}

/// Makes checksums right, and with [`FOLLOW`] the numbers and chains too; `before` goes from one
/// segment to the next.
fn mend_segment(bytes: &mut [u8], flags: u8, before: &mut Option<NextFrame>) {
    if flags & MEND == 0 || bytes.len() < SEGMENT_HEADER_BYTES {
        return;
    }
    if let Some(before) = before.filter(|_| flags & FOLLOW != 0) {
        put(bytes, 32, &before.seq.0.to_be_bytes());
        put(bytes, 40, &before.prev_crc.to_be_bytes());
    }
    mend_header::<SEGMENT_HEADER_BYTES>(bytes, MAGIC);
    let Some(header) = SegmentHeader::decode(bytes) else { return };
    let (mut expected, mut offset) = (first(&header), SEGMENT_HEADER_BYTES);
    while let Some(length) = exact_length(bytes, offset) {
        let Some(frame) = bytes.get_mut(offset..offset + length) else { break };
        mend_entries(frame);
        if flags & FOLLOW != 0 {
            put(frame, 8, &expected.prev_crc.to_be_bytes());
            put(frame, 16, &expected.epoch.to_be_bytes());
            put(frame, 24, &expected.seq.0.to_be_bytes());
        }
        let crc = crc32c::crc32c(&frame[8..]);
        put(frame, 4, &crc.to_be_bytes());
        expected =
            NextFrame { seq: CommitSeq(expected.seq.0.wrapping_add(1)), prev_crc: crc, ..expected };
        offset += align_up(length);
    }
    *before = Some(expected);
}

fn mend_entries(frame: &mut [u8]) {
    let is_commit = frame.get(12..16) == Some(&KIND_COMMIT.to_be_bytes());
    let mut rest = frame.get_mut(FRAME_HEADER_BYTES..).filter(|_| is_commit).unwrap_or_default();
    while let Some((&mut [a, b, c, d], entry)) = rest.split_first_chunk_mut::<4>() {
        let (key, record) = (usize::from(u16::from_be_bytes([a, b])), u16::from_be_bytes([c, d]));
        let Some((key, behind)) = entry.split_at_mut_checked(key) else { return };
        let record = if record == u16::MAX { 0 } else { record.into() };
        let Some((record, behind)) = behind.split_at_mut_checked(record) else { return };
        mend_record(key, record);
        rest = behind;
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn first(header: &SegmentHeader) -> NextFrame {
    NextFrame { epoch: header.epoch, seq: header.first_seq, prev_crc: header.prev_crc }
}

/// The length that stands at the start of a frame, without its padding, if it can be one.
fn exact_length(bytes: &[u8], offset: usize) -> Option<usize> {
    let length = bytes.get(offset..)?.first_chunk().copied().map(u32::from_be_bytes)?;
    usize::try_from(length).ok().filter(|&length| length >= FRAME_HEADER_BYTES)
}

/// Reads frame after frame, and encodes each again; returns how many there were.
fn walk(bytes: &[u8]) -> usize {
    let header = SegmentHeader::decode(bytes);
    if let Some(header) = &header {
        assert_eq!(header.encode()[..], bytes[..SEGMENT_HEADER_BYTES], "{header:?}");
    }
    let (mut expected, mut offset) =
        header.map_or((claimed(bytes), 0), |header| (first(&header), SEGMENT_HEADER_BYTES));
    let mut frames = 0;
    while let FrameRead::Frame { payload, crc, bytes: length } =
        next_frame(bytes, offset, expected, CommitSeq(0))
    {
        let exact = exact_length(bytes, offset).expect("an accepted frame has a length");
        assert_eq!(length, align_up(exact));
        let mut again = Vec::new();
        let crc_again = match &payload {
            FramePayload::Commit(changes) => encode_commit(
                &mut again,
                expected,
                changes.iter().map(|(key, record)| (key, record.as_ref())),
            ),
            FramePayload::Checkpoint(covered) => encode_checkpoint(&mut again, expected, *covered),
            FramePayload::SkippedCommit => panic!("nothing is covered"),
        };
        // A record of an earlier layout, which is one epoch shorter, is written in the present one.
        if again.len() == length {
            assert_eq!(crc, crc_again, "{payload:?}");
            assert_eq!(again.get(..exact), bytes.get(offset..offset + exact), "{payload:?}");
        } else {
            assert!(again.len() > length, "{payload:?}");
        }
        let payload = if matches!(payload, FramePayload::Commit(_)) {
            FramePayload::SkippedCommit
        } else {
            payload
        };
        assert_eq!(
            next_frame(bytes, offset, expected, expected.seq),
            FrameRead::Frame { payload, crc, bytes: length }
        );
        offset += length;
        expected = NextFrame { seq: expected.seq.next(), prev_crc: crc, ..expected };
        frames += 1;
    }
    for from in [0, offset] {
        if let Some(at) = find_data_after(bytes, from, expected) {
            assert!((from..bytes.len()).contains(&at), "{at} is not behind {from}");
        }
    }
    frames
}

/// What the frame at the start says of itself, so that one without a segment is read too.
fn claimed(bytes: &[u8]) -> NextFrame {
    let Some(head) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        return NextFrame { epoch: 1, seq: CommitSeq(1), prev_crc: 0 };
    };
    let number =
        |at: usize| u64::from_be_bytes(*head[at..].first_chunk().expect("the head is longer"));
    // The largest number is never reached, and what is read alone has no header that would be
    // refused for it.
    let seq = CommitSeq(number(24).min(u64::MAX / 2));
    NextFrame {
        epoch: number(16),
        seq,
        prev_crc: u32::from_be_bytes(*head[8..].first_chunk().expect("the head is longer")),
    }
}

/// Replays the folder, starts behind its end, appends, and replays what is there then; returns
/// whether there was a journal.
fn go_on(files: &Contents) -> bool {
    let store = files
        .values()
        .find_map(|bytes| SegmentHeader::decode(bytes))
        .map_or([0; 16], |header| header.store);
    let disk = Arc::new(MemoryDisk::of(files));
    let folder = || JournalDir { dir: Arc::clone(&disk), store, segment_bytes: SEGMENT_BYTES };
    let (whole, covered) = (read(&folder(), CommitSeq(0)), read(&folder(), CommitSeq(u64::MAX)));
    assert_eq!(disk.contents(), *files, "reading changed a file");
    if let (Ok((whole, _)), Ok((covered, _))) = (&whole, &covered) {
        assert_eq!(whole, covered, "what is covered changes what is there");
    }
    let Ok((mut marks, Some(tail))) = whole else { return false };
    let last = marks.last().copied().unwrap_or(tail.base);
    assert_eq!((tail.last(), tail.frames), (last, marks.len() as u64));
    let before = tail.base;
    let mut journal = match Journal::start(folder(), tail) {
        Ok(journal) => journal,
        Err(JournalError::Corrupt { .. }) => {
            assert_eq!(disk.contents(), *files, "a start that is refused changed a file");
            return false;
        }
        Err(error) => panic!("nothing fails in memory: {error}"),
    };
    let record = Record::Tenants(1);
    let appended =
        journal.append(iter::once((&RecordKey::Tenants, Some(&record)))).expect("there is room");
    assert_eq!(appended.seq.0, last.seq.0 + 1);
    marks.push(appended);
    let (again, tail) =
        read(&folder(), CommitSeq(0)).expect("a journal that was whole stays whole");
    let tail = tail.expect("there is a segment");
    assert_eq!((again, tail.base, tail.torn), (marks, before, None));
    true
}

fn read(
    files: &JournalDir<MemoryDisk>,
    covered: CommitSeq,
) -> Result<(Vec<LogPosition>, Option<JournalTail>), JournalError> {
    let mut marks: Vec<LogPosition> = Vec::new();
    let tail = replay(files, covered, &mut |mark, _| {
        if let Some(last) = marks.last() {
            assert_eq!(mark.seq.0, last.seq.0 + 1);
        }
        marks.push(mark);
    })?;
    Ok((marks, tail))
}
