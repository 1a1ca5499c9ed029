//! The journal: what was committed, in order. A commit is acknowledged because it is here, and for no other reason.
//!
//! Job: append one frame and force it to the disk ([`Journal::append`]); read all of them back at a start ([`replay`]).
//!
//! ```text
//! journal/00000000000000000007.journal   zeros, written ahead, so that an append changes no size and no extent:
//!         [header][frame 81][frame 82][frame 83][torn]          0 0 0 0    fdatasync is one write to the device
//! journal/00000000000000000008.journal   a start opens a segment of its own behind whatever was torn
//!         [header: first = 84, chain = crc of 83][frame 84] 0 0 0 0 0 0
//! journal/spare                          zeros, made beside the path of a commit; renamed when it is needed
//! journal/newest                         the number of the newest segment, so that its loss is noticed
//! ```
//! Invariant: frame n+1 is written only after frame n is durable; so at most the last frame of a segment is torn, and only
//! if nobody was told of it. Each segment's header names the frame that it follows; a missing frame anywhere is a hole, and
//! a hole is an error.
//! Must never: sync twice after a failure, overwrite a frame that was acknowledged, or remove a segment that sled does not cover.
//!
//! A sync that failed may leave pages that look clean and never reached the disk. A start therefore writes the last frame and
//! the last header once more before it believes in them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::disk::{Disk, DiskFile};
use super::frame::{
    Body, CommitSeq, Expected, Found, Mark, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId, encode_checkpoint,
    encode_commit, next_frame, remains_after,
};
use super::record::{Key, Record};

/// The segment that is ready to be used next.
pub const SPARE: &str = "spare";
/// The file that names the newest segment.
pub const NEWEST: &str = "newest";
/// Two places, written in turn, so that a torn write leaves the other.
const NEWEST_PLACES: [u64; 2] = [0, 512];
const SUFFIX: &str = ".journal";

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
    Hole {
        /// The file.
        name: String,
        /// Where in the file, in bytes.
        offset: usize,
        /// What was found.
        problem: String,
    },
}

/// Why nothing, or nothing known, was appended.
#[derive(Debug)]
pub enum AppendError {
    /// The segment is full and there is no spare yet. Nothing was written.
    NoSpare,
    /// A write or a sync failed: the frame may or may not be on the disk.
    Failed(io::Error),
}

/// A segment that holds frames up to `last`.
#[derive(Clone, Debug)]
struct Segment {
    name: String,
    last: CommitSeq,
    bytes: u64,
}

/// What a replay found.
#[derive(Debug)]
pub struct Tail {
    segments: VecDeque<Segment>,
    next_number: u64,
    /// What the next frame must say; the epoch is that of the last segment.
    expected: Expected,
    /// The frame before the first one that the journal still has; commits up to it are in sled and in a backup only.
    pub before: Mark,
    /// The newest checkpoint that the journal knows of.
    pub checkpointed: CommitSeq,
    /// A torn last frame, as file and offset: normal after a crash, and never acknowledged.
    pub torn: Option<(String, usize)>,
    /// How many frames were read.
    pub frames: u64,
    rewrite: Option<Rewrite>,
}

impl Tail {
    /// The end of a journal that has no segment yet and goes on behind `mark`.
    #[must_use]
    pub fn after(mark: Mark) -> Self {
        Self::before(SegmentHeader {
            store: StoreId::default(),
            epoch: 0,
            first: mark.seq.next(),
            chain: mark.chain,
            bytes: 0,
        })
    }

    /// The last frame.
    #[must_use]
    pub fn last(&self) -> Mark {
        self.expected.before()
    }
}

#[derive(Debug)]
struct Rewrite {
    name: String,
    header: Vec<u8>,
    last_frame: Vec<u8>,
    offset: usize,
    /// Where the frames end.
    end: usize,
}

/// Where the segment files are, and whose they must be.
#[derive(Debug)]
pub struct Files<D> {
    /// The folder.
    pub disk: Arc<D>,
    /// The store that owns it.
    pub store: StoreId,
    /// Bytes of a new segment.
    pub segment_bytes: u64,
}

