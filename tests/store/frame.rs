//! Frames that are longer than a sector of the disk, as a flipped bit and a torn write leave them.
//!
//! Job: change a frame at every place, and cut it off at every sector. Invariant: its checksum
//! covers all of it, so that a changed frame is never the next one, and a torn one is told from
//! corruption. Must never: decode the records, whose own checksums would notice some of it.

use odometer::domain::counter::CounterName;
use odometer::domain::tenant::TenantId;
use odometer::store::CounterState;
use odometer::store::embedded::codec::key::RecordKey;
use odometer::store::embedded::codec::record::Record;
use odometer::store::embedded::journal::frame::{
    CommitSeq, FramePayload, FrameRead, NextFrame, SEGMENT_HEADER_BYTES, encode_commit,
    find_data_after, next_frame,
};

const NEXT: NextFrame = NextFrame { epoch: 3, seq: CommitSeq(7), prev_crc: 0xABCD };
const SECTOR: usize = 512;

/// The frame of a commit that changes forty counters, and its length without padding.
fn long_frame() -> (Vec<u8>, usize) {
    let keys: Vec<RecordKey> = (1..=40)
        .map(|tenant| RecordKey::Counter(TenantId(tenant), CounterName::default_counter()))
        .collect();
    let record = Record::Counter(CounterState::default());
    let mut bytes = Vec::new();
    encode_commit(&mut bytes, NEXT, keys.iter().map(|key| (key, Some(&record))));
    let length = u32::from_be_bytes(*bytes.first_chunk().expect("a frame begins with its length"));
    assert!(bytes.len() > 3 * SECTOR, "{}", bytes.len());
    (bytes, length as usize)
}

/// Reads the frame as one whose records are in the state already: its checksum decides alone.
fn read(bytes: &[u8], offset: usize) -> FrameRead {
    next_frame(bytes, offset, NEXT, NEXT.seq)
}

#[test]
fn a_flipped_bit_anywhere_in_a_long_frame_makes_it_invalid() {
    let (bytes, length) = long_frame();
    let is_right = matches!(read(&bytes, 0), FrameRead::Frame { payload, .. }
        if payload == FramePayload::SkippedCommit);
    assert!(is_right);
    for bit in 0..length * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(read(&flipped, 0), FrameRead::Invalid, "byte {}", bit / 8);
    }
}

#[test]
fn a_long_frame_that_was_torn_after_any_sector_is_a_torn_tail() {
    let (bytes, length) = long_frame();
    let mut segment = vec![0; SEGMENT_HEADER_BYTES];
    segment.extend_from_slice(&bytes);
    segment.resize(8 * SECTOR, 0);
    for sectors in 1..=(SEGMENT_HEADER_BYTES + length) / SECTOR {
        let mut torn = segment.clone();
        torn[sectors * SECTOR..].fill(0);
        assert_eq!(read(&torn, SEGMENT_HEADER_BYTES), FrameRead::Invalid, "{sectors} sectors");
        let behind = find_data_after(&torn, SEGMENT_HEADER_BYTES, NEXT);
        assert_eq!(behind, None, "{sectors} sectors were written, which is no corruption");
    }
}
