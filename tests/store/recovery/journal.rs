//! Faults of the journal's files and of FORMAT.
//!
//! Job: frames and segments that are gone, cut short or of another store. Invariant: each folder
//! is one that a comparison of recovery, and nothing else, tells from a whole one.
//! Must never: damage what no acknowledged commit is in.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use odometer::store::embedded::journal::frame::{
    CommitSeq, FrameRead, NextFrame, SEGMENT_HEADER_BYTES, SegmentHeader, next_frame,
};
use odometer::store::embedded::{EmbeddedStore, Options};
use odometer::store::{Health, Store, Unavailable};
use odometer::telemetry::StoreMetrics;
use tempfile::TempDir;

use super::{
    assert_refused, backed_up_life, close, edit, empty, killed_life, life, open, options, segments,
    served,
};
use crate::support::folder;
use crate::support::workload::runtime;

/// Commits that fill one segment and begin another; with four a checkpoint would begin.
const TWO_SEGMENTS: u64 = 60;

/// Where the frames of a segment stand.
fn frames(segment: &Path) -> Vec<Range<usize>> {
    let bytes = fs::read(segment).unwrap();
    let header = SegmentHeader::decode(&bytes).unwrap();
    let mut next =
        NextFrame { epoch: header.epoch, seq: header.first_seq, prev_crc: header.prev_crc };
    let (mut offset, mut found) = (SEGMENT_HEADER_BYTES, Vec::new());
    while let FrameRead::Frame { crc, bytes: length, .. } =
        next_frame(&bytes, offset, next, CommitSeq(u64::MAX))
    {
        found.push(offset..offset + length);
        next = NextFrame { seq: next.seq.next(), prev_crc: crc, ..next };
        offset += length;
    }
    found
}

fn zero(segment: &Path, range: Range<usize>) {
    edit(segment).write_all_at(&vec![0; range.len()], range.start as u64).unwrap();
}

#[test]
fn zeros_in_front_of_frames_are_not_the_end() {
    let temp = TempDir::new().unwrap();
    let (data, left) = (temp.path().join("data"), temp.path().join("left"));
    let value = killed_life(&data, &left, 9);
    for lost in [0, 4] {
        let copy = temp.path().join(format!("without-{lost}"));
        folder::copy(&left, &copy);
        let segment = segments(&copy).pop().unwrap();
        let frame = frames(&segment)[lost].clone();
        zero(&segment, frame);
        assert_refused(&copy, &["not readable", "data that no crash leaves"]);
    }
    assert_eq!(served(&left).0, value);
}

/// The segment before it was full when it was sealed, so it looks like any other.
#[test]
fn the_newest_segment_is_missed() {
    let temp = TempDir::new().unwrap();
    let (data, left) = (temp.path().join("data"), temp.path().join("left"));
    killed_life(&data, &left, TWO_SEGMENTS);
    let mut found = segments(&left);
    assert_eq!(found.len(), 2);
    fs::remove_file(found.pop().unwrap()).unwrap();
    assert_refused(&left, &["the file is missing", "newest segment"]);
}

#[test]
fn a_segment_in_the_middle_is_missed() {
    let temp = TempDir::new().unwrap();
    let (data, left) = (temp.path().join("data"), temp.path().join("left"));
    killed_life(&data, &left, TWO_SEGMENTS);
    // A last segment without a frame, whose header alone names what is before it.
    let newest = temp.path().join("newest");
    killed_life(&left, &newest, 0);
    let mut found = segments(&newest);
    assert!(frames(&found.pop().unwrap()).is_empty());
    fs::remove_file(found.pop().unwrap()).unwrap();
    assert_refused(&newest, &["the segment starts with commit", "the one before it ends with"]);
}

#[test]
fn a_segment_that_is_cut_off_is_not_the_end() {
    let temp = TempDir::new().unwrap();
    let (data, left) = (temp.path().join("data"), temp.path().join("left"));
    killed_life(&data, &left, 9);
    let segment = segments(&left).pop().unwrap();
    let end = frames(&segment)[3].end as u64;
    edit(&segment).set_len(end).unwrap();
    assert_refused(&left, &["truncated"]);
}

#[test]
fn a_segment_of_another_store_is_refused() {
    let temp = TempDir::new().unwrap();
    let (data, left) = (temp.path().join("data"), temp.path().join("left"));
    killed_life(&data, &left, 3);
    let segment = segments(&left).pop().unwrap();
    let mut header = SegmentHeader::decode(&fs::read(&segment).unwrap()).unwrap();
    header.store[0] ^= 1;
    edit(&segment).write_all_at(&header.encode(), 0).unwrap();
    assert_refused(&left, &["another store"]);
}

#[test]
fn a_journal_that_ends_before_the_state_is_refused() {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    life(&data, 9);
    let segment = segments(&data).pop().unwrap();
    let lost = frames(&segment);
    zero(&segment, lost[5].start..lost.last().unwrap().end);
    assert_refused(&data, &["commits are missing", "but the journal ends with"]);
}

/// The state has what is in it since the end of the process; a backup would be the other copy.
#[test]
fn a_segment_stays_until_a_backup_has_it() {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    life(&data, 100);
    let kept = segments(&data);
    assert!(kept.len() > 2, "{kept:?}");
    assert!(kept[0].ends_with(format!("{:020}.journal", 1)), "removed without a backup: {kept:?}");
}

/// Nothing but one of the three says that there was a store.
#[test]
fn a_folder_in_use_without_its_format_is_no_new_one() {
    let temp = TempDir::new().unwrap();
    let (data, left) = (temp.path().join("data"), temp.path().join("left"));
    let value = killed_life(&data, &left, 3);
    assert!(!left.join("sled/odometer.digests").exists(), "only the journal says so");
    fs::rename(left.join("FORMAT"), temp.path().join("FORMAT")).unwrap();
    assert_refused(&left, &["it has a journal, but the file FORMAT is missing"]);
    fs::rename(temp.path().join("FORMAT"), left.join("FORMAT")).unwrap();
    assert_eq!(served(&left).0, value);

    let (_, backup) = backed_up_life(&data, 3);
    fs::remove_file(data.join("FORMAT")).unwrap();
    let state = temp.path().join("state");
    folder::copy(&data, &state);
    for dir in ["journal", "backups"] {
        empty(&state.join(dir));
    }
    assert_refused(&state, &["it has data, but the file FORMAT is missing"]);
    assert!(state.join("sled/odometer.digests").exists(), "the state is gone");

    for dir in ["journal", "sled"] {
        empty(&data.join(dir));
    }
    assert_refused(&data, &["it has backups, but the file FORMAT is missing"]);
    assert!(backup.exists(), "the backup is gone");
}

/// Below its reserve the store takes no change and makes no backup.
#[test]
fn the_reserve_is_for_the_journal() {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    life(&data, 3);
    let options = Options { min_free_disk_bytes: u64::MAX, ..options(&data) };
    let (store, _) = EmbeddedStore::open(&options, StoreMetrics::noop()).unwrap();
    assert_eq!(store.health(), Health::Unavailable(Unavailable::DiskLow));
    let asked = runtime().block_on(store.backup());
    let said = asked.map(|(_, summary)| summary).unwrap_err();
    assert!(said.contains("almost full"), "{said}");
    close(&store);
    close(&open(&data).unwrap().0);
}