/// Reads every frame in order, changing nothing, and hands each to `visit`; commits up to `covered` without what they say. `None`: there is no
/// segment at all.
///
/// # Errors
/// [`JournalError`] if a file can not be read or a frame that was acknowledged is missing.
pub fn replay<D: Disk>(
    files: &Files<D>,
    covered: CommitSeq,
    visit: &mut dyn FnMut(Mark, Body),
) -> Result<Option<Tail>, JournalError> {
    let mut names = files.disk.list().map_err(|source| io_error("", source))?;
    names.retain(|name| number_of(name).is_some());
    names.sort_unstable();
    let mut tail: Option<Tail> = None;
    let count = names.len();
    for (index, name) in names.into_iter().enumerate() {
        let bytes = files.disk.open(&name).and_then(|file| file.read_all()).map_err(|e| io_error(&name, e))?;
        let hole = |offset, problem: String| JournalError::Hole { name: name.clone(), offset, problem };
        let header =
            SegmentHeader::decode(&bytes).ok_or_else(|| hole(0, "the segment header is not valid".to_owned()))?;
        if header.store != files.store {
            return Err(hole(0, "the segment belongs to another store".to_owned()));
        }
        let tail = tail.get_or_insert_with(|| Tail::before(header));
        if header.first != tail.expected.seq || header.chain != tail.expected.chain {
            let (wants, has) = (header.first, tail.last().seq);
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
        read_segment(tail, &name, &bytes, index + 1 == count, covered, visit)?;
        tail.next_number = number_of(&name).unwrap_or(0).saturating_add(1);
        tail.segments.push_back(Segment { name, last: tail.last().seq, bytes: bytes.len() as u64 });
    }
    let (has, newest) = (tail.as_ref().map_or(0, |tail| tail.next_number - 1), newest(files));
    if newest > has {
        let problem = "the newest segment is missing: it was in use, and this journal ends before it".to_owned();
        return Err(JournalError::Hole { name: name_of(newest), offset: 0, problem });
    }
    Ok(tail)
}

impl Tail {
    fn before(header: SegmentHeader) -> Self {
        let expected = Expected { epoch: header.epoch, seq: header.first, chain: header.chain };
        Self {
            segments: VecDeque::new(),
            next_number: 1,
            expected,
            before: expected.before(),
            checkpointed: CommitSeq(0),
            torn: None,
            frames: 0,
            rewrite: None,
        }
    }
}

fn read_segment(
    tail: &mut Tail,
    name: &str,
    bytes: &[u8],
    is_last: bool,
    covered: CommitSeq,
    visit: &mut dyn FnMut(Mark, Body),
) -> Result<(), JournalError> {
    let mut offset = SEGMENT_HEADER_BYTES;
    let mut last_frame = offset..offset;
    let torn = loop {
        match next_frame(bytes, offset, tail.expected, covered) {
            Found::Frame { body, crc, bytes: length } => {
                if let Body::Checkpoint(up_to) = body {
                    tail.checkpointed = tail.checkpointed.max(up_to);
                }
                visit(Mark { seq: tail.expected.seq, chain: crc }, body);
                tail.expected = Expected { seq: tail.expected.seq.next(), chain: crc, ..tail.expected };
                tail.frames += 1;
                last_frame = offset..offset + length;
                offset += length;
            }
            Found::Zeros => break false,
            Found::Bad => break true,
        }
    };
    // Behind an older segment's end stands the next segment's header, which proves that nothing is missing.
    if is_last {
        if let Some(later) = remains_after(bytes, offset, tail.expected) {
            let problem = format!(
                "commit {} is not readable, and no crash leaves what stands at offset {later}",
                tail.expected.seq
            );
            return Err(JournalError::Hole { name: name.to_owned(), offset, problem });
        }
        tail.torn = torn.then(|| (name.to_owned(), offset));
        tail.rewrite = Some(Rewrite {
            name: name.to_owned(),
            header: bytes.get(..SEGMENT_HEADER_BYTES).unwrap_or_default().to_vec(),
            offset: last_frame.start,
            end: offset,
            last_frame: bytes.get(last_frame).unwrap_or_default().to_vec(),
        });
    }
    Ok(())
}

/// The open journal: the one place that acknowledges.
pub struct Journal<D: Disk> {
    files: Files<D>,
    active: D::File,
    active_name: String,
    offset: u64,
    expected: Expected,
    next_number: u64,
    older: VecDeque<Segment>,
    spare: Option<D::File>,
    newest: D::File,
    buffer: Vec<u8>,
}

impl<D: Disk> Journal<D> {
    /// Continues behind `tail` in a segment of its own, after making the tail durable.
    ///
    /// # Errors
    /// [`JournalError::Io`], a full disk among them.
    pub fn start(files: Files<D>, tail: Tail) -> Result<Self, JournalError> {
        let Tail { segments: mut older, next_number, mut expected, rewrite, .. } = tail;
        if let Some(rewrite) = &rewrite {
            let again = || -> io::Result<()> {
                let mut file = files.disk.open(&rewrite.name)?;
                file.write_all_at(&rewrite.header, 0)?;
                file.write_all_at(&rewrite.last_frame, rewrite.offset as u64)?;
                file.sync()
            };
            again().map_err(|source| io_error(&rewrite.name, source))?;
        }
        expected.epoch += 1;
        let spare = match left_spare(&files) {
            Some(spare) => spare,
            None => files.disk.create_zeroed(SPARE, files.segment_bytes).map_err(|e| io_error(SPARE, e))?,
        };
        let active_name = name_of(next_number);
        let mut newest = open_newest(&files).map_err(|source| io_error(NEWEST, source))?;
        let active = activate(&files, spare, next_number, expected, &mut newest)
            .map_err(|source| io_error(&active_name, source))?;
        // The new segment's header proves where the one before it ends, so the zeros behind that can go: segments stay for a while, and a
        // process that dies again and again would leave many that are almost empty. One that stays long does no harm.
        if let (Some(rewrite), Some(last)) = (rewrite, older.back_mut())
            && files.disk.open(&rewrite.name).and_then(|mut file| file.trim(rewrite.end as u64)).is_ok()
        {
            last.bytes = rewrite.end as u64;
        }
        Ok(Self {
            files,
            active,
            active_name,
            offset: SEGMENT_HEADER_BYTES as u64,
            expected,
            next_number: next_number + 1,
            older,
            spare: None,
            newest,
            buffer: Vec::with_capacity(1 << 16),
        })
    }

    /// Appends the changes as one frame and returns its mark once it is durable.
    ///
    /// # Errors
    /// [`AppendError::NoSpare`]: nothing was written. [`AppendError::Failed`]: nobody knows; the journal must not be used again.
    pub fn append<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a Key, Option<&'a Record>)>,
    ) -> Result<Mark, AppendError> {
        self.buffer.clear();
        let crc = encode_commit(&mut self.buffer, self.expected, changes);
        self.write_buffer(crc)
    }

    /// Notes that sled holds every commit up to `covered`, durably. Errors as [`Journal::append`].
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_checkpoint(&mut self, covered: CommitSeq) -> Result<Mark, AppendError> {
        self.buffer.clear();
        let crc = encode_checkpoint(&mut self.buffer, self.expected, covered);
        self.write_buffer(crc)
    }

    fn write_buffer(&mut self, crc: u32) -> Result<Mark, AppendError> {
        let length = self.buffer.len() as u64;
        if self.offset + length > self.files.segment_bytes {
            self.roll()?;
            // The frame in the buffer carries the same epoch, number and chain in the new segment.
        }
        self.active.write_all_at(&self.buffer, self.offset).map_err(AppendError::Failed)?;
        self.active.sync().map_err(AppendError::Failed)?;
        let seq = self.expected.seq;
        self.offset += length;
        self.expected = Expected { seq: seq.next(), chain: crc, ..self.expected };
        Ok(self.last())
    }

    fn roll(&mut self) -> Result<(), AppendError> {
        let spare = self.spare.take().ok_or(AppendError::NoSpare)?;
        let name = name_of(self.next_number);
        let file = activate(&self.files, spare, self.next_number, self.expected, &mut self.newest)
            .map_err(AppendError::Failed)?;
        self.next_number += 1;
        self.active = file;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        let last = self.last().seq;
        let bytes = self.files.segment_bytes;
        self.older.push_back(Segment { name: std::mem::replace(&mut self.active_name, name), last, bytes });
        Ok(())
    }

    /// Whether a spare segment should be made now.
    #[must_use]
    pub fn wants_spare(&self) -> bool {
        self.spare.is_none()
    }

    /// Takes the spare segment that was made meanwhile, under the name [`SPARE`].
    pub fn give_spare(&mut self, spare: D::File) {
        self.spare = Some(spare);
    }

    /// Forgets the segments whose every frame is at or before `covered` and returns their names, to be removed oldest first.
    pub fn release(&mut self, covered: CommitSeq) -> Vec<String> {
        let mut names = Vec::new();
        while self.older.front().is_some_and(|segment| segment.last <= covered) {
            names.extend(self.older.pop_front().map(|segment| segment.name));
        }
        names
    }

    /// Bytes of the segments before the active one.
    #[must_use]
    pub fn older_bytes(&self) -> u64 {
        self.older.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes that all segments take on the disk, the spare one included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.older_bytes() + (1 + u64::from(self.spare.is_some())) * self.files.segment_bytes
    }

    /// Segments that hold a frame behind `covered`, the active one included.
    #[must_use]
    pub fn segments_behind(&self, covered: CommitSeq) -> usize {
        self.older.iter().rev().take_while(|segment| segment.last > covered).count() + 1
    }

    /// The last durable frame.
    #[must_use]
    pub fn last(&self) -> Mark {
        self.expected.before()
    }
}

