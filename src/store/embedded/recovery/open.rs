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
use crate::store::embedded::codec::idempotency_page::Answers;
use crate::store::embedded::data_dir::{Folder, FolderError};
use crate::store::embedded::fs::{Disk, DiskFile, RealDisk};
use crate::store::embedded::journal::frame::{
    Body, CommitSeq, Expected, Found, Mark, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId, next_frame, remains_after,
};
use crate::store::embedded::journal::reader::{Tail, replay};
use crate::store::embedded::journal::segment::{Files, JournalError, SUFFIX};
use crate::store::embedded::recovery::rebuild::{Base, NoBase, plan, rebuild, swap};
use crate::store::embedded::shutdown_record::LastStop;
use crate::store::embedded::state::checkpointer::{Keeper, settle};
use crate::store::embedded::state::sled::SledState;
use crate::store::embedded::state::{State, StateTrouble};

/// Why a folder can not be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The folder itself.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The journal.
    #[error("{cause}; {advice}")]
    Journal {
        /// What is wrong, and where.
        cause: JournalError,
        /// The commands that help.
        advice: String,
    },
    /// The system refused sled.
    #[error("{0}")]
    State(String),
    /// State, journal and backups together are not every commit.
    #[error("commits are missing: {problem}; {advice}")]
    Incomplete {
        /// Which, and why.
        problem: String,
        /// The commands that help.
        advice: String,
    },
    /// A rebuilt state could not be written.
    #[error("the damaged state could not be rebuilt: {0}")]
    Heal(String),
    /// A thread could not be started.
    #[error(transparent)]
    Thread(#[from] io::Error),
}

/// A state that was rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healed {
    /// What was wrong with the old one.
    pub problem: String,
    /// What the new one was made from.
    pub base: Base,
    /// Where the old one is now, as a folder's name.
    pub quarantine: String,
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
    /// The state was rebuilt.
    pub healed: Option<Healed>,
    /// How the process before this one left the folder.
    pub last_stop: LastStop,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (last, frames, covered) = (self.last, self.frames, self.covered);
        write!(f, "last commit {last}, {frames} frames in the journal, sled covers commit {covered}")?;
        if let Some((name, offset)) = &self.torn {
            write!(
                f,
                "; the journal ends in an unreadable frame, as after a crash in the middle of a write (journal/{name}, offset {offset})"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "the journal, which is complete"),
            Self::Backup(name, mark) => write!(f, "backups/{name} (commit {}) and the journal since", mark.seq),
        }
    }
}

/// What [`attach`] found of a state and a journal that fit each other.
pub struct Recovered<S> {
    /// The keeper, with every change of the journal taken.
    pub keeper: Keeper<S>,
    /// The journal's end.
    pub tail: Tail,
    /// Answers that are to be given again, in the order of their pages.
    pub answers: Vec<(u64, Arc<Answers>)>,
    /// For people.
    pub report: Recovery,
}

/// Why a state and a journal are not every commit together.
#[derive(Debug, Error)]
pub enum Misfit {
    /// The state is damaged, too old or of another history; one sentence. It can be rebuilt.
    #[error("{0}")]
    State(String),
    /// The journal can not be read, or has a hole.
    #[error(transparent)]
    Journal(JournalError),
    /// The journal ends before the state does; one sentence.
    #[error("{0}")]
    LostEnd(String),
}

/// Where a state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A folder that never was a store.
    New,
    /// An earlier process.
    Found,
    /// A backup, a moment ago: older than the journal's last checkpoint, and rightly so.
    Rebuilt,
}

