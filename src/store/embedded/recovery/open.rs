//! A start, and an offline look at the same things: is what the folder holds complete, and if not, can it be made so?
//!
//! Job: [`recover`] opens sled, reads the whole journal and tells whether together they are every commit there ever was; a state that is
//! damaged or rolled back is rebuilt, see heal.rs.
//!
//! ```text
//!   sled covers ..................... 812
//!   journal has              790 .. .. .. .. .. .. 1004         complete: 790 <= 813 and 812 <= 1004
//!   journal has                             900 .. 1004         sled is too old: rebuilt from a backup of 899 or later
//!   journal has              790 .. 805                         hole: the journal itself lost its end
//! ```
//! Frames that sled covers are read, since the chain is proved from the journal's first frame to its last, and not applied again. Later
//! frames are absolute, and the last one wins.
//! Invariant: a folder is served only if it is complete. Must never: heal what only the system refused, or change a file of the journal.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use thiserror::Error;

use crate::store::embedded::backup::directory::{newest_first, read_file};
use crate::store::embedded::codec::idempotency_page::IdempotencyPage;
use crate::store::embedded::data_dir::{DataDir, DataDirError};
use crate::store::embedded::fs::{Directory, OsDirectory, VfsFile};
use crate::store::embedded::journal::frame::{
    CommitSeq, FramePayload, FrameRead, LogPosition, NextFrame, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId,
    find_data_after, next_frame,
};
use crate::store::embedded::journal::reader::{JournalTail, replay};
use crate::store::embedded::journal::segment::{JournalDir, JournalError, SUFFIX};
use crate::store::embedded::recovery::rebuild::{
    NoRebuildSource, RebuildSource, choose_source, rebuild, replace_state_dir,
};
use crate::store::embedded::shutdown_record::PreviousShutdown;
use crate::store::embedded::state::checkpointer::{Checkpointer, run_checkpoint};
use crate::store::embedded::state::sled::SledState;
use crate::store::embedded::state::{State, StateOpenError};

/// Why a folder can not be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The folder itself.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The journal.
    #[error("{cause}; {repair_hint}")]
    Journal {
        /// What is wrong, and where.
        cause: JournalError,
        /// The commands that help.
        repair_hint: String,
    },
    /// The system refused sled.
    #[error("{0}")]
    State(String),
    /// State, journal and backups together are not every commit.
    #[error("commits are missing: {problem}; {repair_hint}")]
    Incomplete {
        /// Which, and why.
        problem: String,
        /// The commands that help.
        repair_hint: String,
    },
    /// A rebuilt state could not be written.
    #[error("the damaged state could not be rebuilt: {0}")]
    Rebuild(String),
    /// A thread could not be started.
    #[error(transparent)]
    Thread(#[from] io::Error),
}

/// A state that was rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuiltState {
    /// What was wrong with the old one.
    pub problem: String,
    /// What the new one was made from.
    pub rebuild_source: RebuildSource,
    /// Where the old one is now, as a folder's name.
    pub quarantine: String,
}

/// What a start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Frames read from the journal.
    pub frames: u64,
    /// The last commit.
    pub last: CommitSeq,
    /// What sled covered.
    pub checkpointed: CommitSeq,
    /// A torn frame at the journal's end, as file and offset: normal after a crash.
    pub torn: Option<(String, usize)>,
    /// The state was rebuilt.
    pub rebuilt: Option<RebuiltState>,
    /// How the process before this one left the folder.
    pub previous_shutdown: PreviousShutdown,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (last, frames, checkpointed) = (self.last, self.frames, self.checkpointed);
        write!(f, "last commit {last}, {frames} frames in the journal, sled covers commit {checkpointed}")?;
        if let Some((name, offset)) = &self.torn {
            write!(
                f,
                "; the journal ends in an unreadable frame, as after a crash in the middle of a write (journal/{name}, offset {offset})"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for RebuildSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JournalOnly => write!(f, "the journal, which is complete"),
            Self::Backup(name, position) => write!(f, "backups/{name} (commit {}) and the journal since", position.seq),
        }
    }
}

/// What [`open_state_and_journal`] found of a state and a journal that fit each other.
pub struct OpenedStore<S> {
    /// The keeper, with every change of the journal taken.
    pub checkpointer: Checkpointer<S>,
    /// The journal's end.
    pub tail: JournalTail,
    /// Answers that are to be given again, in the order of their pages.
    pub idempotency_pages: Vec<(u64, Arc<IdempotencyPage>)>,
    /// For people.
    pub report: RecoveryReport,
}

/// Why a state and a journal are not every commit together.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The state is damaged, too old or of another history; one sentence. It can be rebuilt.
    #[error("{0}")]
    State(String),
    /// The journal can not be read, or has a hole.
    #[error(transparent)]
    Journal(JournalError),
    /// The journal ends before the state does; one sentence.
    #[error("{0}")]
    JournalTruncated(String),
}

/// Where a state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateOrigin {
    /// A folder that never was a store.
    New,
    /// An earlier process.
    Existing,
    /// A backup, a moment ago: older than the journal's last checkpoint, and rightly so.
    Rebuilt,
}

