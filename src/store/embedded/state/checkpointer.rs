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
    BUCKETS, IndexEntry, IndexScan, RecordKey, answer_buckets, bucket_of_stored, stored_shelf,
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
    seals: BucketDigests,
    pending: HashMap<RecordKey, Option<Record>>,
    pending_up_to: LogPosition,
    writing: HashMap<RecordKey, Option<Record>>,
    /// Members among the two by their stored keys, and whether they are there: a list is laid over the state's with them.
    shelved: BTreeMap<Vec<u8>, bool>,
    /// `writing` as bytes, in the order of stored keys.
    entries: Vec<WriteOp>,
    /// The table as it will be when the checkpoint is complete.
    next: DigestTable,
    target: LogPosition,
    phase: Phase,
}

impl<S: State> Checkpointer<S> {
    /// A keeper in front of `state`.
    ///
    /// # Errors
    /// One sentence, if the state is not of the checkpoint that its seals are of.
    pub fn open(state: S) -> Result<Self, String> {
        let covered = state.covered();
        let seals = match state.seals()? {
            Some(bytes) => BucketDigests::decode(&bytes).ok_or("sled's seals are damaged")?,
            None if covered == LogPosition::default() => BucketDigests::of_nothing(),
            None => return Err("sled's seals are missing".to_owned()),
        };
        // Checkpoints that were interrupted one after another may have left it anywhere between.
        if covered.seq < seals.covered.seq || covered.seq > seals.target.seq {
            let (is, from, to) = (covered.seq, seals.covered.seq, seals.target.seq);
            return Err(format!("sled covers commit {is}, but its seals are of commits {from} to {to}"));
        }
        let pending_up_to = seals.covered;
        Ok(Self {
            state,
            seals,
            pending: HashMap::new(),
            pending_up_to,
            writing: HashMap::new(),
            shelved: BTreeMap::new(),
            entries: Vec::new(),
            next: DigestTable::new(),
            target: pending_up_to,
            phase: Phase::Idle,
        })
    }

    /// The last complete checkpoint. Everything behind it must be taken before anything is loaded.
    pub fn covered(&self) -> LogPosition {
        self.seals.covered
    }

    /// The marks that the journal must have, if it has frames of their numbers: of the last complete checkpoint, of what the state says of
    /// itself, and of the newest checkpoint that was begun.
    pub fn marks(&self) -> [LogPosition; 3] {
        [self.seals.covered, self.state.covered(), self.seals.target]
    }

    /// Takes changes that are durable in the journal, all of them up to commit `up_to`, in order.
    pub fn take(&mut self, changes: impl IntoIterator<Item = RecordWrite>, up_to: LogPosition) {
        // A checkpoint that was interrupted may or may not have written these.
        let loose = up_to.seq <= self.seals.target.seq;
        for (key, record) in changes {
            if loose {
                self.seals.loose.insert(key.stored());
            }
            if matches!(key, RecordKey::IndexEntry(..)) {
                self.shelved.insert(key.stored(), record.is_some());
            }
            self.pending.insert(key, record);
        }
        if up_to.seq > self.pending_up_to.seq {
            self.pending_up_to = up_to;
        }
    }

    /// How many records wait for the next checkpoint.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether the state does not yet cover everything that was taken.
    pub fn is_behind(&self) -> bool {
        self.pending_up_to.seq > self.seals.covered.seq
    }

    /// The newest commit that was taken: where a checkpoint or a backup that begins now would end.
    pub fn newest(&self) -> LogPosition {
        self.pending_up_to
    }

    /// The newest record of `key` that was handed over.
    ///
    /// # Errors
    /// One sentence, if the state does not hold what was written.
    pub fn load(&mut self, key: &RecordKey) -> Result<Option<Record>, String> {
        if let Some(record) = self.pending.get(key).or_else(|| self.writing.get(key)) {
            return Ok(record.clone());
        }
        let stored = key.stored();
        self.prove(bucket_of_stored(&stored))?;
        let plain = stored.get(2..).unwrap_or_default();
        let bytes = self.state.get(&stored)?;
        bytes.map(|bytes| Record::decode(key, plain, &bytes).map_err(|e| e.to_string())).transpose()
    }

