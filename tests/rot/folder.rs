//! Store folders as files: which there are, copying them, and where the journal's last frame stands.
//!
//! Job: the files of a store by class, a quick copy, the range of the last frame.
//! Invariant: a copy has the same bytes. Must never: write to a folder that it was asked to read.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use odometer::store::embedded::frame::{CommitSeq, Expected, Found, SEGMENT_HEADER_BYTES, SegmentHeader, next_frame};

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
    SledSeals,
    SledOther,
    Backup,
    Newest,
}

/// A file of the store: its path below the data folder.
#[derive(Clone, Debug)]
pub(crate) struct StoreFile {
    pub(crate) path: String,
    pub(crate) class: Class,
}

/// FORMAT and every file below `journal/`, `sled/` and `backups/`, in order.
pub(crate) fn store_files(folder: &Path) -> Vec<StoreFile> {
    let mut paths = vec!["FORMAT".to_owned()];
    for inner in ["journal", "sled", "backups"] {
        collect(folder, inner, &mut paths);
    }
    paths.sort_unstable();
    let last = paths.iter().filter(|path| path.ends_with(".journal")).max().cloned();
    let class = |path: &str| match path {
        "FORMAT" => Class::Format,
        "journal/spare" => Class::Spare,
        "journal/newest" => Class::Newest,
        "sled/odometer.seals" => Class::SledSeals,
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
        if entry.file_type().unwrap().is_dir() { collect(folder, &path, paths) } else { paths.push(path) }
    }
}

/// Copies a folder with everything in it; long zeros become holes. A file that goes away meanwhile, as those of a
/// running server may, is left out.
pub(crate) fn copy(from: &Path, to: &Path) {
    const PIECE: usize = 1 << 14;
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&source, &target);
            continue;
        }
        let Ok(bytes) = fs::read(&source) else { continue };
        let file = File::create_new(&target).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        for (index, piece) in bytes.chunks(PIECE).enumerate().filter(|(_, piece)| !is_zero(piece)) {
            file.write_all_at(piece, (index * PIECE) as u64).unwrap();
        }
        file.set_permissions(fs::metadata(&source).unwrap().permissions()).unwrap();
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && rest.iter().all(|&byte| byte == 0)
}

/// The frames of the last segment, as file and ranges. Behind those of another segment stands a header that proves them.
pub(crate) fn last_frames(folder: &Path) -> Option<(String, Vec<Range<usize>>)> {
    let last = store_files(folder).into_iter().find(|file| file.class == Class::JournalLast)?;
    let bytes = fs::read(folder.join(&last.path)).unwrap();
    let header = SegmentHeader::decode(&bytes)?;
    let mut expected = Expected { epoch: header.epoch, seq: header.first, chain: header.chain };
    let (mut offset, mut found) = (SEGMENT_HEADER_BYTES, Vec::new());
    while let Found::Frame { crc, bytes: length, .. } = next_frame(&bytes, offset, expected, CommitSeq(u64::MAX)) {
        found.push(offset..offset + length);
        expected = Expected { seq: expected.seq.next(), chain: crc, ..expected };
        offset += length;
    }
    Some((last.path, found))
}