/// Puts the journal's changes in front of the state and checks that together they are every commit.
///
/// # Errors
/// [`RecoveryError`].
pub fn open_state_and_journal<S: State, D: Directory>(
    state: S,
    journal: &JournalDir<D>,
    origin: StateOrigin,
) -> Result<OpenedStore<S>, RecoveryError> {
    let mut checkpointer = Checkpointer::open(state).map_err(RecoveryError::State)?;
    let positions = checkpointer.required_positions();
    let [checkpointed, _, reached] = positions;
    let mut other_history = false;
    let tail = replay(journal, checkpointed.seq, &mut |position, body| {
        other_history |= positions.iter().any(|known| known.seq == position.seq && known.crc != position.crc);
        match body {
            FramePayload::Commit(changes) => checkpointer.stage(changes, position),
            FramePayload::SkippedCommit | FramePayload::Checkpoint(_) => {}
        }
    });
    let tail = match tail.map_err(RecoveryError::Journal)? {
        Some(tail) => tail,
        None if origin == StateOrigin::New && reached == LogPosition::default() => {
            JournalTail::after(LogPosition::default())
        }
        None => return Err(RecoveryError::JournalTruncated("the journal folder holds no journal".to_owned())),
    };
    other_history |= tail.base.seq == checkpointed.seq && tail.base.crc != checkpointed.crc;
    if tail.base.seq > checkpointed.seq {
        let (next, first) = (checkpointed.seq.next(), tail.base.seq.next());
        return Err(RecoveryError::State(format!("sled ends before commit {next}, the journal starts with {first}")));
    }
    if tail.last().seq < reached.seq {
        let (has, last) = (reached.seq, tail.last().seq);
        return Err(RecoveryError::JournalTruncated(format!(
            "sled has commit {has}, but the journal ends with {last}"
        )));
    }
    if other_history {
        return Err(RecoveryError::State(format!("sled's commit {} is not the journal's", checkpointed.seq)));
    }
    if tail.last_checkpoint > checkpointed.seq && origin != StateOrigin::Rebuilt {
        let (is, was) = (checkpointed.seq, tail.last_checkpoint);
        return Err(RecoveryError::State(format!(
            "sled covers commit {is}, but the journal knows a checkpoint of {was}"
        )));
    }
    if origin == StateOrigin::Rebuilt {
        // The new state will cover the last frame, which must then not be lost: only the kernel may have it.
        tail.resync_tail(journal).map_err(RecoveryError::Journal)?;
        // The old state may have covered a checkpoint frame at the journal's end; the new one must not stop at the last commit before it.
        checkpointer.stage([], tail.last());
    }
    let report = RecoveryReport {
        frames: tail.frames,
        last: tail.last().seq,
        checkpointed: checkpointed.seq,
        torn: tail.torn.clone(),
        rebuilt: None,
        previous_shutdown: PreviousShutdown::default(),
    };
    let idempotency_pages = checkpointer.idempotency_pages().map_err(RecoveryError::State)?;
    Ok(OpenedStore { checkpointer, tail, idempotency_pages, report })
}

pub(crate) fn open(
    data_dir: &DataDir,
    journal: &JournalDir<OsDirectory>,
    origin: StateOrigin,
) -> Result<OpenedStore<SledState>, OpenError> {
    match SledState::open(&data_dir.sled()) {
        Ok(state) => open_state_and_journal(state, journal, origin),
        Err(StateOpenError::Io(problem)) => return Err(OpenError::State(problem)),
        Err(StateOpenError::Corrupt(problem)) => Err(RecoveryError::State(problem)),
    }
    .map_err(|error| match error {
        RecoveryError::Journal(cause) => OpenError::Journal { cause, repair_hint: repair_hint(data_dir) },
        RecoveryError::JournalTruncated(problem) => {
            OpenError::Incomplete { problem, repair_hint: repair_hint(data_dir) }
        }
        RecoveryError::State(problem) => OpenError::Rebuild(problem),
    })
}

/// Reads everything, checks that it is complete, and rebuilds the state if that is what it takes. `now_unix_s` names the place of the old one.
///
/// # Errors
/// [`OpenError`], which says what is missing, where, and what helps.
pub fn recover(
    data_dir: &DataDir,
    journal: &JournalDir<OsDirectory>,
    is_new: bool,
    now_unix_s: u64,
) -> Result<OpenedStore<SledState>, OpenError> {
    let origin = if is_new { StateOrigin::New } else { StateOrigin::Existing };
    let mut recovered = match open(data_dir, journal, origin) {
        Err(OpenError::Rebuild(problem)) => rebuild_state(data_dir, journal, problem, now_unix_s)?,
        other => other?,
    };
    recovered.report.previous_shutdown = data_dir.previous_shutdown().clone();
    Ok(recovered)
}

