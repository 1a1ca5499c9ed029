//! The bytes of a journal segment: its header and its frames.
//!
//! Job: encode and decode them; [`next_frame`] tells a frame from the end of a segment and from damage.
//!
//! ```text
//! segment header, 64 bytes                     frame, a multiple of 8 bytes
//!  0 magic "ODOJRNL1"                           0 length  u32  header and payload, without the padding
//!  8 store id  16 bytes                         4 crc     u32  CRC32C over bytes 8 .. length
//! 24 epoch     u64  +1 at every start           8 chain   u32  crc of the frame before it
//! 32 first     u64  CommitSeq of first frame   12 kind    u32  1 commit, 2 checkpoint
//! 40 chain     u32  crc of the frame before    16 epoch   u64  of its segment
//! 44 bytes     u64  of the whole segment       24 seq     u64  CommitSeq, +1 with every frame
//! 52 zeros                                     32 payload
//! 60 crc       u32  CRC32C over bytes 0 .. 60
//!
//! payload of a commit: entries, one after another     payload of a checkpoint
//!   key length u16, record length u16 (FFFF = removed)   covered u64  every commit up to it is in sled, durably
//!   key, record (see record.rs)
//! ```
//! All integers are big-endian. Since a frame's CRC covers the CRC of the frame before it, a frame is valid only behind the one
//! it was written behind: a lost, swapped or older frame breaks the chain.
//! Must never: accept bytes whose CRC, chain, epoch or CommitSeq is not exactly the expected one.

use std::fmt;

use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::record::Record;

/// The number of a frame: 1 for a store's first, +1 for every other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitSeq(pub u64);

impl CommitSeq {
    /// The largest that is read from a file; epochs and segments have the same. A start goes on from half of it at most, which no store
    /// reaches, so that what it writes can be read again.
    pub const MAX: Self = Self(u64::MAX / 2);

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        // At a million commits per second, 2^64 of them take half a million years.
        Self(self.0 + 1)
    }
}

impl fmt::Display for CommitSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the chain of frames: a frame's number and its CRC, which covers every frame before it. Two histories that parted have
/// different marks, also where their numbers are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The frame's number; 0 before the first.
    pub seq: CommitSeq,
    /// Its CRC; 0 before the first.
    pub chain: u32,
}

/// Tells a store's files from another store's.
pub type StoreId = [u8; 16];

/// One changed record: absolute, so that applying it twice is the same as once. `None`: removed.
pub type RecordWrite = (RecordKey, Option<Record>);

/// Bytes of a segment header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"ODOJRNL1";
const FRAME_HEADER_BYTES: usize = 32;
/// The smallest piece that a device writes.
const SECTOR: usize = 512;
const KIND_COMMIT: u32 = 1;
const KIND_CHECKPOINT: u32 = 2;
const REMOVED: u16 = u16::MAX;

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store that it belongs to.
    pub store: StoreId,
    /// The start of the process that wrote it, counted from 1.
    pub epoch: u64,
    /// The number of its first frame.
    pub first_seq: CommitSeq,
    /// The CRC of the frame before its first; 0 if there is none.
    pub chain: u32,
    /// Bytes of the file when it came into use: as long as no other segment follows, it is not shorter.
    pub bytes: u64,
}

impl SegmentHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.store);
        bytes[24..32].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.first_seq.0.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.chain.to_be_bytes());
        bytes[44..52].copy_from_slice(&self.bytes.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[0..60]);
        bytes[60..64].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads a header; `None` if the bytes are not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SEGMENT_HEADER_BYTES] = bytes.first_chunk()?;
        let header = Self {
            store: bytes[8..24].try_into().ok()?,
            epoch: be_u64(bytes, 24)?,
            first_seq: CommitSeq(be_u64(bytes, 32)?),
            chain: be_u32(bytes, 40)?,
            bytes: be_u64(bytes, 44)?,
        };
        let counts = |number| number <= CommitSeq::MAX.0;
        let possible = header.first_seq.0 > 0 && counts(header.first_seq.0) && counts(header.epoch);
        (possible && header.encode() == *bytes).then_some(header)
    }
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FramePayload {
    /// These records changed, together.
    Commit(Vec<RecordWrite>),
    /// A commit that sled covers: proved to be there, not decoded.
    SkippedCommit,
    /// Every commit up to this number is in sled, durably.
    Checkpoint(CommitSeq),
}