    /// The part of a list that is asked for, in order.
    ///
    /// # Errors
    /// One sentence, if the state does not hold what was written.
    pub fn list(&mut self, listing: &IndexScan) -> Result<Vec<IndexEntry>, String> {
        let IndexScan { tenant, shelf, after, limit } = listing;
        let prefix = stored_shelf(*tenant, *shelf);
        self.prove(bucket_of_stored(&prefix))?;
        let after = after.as_ref().map(|member| RecordKey::IndexEntry(*tenant, member.clone()).stored());
        let behind = after.as_ref().unwrap_or(&prefix);
        let newer = self.shelved.range::<[u8], _>((Bound::Excluded(behind.as_slice()), Bound::Unbounded));
        let newer: Vec<_> = newer.take_while(|(key, _)| key.starts_with(&prefix)).collect();
        // Each newer change takes one away at most, so these are enough.
        let found = self.state.keys_behind(&prefix, behind, limit + newer.len())?;
        let mut stored: BTreeSet<Vec<u8>> = found.into_iter().collect();
        for (key, there) in newer {
            if *there {
                stored.insert(key.clone())
            } else {
                stored.remove(key)
            };
        }
        let members = stored.iter().take(*limit).map(|stored| match RecordKey::from_stored(stored) {
            Ok(RecordKey::IndexEntry(_, member)) => Ok(member),
            Ok(_) => Err("a member is filed as something else".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        members.collect()
    }

    /// Every page of answers, in the order of their numbers.
    ///
    /// # Errors
    /// One sentence, if the state does not hold what was written.
    pub fn answers(&mut self) -> Result<Vec<(u64, Arc<IdempotencyPage>)>, String> {
        let mut pages = BTreeMap::new();
        for bucket in answer_buckets() {
            for (stored, bytes) in self.examine(bucket)? {
                let key = RecordKey::from_stored(&stored).map_err(|error| error.to_string())?;
                if let RecordKey::IdempotencyPage(page) = key {
                    let plain = stored.get(2..).unwrap_or_default();
                    pages.insert(page, Some(Record::decode(&key, plain, &bytes).map_err(|error| error.to_string())?));
                }
            }
        }
        for (key, record) in self.writing.iter().chain(&self.pending) {
            if let RecordKey::IdempotencyPage(page) = key {
                pages.insert(*page, record.clone());
            }
        }
        let answers = pages.into_iter().filter_map(|(page, record)| match record {
            Some(Record::IdempotencyPage(answers)) => Some((page, answers)),
            _ => None,
        });
        Ok(answers.collect())
    }

    /// Proves every bucket; returns how many records the state holds.
    ///
    /// # Errors
    /// One sentence about the first bucket that is not what was written.
    pub fn prove_all(&mut self) -> Result<u64, String> {
        (0..BUCKETS).try_fold(0, |count, bucket| Ok(count + self.examine(bucket)?.len() as u64))
    }

    /// Proves the bucket, once in a process. Returns how many records were read for it.
    fn prove(&mut self, bucket: u16) -> Result<usize, String> {
        if self.seals.is_proved(bucket) { Ok(0) } else { self.examine(bucket).map(|records| records.len()) }
    }

    /// Reads a bucket whole and proves it.
    fn examine(&mut self, bucket: u16) -> Result<Vec<KeyValue>, String> {
        let records = self.state.bucket(bucket)?;
        let sealed = records.iter().filter(|(key, _)| !self.seals.loose.contains(key));
        let sum = sealed.fold(0_u64, |sum, (key, record)| sum.wrapping_add(digest(key, record)));
        self.seals.prove(bucket, sum)?;
        Ok(records)
    }

    /// Leaves a note in the state that it is not to be used again.
    ///
    /// # Errors
    /// As [`State::condemn`].
    pub fn condemn(&mut self, why: &str) -> Result<(), String> {
        self.state.condemn(why)
    }

    /// Starts a checkpoint of everything taken so far. Does nothing while one is under way.
    pub fn begin(&mut self) {
        if self.is_busy() {
            return;
        }
        // One that was interrupted may have reached further than the last commit: to a checkpoint frame. It never goes back.
        let reached = self.seals.target;
        self.target = if reached.seq > self.pending_up_to.seq { reached } else { self.pending_up_to };
        self.writing = std::mem::take(&mut self.pending);
        self.entries = self.writing.iter().map(|(key, record)| entry(key, record.as_ref())).collect();
        // sled writes neighbours together, and a backup wants them in order.
        self.entries.sort_unstable();
        self.next.clone_from(&self.seals.table);
        self.phase = Phase::SubtractDigests(0);
    }

    /// Starts a checkpoint with a backup in front of it, whose bytes come out of [`Checkpointer::step`]. Call it while no checkpoint is under way.
    pub fn begin_backup(&mut self, encoder: BackupEncoder) {
        self.begin();
        self.phase = Phase::Snapshot(0, Box::new(encoder));
    }

    /// Gives a backup up that could not be written; the checkpoint behind it goes on.
    pub fn abandon_backup(&mut self) {
        if matches!(self.phase, Phase::Snapshot(..)) {
            self.phase = Phase::SubtractDigests(0);
        }
    }

    /// Whether a checkpoint, perhaps with a backup in front of it, is under way.
    pub fn is_busy(&self) -> bool {
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
            Phase::SubtractDigests(_) if self.target == self.seals.target && self.entries.is_empty() => Ok(Step::Idle),
            Phase::SubtractDigests(done) => self.unseal(done),
            Phase::Write(done) => self.put(done).map_err(CheckpointError::Io),
            Phase::Sync => self.cover().map_err(CheckpointError::Io),
        }
    }

    fn copy(&mut self, mut bucket: u16, mut encoder: Box<BackupEncoder>) -> Result<Step, String> {
        let (mut looked_into, mut copied) = (0, 0);
        while bucket < BUCKETS && looked_into < STEP_BUCKETS && copied < STEP_RECORDS {
            let records = self.newest_of(bucket)?;
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
    fn newest_of(&mut self, bucket: u16) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
        let mut records: BTreeMap<_, _> = self.examine(bucket)?.into_iter().collect();
        let start = self.entries.partition_point(|(key, _)| bucket_of_stored(key) < bucket);
        for (key, bytes) in self.entries.iter().skip(start).take_while(|(key, _)| bucket_of_stored(key) == bucket) {
            match bytes {
                Some(bytes) => drop(records.insert(key.clone(), bytes.clone())),
                None => drop(records.remove(key)),
            }
        }
        Ok(records)
    }

    /// Takes the records that will be replaced out of the digests, and saves these before the first of them is replaced.
    fn unseal(&mut self, mut done: usize) -> Result<Step, CheckpointError> {
        let mut touched = 0;
        while touched < STEP_RECORDS
            && let Some((key, _)) = self.entries.get(done)
        {
            let (key, bucket) = (key.clone(), bucket_of_stored(key));
            touched += 1 + self.prove(bucket).map_err(CheckpointError::Corrupt)?;
            if !self.seals.loose.contains(&key)
                && let Some(old) = self.state.get(&key).map_err(CheckpointError::Corrupt)?
            {
                digests::take_out(&mut self.next, &key, &old);
            }
            done += 1;
        }
        if done < self.entries.len() {
            self.phase = Phase::SubtractDigests(done);
            return Ok(Step::More);
        }
        let bytes = BucketDigests::encode(self.seals.covered, self.target, &self.next);
        self.state.save_seals(&bytes).map_err(CheckpointError::Io)?;
        self.phase = Phase::Write(0);
        Ok(Step::More)
    }

    fn put(&mut self, done: usize) -> Result<Step, String> {
        let end = self.entries.len().min(done + STEP_RECORDS);
        let part = self.entries.get(done..end).unwrap_or_default();
        self.state.put(part)?;
        for (key, bytes) in part {
            if let Some(bytes) = bytes {
                digests::add(&mut self.next, key, bytes);
            }
        }
        self.phase = if end == self.entries.len() { Phase::Sync } else { Phase::Write(end) };
        Ok(Step::More)
    }

    fn cover(&mut self) -> Result<Step, String> {
        self.state.cover(self.target)?;
        let table = std::mem::take(&mut self.next);
        self.state.save_seals(&BucketDigests::encode(self.target, self.target, &table))?;
        self.seals.complete(self.target, table);
        self.writing = HashMap::new();
        let is_pending =
            |stored: &Vec<u8>| RecordKey::from_stored(stored).is_ok_and(|key| self.pending.contains_key(&key));
        self.shelved.retain(|stored, _| is_pending(stored));
        self.entries = Vec::new();
        Ok(Step::Finished(self.target))
    }
}

fn entry(key: &RecordKey, record: Option<&Record>) -> WriteOp {
    let stored = key.stored();
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
pub fn settle<S: State>(mut keeper: Checkpointer<S>) -> Result<(), CheckpointError> {
    keeper.begin();
    while keeper.is_busy() {
        keeper.step()?;
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
        let mut keeper = Checkpointer::open(SledState::open(temp.path()).unwrap()).unwrap();
        let mark = |seq| LogPosition { seq: CommitSeq(seq), chain: 1 };
        let doomed = |id| RecordKey::IndexEntry(SYSTEM_TENANT, IndexEntry::Deleting(TenantId(id)));
        let list = |keeper: &mut Checkpointer<_>, after: Option<u64>, limit| {
            let after = after.map(|id| IndexEntry::Deleting(TenantId(id)));
            let listed =
                keeper.list(&IndexScan { tenant: SYSTEM_TENANT, shelf: IndexKind::Deleting, after, limit }).unwrap();
            let ids = listed.iter().map(|member| if let IndexEntry::Deleting(id) = member { id.0 } else { 0 });
            ids.collect::<Vec<_>>()
        };
        keeper.take([1, 3, 5].map(|id| (doomed(id), Some(Record::IndexEntry))), mark(1));
        assert_eq!((list(&mut keeper, None, 9), list(&mut keeper, Some(1), 1)), (vec![1, 3, 5], vec![3]));
        settle(keeper).unwrap();
        let mut keeper = Checkpointer::open(SledState::open(temp.path()).unwrap()).unwrap();
        assert_eq!(list(&mut keeper, None, 9), [1, 3, 5]);
        keeper.take(
            [(doomed(1), None), (doomed(4), Some(Record::IndexEntry)), (doomed(9), Some(Record::IndexEntry))],
            mark(2),
        );
        assert_eq!((list(&mut keeper, None, 2), list(&mut keeper, Some(4), 9)), (vec![3, 4], vec![5, 9]));
    }
}