/// Puts the journal's changes in front of the state and checks that together they are every commit.
///
/// # Errors
/// [`Misfit`].
pub fn attach<S: State, D: Disk>(state: S, files: &Files<D>, origin: Origin) -> Result<Recovered<S>, Misfit> {
    let mut keeper = Keeper::open(state).map_err(Misfit::State)?;
    let marks = keeper.marks();
    let [covered, _, reached] = marks;
    let mut other_history = false;
    let tail = replay(files, covered.seq, &mut |mark, body| {
        other_history |= marks.iter().any(|known| known.seq == mark.seq && known.chain != mark.chain);
        match body {
            Body::Commit(changes) => keeper.take(changes, mark),
            Body::Covered | Body::Checkpoint(_) => {}
        }
    });
    let tail = match tail.map_err(Misfit::Journal)? {
        Some(tail) => tail,
        None if origin == Origin::New && reached == Mark::default() => Tail::after(Mark::default()),
        None => return Err(Misfit::LostEnd("the journal folder holds no journal".to_owned())),
    };
    other_history |= tail.before.seq == covered.seq && tail.before.chain != covered.chain;
    if tail.before.seq > covered.seq {
        let (next, first) = (covered.seq.next(), tail.before.seq.next());
        return Err(Misfit::State(format!("sled ends before commit {next}, the journal starts with {first}")));
    }
    if tail.last().seq < reached.seq {
        let (has, last) = (reached.seq, tail.last().seq);
        return Err(Misfit::LostEnd(format!("sled has commit {has}, but the journal ends with {last}")));
    }
    if other_history {
        return Err(Misfit::State(format!("sled's commit {} is not the journal's", covered.seq)));
    }
    if tail.checkpointed > covered.seq && origin != Origin::Rebuilt {
        let (is, was) = (covered.seq, tail.checkpointed);
        return Err(Misfit::State(format!("sled covers commit {is}, but the journal knows a checkpoint of {was}")));
    }
    if origin == Origin::Rebuilt {
        // The new state will cover the last frame, which must then not be lost: only the kernel may have it.
        tail.make_durable(files).map_err(Misfit::Journal)?;
        // The old state may have covered a checkpoint frame at the journal's end; the new one must not stop at the last commit before it.
        keeper.take([], tail.last());
    }
    let report = Recovery {
        frames: tail.frames,
        last: tail.last().seq,
        covered: covered.seq,
        torn: tail.torn.clone(),
        healed: None,
        last_stop: LastStop::default(),
    };
    let answers = keeper.answers().map_err(Misfit::State)?;
    Ok(Recovered { keeper, tail, answers, report })
}

pub(crate) fn open(
    folder: &Folder,
    files: &Files<RealDisk>,
    origin: Origin,
) -> Result<Recovered<SledState>, OpenError> {
    match SledState::open(&folder.sled()) {
        Ok(state) => attach(state, files, origin),
        Err(StateTrouble::System(problem)) => return Err(OpenError::State(problem)),
        Err(StateTrouble::Damaged(problem)) => Err(Misfit::State(problem)),
    }
    .map_err(|misfit| match misfit {
        Misfit::Journal(cause) => OpenError::Journal { cause, advice: advice(folder) },
        Misfit::LostEnd(problem) => OpenError::Incomplete { problem, advice: advice(folder) },
        Misfit::State(problem) => OpenError::Heal(problem),
    })
}

/// Reads everything, checks that it is complete, and rebuilds the state if that is what it takes. `now_unix_s` names the place of the old one.
///
/// # Errors
/// [`OpenError`], which says what is missing, where, and what helps.
pub fn recover(
    folder: &Folder,
    files: &Files<RealDisk>,
    is_new: bool,
    now_unix_s: u64,
) -> Result<Recovered<SledState>, OpenError> {
    let origin = if is_new { Origin::New } else { Origin::Found };
    let mut recovered = match open(folder, files, origin) {
        Err(OpenError::Heal(problem)) => heal(folder, files, problem, now_unix_s)?,
        other => other?,
    };
    recovered.report.last_stop = folder.last_stop().clone();
    Ok(recovered)
}

fn heal(
    folder: &Folder,
    files: &Files<RealDisk>,
    problem: String,
    now_unix_s: u64,
) -> Result<Recovered<SledState>, OpenError> {
    let base = base(folder, files, &problem)?;
    let quarantine = folder.new_quarantine(now_unix_s);
    make_state(folder, files, &base).map_err(OpenError::Heal)?;
    swap(folder.path(), &quarantine).map_err(|error| OpenError::Heal(error.to_string()))?;
    let mut recovered = open(folder, files, Origin::Found)?;
    recovered.report.healed = Some(Healed { problem, base, quarantine });
    Ok(recovered)
}

