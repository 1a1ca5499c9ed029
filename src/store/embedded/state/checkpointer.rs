//! The keeper: takes what was committed, brings it into the state in steps, finds records that are not in memory, and cuts backups.
//!
//! Job: hold the changes since the last checkpoint; write them to the [`State`] off the path of a commit; answer loads from the newest
//! of *pending*, *being written* and *state*, so that a load never sees an older value than what was handed over; prove what the state
//! returns by its seals.
//!
//! ```text
//! committer ── changes, in order ──► pending ── begin ──► writing ── copy? unseal, put, cover ──► state ──► checkpoint frame
//!           ── load ──────────────►  looks into pending, then writing, then the state, whose bucket is proved first
//!                                                            └── a backup is the state with *writing* laid over it, before the first put
//! ```
//! Invariant: whatever is in neither *pending* nor *writing* is in the state, and sealed.
//! Must never: decide a value; report a checkpoint before state and seals are durable; return a record of a bucket that is not proved.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use thiserror::Error;

use crate::store::embedded::backup::format::BackupEncoder;
use crate::store::embedded::codec::idempotency_page::IdempotencyPage;
use crate::store::embedded::codec::key::{
    BUCKETS, IndexEntry, IndexScan, RecordKey, bucket_of_storage_key, idempotency_buckets, index_prefix,
};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::journal::frame::{LogPosition, RecordWrite};
use crate::store::embedded::state::digests::{self, BucketDigests, DigestTable, digest};
use crate::store::embedded::state::{KeyValue, State, WriteOp};

/// Records touched in one step; loads are served between two steps.
const STEP_RECORDS: usize = 512;
/// Buckets looked into in one step, most of them empty in a small store.
const STEP_BUCKETS: u16 = 256;

/// What the keeper ran into.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// The state does not hold what was written: it is to be condemned and rebuilt.
    #[error("{0}")]
    Corrupt(String),
    /// A write failed: nothing is known, the store must stop.
    #[error("{0}")]
    Io(String),
}

/// Where a checkpoint is.
enum Phase {
    Idle,
    /// A backup is being cut, up to this bucket.
    Snapshot(u16, Box<BackupEncoder>),
    /// The digests of replaced records are being taken out, up to this entry.
    SubtractDigests(usize),
    /// Records are being written, up to this entry.
    Write(usize),
    Sync,
}

/// What a step of the keeper led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// There is nothing to do.
    Idle,
    /// More is to be done.
    More,
    /// Bytes of the backup, to be written; `last` with its end.
    Chunk {
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether the backup ends with them.
        last: bool,
    },
    /// The state covers everything up to here, durably.
    Finished(LogPosition),
}

/// See the module's text.
pub struct Checkpointer<S> {
    state: S,
    digests: BucketDigests,
    memtable: HashMap<RecordKey, Option<Record>>,
    memtable_end: LogPosition,
    flushing: HashMap<RecordKey, Option<Record>>,
    /// Members among the two by their stored keys, and whether they are there: a list is laid over the state's with them.
    index_overlay: BTreeMap<Vec<u8>, bool>,
    /// `flushing` as bytes, in the order of stored keys.
    batch: Vec<WriteOp>,
    /// The table as it will be when the checkpoint is complete.
    next_digests: DigestTable,
    target: LogPosition,
    phase: Phase,
}

impl<S: State> Checkpointer<S> {
    /// A keeper in front of `state`.
    ///
    /// # Errors
    /// One sentence, if the state is not of the checkpoint that its seals are of.
    pub fn open(state: S) -> Result<Self, String> {
        let checkpointed = state.synced_through();
        let digests = match state.load_digests()? {
            Some(bytes) => BucketDigests::decode(&bytes).ok_or("sled's seals are damaged")?,
            None if checkpointed == LogPosition::default() => BucketDigests::empty(),
            None => return Err("sled's seals are missing".to_owned()),
        };
        // Checkpoints that were interrupted one after another may have left it anywhere between.
        if checkpointed.seq < digests.checkpointed.seq || checkpointed.seq > digests.target.seq {
            let (is, from, to) = (checkpointed.seq, digests.checkpointed.seq, digests.target.seq);
            return Err(format!("sled covers commit {is}, but its seals are of commits {from} to {to}"));
        }
        let memtable_end = digests.checkpointed;
        Ok(Self {
            state,
            digests,
            memtable: HashMap::new(),
            memtable_end,
            flushing: HashMap::new(),
            index_overlay: BTreeMap::new(),
            batch: Vec::new(),
            next_digests: DigestTable::new(),
            target: memtable_end,
            phase: Phase::Idle,
        })
    }

