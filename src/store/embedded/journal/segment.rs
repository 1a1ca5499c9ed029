//! The segment files of the journal: their names, and how one comes into use.
//!
//! Job: [`JournalDir`] says where they are; `activate` turns the spare into the next one; `current_segment` tells whether the last of them was lost.
//! Invariant: a segment is named, durably, in the folder and in the note of the newest, before anything is appended to it.
//! Must never: use a spare that is not zeros to its last byte.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::store::embedded::fs::{Directory, VfsFile};
use crate::store::embedded::journal::frame::{CommitSeq, NextFrame, SegmentHeader, StoreId};
use crate::store::embedded::layout::CURRENT;

/// The segment that is ready to be used next.
pub const SPARE: &str = "spare";
const UNFINISHED_SPARE: &str = "spare.new";
/// Two places, written in turn, so that a torn write leaves the other.
pub(crate) const CURRENT_SLOTS: [u64; 2] = [0, 512];
pub(crate) const SUFFIX: &str = ".journal";

/// Why a journal can not be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The system refused.
    #[error("journal/{name}: {cause}")]
    Io {
        /// The file.
        name: String,
        /// What the system said.
        cause: io::Error,
    },
    /// Something that was acknowledged is not there or not as it was written.
    #[error("journal/{name} is damaged at offset {offset}: {problem}")]
    Corrupt {
        /// The file.
        name: String,
        /// Where in the file, in bytes.
        offset: usize,
        /// What was found.
        problem: String,
    },
}

/// Where the segment files are, and whose they must be.
#[derive(Debug)]
pub struct JournalDir<D> {
    /// The folder.
    pub dir: Arc<D>,
    /// The store that owns it.
    pub store: StoreId,
    /// Bytes of a new segment.
    pub segment_bytes: u64,
}

/// A segment that holds frames up to `last`.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) last: CommitSeq,
    pub(crate) bytes: u64,
}

/// Makes the spare. It has its name only when its zeros are durable, so that a later start may use one that it finds.
pub(crate) fn make_spare<D: Directory>(dir: &D, segment_bytes: u64) -> io::Result<D::File> {
    let made = dir.create_zeroed(UNFINISHED_SPARE, segment_bytes).and_then(|file| {
        dir.rename(UNFINISHED_SPARE, SPARE)?;
        Ok(file)
    });
    if made.is_err() {
        // The part that was made takes room that others need.
        let _ = dir.remove(UNFINISHED_SPARE);
    }
    made
}

/// The spare that an earlier process left, if it is what a spare must be; reading zeros is quicker than writing them.
pub(crate) fn reuse_spare<D: Directory>(journal: &JournalDir<D>) -> Option<D::File> {
    let spare = journal.dir.open(SPARE).ok()?;
    let bytes = spare.read_all().ok()?;
    (bytes.len() as u64 == journal.segment_bytes && is_zero(&bytes)).then_some(spare)
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && rest.iter().all(|&byte| byte == 0)
}

/// Makes the spare the segment of that number: named, durably, before anything is appended to it.
pub(crate) fn activate<D: Directory>(
    journal: &JournalDir<D>,
    mut spare: D::File,
    number: u64,
    expected: NextFrame,
    current_segment: &mut D::File,
) -> io::Result<D::File> {
    let NextFrame { epoch, seq: first, chain } = expected;
    let header = SegmentHeader { store: journal.store, epoch, first_seq: first, chain, bytes: journal.segment_bytes };
    spare.write_all_at(&header.encode(), 0)?;
    spare.sync()?;
    journal.dir.rename(SPARE, &segment_file_name(number))?;
    journal.dir.sync_dir()?;
    let mut note = number.to_be_bytes().to_vec();
    note.extend_from_slice(&crc32c::crc32c(&note).to_be_bytes());
    current_segment.write_all_at(&note, if number.is_multiple_of(2) { CURRENT_SLOTS[0] } else { CURRENT_SLOTS[1] })?;
    current_segment.sync()?;
    Ok(spare)
}

/// The note of the newest segment, made if there is none. Its name gets durable with that of the first segment that it names.
pub(crate) fn open_current<D: Directory>(journal: &JournalDir<D>) -> io::Result<D::File> {
    match journal.dir.open(CURRENT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => journal.dir.create(CURRENT),
        other => other,
    }
}

/// The newest segment that was ever in use, as far as the note tells; a note that is lost or damaged tells nothing, and then the segments
/// speak for themselves.
pub(crate) fn current_segment<D: Directory>(journal: &JournalDir<D>) -> u64 {
    let bytes = journal.dir.open(CURRENT).and_then(|file| file.read_all()).unwrap_or_default();
    let read = |place: u64| {
        let note: &[u8; 12] = bytes.get(usize::try_from(place).ok()?..)?.first_chunk()?;
        let (number, crc) = note.split_first_chunk::<8>()?;
        (*crc == crc32c::crc32c(number).to_be_bytes()).then_some(u64::from_be_bytes(*number))
    };
    CURRENT_SLOTS.into_iter().filter_map(read).max().unwrap_or(0)
}

pub(crate) fn segment_file_name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

pub(crate) fn parse_segment_file_name(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
    // One spelling for each number, and none from which one could not count on.
    (number <= CommitSeq::MAX.0 && segment_file_name(number) == name).then_some(number)
}

pub(crate) fn io_error(name: &str, source: io::Error) -> JournalError {
    JournalError::Io { name: name.to_owned(), cause: source }
}