/// Where the next frame goes and what it must say to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextFrame {
    /// The segment's epoch.
    pub epoch: u64,
    /// The next number.
    pub seq: CommitSeq,
    /// The CRC of the frame before.
    pub chain: u32,
}

impl NextFrame {
    /// The frame that the next one follows.
    #[must_use]
    pub fn previous(self) -> LogPosition {
        LogPosition { seq: CommitSeq(self.seq.0.saturating_sub(1)), chain: self.chain }
    }
}

/// Appends a frame to `out`, padded to a multiple of 8 bytes, and returns its CRC. `changes` are encoded without a copy.
pub fn encode_commit<'a>(
    out: &mut Vec<u8>,
    expected: NextFrame,
    changes: impl Iterator<Item = (&'a RecordKey, Option<&'a Record>)>,
) -> u32 {
    let start = begin(out, KIND_COMMIT, expected);
    for (key, record) in changes {
        let entry = out.len();
        out.extend_from_slice(&[0; 4]);
        key.encode(out);
        let key_end = out.len();
        let key_bytes = u16::try_from(key_end - entry - 4).unwrap_or_else(|_| unreachable!("keys are under 200 bytes"));
        let record_bytes = match record {
            None => REMOVED,
            Some(record) => {
                let key_crc = crc32c::crc32c(&out[entry + 4..key_end]);
                record.encode(key_crc, out);
                u16::try_from(out.len() - key_end).unwrap_or_else(|_| unreachable!("records are under 400 bytes"))
            }
        };
        out[entry..entry + 2].copy_from_slice(&key_bytes.to_be_bytes());
        out[entry + 2..entry + 4].copy_from_slice(&record_bytes.to_be_bytes());
    }
    finish(out, start)
}

/// Appends a checkpoint frame to `out` and returns its CRC.
pub fn encode_checkpoint(out: &mut Vec<u8>, expected: NextFrame, skip_through: CommitSeq) -> u32 {
    let start = begin(out, KIND_CHECKPOINT, expected);
    out.extend_from_slice(&skip_through.0.to_be_bytes());
    finish(out, start)
}

fn begin(out: &mut Vec<u8>, kind: u32, expected: NextFrame) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&expected.chain.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&expected.epoch.to_be_bytes());
    out.extend_from_slice(&expected.seq.0.to_be_bytes());
    start
}

fn finish(out: &mut Vec<u8>, start: usize) -> u32 {
    let length = u32::try_from(out.len() - start).unwrap_or_else(|_| unreachable!("a batch is bounded"));
    let crc = crc32c::crc32c(&out[start + 8..]);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_be_bytes());
    out.resize(start + align_up(out.len() - start), 0);
    crc
}

/// A frame's length on the disk.
#[must_use]
pub fn align_up(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// What stands at an offset of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameRead {
    /// The expected frame.
    Frame {
        /// What it says.
        body: FramePayload,
        /// Its CRC, which the next frame's chain repeats.
        crc: u32,
        /// Its length on the disk.
        bytes: usize,
    },
    /// Zeros: nothing was written here.
    Zeros,
    /// Something else: a torn frame or damage. [`find_data_after`] tells which.
    Invalid,
}

/// Reads what stands at `offset` of `segment`; commits up to `skip_through` are not decoded.
#[must_use]
pub fn next_frame(segment: &[u8], offset: usize, expected: NextFrame, skip_through: CommitSeq) -> FrameRead {
    let Some(rest) = segment.get(offset..) else { return FrameRead::Zeros };
    if rest.iter().take(FRAME_HEADER_BYTES).all(|&byte| byte == 0) {
        return FrameRead::Zeros;
    }
    decode(rest, expected, skip_through).unwrap_or(FrameRead::Invalid)
}