    /// The last complete checkpoint. Everything behind it must be taken before anything is loaded.
    pub fn checkpointed(&self) -> LogPosition {
        self.digests.checkpointed
    }

    /// The marks that the journal must have, if it has frames of their numbers: of the last complete checkpoint, of what the state says of
    /// itself, and of the newest checkpoint that was begun.
    pub fn required_positions(&self) -> [LogPosition; 3] {
        [self.digests.checkpointed, self.state.synced_through(), self.digests.target]
    }

    /// Takes changes that are durable in the journal, all of them up to commit `up_to`, in order.
    pub fn stage(&mut self, changes: impl IntoIterator<Item = RecordWrite>, up_to: LogPosition) {
        // A checkpoint that was interrupted may or may not have written these.
        let loose = up_to.seq <= self.digests.target.seq;
        for (key, record) in changes {
            if loose {
                self.digests.in_flight.insert(key.to_storage_key());
            }
            if matches!(key, RecordKey::IndexEntry(..)) {
                self.index_overlay.insert(key.to_storage_key(), record.is_some());
            }
            self.memtable.insert(key, record);
        }
        if up_to.seq > self.memtable_end.seq {
            self.memtable_end = up_to;
        }
    }

    /// How many records wait for the next checkpoint.
    pub fn memtable(&self) -> usize {
        self.memtable.len()
    }

    /// Whether the state does not yet cover everything that was taken.
    pub fn has_unflushed(&self) -> bool {
        self.memtable_end.seq > self.digests.checkpointed.seq
    }

    /// The newest commit that was taken: where a checkpoint or a backup that begins now would end.
    pub fn last_position(&self) -> LogPosition {
        self.memtable_end
    }

    /// The newest record of `key` that was handed over.
    ///
    /// # Errors
    /// One sentence, if the state does not hold what was written.
    pub fn load(&mut self, key: &RecordKey) -> Result<Option<Record>, String> {
        if let Some(record) = self.memtable.get(key).or_else(|| self.flushing.get(key)) {
            return Ok(record.clone());
        }
        let stored = key.to_storage_key();
        self.verify_bucket(bucket_of_storage_key(&stored))?;
        let plain = stored.get(2..).unwrap_or_default();
        let bytes = self.state.get(&stored)?;
        bytes.map(|bytes| Record::decode(key, plain, &bytes).map_err(|e| e.to_string())).transpose()
    }

