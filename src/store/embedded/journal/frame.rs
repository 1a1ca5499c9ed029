//! The bytes of a journal segment: its header and its frames.
//!
//! Job: encode and decode them; [`next_frame`] tells a valid frame from zeros and from a torn or
//! corrupt frame.
//!
//! ```text
//! segment header, 64 bytes                     frame, a multiple of 8 bytes
//!  0 magic "ODOJRNL1"                           0 length   u32  header and payload, no padding
//!  8 store id  16 bytes                         4 crc      u32  CRC32C over bytes 8 .. length
//! 24 epoch     u64  +1 at every start           8 prev crc u32  crc of the previous frame
//! 32 first     u64  CommitSeq of first frame   12 kind     u32  1 commit, 2 checkpoint
//! 40 prev crc  u32  crc of the frame before    16 epoch    u64  of its segment
//! 44 bytes     u64  of the whole segment       24 seq      u64  CommitSeq, +1 with every frame
//! 52 zeros                                     32 payload
//! 60 crc       u32  CRC32C over bytes 0 .. 60
//!
//! payload of a commit: entries in sequence            payload of a checkpoint
//!   key length u16, record length u16 (FFFF = removed)  seq u64  every commit up to it is
//!   key, record (see codec/record.rs)                            durable in sled
//! ```
//! All integers are big-endian.
//! Invariant: the CRC of a frame covers the CRC of the previous frame, so a frame is valid only
//! directly after the frame that it was written after; a lost, swapped or stale frame breaks this
//! chain.
//! Must never: accept a frame whose CRC, previous CRC, epoch or CommitSeq is not the next one.

use std::fmt;

use crate::failpoint::failpoint;
use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::record::Record;

/// The sequence number of a frame: 1 for the first frame of a store, +1 for every later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitSeq(pub u64);

impl CommitSeq {
    /// The largest sequence number that is accepted from a file; epochs and segment numbers have
    /// the same limit. A start accepts only half of it, which no store reaches, so that the frames
    /// it writes can be read again.
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

/// A position in the log: the sequence number of a frame and its CRC. The CRC covers every earlier
/// frame, so two histories that diverged have different positions even at equal sequence numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The frame's sequence number; 0 before the first frame.
    pub seq: CommitSeq,
    /// The frame's CRC; 0 before the first frame.
    pub crc: u32,
}

/// Identifies a store: files of another store are rejected.
pub type StoreId = [u8; 16];

/// One changed record. It is the whole new record, so applying it twice has the effect of applying
/// it once. `None`: the record is removed.
pub type RecordWrite = (RecordKey, Option<Record>);

/// Size of a segment header in bytes.
pub const SEGMENT_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"ODOJRNL1";
const FRAME_HEADER_BYTES: usize = 32;
/// The smallest unit that a device writes, in bytes.
const SECTOR: usize = 512;
const KIND_COMMIT: u32 = 1;
const KIND_CHECKPOINT: u32 = 2;
const REMOVED: u16 = u16::MAX;

/// The header at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store that the segment belongs to.
    pub store: StoreId,
    /// The process start that wrote the segment, counted from 1.
    pub epoch: u64,
    /// The sequence number of the segment's first frame.
    pub first_seq: CommitSeq,
    /// The CRC of the frame before the first one; 0 if there is none.
    pub prev_crc: u32,
    /// The file's size in bytes when it became the active segment. The file is never shorter while
    /// it is the last segment.
    pub allocated_bytes: u64,
}

impl SegmentHeader {
    /// The encoded header.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.store);
        bytes[24..32].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.first_seq.0.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.prev_crc.to_be_bytes());
        bytes[44..52].copy_from_slice(&self.allocated_bytes.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[0..60]);
        bytes[60..64].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Decodes a header; `None` if the bytes are not a valid one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SEGMENT_HEADER_BYTES] = bytes.first_chunk()?;
        let header = Self {
            store: bytes[8..24].try_into().ok()?,
            epoch: be_u64(bytes, 24)?,
            first_seq: CommitSeq(be_u64(bytes, 32)?),
            prev_crc: be_u32(bytes, 40)?,
            allocated_bytes: be_u64(bytes, 44)?,
        };
        let in_range = |number| number <= CommitSeq::MAX.0;
        let first_seq = header.first_seq.0;
        let plausible = first_seq > 0 && in_range(first_seq) && in_range(header.epoch);
        (plausible && header.encode() == *bytes).then_some(header)
    }
}