pub(crate) fn base(folder: &Folder, files: &Files<RealDisk>, problem: &str) -> Result<Base, OpenError> {
    plan(files, &RealDisk::new(folder.backups())).map_err(|error| match error {
        NoBase::Journal(cause) => OpenError::Journal { cause, advice: advice(folder) },
        NoBase::Missing(why) => {
            let problem = format!("the state can not be used ({problem}), and {why}");
            OpenError::Incomplete { problem, advice: advice(folder) }
        }
    })
}

/// Makes a state that covers the whole journal, beside the damaged one.
fn make_state(folder: &Folder, files: &Files<RealDisk>, base: &Base) -> Result<(), String> {
    let path = folder.path().join("sled.healing");
    if path.exists() {
        fs::remove_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    DirBuilder::new().mode(0o700).create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut state = SledState::open(&path).map_err(|trouble| trouble.to_string())?;
    if let Base::Backup(name, _) = base {
        let backups = RealDisk::new(folder.backups());
        rebuild(&mut state, |visit| read_file(&backups, name, visit)).map_err(|error| error.to_string())?;
    }
    let recovered = attach(state, files, Origin::Rebuilt).map_err(|misfit| misfit.to_string())?;
    settle(recovered.keeper).map_err(|trouble| trouble.to_string())
}

/// What to do where nothing can be rebuilt, with the names to type.
fn advice(folder: &Folder) -> String {
    let data_dir = folder.path().display();
    let backups = RealDisk::new(folder.backups());
    let is_whole = |(_, name): &(CommitSeq, String)| read_file(&backups, name, &mut |_, _| Ok(())).is_ok();
    let newest = newest_first(&backups).ok().and_then(|found| found.into_iter().find(is_whole));
    let from =
        newest.map_or_else(|| "BACKUP".to_owned(), |(_, name)| folder.backups().join(name).display().to_string());
    format!(
        "keep {data_dir} as it is; if the disk it came from can still be read, copy all of it again; \
         otherwise `odometer restore --from {from} --data-dir NEW-FOLDER` brings back what that backup holds, and the numbers issued \
         after it would be issued again"
    )
}

/// The store's id: the one that FORMAT names, or a new one for a folder without FORMAT, from which an interrupted first start is cleared away.
///
/// # Errors
/// [`OpenError`] if the folder is of another format, or has a journal and no FORMAT.
pub fn identify(folder: &Folder, disk: &Arc<RealDisk>, fresh: StoreId) -> Result<(StoreId, bool), OpenError> {
    if let Some(store) = folder.format()? {
        return Ok((store, false));
    }
    let problem = |what: &str| {
        let problem = format!("it has {what}, but the file FORMAT is missing");
        OpenError::Folder(FolderError::Format { path: folder.path().to_owned(), problem })
    };
    let io = |cause| OpenError::Folder(FolderError::Io { path: folder.journal(), cause });
    if newest_first(&RealDisk::new(folder.backups())).is_ok_and(|found| !found.is_empty()) {
        return Err(problem("backups"));
    }
    let names = disk.list().map_err(io)?;
    for name in names.iter().filter(|name| name.ends_with(SUFFIX)) {
        let bytes = disk.open(name).and_then(|file| file.read_all()).map_err(io)?;
        let header = SegmentHeader::decode(&bytes);
        // A segment has its name only when its header is durable; a second one is made only by a second start.
        let used = header.is_none_or(|header| {
            let expected = Expected { epoch: header.epoch, seq: header.first, chain: header.chain };
            header.first != CommitSeq(1)
                || next_frame(&bytes, SEGMENT_HEADER_BYTES, expected, CommitSeq(0)) != Found::Zeros
                || remains_after(&bytes, SEGMENT_HEADER_BYTES, expected).is_some()
        });
        if used {
            return Err(problem("a journal"));
        }
    }
    names.iter().try_for_each(|name| disk.remove(name)).map_err(io)?;
    let sled = folder.sled();
    let io = |cause| OpenError::Folder(FolderError::Io { path: sled.clone(), cause });
    fs::remove_dir_all(&sled).and_then(|()| DirBuilder::new().mode(0o700).create(&sled)).map_err(io)?;
    Ok((fresh, true))
}
