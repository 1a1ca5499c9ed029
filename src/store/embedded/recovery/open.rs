//! Opening a state and its journal: are they together every commit there ever was?
//!
//! Job: [`open_state_and_journal`] reads the whole journal over the state and compares positions.
//!
//! ```text
//!   state holds commits up to ....... 812
//!   journal has              790 .. .. .. .. .. .. 1004      complete: 790 <= 813, 812 <= 1004
//!   journal has                             900 .. 1004      state too old: to be rebuilt
//!   journal has              790 .. 805                      the journal lost its end
//! ```
//!
//! Frames that the state already holds are read, since the chain is verified from the journal's
//! first frame to its last, and not applied again. Later frames hold absolute values: the last one
//! wins.
//! Invariant: what is returned is complete.
//! Must never: change a file of the journal, other than to write its last frame again.

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::failpoint::failpoint;
use crate::store::embedded::codec::idempotency_page::IdempotencyPage;
use crate::store::embedded::data_dir::DataDirError;
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::frame::{CommitSeq, FramePayload, LogPosition};
use crate::store::embedded::journal::reader::{JournalTail, replay};
use crate::store::embedded::journal::segment::{JournalDir, JournalError};
use crate::store::embedded::recovery::rebuild::RebuildSource;
use crate::store::embedded::shutdown_record::PreviousShutdown;
use crate::store::embedded::state::State;
use crate::store::embedded::state::checkpointer::Checkpointer;

/// Why a store cannot be opened. [`RecoveryError::StateUnusable`] never leaves recovery without an
/// attempt to rebuild the state.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The data directory itself.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The directory has data, but no FORMAT; what it has.
    #[error("it has {0}, but the file FORMAT is missing")]
    FormatMissing(&'static str),
    /// The files of an interrupted first start could not be read or removed.
    #[error("journal: {0}")]
    JournalDir(io::Error),
    /// The state is corrupt, too old or of another history; one sentence. It can be rebuilt.
    #[error("{0}")]
    StateUnusable(String),
    /// The system did not open the state, and might another time; one sentence.
    #[error("{0}")]
    StateIo(String),
    /// The journal cannot be read, or has a gap.
    #[error(transparent)]
    Journal(JournalError),
    /// The journal ends before the state does; one sentence.
    #[error("{0}")]
    JournalTruncated(String),
    /// The state must be rebuilt, and there is nothing to rebuild it from; one sentence.
    #[error("{0}")]
    NoRebuildSource(String),
    /// The rebuilt state could not be written; one sentence.
    #[error("{0}")]
    Rebuild(String),
    /// The journal is complete, but the next segment could not be made.
    #[error(transparent)]
    JournalStart(JournalError),
}

/// A state that was rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuiltState {
    /// What was wrong with the old one.
    pub problem: String,
    /// What the new one was made from.
    pub rebuild_source: RebuildSource,
    /// The directory that the old one was moved to.
    pub quarantine: String,
}

/// What a start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Frames read from the journal.
    pub frames: u64,
    /// The last commit.
    pub last: CommitSeq,
    /// The last commit that the state held.
    pub checkpointed: CommitSeq,
    /// A torn frame at the journal's end, as file and offset: normal after a crash.
    pub torn: Option<(String, usize)>,
    /// The state was rebuilt.
    pub rebuilt: Option<RebuiltState>,
    /// How the process before this one ended.
    pub previous_shutdown: PreviousShutdown,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (last, frames, checkpointed) = (self.last, self.frames, self.checkpointed);
        write!(
            f,
            "last commit {last}, {frames} frames in the journal, the state covers \
             commit {checkpointed}"
        )?;
        if let Some((name, offset)) = &self.torn {
            write!(
                f,
                "; the journal ends in an unreadable frame, as after a crash in the middle of a \
                 write (journal/{name}, offset {offset})"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for RebuildSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JournalOnly => write!(f, "the journal, which is complete"),
            Self::Backup(name, position) => {
                write!(f, "backups/{name} (commit {}) and the journal since", position.seq)
            }
        }
    }
}