/// The payload of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FramePayload {
    /// These records changed, atomically.
    Commit(Vec<RecordWrite>),
    /// A commit that is already in sled: its checksum was verified, its records were not decoded.
    SkippedCommit,
    /// Every commit up to this number is durable in sled.
    Checkpoint(CommitSeq),
}

/// The header fields that the next frame must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextFrame {
    /// The segment's epoch.
    pub epoch: u64,
    /// The next sequence number.
    pub seq: CommitSeq,
    /// The CRC of the previous frame.
    pub prev_crc: u32,
}

impl NextFrame {
    /// The position of the previous frame.
    pub fn previous(self) -> LogPosition {
        LogPosition { seq: CommitSeq(self.seq.0.saturating_sub(1)), crc: self.prev_crc }
    }
}

/// Appends a commit frame to `out`, padded to a multiple of 8 bytes, and returns its CRC. The
/// records are encoded directly into `out`, without an intermediate copy.
pub fn encode_commit<'a>(
    out: &mut Vec<u8>,
    next: NextFrame,
    writes: impl Iterator<Item = (&'a RecordKey, Option<&'a Record>)>,
) -> u32 {
    let start = begin(out, KIND_COMMIT, next);
    for (key, record) in writes {
        let entry = out.len();
        out.extend_from_slice(&[0; 4]);
        key.encode(out);
        let key_end = out.len();
        let key_bytes = as_u16(key_end - entry - 4);
        let record_bytes = match record {
            None => REMOVED,
            Some(record) => {
                let key_crc = crc32c::crc32c(&out[entry + 4..key_end]);
                record.encode(key_crc, out);
                as_u16(out.len() - key_end)
            }
        };
        out[entry..entry + 2].copy_from_slice(&key_bytes.to_be_bytes());
        out[entry + 2..entry + 4].copy_from_slice(&record_bytes.to_be_bytes());
    }
    finish(out, start)
}

fn as_u16(length: usize) -> u16 {
    u16::try_from(length).unwrap_or_else(|_| unreachable!("keys and records are under 64 KiB"))
}

/// Appends a checkpoint frame to `out` and returns its CRC.
pub fn encode_checkpoint(out: &mut Vec<u8>, next: NextFrame, through: CommitSeq) -> u32 {
    let start = begin(out, KIND_CHECKPOINT, next);
    out.extend_from_slice(&through.0.to_be_bytes());
    finish(out, start)
}

fn begin(out: &mut Vec<u8>, kind: u32, next: NextFrame) -> usize {
    let start = out.len();
    // Length and CRC; `finish` fills them in.
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&next.prev_crc.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&next.epoch.to_be_bytes());
    out.extend_from_slice(&next.seq.0.to_be_bytes());
    start
}

fn finish(out: &mut Vec<u8>, start: usize) -> u32 {
    let length = u32::try_from(out.len() - start);
    let length = length.unwrap_or_else(|_| unreachable!("the size of a batch is limited"));
    let crc = frame_crc(&out[start + 8..]);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_be_bytes());
    out.resize(start + align_up(out.len() - start), 0);
    crc
}

/// The CRC of a frame: over `covered`, all that follows the CRC itself.
fn frame_crc(covered: &[u8]) -> u32 {
    let is_short = failpoint!("frame-checksum-covers-its-first-sector-only");
    crc32c::crc32c(if is_short { &covered[..covered.len().min(SECTOR - 8)] } else { covered })
}

/// The size of a frame on the disk, in bytes: its length rounded up to a multiple of 8.
pub fn align_up(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// Result of reading a segment at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameRead {
    /// The next frame.
    Frame {
        /// Its payload.
        payload: FramePayload,
        /// Its CRC, which the next frame repeats.
        crc: u32,
        /// Its size on the disk in bytes, padding included.
        bytes: usize,
    },
    /// Zeros: nothing was written here.
    Zeros,
    /// Anything else: a torn frame or corruption. [`find_data_after`] tells the two apart.
    Invalid,
}

