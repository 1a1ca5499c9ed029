//! Rebuilding the state: from a verified backup and the journal behind it.
//!
//! Job: [`choose_source`] chooses what a state can be rebuilt from; [`rebuild`] fills an empty state with it; [`replace_state_dir`] puts the new one in the old
//! one's place.
//!
//! ```text
//! sled            damaged, rolled back, or of another history than the journal
//! backups/        newest that is whole, is of this store, and whose last frame is one of the journal's     ──► sled.rebuilding
//! journal         every frame behind it, to be replayed as at any start                                        │
//! quarantine-<time>/sled   ◄── the damaged one, for whoever wants to look ── sled ◄────────────────────────────┘
//! ```
//! A crash anywhere leaves the damaged state in place, or none, or the new one; in the first two cases the next start does all of it again.
//! Invariant: backup and journal together are every commit: the chain proves that one goes on where the other ends.
//! Must never: use a backup that was not proved in this run, or throw the damaged state away.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::store::embedded::backup::directory::{self, newest_first, read_file};
use crate::store::embedded::backup::format::{BackupError, RecordVisitor, Summary};
use crate::store::embedded::codec::key::BUCKETS;
use crate::store::embedded::fs::Directory;
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition};
use crate::store::embedded::journal::reader::{JournalTail, replay};
use crate::store::embedded::journal::segment::{JournalDir, JournalError};
use crate::store::embedded::state::digests::{self, BucketDigests, DigestTable};
use crate::store::embedded::state::{State, WriteOp};

/// Records written to the new state at once.
const BATCH: usize = 2048;

/// What a state is rebuilt from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebuildSource {
    /// The journal, which still has its first frame.
    JournalOnly,
    /// A backup, by file name, up to its mark.
    Backup(String, LogPosition),
}

/// Why there is nothing to rebuild from.
#[derive(Debug)]
pub enum NoRebuildSource {
    /// The journal itself has a hole.
    Journal(JournalError),
    /// The journal starts behind every backup that can be relied on; one sentence.
    Missing(String),
}

/// Chooses the newest backup of `backups` that is proved and that the journal continues; or nothing, if the journal is complete by itself.
///
/// # Errors
/// [`NoRebuildSource`].
pub fn choose_source<D: Directory>(journal: &JournalDir<D>, backups: &D) -> Result<RebuildSource, NoRebuildSource> {
    let listed = newest_first(backups).unwrap_or_default();
    let mut chains: HashMap<CommitSeq, Option<u32>> = listed.iter().map(|(seq, _)| (*seq, None)).collect();
    let tail = replay(journal, CommitSeq(u64::MAX), &mut |position, _| {
        chains.entry(position.seq).and_modify(|chain| *chain = Some(position.crc));
    });
    let tail = tail.map_err(NoRebuildSource::Journal)?;
    let tail = tail.ok_or_else(|| NoRebuildSource::Missing("the journal folder holds no journal".to_owned()))?;
    chains.entry(tail.base.seq).and_modify(|chain| *chain = Some(tail.base.crc));
    let mut refused = Vec::new();
    for (seq, name) in listed {
        match check_backup(journal, backups, &tail, &name, chains.get(&seq).copied().flatten()) {
            Ok(position) => return Ok(RebuildSource::Backup(name, position)),
            Err(why) => refused.push(format!("backups/{name}: {why}")),
        }
    }
    if tail.base.seq == CommitSeq(0) {
        return Ok(RebuildSource::JournalOnly);
    }
    let first = tail.base.seq.next();
    let why = if refused.is_empty() { "there is no backup".to_owned() } else { refused.join("; ") };
    Err(NoRebuildSource::Missing(format!(
        "the journal starts with commit {first}, and nothing has those before it: {why}"
    )))
}

fn check_backup<D: Directory>(
    journal: &JournalDir<D>,
    backups: &D,
    tail: &JournalTail,
    name: &str,
    chain: Option<u32>,
) -> Result<LogPosition, String> {
    let header = directory::header(backups, name).map_err(|error| error.to_string())?;
    if header.store != journal.store {
        return Err("it is of another store".to_owned());
    }
    if directory::backup_file_name(header.position.seq) != name {
        return Err("its name is not that of its last commit".to_owned());
    }
    if header.position.seq < tail.base.seq {
        return Err(format!("it ends with commit {}, before the journal starts", header.position.seq));
    }
    if chain != Some(header.position.crc) {
        return Err(format!("its last commit, {}, is not one of this journal", header.position.seq));
    }
    let summary = read_file(backups, name, &mut |_, _| Ok(())).map_err(|error| error.to_string())?;
    Ok(summary.header.position)
}

/// Fills an empty state from a backup, seals it, and returns its mark and the number of records.
///
/// # Errors
/// [`BackupError`]; the state is then of no use.
pub fn rebuild<S: State>(
    state: &mut S,
    read: impl FnOnce(RecordVisitor<'_>) -> Result<Summary, BackupError>,
) -> Result<Summary, BackupError> {
    let mut table: DigestTable = vec![0; BUCKETS.into()];
    let mut batch: Vec<WriteOp> = Vec::with_capacity(BATCH);
    let summary = read(&mut |key, record| {
        digests::add(&mut table, key, record);
        batch.push((key.to_vec(), Some(record.to_vec())));
        if batch.len() == BATCH { state.write_batch(&std::mem::take(&mut batch)) } else { Ok(()) }
    })?;
    let position = summary.header.position;
    let mut seal = || {
        state.write_batch(&batch)?;
        state.sync_through(position)?;
        state.save_digests(&BucketDigests::encode(position, position, &table))
    };
    seal().map_err(BackupError::Aborted)?;
    Ok(summary)
}

/// Moves `sled` into `quarantine` and `sled.rebuilding` into its place, durably.
///
/// # Errors
/// Any error of the system; the next start heals again.
pub fn replace_state_dir(data_dir: &Path, quarantine: &str) -> io::Result<()> {
    let sync = |folder: &Path| File::open(folder)?.sync_all();
    let quarantine = data_dir.join(quarantine);
    DirBuilder::new().mode(0o700).create(&quarantine)?;
    fs::rename(data_dir.join("sled"), quarantine.join("sled"))?;
    sync(&quarantine)?;
    sync(data_dir)?;
    fs::rename(data_dir.join("sled.rebuilding"), data_dir.join("sled"))?;
    sync(data_dir)
}
