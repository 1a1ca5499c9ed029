//! A start: from the files of a store to a committer and a checkpoint scheduler.
//!
//! Job: [`recover_store`] finds out what the files hold and rebuilds a state that is corrupt or
//! rolled back; [`RecoveredStore::start`] begins a journal segment behind it. The server calls them
//! in `EmbeddedStore::open`, and the simulation on its own [`StoreFiles`].
//! Invariant: a store is served only if it is complete. FORMAT is written after the first segment.
//! Must never: rebuild a state that only the system refused, or start a thread.

use std::sync::Arc;

use crate::failpoint::failpoint;
use crate::store::Unavailable;
use crate::store::embedded::backup::directory::{self, newest_first, read_file};
use crate::store::embedded::checkpoint::backup_schedule::NewestBackup;
use crate::store::embedded::checkpoint::messages::Now;
use crate::store::embedded::checkpoint::scheduler::{CheckpointScheduler, SchedulerConfig};
use crate::store::embedded::commit::cache::{ReadView, RecordCache};
use crate::store::embedded::commit::committer::{Committer, RetentionWatermarks};
use crate::store::embedded::commit::idempotency::IdempotencyTable;
use crate::store::embedded::commit::working_set::WorkingSet;
use crate::store::embedded::fs::{Directory, VfsFile};
use crate::store::embedded::journal::frame::{
    CommitSeq, FrameRead, NextFrame, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId, find_data_after,
    next_frame,
};
use crate::store::embedded::journal::segment::{JournalDir, SUFFIX};
use crate::store::embedded::journal::writer::Journal;
use crate::store::embedded::options::Options;
use crate::store::embedded::recovery::open::{
    OpenedStore, RebuiltState, RecoveryError, RecoveryReport, StateOrigin, open_state_and_journal,
};
use crate::store::embedded::recovery::rebuild::{
    NoRebuildSource, RebuildSource, choose_rebuild_source, load_backup,
};
use crate::store::embedded::recovery::store_files::StoreFiles;
use crate::store::embedded::state::checkpointer::steps::run_checkpoint;
use crate::store::embedded::state::{State, StateOpenError};

/// A store that is complete, before it begins a journal segment.
pub struct RecoveredStore<F: StoreFiles> {
    /// State and journal.
    pub opened: OpenedStore<F::State>,
    /// The newest backup, if there is one to rely on.
    pub newest_backup: Option<NewestBackup>,
    journal: JournalDir<F::Dir>,
    is_new: bool,
}

/// A store that is ready to serve; its threads are not started yet.
pub struct StartedStore<S: State, D: Directory> {
    /// Read-only if the disk is almost full.
    pub committer: Committer<D>,
    /// To be driven beside the committer.
    pub scheduler: CheckpointScheduler<S, D>,
    /// The committed records in memory, for readers.
    pub read_view: ReadView,
    /// Free bytes of the journal's disk; 0 if that cannot be determined.
    pub available_bytes: u64,
    /// What was found.
    pub report: RecoveryReport,
}

/// Opens state and journal, checks that they are complete, and rebuilds the state if necessary.
/// `fresh` becomes the store's id if there is no store yet.
///
/// # Errors
/// [`RecoveryError`]; the next start may try again.
pub fn recover_store<F: StoreFiles>(
    files: &mut F,
    fresh: StoreId,
    segment_bytes: u64,
    now_unix_s: u64,
) -> Result<RecoveredStore<F>, RecoveryError> {
    let (store, is_new) = read_or_create_store_id(files, fresh)?;
    let journal = JournalDir { dir: files.journal(), store, segment_bytes };
    let origin = if is_new { StateOrigin::New } else { StateOrigin::Existing };
    let opened = match open(files, &journal, origin) {
        Err(RecoveryError::StateUnusable(problem)) => {
            rebuild_state(files, &journal, problem, now_unix_s)?
        }
        other => other?,
    };
    let backups = files.backups();
    // Only unfinished files are removed. If that fails, they are removed after the next backup.
    let _ = directory::remove_partial(&*backups);
    let newest_backup = directory::newest(&*backups, store, opened.tail.last().seq);
    Ok(RecoveredStore { opened, newest_backup, journal, is_new })
}

impl<F: StoreFiles> RecoveredStore<F> {
    /// Begins a journal segment behind the last commit and makes what serves.
    ///
    /// # Errors
    /// [`RecoveryError::JournalStart`] or [`RecoveryError::DataDir`]; nothing is lost.
    pub fn start(
        self,
        files: &mut F,
        options: &Options,
        now: Now,
    ) -> Result<StartedStore<F::State, F::Dir>, RecoveryError> {
        let Self { opened, newest_backup, journal, is_new } = self;
        let OpenedStore { checkpointer, tail, idempotency_pages, report } = opened;
        let (dir, store) = (Arc::clone(&journal.dir), journal.store);
        let journal_is_complete = tail.base.seq == CommitSeq(0);
        let journal = Journal::start(journal, tail).map_err(RecoveryError::JournalStart)?;
        if is_new {
            files.write_format(store)?;
        }
        let backed_up = match options.backups {
            Some(_) => newest_backup.map_or(CommitSeq(0), |(seq, _)| seq),
            None => CommitSeq(u64::MAX),
        };
        let watermarks = RetentionWatermarks { checkpointed: report.checkpointed, backed_up };
        let read_view = ReadView::default();
        let cache = RecordCache::new(Arc::clone(&read_view), options.cache_records);
        let idempotency = IdempotencyTable::new(options.idempotency_keys, idempotency_pages);
        let mut committer =
            Committer::new(journal, WorkingSet::new(cache, idempotency), watermarks);
        let available_bytes = dir.available_bytes().unwrap_or(0);
        if available_bytes < options.min_free_disk_bytes {
            committer.set_read_only(Some(Unavailable::DiskLow.into()));
        }
        let config = SchedulerConfig {
            store,
            backups: files.backups(),
            interval: options.checkpoint_interval,
            policy: options.backups,
            min_free_bytes: options.min_free_disk_bytes,
            journal_is_complete,
            newest_backup,
        };
        let scheduler = CheckpointScheduler::new(checkpointer, config, now);
        Ok(StartedStore { committer, scheduler, read_view, available_bytes, report })
    }
}