/// Removes segments, oldest first, each durably before the next: a power cut must not leave one without the one behind it.
///
/// # Errors
/// Any error of the system; the rest stays.
pub fn remove_segments<D: Disk>(disk: &D, names: &[String]) -> io::Result<()> {
    names.iter().try_for_each(|name| {
        disk.remove(name)?;
        disk.sync_folder()
    })
}

/// The spare that an earlier process left, if it is what a spare must be; reading zeros is quicker than writing them.
fn left_spare<D: Disk>(files: &Files<D>) -> Option<D::File> {
    let spare = files.disk.open(SPARE).ok()?;
    let bytes = spare.read_all().ok()?;
    (bytes.len() as u64 == files.segment_bytes && is_zero(&bytes)).then_some(spare)
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && rest.iter().all(|&byte| byte == 0)
}

/// Makes the spare the segment of that number: named, durably, before anything is appended to it.
fn activate<D: Disk>(
    files: &Files<D>,
    mut spare: D::File,
    number: u64,
    expected: Expected,
    newest: &mut D::File,
) -> io::Result<D::File> {
    let Expected { epoch, seq: first, chain } = expected;
    let header = SegmentHeader { store: files.store, epoch, first, chain, bytes: files.segment_bytes };
    spare.write_all_at(&header.encode(), 0)?;
    spare.sync()?;
    files.disk.rename(SPARE, &name_of(number))?;
    files.disk.sync_folder()?;
    let mut note = number.to_be_bytes().to_vec();
    note.extend_from_slice(&crc32c::crc32c(&note).to_be_bytes());
    newest.write_all_at(&note, if number.is_multiple_of(2) { NEWEST_PLACES[0] } else { NEWEST_PLACES[1] })?;
    newest.sync()?;
    Ok(spare)
}

/// The note of the newest segment, made if there is none. Its name gets durable with that of the first segment that it names.
fn open_newest<D: Disk>(files: &Files<D>) -> io::Result<D::File> {
    match files.disk.open(NEWEST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => files.disk.create(NEWEST),
        other => other,
    }
}

/// The newest segment that was ever in use, as far as the note tells; a note that is lost or damaged tells nothing, and then the segments
/// speak for themselves.
fn newest<D: Disk>(files: &Files<D>) -> u64 {
    let bytes = files.disk.open(NEWEST).and_then(|file| file.read_all()).unwrap_or_default();
    let read = |place: u64| {
        let note: &[u8; 12] = bytes.get(usize::try_from(place).ok()?..)?.first_chunk()?;
        let (number, crc) = note.split_first_chunk::<8>()?;
        (*crc == crc32c::crc32c(number).to_be_bytes()).then_some(u64::from_be_bytes(*number))
    };
    NEWEST_PLACES.into_iter().filter_map(read).max().unwrap_or(0)
}

fn name_of(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 20)?.parse().ok()
}

fn io_error(name: &str, source: io::Error) -> JournalError {
    JournalError::Io { name: name.to_owned(), cause: source }
}
