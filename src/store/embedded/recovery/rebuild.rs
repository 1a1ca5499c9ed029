//! Rebuilds the state from a verified backup and the journal after it.
//!
//! Job: the steps of a rebuild, which `rebuild_state` in start.rs takes in order:
//! [`choose_rebuild_source`] chooses what the state can be rebuilt from; [`load_backup`] fills an
//! empty state from a backup; [`replace_state_dir`] replaces the old state by the new one.
//!
//! ```text
//! backups/  the newest that is intact, of this store, and whose last commit is in the journal ──┐
//! journal/  every later frame, replayed as at any start ────────────────────────────────────────┤
//!                                                                      sled.rebuilding ◄────────┘
//! sled/  corrupt, stale or of another history  ── rename ──► quarantine-<time>/sled
//! sled.rebuilding                              ── rename ──► sled/
//! ```
//! A crash leaves the corrupt state, none, or the new one. In the first two cases the next start
//! rebuilds it again.
//! Invariant: backup and journal together are every commit; the CRC of the backup's last frame
//! proves that the journal continues it.
//! Must never: use a backup that was not verified in this run, or delete the corrupt state.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::failpoint::failpoint;
use crate::store::embedded::backup::directory::{self, newest_first, read_file};
use crate::store::embedded::backup::format::{BackupError, RecordVisitor, Summary};
use crate::store::embedded::codec::key::BUCKETS;
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition};
use crate::store::embedded::journal::reader::{JournalTail, replay};
use crate::store::embedded::journal::segment::{JournalDir, JournalError};
use crate::store::embedded::state::digests::{self, BucketDigests, DigestTable};
use crate::store::embedded::state::{State, WriteOp};

/// The number of records that are written to the new state at once.
const BATCH: usize = 2048;

/// What a state is rebuilt from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebuildSource {
    /// The journal alone: it still has its first frame.
    JournalOnly,
    /// A backup, by its file name and last commit, and the journal after it.
    Backup(String, LogPosition),
}

/// Why a state cannot be rebuilt.
#[derive(Debug)]
pub enum NoRebuildSource {
    /// The journal cannot be read or is corrupt.
    Journal(JournalError),
    /// The journal starts after every usable backup; one sentence.
    Missing(String),
}

/// Chooses the newest intact backup that the journal continues, or the journal alone if it has
/// every frame.
///
/// # Errors
/// [`NoRebuildSource`].
pub fn choose_rebuild_source<D: Directory>(
    journal: &JournalDir<D>,
    backups: &D,
) -> Result<RebuildSource, NoRebuildSource> {
    let listed = newest_first(backups).unwrap_or_default();
    // The CRCs that the journal has at the last commits of the backups.
    let mut crcs: HashMap<CommitSeq, Option<u32>> =
        listed.iter().map(|(seq, _)| (*seq, None)).collect();
    let tail = replay(journal, CommitSeq(u64::MAX), &mut |position, _| {
        crcs.entry(position.seq).and_modify(|crc| *crc = Some(position.crc));
    });
    let tail = tail.map_err(NoRebuildSource::Journal)?;
    let tail = tail.ok_or_else(|| {
        NoRebuildSource::Missing("the directory journal has no segment".to_owned())
    })?;
    crcs.entry(tail.base.seq).and_modify(|crc| *crc = Some(tail.base.crc));
    let mut rejected = Vec::new();
    for (seq, name) in listed {
        match check_backup(journal, backups, &tail, &name, crcs.get(&seq).copied().flatten()) {
            Ok(position) => return Ok(RebuildSource::Backup(name, position)),
            Err(why) => rejected.push(format!("backups/{name}: {why}")),
        }
    }
    if tail.base.seq == CommitSeq(0) {
        return Ok(RebuildSource::JournalOnly);
    }
    let first = tail.base.seq.next();
    let why =
        if rejected.is_empty() { "there is no backup".to_owned() } else { rejected.join("; ") };
    Err(NoRebuildSource::Missing(format!(
        "the journal starts with commit {first}, and no usable backup has the commits before it: \
         {why}"
    )))
}

/// Verifies a backup and checks that the journal continues it. `crc`: that of the journal's frame
/// with the number of the backup's last commit.
fn check_backup<D: Directory>(
    journal: &JournalDir<D>,
    backups: &D,
    tail: &JournalTail,
    name: &str,
    crc: Option<u32>,
) -> Result<LogPosition, String> {
    let header = directory::header(backups, name).map_err(|error| error.to_string())?;
    let last = header.position.seq;
    if header.store != journal.store && !failpoint!("backup-of-another-store") {
        return Err("it belongs to another store".to_owned());
    }
    if directory::backup_file_name(last) != name {
        return Err("its name does not match its last commit".to_owned());
    }
    if last < tail.base.seq {
        return Err(format!("it ends with commit {last}, before the journal starts"));
    }
    if crc != Some(header.position.crc) && !failpoint!("backup-of-another-history") {
        return Err(format!("its last commit, {last}, is not in this journal"));
    }
    if failpoint!("backup-not-verified-for-a-rebuild") {
        return Ok(header.position);
    }
    let summary = read_file(backups, name, &mut |_, _| Ok(()));
    Ok(summary.map_err(|error| error.to_string())?.header.position)
}

/// Fills an empty state from a backup, saves its digests, and returns the backup's summary.
///
/// # Errors
/// [`BackupError`]; the state is then useless.
pub fn load_backup<S: State>(
    state: &mut S,
    read: impl FnOnce(RecordVisitor<'_>) -> Result<Summary, BackupError>,
) -> Result<Summary, BackupError> {
    let mut table: DigestTable = vec![0; BUCKETS.into()];
    let mut batch: Vec<WriteOp> = Vec::with_capacity(BATCH);
    let summary = read(&mut |storage_key, record| {
        digests::add(&mut table, storage_key, record);
        batch.push((storage_key.to_vec(), Some(record.to_vec())));
        if batch.len() == BATCH { state.write_batch(&std::mem::take(&mut batch)) } else { Ok(()) }
    })?;
    let position = summary.header.position;
    let mut finish = || {
        state.write_batch(&batch)?;
        state.sync_through(position)?;
        state.save_digests(&BucketDigests::encode(position, position, &table))
    };
    finish().map_err(BackupError::Aborted)?;
    Ok(summary)
}

/// Moves `sled` into the directory `quarantine` and `sled.rebuilding` to `sled`, durably.
///
/// # Errors
/// Any I/O error; the next start rebuilds the state again.
pub fn replace_state_dir(data_dir: &Path, quarantine: &str) -> io::Result<()> {
    let sync = |dir: &Path| File::open(dir)?.sync_all();
    let quarantine = data_dir.join(quarantine);
    DirBuilder::new().mode(0o700).create(&quarantine)?;
    fs::rename(data_dir.join("sled"), quarantine.join("sled"))?;
    // The corrupt state must be durable in the quarantine before the new one takes its name.
    if !failpoint!("quarantine-not-synced") {
        sync(&quarantine)?;
    }
    if !failpoint!("quarantined-state-not-synced") {
        sync(data_dir)?;
    }
    fs::rename(data_dir.join("sled.rebuilding"), data_dir.join("sled"))?;
    if failpoint!("rebuilt-state-not-synced") { Ok(()) } else { sync(data_dir) }
}
