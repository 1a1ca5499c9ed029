//! The segment files of the journal: their names, and how a spare becomes the active segment.
//!
//! Job: [`JournalDir`] names the directory; `activate` turns the spare into the next segment;
//! `current_segment` reads the file CURRENT, by which the loss of the last segment is noticed.
//!
//! ```text
//! CURRENT, two slots at 0 and 512:   number u64   segment number, big-endian
//!                                    crc    u32   CRC32C over the number
//! ```
//! Invariant: the name of a segment is durable, in the directory and in CURRENT, before a frame is
//! appended to it.
//! Must never: use a spare that contains a byte other than zero.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::failpoint::failpoint;
use crate::store::embedded::fs::{Directory, VfsFile};
use crate::store::embedded::journal::frame::{CommitSeq, NextFrame, SegmentHeader, StoreId};
use crate::store::embedded::layout::{CURRENT, CURRENT_V3};

/// The file name of the preallocated next segment.
pub const SPARE: &str = "spare";
const UNFINISHED_SPARE: &str = "spare.new";
/// Offsets of the two slots of CURRENT. They are written alternately, so that a torn write leaves
/// the other slot intact.
pub(crate) const CURRENT_SLOTS: [u64; 2] = [0, 512];
pub(crate) const SUFFIX: &str = ".journal";

/// Why a journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The operating system returned an error.
    #[error("journal/{name}: {cause}")]
    Io {
        /// The file name; empty for the directory.
        name: String,
        /// The error.
        cause: io::Error,
    },
    /// Acknowledged data is missing or not as it was written.
    #[error("journal/{name} is corrupt at offset {offset}: {problem}")]
    Corrupt {
        /// The file name.
        name: String,
        /// The offset in the file, in bytes.
        offset: usize,
        /// What was found.
        problem: String,
    },
}

/// The directory of the journal, and the store that its files must belong to.
#[derive(Debug)]
pub struct JournalDir<D> {
    /// The directory.
    pub dir: Arc<D>,
    /// The store that owns it.
    pub store: StoreId,
    /// Size of a new segment in bytes.
    pub segment_bytes: u64,
}

/// A sealed segment.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) name: String,
    /// Its last frame.
    pub(crate) last: CommitSeq,
    pub(crate) bytes: u64,
}

/// Preallocates the spare segment. It gets its name after its zeros are durable, so that a later
/// start can use a spare that it finds.
pub(crate) fn make_spare<D: Directory>(dir: &D, segment_bytes: u64) -> io::Result<D::File> {
    let made = dir.create_zeroed(UNFINISHED_SPARE, segment_bytes).and_then(|file| {
        dir.rename(UNFINISHED_SPARE, SPARE)?;
        Ok(file)
    });
    if made.is_err() {
        // The unfinished file takes disk space that others need.
        let _ = dir.remove(UNFINISHED_SPARE);
    }
    made
}

/// The spare that an earlier process left, if its size is right and it contains only zeros:
/// reading zeros is quicker than writing them.
pub(crate) fn reuse_spare<D: Directory>(journal: &JournalDir<D>) -> Option<D::File> {
    let spare = journal.dir.open(SPARE).ok()?;
    let bytes = spare.read_all().ok()?;
    (bytes.len() as u64 == journal.segment_bytes && is_zero(&bytes)).then_some(spare)
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && rest.iter().all(|&byte| byte == 0)
}

/// Makes the spare the segment with this number. When this returns, the segment's header, its name
/// and its entry in CURRENT are durable, and frames can be appended.
pub(crate) fn activate<D: Directory>(
    journal: &JournalDir<D>,
    mut spare: D::File,
    number: u64,
    next: NextFrame,
    current_marker: &mut D::File,
) -> io::Result<D::File> {
    let header = SegmentHeader {
        store: journal.store,
        epoch: next.epoch,
        first_seq: next.seq,
        prev_crc: next.prev_crc,
        allocated_bytes: journal.segment_bytes,
    };
    spare.write_all_at(&header.encode(), 0)?;
    if !failpoint!("segment-header-not-synced") {
        spare.sync()?;
    }
    journal.dir.rename(SPARE, &segment_file_name(number))?;
    if !failpoint!("segment-name-not-synced") {
        journal.dir.sync_dir()?;
    }
    let mut entry = number.to_be_bytes().to_vec();
    entry.extend_from_slice(&crc32c::crc32c(&entry).to_be_bytes());
    let slot = CURRENT_SLOTS[usize::from(!number.is_multiple_of(2))];
    current_marker.write_all_at(&entry, slot)?;
    if !failpoint!("current-not-synced") {
        current_marker.sync()?;
    }
    Ok(spare)
}

/// Opens CURRENT, or creates it. Its name becomes durable together with the name of the first
/// segment that it refers to.
pub(crate) fn open_current<D: Directory>(journal: &JournalDir<D>) -> io::Result<D::File> {
    match journal.dir.open(CURRENT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => journal.dir.create(CURRENT),
        other => other,
    }
}

/// The number of the newest segment by CURRENT; 0 if the file is missing or corrupt, and then only
/// the segments themselves can tell.
pub(crate) fn current_segment<D: Directory>(journal: &JournalDir<D>) -> u64 {
    let file = match journal.dir.open(CURRENT) {
        // A command that changes nothing may read a directory of format 3.
        Err(error) if error.kind() == io::ErrorKind::NotFound => journal.dir.open(CURRENT_V3),
        other => other,
    };
    let read = file.and_then(|file| file.read_all());
    let bytes = read.unwrap_or_default();
    let read_slot = |offset: u64| {
        let entry: &[u8; 12] = bytes.get(usize::try_from(offset).ok()?..)?.first_chunk()?;
        let (number, crc) = entry.split_first_chunk::<8>()?;
        let is_valid = *crc == crc32c::crc32c(number).to_be_bytes();
        is_valid.then_some(u64::from_be_bytes(*number))
    };
    CURRENT_SLOTS.into_iter().filter_map(read_slot).max().unwrap_or(0)
}

pub(crate) fn segment_file_name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

pub(crate) fn parse_segment_file_name(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
    // Each number has one file name, and every accepted number has a successor.
    (number <= CommitSeq::MAX.0 && segment_file_name(number) == name).then_some(number)
}

pub(crate) fn io_error(name: &str, cause: io::Error) -> JournalError {
    JournalError::Io { name: name.to_owned(), cause }
}