/// Opens state and journal as they are.
///
/// # Errors
/// [`RecoveryError`].
pub(crate) fn open<F: StoreFiles>(
    files: &mut F,
    journal: &JournalDir<F::Dir>,
    origin: StateOrigin,
) -> Result<OpenedStore<F::State>, RecoveryError> {
    match files.open_state() {
        Ok(state) => open_state_and_journal(state, journal, origin),
        Err(StateOpenError::Io(problem)) => Err(RecoveryError::StateIo(problem)),
        Err(StateOpenError::Corrupt(problem)) => Err(RecoveryError::StateUnusable(problem)),
    }
}

/// Rebuilds a state that cannot be used (`problem`): chooses a source, builds a new state from it,
/// puts the old one into quarantine and opens the new one.
///
/// # Errors
/// As [`require_rebuild_source`], or [`RecoveryError::Rebuild`]; the next start tries again.
fn rebuild_state<F: StoreFiles>(
    files: &mut F,
    journal: &JournalDir<F::Dir>,
    problem: String,
    now_unix_s: u64,
) -> Result<OpenedStore<F::State>, RecoveryError> {
    let rebuild_source = require_rebuild_source(files, journal, &problem)?;
    build_new_state(files, journal, &rebuild_source).map_err(RecoveryError::Rebuild)?;
    let quarantine = files.replace_state(now_unix_s).map_err(RecoveryError::Rebuild)?;
    let mut opened = open(files, journal, StateOrigin::Existing)?;
    opened.report.rebuilt = Some(RebuiltState { problem, rebuild_source, quarantine });
    Ok(opened)
}

/// What a state that cannot be used (`problem`) can be rebuilt from; without a source, the error
/// that a start reports.
///
/// # Errors
/// [`RecoveryError::Journal`] or [`RecoveryError::NoRebuildSource`].
pub(crate) fn require_rebuild_source<F: StoreFiles>(
    files: &F,
    journal: &JournalDir<F::Dir>,
    problem: &str,
) -> Result<RebuildSource, RecoveryError> {
    choose_rebuild_source(journal, &*files.backups()).map_err(|error| match error {
        NoRebuildSource::Journal(cause) => RecoveryError::Journal(cause),
        NoRebuildSource::Missing(why) => RecoveryError::NoRebuildSource(format!(
            "the state cannot be used ({problem}), and {why}"
        )),
    })
}

/// Builds a state that covers the whole journal, beside the corrupt one.
fn build_new_state<F: StoreFiles>(
    files: &mut F,
    journal: &JournalDir<F::Dir>,
    rebuild_source: &RebuildSource,
) -> Result<(), String> {
    let mut state = files.create_rebuilding_state()?;
    if let RebuildSource::Backup(name, _) = rebuild_source {
        let backups = files.backups();
        load_backup(&mut state, |visit| read_file(&*backups, name, visit))
            .map_err(|error| error.to_string())?;
    }
    let opened = open_state_and_journal(state, journal, StateOrigin::Rebuilt)
        .map_err(|error| error.to_string())?;
    run_checkpoint(opened.checkpointer).map_err(|error| error.to_string())
}

/// The store's id, and whether the store is new: the id in FORMAT, or `fresh` for a directory
/// without FORMAT, from which the remains of an interrupted first start are removed.
///
/// # Errors
/// [`RecoveryError`] if the directory is of another format, or has data and no FORMAT.
fn read_or_create_store_id<F: StoreFiles>(
    files: &mut F,
    fresh: StoreId,
) -> Result<(StoreId, bool), RecoveryError> {
    if let Some(store) = files.read_format()? {
        return Ok((store, false));
    }
    let has_backups = newest_first(&*files.backups()).is_ok_and(|found| !found.is_empty());
    if has_backups && !failpoint!("format-lost-beside-backups") {
        return Err(RecoveryError::FormatMissing("backups"));
    }
    let dir = files.journal();
    let names = dir.list().map_err(RecoveryError::JournalDir)?;
    for name in names.iter().filter(|name| name.ends_with(SUFFIX)) {
        let bytes = dir.open(name).and_then(|file| file.read_all());
        let bytes = bytes.map_err(RecoveryError::JournalDir)?;
        if has_data(&bytes) && !failpoint!("format-lost-beside-a-journal") {
            return Err(RecoveryError::FormatMissing("a journal"));
        }
    }
    names.iter().try_for_each(|name| dir.remove(name)).map_err(RecoveryError::JournalDir)?;
    files.clear_state()?;
    Ok((fresh, true))
}

/// Whether a segment is more than what an interrupted first start leaves. A segment has its name
/// only when its header is durable, and only a second start makes a second segment.
fn has_data(segment: &[u8]) -> bool {
    SegmentHeader::decode(segment).is_none_or(|header| {
        let expected =
            NextFrame { epoch: header.epoch, seq: header.first_seq, prev_crc: header.prev_crc };
        header.first_seq != CommitSeq(1)
            || next_frame(segment, SEGMENT_HEADER_BYTES, expected, CommitSeq(0)) != FrameRead::Zeros
            || find_data_after(segment, SEGMENT_HEADER_BYTES, expected).is_some()
    })
}