/// Reads the frame at `offset` of `segment`; the records of commits up to `skip_through` are not
/// decoded.
#[must_use]
pub fn next_frame(
    segment: &[u8],
    offset: usize,
    next: NextFrame,
    skip_through: CommitSeq,
) -> FrameRead {
    let Some(rest) = segment.get(offset..) else { return FrameRead::Zeros };
    if rest.iter().take(FRAME_HEADER_BYTES).all(|&byte| byte == 0) {
        return FrameRead::Zeros;
    }
    decode(rest, next, skip_through).unwrap_or(FrameRead::Invalid)
}

fn decode(rest: &[u8], next: NextFrame, skip_through: CommitSeq) -> Option<FrameRead> {
    let (length, seq) = check_frame(rest)?;
    let is_same_chain = be_u32(rest, 8)? == next.prev_crc || failpoint!("frame-chain-not-compared");
    let is_same_epoch = be_u64(rest, 16)? == next.epoch || failpoint!("frame-epoch-not-compared");
    let is_next = seq == next.seq || failpoint!("frame-gap-accepted");
    let frame = rest.get(..length).filter(|_| is_same_chain && is_same_epoch && is_next)?;
    let payload = frame.get(FRAME_HEADER_BYTES..)?;
    let payload = match be_u32(frame, 12)? {
        KIND_COMMIT if next.seq <= skip_through => FramePayload::SkippedCommit,
        KIND_COMMIT => FramePayload::Commit(decode_writes(payload)?),
        KIND_CHECKPOINT => {
            let through = u64::from_be_bytes(payload.try_into().ok()?);
            FramePayload::Checkpoint(CommitSeq(through))
        }
        _ => return None,
    };
    Some(FrameRead::Frame { payload, crc: be_u32(frame, 4)?, bytes: align_up(length) })
}

/// Length and sequence number of the frame at the start of `rest`, if its CRC matches.
fn check_frame(rest: &[u8]) -> Option<(usize, CommitSeq)> {
    let length = usize::try_from(be_u32(rest, 0)?).ok()?;
    let frame = rest.get(..length).filter(|_| length >= FRAME_HEADER_BYTES)?;
    let is_intact = frame_crc(frame.get(8..)?) == be_u32(frame, 4)?;
    let is_accepted = is_intact || failpoint!("frame-checksum-not-compared");
    is_accepted.then_some((length, CommitSeq(be_u64(frame, 24)?)))
}

fn decode_writes(mut payload: &[u8]) -> Option<Vec<RecordWrite>> {
    let mut writes = Vec::new();
    while !payload.is_empty() {
        let (key_length, record_length) = (be_u16(payload, 0)?, be_u16(payload, 2)?);
        let (key_bytes, rest) = payload.get(4..)?.split_at_checked(key_length.into())?;
        let key = RecordKey::decode(key_bytes).ok()?;
        if record_length == REMOVED {
            writes.push((key, None));
            payload = rest;
        } else {
            let (record_bytes, rest) = rest.split_at_checked(record_length.into())?;
            let record = Record::decode(&key, key_bytes, record_bytes).ok()?;
            writes.push((key, Some(record)));
            payload = rest;
        }
    }
    Some(writes)
}