fn rebuild_state(
    data_dir: &DataDir,
    journal: &JournalDir<OsDirectory>,
    problem: String,
    now_unix_s: u64,
) -> Result<OpenedStore<SledState>, OpenError> {
    let rebuild_source = rebuild_source(data_dir, journal, &problem)?;
    let quarantine = data_dir.quarantine_name(now_unix_s);
    build_state(data_dir, journal, &rebuild_source).map_err(OpenError::Rebuild)?;
    replace_state_dir(data_dir.path(), &quarantine).map_err(|error| OpenError::Rebuild(error.to_string()))?;
    let mut recovered = open(data_dir, journal, StateOrigin::Existing)?;
    recovered.report.rebuilt = Some(RebuiltState { problem, rebuild_source, quarantine });
    Ok(recovered)
}

pub(crate) fn rebuild_source(
    data_dir: &DataDir,
    journal: &JournalDir<OsDirectory>,
    problem: &str,
) -> Result<RebuildSource, OpenError> {
    choose_source(journal, &OsDirectory::new(data_dir.backups())).map_err(|error| match error {
        NoRebuildSource::Journal(cause) => OpenError::Journal { cause, repair_hint: repair_hint(data_dir) },
        NoRebuildSource::Missing(why) => {
            let problem = format!("the state can not be used ({problem}), and {why}");
            OpenError::Incomplete { problem, repair_hint: repair_hint(data_dir) }
        }
    })
}

/// Makes a state that covers the whole journal, beside the damaged one.
fn build_state(
    data_dir: &DataDir,
    journal: &JournalDir<OsDirectory>,
    rebuild_source: &RebuildSource,
) -> Result<(), String> {
    let path = data_dir.path().join("sled.rebuilding");
    if path.exists() {
        fs::remove_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    DirBuilder::new().mode(0o700).create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut state = SledState::open(&path).map_err(|trouble| trouble.to_string())?;
    if let RebuildSource::Backup(name, _) = rebuild_source {
        let backups = OsDirectory::new(data_dir.backups());
        rebuild(&mut state, |visit| read_file(&backups, name, visit)).map_err(|error| error.to_string())?;
    }
    let recovered = open_state_and_journal(state, journal, StateOrigin::Rebuilt).map_err(|error| error.to_string())?;
    run_checkpoint(recovered.checkpointer).map_err(|trouble| trouble.to_string())
}

/// What to do where nothing can be rebuilt, with the names to type.
fn repair_hint(data_dir: &DataDir) -> String {
    let path = data_dir.path().display();
    let backups = OsDirectory::new(data_dir.backups());
    let is_whole = |(_, name): &(CommitSeq, String)| read_file(&backups, name, &mut |_, _| Ok(())).is_ok();
    let newest = newest_first(&backups).ok().and_then(|found| found.into_iter().find(is_whole));
    let from =
        newest.map_or_else(|| "BACKUP".to_owned(), |(_, name)| data_dir.backups().join(name).display().to_string());
    format!(
        "keep {path} as it is; if the disk it came from can still be read, copy all of it again; \
         otherwise `odometer restore --from {from} --data-dir NEW-FOLDER` brings back what that backup holds, and the numbers issued \
         after it would be issued again"
    )
}

/// The store's id: the one that FORMAT names, or a new one for a folder without FORMAT, from which an interrupted first start is cleared away.
///
/// # Errors
/// [`OpenError`] if the folder is of another format, or has a journal and no FORMAT.
pub fn read_or_create_store_id(
    data_dir: &DataDir,
    dir: &Arc<OsDirectory>,
    fresh: StoreId,
) -> Result<(StoreId, bool), OpenError> {
    if let Some(store) = data_dir.format()? {
        return Ok((store, false));
    }
    let problem = |what: &str| {
        let problem = format!("it has {what}, but the file FORMAT is missing");
        OpenError::DataDir(DataDirError::Format { path: data_dir.path().to_owned(), problem })
    };
    let io = |cause| OpenError::DataDir(DataDirError::Io { path: data_dir.journal(), cause });
    if newest_first(&OsDirectory::new(data_dir.backups())).is_ok_and(|found| !found.is_empty()) {
        return Err(problem("backups"));
    }
    let names = dir.list().map_err(io)?;
    for name in names.iter().filter(|name| name.ends_with(SUFFIX)) {
        let bytes = dir.open(name).and_then(|file| file.read_all()).map_err(io)?;
        let header = SegmentHeader::decode(&bytes);
        // A segment has its name only when its header is durable; a second one is made only by a second start.
        let used = header.is_none_or(|header| {
            let expected = NextFrame { epoch: header.epoch, seq: header.first_seq, prev_crc: header.prev_crc };
            header.first_seq != CommitSeq(1)
                || next_frame(&bytes, SEGMENT_HEADER_BYTES, expected, CommitSeq(0)) != FrameRead::Zeros
                || find_data_after(&bytes, SEGMENT_HEADER_BYTES, expected).is_some()
        });
        if used {
            return Err(problem("a journal"));
        }
    }
    names.iter().try_for_each(|name| dir.remove(name)).map_err(io)?;
    let sled = data_dir.sled();
    let io = |cause| OpenError::DataDir(DataDirError::Io { path: sled.clone(), cause });
    fs::remove_dir_all(&sled).and_then(|()| DirBuilder::new().mode(0o700).create(&sled)).map_err(io)?;
    Ok((fresh, true))
}