    /// The part of a list that is asked for, in order.
    ///
    /// # Errors
    /// One sentence, if the state does not hold what was written.
    pub fn list(&mut self, scan: &IndexScan) -> Result<Vec<IndexEntry>, String> {
        let IndexScan { tenant, index_kind, after, limit } = scan;
        let prefix = index_prefix(*tenant, *index_kind);
        self.verify_bucket(bucket_of_storage_key(&prefix))?;
        let after = after.as_ref().map(|entry| RecordKey::IndexEntry(*tenant, entry.clone()).to_storage_key());
        let behind = after.as_ref().unwrap_or(&prefix);
        let newer = self.index_overlay.range::<[u8], _>((Bound::Excluded(behind.as_slice()), Bound::Unbounded));
        let newer: Vec<_> = newer.take_while(|(key, _)| key.starts_with(&prefix)).collect();
        // Each newer change takes one away at most, so these are enough.
        let found = self.state.keys_after(&prefix, behind, limit + newer.len())?;
        let mut stored: BTreeSet<Vec<u8>> = found.into_iter().collect();
        for (key, there) in newer {
            if *there {
                stored.insert(key.clone())
            } else {
                stored.remove(key)
            };
        }
        let members = stored.iter().take(*limit).map(|stored| match RecordKey::from_storage_key(stored) {
            Ok(RecordKey::IndexEntry(_, entry)) => Ok(entry),
            Ok(_) => Err("a member is filed as something else".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        members.collect()
    }

    /// Every page of answers, in the order of their numbers.
    ///
    /// # Errors
    /// One sentence, if the state does not hold what was written.
    pub fn idempotency_pages(&mut self) -> Result<Vec<(u64, Arc<IdempotencyPage>)>, String> {
        let mut pages = BTreeMap::new();
        for bucket in idempotency_buckets() {
            for (stored, bytes) in self.read_verified(bucket)? {
                let key = RecordKey::from_storage_key(&stored).map_err(|error| error.to_string())?;
                if let RecordKey::IdempotencyPage(page) = key {
                    let plain = stored.get(2..).unwrap_or_default();
                    pages.insert(page, Some(Record::decode(&key, plain, &bytes).map_err(|error| error.to_string())?));
                }
            }
        }
        for (key, record) in self.flushing.iter().chain(&self.memtable) {
            if let RecordKey::IdempotencyPage(page) = key {
                pages.insert(*page, record.clone());
            }
        }
        let idempotency_pages = pages.into_iter().filter_map(|(page, record)| match record {
            Some(Record::IdempotencyPage(idempotency_pages)) => Some((page, idempotency_pages)),
            _ => None,
        });
        Ok(idempotency_pages.collect())
    }

    /// Proves every bucket; returns how many records the state holds.
    ///
    /// # Errors
    /// One sentence about the first bucket that is not what was written.
    pub fn verify_all(&mut self) -> Result<u64, String> {
        (0..BUCKETS).try_fold(0, |count, bucket| Ok(count + self.read_verified(bucket)?.len() as u64))
    }

    /// Proves the bucket, once in a process. Returns how many records were read for it.
    fn verify_bucket(&mut self, bucket: u16) -> Result<usize, String> {
        if self.digests.is_verified(bucket) { Ok(0) } else { self.read_verified(bucket).map(|records| records.len()) }
    }

    /// Reads a bucket whole and proves it.
    fn read_verified(&mut self, bucket: u16) -> Result<Vec<KeyValue>, String> {
        let records = self.state.bucket(bucket)?;
        let sealed = records.iter().filter(|(key, _)| !self.digests.in_flight.contains(key));
        let sum = sealed.fold(0_u64, |sum, (key, record)| sum.wrapping_add(digest(key, record)));
        self.digests.verify(bucket, sum)?;
        Ok(records)
    }

    /// Leaves a note in the state that it is not to be used again.
    ///
    /// # Errors
    /// As [`State::mark_corrupt`].
    pub fn mark_corrupt(&mut self, why: &str) -> Result<(), String> {
        self.state.mark_corrupt(why)
    }

    /// Starts a checkpoint of everything taken so far. Does nothing while one is under way.
    pub fn start_checkpoint(&mut self) {
        if self.in_progress() {
            return;
        }
        // One that was interrupted may have reached further than the last commit: to a checkpoint frame. It never goes back.
        let reached = self.digests.target;
        self.target = if reached.seq > self.memtable_end.seq { reached } else { self.memtable_end };
        self.flushing = std::mem::take(&mut self.memtable);
        self.batch = self.flushing.iter().map(|(key, record)| entry(key, record.as_ref())).collect();
        // sled writes neighbours together, and a backup wants them in order.
        self.batch.sort_unstable();
        self.next_digests.clone_from(&self.digests.table);
        self.phase = Phase::SubtractDigests(0);
    }

    /// Starts a checkpoint with a backup in front of it, whose bytes come out of [`Checkpointer::step`]. Call it while no checkpoint is under way.
    pub fn start_backup(&mut self, encoder: BackupEncoder) {
        self.start_checkpoint();
        self.phase = Phase::Snapshot(0, Box::new(encoder));
    }

    /// Gives a backup up that could not be written; the checkpoint behind it goes on.
    pub fn abandon_backup(&mut self) {
        if matches!(self.phase, Phase::Snapshot(..)) {
            self.phase = Phase::SubtractDigests(0);
        }
    }

    /// Whether a checkpoint, perhaps with a backup in front of it, is under way.
    pub fn in_progress(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// Takes one step of what is under way.
    ///
    /// # Errors
    /// [`CheckpointError`]; the store must then stop.
    pub fn step(&mut self) -> Result<Step, CheckpointError> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => Ok(Step::Idle),
            Phase::Snapshot(bucket, encoder) => self.copy(bucket, encoder).map_err(CheckpointError::Corrupt),
            Phase::SubtractDigests(_) if self.target == self.digests.target && self.batch.is_empty() => Ok(Step::Idle),
            Phase::SubtractDigests(done) => self.subtract_old_digests(done),
            Phase::Write(done) => self.write_step(done).map_err(CheckpointError::Io),
            Phase::Sync => self.finish().map_err(CheckpointError::Io),
        }
    }

    fn copy(&mut self, mut bucket: u16, mut encoder: Box<BackupEncoder>) -> Result<Step, String> {
        let (mut looked_into, mut copied) = (0, 0);
        while bucket < BUCKETS && looked_into < STEP_BUCKETS && copied < STEP_RECORDS {
            let records = self.merged_bucket(bucket)?;
            records.iter().for_each(|(key, record)| encoder.add(key, record));
            copied += records.len();
            looked_into += 1;
            bucket += 1;
        }
        let last = bucket == BUCKETS;
        let bytes = if last {
            self.phase = Phase::SubtractDigests(0);
            encoder.finish()
        } else {
            let bytes = encoder.take();
            self.phase = Phase::Snapshot(bucket, encoder);
            bytes
        };
        Ok(Step::Chunk { bytes, last })
    }

    /// The records of a bucket as they are when the checkpoint under way is complete.
    fn merged_bucket(&mut self, bucket: u16) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
        let mut records: BTreeMap<_, _> = self.read_verified(bucket)?.into_iter().collect();
        let start = self.batch.partition_point(|(key, _)| bucket_of_storage_key(key) < bucket);
        for (key, bytes) in self.batch.iter().skip(start).take_while(|(key, _)| bucket_of_storage_key(key) == bucket) {
            match bytes {
                Some(bytes) => drop(records.insert(key.clone(), bytes.clone())),
                None => drop(records.remove(key)),
            }
        }
        Ok(records)
    }

    /// Takes the records that will be replaced out of the digests, and saves these before the first of them is replaced.
    fn subtract_old_digests(&mut self, mut done: usize) -> Result<Step, CheckpointError> {
        let mut touched = 0;
        while touched < STEP_RECORDS
            && let Some((key, _)) = self.batch.get(done)
        {
            let (key, bucket) = (key.clone(), bucket_of_storage_key(key));
            touched += 1 + self.verify_bucket(bucket).map_err(CheckpointError::Corrupt)?;
            if !self.digests.in_flight.contains(&key)
                && let Some(old) = self.state.get(&key).map_err(CheckpointError::Corrupt)?
            {
                digests::subtract(&mut self.next_digests, &key, &old);
            }
            done += 1;
        }
        if done < self.batch.len() {
            self.phase = Phase::SubtractDigests(done);
            return Ok(Step::More);
        }
        let bytes = BucketDigests::encode(self.digests.checkpointed, self.target, &self.next_digests);
        self.state.save_digests(&bytes).map_err(CheckpointError::Io)?;
        self.phase = Phase::Write(0);
        Ok(Step::More)
    }

    fn write_step(&mut self, done: usize) -> Result<Step, String> {
        let end = self.batch.len().min(done + STEP_RECORDS);
        let part = self.batch.get(done..end).unwrap_or_default();
        self.state.write_batch(part)?;
        for (key, bytes) in part {
            if let Some(bytes) = bytes {
                digests::add(&mut self.next_digests, key, bytes);
            }
        }
        self.phase = if end == self.batch.len() { Phase::Sync } else { Phase::Write(end) };
        Ok(Step::More)
    }

    fn finish(&mut self) -> Result<Step, String> {
        self.state.sync_through(self.target)?;
        let table = std::mem::take(&mut self.next_digests);
        self.state.save_digests(&BucketDigests::encode(self.target, self.target, &table))?;
        self.digests.finish_checkpoint(self.target, table);
        self.flushing = HashMap::new();
        let is_pending =
            |stored: &Vec<u8>| RecordKey::from_storage_key(stored).is_ok_and(|key| self.memtable.contains_key(&key));
        self.index_overlay.retain(|stored, _| is_pending(stored));
        self.batch = Vec::new();
        Ok(Step::Finished(self.target))
    }
}

fn entry(key: &RecordKey, record: Option<&Record>) -> WriteOp {
    let stored = key.to_storage_key();
    let bytes = record.map(|record| {
        let mut bytes = Vec::with_capacity(64);
        record.encode(crc32c::crc32c(stored.get(2..).unwrap_or_default()), &mut bytes);
        bytes
    });
    (stored, bytes)
}

/// Takes a whole checkpoint.
///
/// # Errors
/// As [`Checkpointer::step`].
pub fn run_checkpoint<S: State>(mut checkpointer: Checkpointer<S>) -> Result<(), CheckpointError> {
    checkpointer.start_checkpoint();
    while checkpointer.in_progress() {
        checkpointer.step()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tenant::TenantId;
    use crate::store::embedded::codec::key::{IndexKind, SYSTEM_TENANT};
    use crate::store::embedded::journal::frame::CommitSeq;
    use crate::store::embedded::state::sled::SledState;

    /// Members of the store itself are what a start looks for, and they are the first tenant of all.
    #[test]
    fn a_list_is_as_new_as_what_was_handed_over() {
        let temp = tempfile::tempdir().unwrap();
        let mut checkpointer = Checkpointer::open(SledState::open(temp.path()).unwrap()).unwrap();
        let position = |seq| LogPosition { seq: CommitSeq(seq), crc: 1 };
        let doomed = |id| RecordKey::IndexEntry(SYSTEM_TENANT, IndexEntry::Deleting(TenantId(id)));
        let list = |checkpointer: &mut Checkpointer<_>, after: Option<u64>, limit| {
            let after = after.map(|id| IndexEntry::Deleting(TenantId(id)));
            let listed = checkpointer
                .list(&IndexScan { tenant: SYSTEM_TENANT, index_kind: IndexKind::Deleting, after, limit })
                .unwrap();
            let ids = listed.iter().map(|entry| if let IndexEntry::Deleting(id) = entry { id.0 } else { 0 });
            ids.collect::<Vec<_>>()
        };
        checkpointer.stage([1, 3, 5].map(|id| (doomed(id), Some(Record::IndexEntry))), position(1));
        assert_eq!((list(&mut checkpointer, None, 9), list(&mut checkpointer, Some(1), 1)), (vec![1, 3, 5], vec![3]));
        run_checkpoint(checkpointer).unwrap();
        let mut checkpointer = Checkpointer::open(SledState::open(temp.path()).unwrap()).unwrap();
        assert_eq!(list(&mut checkpointer, None, 9), [1, 3, 5]);
        checkpointer.stage(
            [(doomed(1), None), (doomed(4), Some(Record::IndexEntry)), (doomed(9), Some(Record::IndexEntry))],
            position(2),
        );
        assert_eq!((list(&mut checkpointer, None, 2), list(&mut checkpointer, Some(4), 9)), (vec![3, 4], vec![5, 9]));
    }
}