/// The offset of data after an invalid frame at `offset` that a crash cannot have left there;
/// `None` if the invalid frame is a torn tail.
///
/// Only one frame is ever being written, and a segment is filled with zeros before it is used. So
/// after a torn frame there is no valid frame, whatever its number; and if the header of the torn
/// frame is readable, there are only zeros after its end.
#[must_use]
pub fn find_data_after(segment: &[u8], offset: usize, next: NextFrame) -> Option<usize> {
    let valid_frame = (offset.next_multiple_of(8)..segment.len()).step_by(8).find(|&at| {
        let Some(rest) = segment.get(at..) else { return false };
        let is_kind = matches!(be_u32(rest, 12), Some(KIND_COMMIT | KIND_CHECKPOINT));
        is_kind && check_frame(rest).is_some()
    });
    valid_frame.or_else(|| {
        let torn = segment.get(offset..)?;
        // A device writes a sector from its start. If the header lies in one sector and its
        // sequence number is readable, the length before it was written too and can be trusted.
        let in_one_sector = offset / SECTOR == (offset + FRAME_HEADER_BYTES - 1) / SECTOR;
        let is_next = in_one_sector
            && be_u32(torn, 8)? == next.prev_crc
            && be_u64(torn, 16)? == next.epoch
            && be_u64(torn, 24)? == next.seq.0;
        let length = usize::try_from(be_u32(torn, 0)?).ok()?;
        let end = offset.checked_add(align_up(length)).filter(|_| is_next)?;
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

    const NEXT: NextFrame = NextFrame { epoch: 3, seq: CommitSeq(7), prev_crc: 0xABCD };
    const STORE: StoreId = [4; 16];

    fn header() -> SegmentHeader {
        let (first_seq, allocated_bytes) = (CommitSeq(7), 4096);
        SegmentHeader { store: STORE, epoch: 3, first_seq, prev_crc: 9, allocated_bytes }
    }

    fn frame() -> (Vec<u8>, u32, Vec<RecordWrite>) {
        let (name, state) = (CounterName::default_counter(), CounterState::default());
        let writes = vec![
            (RecordKey::Counter(TenantId(1), name.clone()), Some(Record::Counter(state))),
            (RecordKey::Counter(TenantId(2), name), None),
        ];
        let mut bytes = Vec::new();
        let crc = encode_commit(&mut bytes, NEXT, writes.iter().map(|(k, r)| (k, r.as_ref())));
        (bytes, crc, writes)
    }

    #[test]
    fn what_was_encoded_decodes() {
        let (mut segment, crc, writes) = frame();
        let bytes = segment.len();
        segment.resize(bytes + 64, 0);
        let commit = FrameRead::Frame { payload: FramePayload::Commit(writes), crc, bytes };
        assert_eq!(next_frame(&segment, 0, NEXT, CommitSeq(0)), commit);
        let skipped = FrameRead::Frame { payload: FramePayload::SkippedCommit, crc, bytes };
        assert_eq!(next_frame(&segment, 0, NEXT, NEXT.seq), skipped);
        assert_eq!(next_frame(&segment, bytes, NEXT, CommitSeq(0)), FrameRead::Zeros);
        assert_eq!(SegmentHeader::decode(&header().encode()), Some(header()));
    }

    #[test]
    fn every_flipped_bit_makes_a_frame_invalid() {
        let (bytes, _, writes) = frame();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match next_frame(&flipped, 0, NEXT, CommitSeq(0)) {
                FrameRead::Invalid => {}
                // A flip in the padding does not change the payload.
                FrameRead::Frame { payload, .. } => {
                    assert_eq!(payload, FramePayload::Commit(writes.clone()));
                }
                FrameRead::Zeros => panic!("a frame is not zeros"),
            }
        }
        let header = header().encode();
        for bit in 0..header.len() * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), None);
        }
    }

    #[test]
    fn a_frame_of_another_position_is_invalid() {
        let (bytes, ..) = frame();
        for other in [
            NextFrame { epoch: 4, ..NEXT },
            NextFrame { seq: CommitSeq(8), ..NEXT },
            NextFrame { prev_crc: 1, ..NEXT },
        ] {
            assert_eq!(next_frame(&bytes, 0, other, CommitSeq(0)), FrameRead::Invalid);
        }
    }

    #[test]
    fn corruption_is_told_from_a_torn_tail_by_the_data_after_it() {
        let (first, crc, _) = frame();
        let mut segment = first.clone();
        let second = NextFrame { seq: NEXT.seq.next(), prev_crc: crc, ..NEXT };
        encode_checkpoint(&mut segment, second, CommitSeq(1));
        segment.resize(4096, 0);
        segment[20] ^= 1;
        assert_eq!(find_data_after(&segment, 0, NEXT), Some(first.len()));
        segment.truncate(first.len());
        segment.resize(4096, 0);
        assert_eq!(find_data_after(&segment, 0, NEXT), None);
        // No crash leaves an old frame there, even one of another epoch.
        segment[2048..2048 + first.len()].copy_from_slice(&first);
        assert_eq!(find_data_after(&segment, 0, NEXT), Some(2048));
        segment[2048..2048 + first.len()].fill(0);
        // A header in two sectors, of which only the second was written, has no usable length.
        let mut torn = vec![0; 4096];
        torn[504..504 + first.len()].copy_from_slice(&first);
        torn[504..512].fill(0);
        assert_eq!(find_data_after(&torn, 504, NEXT), None);
        // The header is intact again, the payload is torn, and a byte follows its end.
        (segment[20], segment[40], segment[3000]) = (segment[20] ^ 1, segment[40] ^ 1, 1);
        assert_eq!(find_data_after(&segment, 0, NEXT), Some(3000));
    }
}