fn decode(rest: &[u8], expected: NextFrame, skip_through: CommitSeq) -> Option<FrameRead> {
    let (length, seq) = check_frame(rest)?;
    let follows = be_u32(rest, 8)? == expected.chain && be_u64(rest, 16)? == expected.epoch && seq == expected.seq;
    let frame = rest.get(..length).filter(|_| follows)?;
    let payload = frame.get(FRAME_HEADER_BYTES..)?;
    let body = match be_u32(frame, 12)? {
        KIND_COMMIT if expected.seq <= skip_through => FramePayload::SkippedCommit,
        KIND_COMMIT => FramePayload::Commit(decode_changes(payload)?),
        KIND_CHECKPOINT => FramePayload::Checkpoint(CommitSeq(u64::from_be_bytes(payload.try_into().ok()?))),
        _ => return None,
    };
    Some(FrameRead::Frame { body, crc: be_u32(frame, 4)?, bytes: align_up(length) })
}

/// Length and number of the frame at the start of `rest` if its CRC is right.
fn check_frame(rest: &[u8]) -> Option<(usize, CommitSeq)> {
    let length = usize::try_from(be_u32(rest, 0)?).ok().filter(|&length| length >= FRAME_HEADER_BYTES)?;
    let frame = rest.get(..length)?;
    (crc32c::crc32c(frame.get(8..)?) == be_u32(frame, 4)?).then_some((length, CommitSeq(be_u64(frame, 24)?)))
}

fn decode_changes(mut payload: &[u8]) -> Option<Vec<RecordWrite>> {
    let mut changes = Vec::new();
    while !payload.is_empty() {
        let (key_length, record_length) = (be_u16(payload, 0)?, be_u16(payload, 2)?);
        let (key_bytes, rest) = payload.get(4..)?.split_at_checked(key_length.into())?;
        let key = RecordKey::decode(key_bytes).ok()?;
        if record_length == REMOVED {
            changes.push((key, None));
            payload = rest;
        } else {
            let (record_bytes, rest) = rest.split_at_checked(record_length.into())?;
            let record = Record::decode(&key, key_bytes, record_bytes).ok()?;
            changes.push((key, Some(record)));
            payload = rest;
        }
    }
    Some(changes)
}

/// The offset of something behind `offset` that a crash does not leave there. Only one frame is ever in flight, and a segment is zeros before
/// it is used, so behind a torn frame there is no whole frame, whatever its number; and behind one whose head is readable there is nothing.
#[must_use]
pub fn find_data_after(segment: &[u8], offset: usize, expected: NextFrame) -> Option<usize> {
    let whole_frame = (offset.next_multiple_of(8)..segment.len()).step_by(8).find(|&at| {
        let Some(rest) = segment.get(at..) else { return false };
        matches!(be_u32(rest, 12), Some(KIND_COMMIT | KIND_CHECKPOINT)) && check_frame(rest).is_some()
    });
    whole_frame.or_else(|| {
        let torn = segment.get(offset..)?;
        // A device writes a sector from its beginning: where the number of a head in one sector is readable, so is the length before it.
        let in_one_sector = offset / SECTOR == (offset + FRAME_HEADER_BYTES - 1) / SECTOR;
        let follows = in_one_sector
            && be_u32(torn, 8)? == expected.chain
            && be_u64(torn, 16)? == expected.epoch
            && be_u64(torn, 24)? == expected.seq.0;
        let end = offset.checked_add(align_up(usize::try_from(be_u32(torn, 0)?).ok()?)).filter(|_| follows)?;
        segment.get(end..)?.iter().position(|&byte| byte != 0).map(|at| end + at)
    })
}

fn be_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