/// A state and a journal that together are every commit.
pub struct OpenedStore<S> {
    /// The checkpointer in front of the state, with every change of the journal staged.
    pub checkpointer: Checkpointer<S>,
    /// The journal's end.
    pub tail: JournalTail,
    /// The stored results of idempotent requests, in the order of their pages.
    pub idempotency_pages: Vec<(u64, Arc<IdempotencyPage>)>,
    /// What was found, for the log.
    pub report: RecoveryReport,
}

/// Where a state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateOrigin {
    /// A directory that never was a store.
    New,
    /// An earlier process.
    Existing,
    /// Just rebuilt from a backup, hence older than the journal's last checkpoint.
    Rebuilt,
}

/// Stages the journal's changes in front of the state and checks that the two are every commit.
///
/// # Errors
/// [`RecoveryError::StateUnusable`], [`RecoveryError::Journal`] or
/// [`RecoveryError::JournalTruncated`].
pub fn open_state_and_journal<S: State, D: Directory>(
    state: S,
    journal: &JournalDir<D>,
    origin: StateOrigin,
) -> Result<OpenedStore<S>, RecoveryError> {
    let mut checkpointer = Checkpointer::open(state).map_err(RecoveryError::StateUnusable)?;
    let positions = checkpointer.required_positions();
    let [checkpointed, _, reached] = positions;
    let mut other_history = false;
    let tail = replay(journal, checkpointed.seq, &mut |position, body| {
        other_history |=
            positions.iter().any(|known| known.seq == position.seq && known.crc != position.crc);
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
        None => {
            return Err(RecoveryError::JournalTruncated(
                "the journal directory holds no journal".to_owned(),
            ));
        }
    };
    other_history |= tail.base.seq == checkpointed.seq && tail.base.crc != checkpointed.crc;
    check_complete(&tail, checkpointed.seq, reached.seq)?;
    if other_history && !failpoint!("state-of-another-history") {
        return Err(RecoveryError::StateUnusable(format!(
            "sled's commit {} is not the journal's",
            checkpointed.seq
        )));
    }
    let is_rolled_back = tail.last_checkpoint > checkpointed.seq;
    if is_rolled_back && origin != StateOrigin::Rebuilt && !failpoint!("state-rolled-back") {
        let (is, was) = (checkpointed.seq, tail.last_checkpoint);
        return Err(RecoveryError::StateUnusable(format!(
            "sled covers commit {is}, but the journal knows a checkpoint of {was}"
        )));
    }
    if origin == StateOrigin::Rebuilt {
        // The new state will cover the last frame, which must not be lost then: it may be in the
        // page cache only.
        if !failpoint!("tail-not-resynced-for-a-rebuild") {
            tail.resync_tail(journal).map_err(RecoveryError::Journal)?;
        }
        // The old state may have covered a checkpoint frame at the journal's end; the new one must
        // not stop at the last commit before it.
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
    let idempotency_pages =
        checkpointer.idempotency_pages().map_err(RecoveryError::StateUnusable)?;
    Ok(OpenedStore { checkpointer, tail, idempotency_pages, report })
}

/// Checks that the journal continues a state whose last checkpoint is `checkpointed`, and that it
/// has everything up to `reached`, the end of the newest checkpoint that was begun.
fn check_complete(
    tail: &JournalTail,
    checkpointed: CommitSeq,
    reached: CommitSeq,
) -> Result<(), RecoveryError> {
    if tail.base.seq > checkpointed && !failpoint!("gap-before-the-journal") {
        let (next, first) = (checkpointed.next(), tail.base.seq.next());
        return Err(RecoveryError::StateUnusable(format!(
            "sled ends before commit {next}, the journal starts with {first}"
        )));
    }
    if tail.last().seq < reached && !failpoint!("journal-ends-before-the-state") {
        let last = tail.last().seq;
        return Err(RecoveryError::JournalTruncated(format!(
            "sled has commit {reached}, but the journal ends with {last}"
        )));
    }
    Ok(())
}
