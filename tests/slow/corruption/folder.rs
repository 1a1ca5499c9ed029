//! Store folders as files: which there are, and where the journal's last frames stand.
//!
//! Job: the files of a store by class, and the ranges of the last frames.
//! Must never: write to a folder that it was asked to read.

use std::fs;
use std::ops::Range;
use std::path::Path;

pub(crate) use crate::support::folder::{copy, is_zero};
use odometer::store::embedded::journal::frame::{
    CommitSeq, FrameRead, NextFrame, SEGMENT_HEADER_BYTES, SegmentHeader, next_frame,
};

/// What a file of the store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Format,
    /// The last segment.
    JournalLast,
    JournalOlder,
    Spare,
    SledDb,
    SledSnapshot,
    SledConf,
    SledDigests,
    SledOther,
    Backup,
    Current,
    /// LOCK, which says how the last process ended.
    ShutdownRecord,
}

/// A file of the store: its path below the data directory.
#[derive(Clone, Debug)]
pub(crate) struct StoreFile {
    pub(crate) path: String,
    pub(crate) class: Class,
}

/// FORMAT, LOCK and every file below `journal/`, `sled/` and `backups/`, in order.
pub(crate) fn store_files(folder: &Path) -> Vec<StoreFile> {
    let mut paths = vec!["FORMAT".to_owned(), "LOCK".to_owned()];
    for inner in ["journal", "sled", "backups"] {
        collect(folder, inner, &mut paths);
    }
    paths.sort_unstable();
    let last = paths.iter().filter(|path| path.ends_with(".journal")).max().cloned();
    let class = |path: &str| match path {
        "FORMAT" => Class::Format,
        "LOCK" => Class::ShutdownRecord,
        "journal/spare" => Class::Spare,
        "journal/CURRENT" => Class::Current,
        "sled/odometer.digests" => Class::SledDigests,
        "sled/db" => Class::SledDb,
        "sled/conf" => Class::SledConf,
        _ if Some(path) == last.as_deref() => Class::JournalLast,
        _ if path.starts_with("backups/") => Class::Backup,
        _ if path.starts_with("journal/") => Class::JournalOlder,
        _ if path.starts_with("sled/snap.") => Class::SledSnapshot,
        _ => Class::SledOther,
    };
    paths.iter().map(|path| StoreFile { path: path.clone(), class: class(path) }).collect()
}

fn collect(folder: &Path, inner: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(folder.join(inner)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{inner}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            collect(folder, &path, paths)
        } else {
            paths.push(path)
        }
    }
}

/// The frames of the last segment, as file and ranges. Behind those of another segment stands a
/// header that proves them.
pub(crate) fn last_frames(folder: &Path) -> Option<(String, Vec<Range<usize>>)> {
    let last = store_files(folder).into_iter().find(|file| file.class == Class::JournalLast)?;
    let bytes = fs::read(folder.join(&last.path)).unwrap();
    let header = SegmentHeader::decode(&bytes)?;
    let mut expected =
        NextFrame { epoch: header.epoch, seq: header.first_seq, prev_crc: header.prev_crc };
    let (mut offset, mut found) = (SEGMENT_HEADER_BYTES, Vec::new());
    while let FrameRead::Frame { crc, bytes: length, .. } =
        next_frame(&bytes, offset, expected, CommitSeq(u64::MAX))
    {
        found.push(offset..offset + length);
        expected = NextFrame { seq: expected.seq.next(), prev_crc: crc, ..expected };
        offset += length;
    }
    Some((last.path, found))
}