fn be_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::counter::CounterName;
    use crate::domain::tenant::TenantId;
    use crate::store::CounterState;

    const EXPECTED: NextFrame = NextFrame { epoch: 3, seq: CommitSeq(7), chain: 0xABCD };

    fn frame() -> (Vec<u8>, u32, Vec<RecordWrite>) {
        let name = CounterName::default_counter();
        let changes = vec![
            (RecordKey::Counter(TenantId(1), name.clone()), Some(Record::Counter(CounterState::default()))),
            (RecordKey::Counter(TenantId(2), name), None),
        ];
        let mut bytes = Vec::new();
        let crc = encode_commit(&mut bytes, EXPECTED, changes.iter().map(|(k, r)| (k, r.as_ref())));
        (bytes, crc, changes)
    }

    #[test]
    fn what_was_encoded_decodes() {
        let (mut bytes, crc, changes) = frame();
        let length = bytes.len();
        bytes.resize(length + 64, 0);
        assert_eq!(
            next_frame(&bytes, 0, EXPECTED, CommitSeq(0)),
            FrameRead::Frame { body: FramePayload::Commit(changes), crc, bytes: length }
        );
        let skip_through = FrameRead::Frame { body: FramePayload::SkippedCommit, crc, bytes: length };
        assert_eq!(next_frame(&bytes, 0, EXPECTED, EXPECTED.seq), skip_through);
        assert_eq!(next_frame(&bytes, length, EXPECTED, CommitSeq(0)), FrameRead::Zeros);
        let header = SegmentHeader { store: [4; 16], epoch: 3, first_seq: CommitSeq(7), chain: 9, bytes: 4096 };
        assert_eq!(SegmentHeader::decode(&header.encode()), Some(header));
    }

    #[test]
    fn every_flipped_bit_is_bad_and_no_frame() {
        let (bytes, _, changes) = frame();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match next_frame(&flipped, 0, EXPECTED, CommitSeq(0)) {
                FrameRead::Invalid => {}
                // A flip in the padding changes nothing that was said.
                FrameRead::Frame { body, .. } => assert_eq!(body, FramePayload::Commit(changes.clone())),
                FrameRead::Zeros => panic!("a frame is not zeros"),
            }
        }
        let header =
            SegmentHeader { store: [4; 16], epoch: 3, first_seq: CommitSeq(7), chain: 9, bytes: 4096 }.encode();
        for bit in 0..header.len() * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), None);
        }
    }

    #[test]
    fn a_frame_of_another_place_does_not_follow() {
        let (bytes, ..) = frame();
        for other in [
            NextFrame { epoch: 4, ..EXPECTED },
            NextFrame { seq: CommitSeq(8), ..EXPECTED },
            NextFrame { chain: 1, ..EXPECTED },
        ] {
            assert_eq!(next_frame(&bytes, 0, other, CommitSeq(0)), FrameRead::Invalid);
        }
    }

    #[test]
    fn damage_is_told_from_a_torn_end_by_what_follows() {
        let (first_seq, crc, _) = frame();
        let mut segment = first_seq.clone();
        encode_checkpoint(&mut segment, NextFrame { seq: EXPECTED.seq.next(), chain: crc, ..EXPECTED }, CommitSeq(1));
        segment.resize(4096, 0);
        segment[20] ^= 1;
        assert_eq!(find_data_after(&segment, 0, EXPECTED), Some(first_seq.len()));
        segment.truncate(first_seq.len());
        segment.resize(4096, 0);
        assert_eq!(find_data_after(&segment, 0, EXPECTED), None);
        // An older frame, of another epoch even, does not come there by a crash; nor does anything else.
        segment[2048..2048 + first_seq.len()].copy_from_slice(&first_seq);
        assert_eq!(find_data_after(&segment, 0, EXPECTED), Some(2048));
        segment[2048..2048 + first_seq.len()].fill(0);
        // A head of two sectors of which the second alone was written says nothing of its length.
        let mut torn = vec![0; 4096];
        torn[504..504 + first_seq.len()].copy_from_slice(&first_seq);
        torn[504..512].fill(0);
        assert_eq!(find_data_after(&torn, 504, EXPECTED), None);
        // The head is readable again, and what it says is torn.
        (segment[20], segment[40], segment[3000]) = (segment[20] ^ 1, segment[40] ^ 1, 1);
        assert_eq!(find_data_after(&segment, 0, EXPECTED), Some(3000));
    }
}
