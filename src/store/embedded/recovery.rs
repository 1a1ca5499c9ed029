//! A start, and an offline look at the same things: is what the folder holds complete?
//!
//! Job: [`recover`] reads sled's number and the whole journal and tells whether together they are every commit there ever was.
//!
//! ```text
//!   sled covers ..................... 812
//!   journal has              790 .. .. .. .. .. .. 1004         complete: 790 <= 813 and 812 <= 1004
//!   journal has                             900 .. 1004         hole: 813 to 899 are nowhere
//!   journal has              790 .. 805                         hole: the journal itself lost its end
//! ```
//! Frames that sled covers are read, since the chain is proved from the journal's first frame to its last, and not applied again: sled says
//! that it covers a commit only after everything up to it was forced to the disk. Later frames are absolute, and the last one wins.
//! Invariant: a folder is served only if it is complete. Must never: change a file; repair is the start's own, later.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use super::checkpoint::Keeper;
use super::disk::{Disk, RealDisk};
use super::folder::{Folder, FolderError, read_format};
use super::frame::{Body, CommitSeq, SegmentHeader, StoreId};
use super::journal::{Files, JournalError, Tail, replay};
use super::state::{SledState, State};

/// Why a folder can not be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The folder itself.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// sled.
    #[error("{0}")]
    State(String),
    /// sled and the journal together are not every commit.
    #[error("commits are missing: {0}; restore the folder from a backup, all of it together")]
    Incomplete(String),
    /// A thread could not be started.
    #[error(transparent)]
    Thread(#[from] std::io::Error),
}

/// What a start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Frames read from the journal.
    pub frames: u64,
    /// The last commit.
    pub last: CommitSeq,
    /// What sled covered.
    pub covered: CommitSeq,
    /// A torn frame at the journal's end, as file and offset: normal after a crash.
    pub torn: Option<(String, usize)>,
    /// sled was older than the journal's last checkpoint says; the journal still had everything since.
    pub rolled_back: bool,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "last commit {}, {} frames in the journal, sled covers commit {}",
            self.last, self.frames, self.covered
        )?;
        if let Some((name, offset)) = &self.torn {
            write!(
                f,
                "; the journal ends in an unreadable frame, as after a crash in the middle of a write (journal/{name}, offset {offset})"
            )?;
        }
        if self.rolled_back {
            write!(f, "; sled was older than its last checkpoint and the journal had the rest")?;
        }
        Ok(())
    }
}

/// What [`recover`] hands to a start.
pub struct Recovered {
    /// The keeper, with every change of the journal taken.
    pub keeper: Keeper<SledState>,
    /// The journal's end; `None` in a new folder.
    pub tail: Option<Tail>,
    /// For people.
    pub report: Recovery,
}

/// Reads everything and checks that it is complete.
///
/// # Errors
/// [`OpenError`], which says what is missing and where.
pub fn recover(folder: &Folder, files: &Files<RealDisk>, is_new: bool) -> Result<Recovered, OpenError> {
    let state = SledState::open(&folder.sled()).map_err(OpenError::State)?;
    let covered = state.covered();
    let mut keeper = Keeper::new(state);
    let tail = replay(files, covered, &mut |seq, body| match body {
        Body::Commit(changes) => keeper.take(changes, seq),
        Body::Covered | Body::Checkpoint(_) => {}
    })?;
    let report = match &tail {
        None if is_new && covered == CommitSeq(0) => {
            Recovery { frames: 0, last: CommitSeq(0), covered, torn: None, rolled_back: false }
        }
        None => return Err(OpenError::Incomplete("the journal folder holds no journal".into())),
        Some(tail) if tail.first > covered.next() => {
            let (next, first) = (covered.next(), tail.first);
            return Err(OpenError::Incomplete(format!(
                "sled ends before commit {next}, the journal starts with {first}"
            )));
        }
        Some(tail) if tail.last() < covered => {
            let last = tail.last();
            return Err(OpenError::Incomplete(format!("sled has commit {covered}, but the journal ends with {last}")));
        }
        Some(tail) => Recovery {
            frames: tail.frames,
            last: tail.last(),
            covered,
            torn: tail.torn.clone(),
            rolled_back: tail.checkpointed > covered,
        },
    };
    Ok(Recovered { keeper, tail, report })
}

/// The store's id: the one that FORMAT names, or a new one for a folder without FORMAT, from which an interrupted first start is cleared away.
///
/// # Errors
/// [`OpenError`] if the folder is of another format, or has a journal and no FORMAT.
pub fn identify(folder: &Folder, disk: &Arc<RealDisk>, fresh: StoreId) -> Result<(StoreId, bool), OpenError> {
    if let Some(store) = folder.format()? {
        return Ok((store, false));
    }
    let io = |cause| OpenError::Journal(JournalError::Io { name: String::new(), cause });
    for name in disk.list().map_err(io)? {
        let bytes = disk.open(&name).and_then(|file| super::disk::DiskFile::read_all(&file)).map_err(io)?;
        if let Some(header) = SegmentHeader::decode(&bytes) {
            let files = Files { disk: Arc::clone(disk), store: header.store, segment_bytes: 0 };
            let frames = replay(&files, CommitSeq(0), &mut |_, _| {})?.map_or(0, |tail| tail.frames);
            if frames > 0 || header.first != CommitSeq(1) {
                let problem = "it has a journal, but the file FORMAT is missing".to_owned();
                return Err(FolderError::Format { path: folder.journal(), problem }.into());
            }
        }
        disk.remove(&name).map_err(io)?;
    }
    Ok((fresh, true))
}

/// What an offline look found.
#[derive(Debug)]
pub enum Verdict {
    /// Complete, every record as it was written.
    Clean(Recovery),
    /// Complete after what a start does by itself.
    Healable(Recovery),
    /// Not to be served.
    Damaged(String),
}

/// Looks at a folder as a start would, and at every record besides. The folder must not be in use.
///
/// # Errors
/// [`OpenError`] only where nothing could be looked at: no such folder, in use, another format.
pub fn verify(path: &Path) -> Result<Verdict, OpenError> {
    if !Folder::is_store(path) {
        let problem = "there is no odometer data here (no file FORMAT)".to_owned();
        return Err(FolderError::Format { path: path.to_owned(), problem }.into());
    }
    read_format(path)?;
    for inner in ["journal", "sled"] {
        if !path.join(inner).is_dir() {
            return Ok(Verdict::Damaged(format!("the folder {inner} is missing")));
        }
    }
    let folder = Folder::take(path)?;
    let disk = Arc::new(RealDisk::new(folder.journal()));
    let (store, is_new) = identify(&folder, &disk, [0; 16])?;
    let files = Files { disk, store, segment_bytes: 0 };
    let recovered = match recover(&folder, &files, is_new) {
        Ok(recovered) => recovered,
        Err(OpenError::Folder(error)) => return Err(error.into()),
        Err(error) => return Ok(Verdict::Damaged(error.to_string())),
    };
    let damaged = recovered.keeper.state().check_all();
    Ok(match damaged {
        Err(problem) => Verdict::Damaged(problem),
        Ok(_) if recovered.report.rolled_back => Verdict::Healable(recovered.report),
        Ok(_) => Verdict::Clean(recovered.report),
    })
}
