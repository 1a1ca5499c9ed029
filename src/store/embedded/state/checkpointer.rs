//! The checkpointer: buffers committed changes in a memtable and writes them to the state.
//!
//! Job: hold the changes since the last checkpoint; serve cache misses and index scans from the
//! newest of memtable, flushing memtable and state, so that a load never sees an older value than
//! was staged; verify what the state returns against the bucket digests. checkpointer/steps.rs
//! writes a checkpoint or a backup in small steps, off the commit path.
//!
//! ```text
//! committer ── changes, in order ──► memtable ── start ──► flushing memtable ── steps ──► state
//!           ── load, scan ────────►  memtable, then flushing, then the state, whose bucket is
//!                                    verified first
//! ```
//! Invariant: a record that is in neither memtable is in the state, and its bucket's digest counts
//! it.
//! Must never: decide a value, or return a record of a bucket that failed verification.

pub mod steps;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::failpoint::failpoint;
use crate::store::embedded::codec::idempotency_page::IdempotencyPage;
use crate::store::embedded::codec::key::{
    BUCKETS, IndexEntry, IndexScan, RecordKey, bucket_of_storage_key, idempotency_buckets,
    index_prefix,
};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::journal::frame::{LogPosition, RecordWrite};
use crate::store::embedded::state::checkpoint_step::Phase;
use crate::store::embedded::state::digests::{BucketDigests, DigestTable, digest};
use crate::store::embedded::state::{KeyValue, State, WriteOp};

/// The owner of state and memtables.
pub struct Checkpointer<S> {
    state: S,
    digests: BucketDigests,
    /// Changes since the last checkpoint was started.
    memtable: HashMap<RecordKey, Option<Record>>,
    /// The position of the last commit that was staged.
    memtable_end: LogPosition,
    /// The changes that the checkpoint in progress writes.
    flushing: HashMap<RecordKey, Option<Record>>,
    /// Index entries of both memtables by storage key, and whether they exist: index scans of the
    /// state are merged with them.
    index_overlay: BTreeMap<Vec<u8>, bool>,
    /// `flushing`, encoded and in ascending order of storage keys.
    batch: Vec<WriteOp>,
    /// The digest table as of the end of the checkpoint in progress.
    next_digests: DigestTable,
    /// Where the checkpoint in progress ends.
    target: LogPosition,
    phase: Phase,
}

impl<S: State> Checkpointer<S> {
    /// A checkpointer in front of `state`.
    ///
    /// # Errors
    /// One sentence, if the state and its digests do not belong to the same checkpoint.
    pub fn open(state: S) -> Result<Self, String> {
        let synced = state.synced_through();
        let digests = match state.load_digests()? {
            Some(bytes) => BucketDigests::decode(&bytes).ok_or("sled's digest file is corrupt")?,
            None if synced == LogPosition::default() => BucketDigests::empty(),
            None => return Err("sled's digest file is missing".to_owned()),
        };
        // Interrupted checkpoints may have left the state anywhere between the last complete one
        // and the target.
        let is_outside = synced.seq < digests.checkpointed.seq || synced.seq > digests.target.seq;
        if is_outside && !failpoint!("state-not-compared-with-digests") {
            let (is, from, to) = (synced.seq, digests.checkpointed.seq, digests.target.seq);
            return Err(format!(
                "sled ends with commit {is}, but its digest file is of commits {from} to {to}"
            ));
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

    /// Positions that the journal must contain, if it still has frames of their numbers: the last
    /// complete checkpoint, the position that the state records, and the newest checkpoint that was
    /// started.
    pub fn required_positions(&self) -> [LogPosition; 3] {
        [self.digests.checkpointed, self.state.synced_through(), self.digests.target]
    }

    /// Stages changes that are durable in the journal: all of them up to commit `up_to`, in order.
    pub fn stage(&mut self, changes: impl IntoIterator<Item = RecordWrite>, up_to: LogPosition) {
        // An interrupted checkpoint may or may not have written these.
        let in_flight = up_to.seq <= self.digests.target.seq;
        for (key, record) in changes {
            if in_flight {
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

    /// How many records the next checkpoint would write.
    pub fn memtable(&self) -> usize {
        self.memtable.len()
    }

    /// Whether a staged commit is not in the state yet.
    pub fn has_unflushed(&self) -> bool {
        self.memtable_end.seq > self.digests.checkpointed.seq
    }

    /// The last staged commit: a checkpoint or a backup that starts now ends there.
    pub fn last_position(&self) -> LogPosition {
        self.memtable_end
    }

    /// The newest staged record of `key`; `None` if there is none.
    ///
    /// # Errors
    /// One sentence, if the state is corrupt.
    pub fn load(&mut self, key: &RecordKey) -> Result<Option<Record>, String> {
        if let Some(record) = self.memtable.get(key).or_else(|| self.flushing.get(key)) {
            return Ok(record.clone());
        }
        let storage_key = key.to_storage_key();
        self.verify_bucket(bucket_of_storage_key(&storage_key))?;
        let bytes = self.state.get(&storage_key)?;
        bytes.map(|bytes| decode(key, &storage_key, &bytes)).transpose()
    }

    /// The index entries that `scan` asks for, in ascending order.
    ///
    /// # Errors
    /// One sentence, if the state is corrupt.
    pub fn list(&mut self, scan: &IndexScan) -> Result<Vec<IndexEntry>, String> {
        let IndexScan { tenant, index_kind, after, limit } = scan;
        let prefix = index_prefix(*tenant, *index_kind);
        self.verify_bucket(bucket_of_storage_key(&prefix))?;
        let after = after
            .as_ref()
            .map(|entry| RecordKey::IndexEntry(*tenant, entry.clone()).to_storage_key());
        let after = after.as_ref().unwrap_or(&prefix);
        let range = (Bound::Excluded(after.as_slice()), Bound::Unbounded);
        let overlay = self.index_overlay.range::<[u8], _>(range);
        let overlay: Vec<_> = overlay.take_while(|(key, _)| key.starts_with(&prefix)).collect();
        // Each overlay entry removes at most one key, so this many are enough.
        let keys = self.state.keys_after(&prefix, after, limit + overlay.len())?;
        let mut keys: BTreeSet<Vec<u8>> = keys.into_iter().collect();
        for (key, exists) in overlay {
            if *exists {
                keys.insert(key.clone());
            } else {
                keys.remove(key);
            }
        }
        let entries = keys.iter().take(*limit).map(|key| match RecordKey::from_storage_key(key) {
            Ok(RecordKey::IndexEntry(_, entry)) => Ok(entry),
            Ok(_) => Err("sled: a key in the range of the index is no index entry".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        entries.collect()
    }

    /// Every idempotency page with its number, in ascending order.
    ///
    /// # Errors
    /// One sentence, if the state is corrupt.
    pub fn idempotency_pages(&mut self) -> Result<Vec<(u64, Arc<IdempotencyPage>)>, String> {
        let mut pages = BTreeMap::new();
        for bucket in idempotency_buckets() {
            for (storage_key, bytes) in self.read_verified(bucket)? {
                let key = RecordKey::from_storage_key(&storage_key);
                let key = key.map_err(|error| error.to_string())?;
                if let RecordKey::IdempotencyPage(number) = key {
                    pages.insert(number, Some(decode(&key, &storage_key, &bytes)?));
                }
            }
        }
        for (key, record) in self.flushing.iter().chain(&self.memtable) {
            if let RecordKey::IdempotencyPage(number) = key {
                pages.insert(*number, record.clone());
            }
        }
        let pages = pages.into_iter().filter_map(|(number, record)| match record {
            Some(Record::IdempotencyPage(page)) => Some((number, page)),
            _ => None,
        });
        Ok(pages.collect())
    }

    /// Scrubs the state: verifies every bucket. Returns how many records the state holds.
    ///
    /// # Errors
    /// One sentence about the first bucket that is not what was written.
    pub fn verify_all(&mut self) -> Result<u64, String> {
        (0..BUCKETS)
            .try_fold(0, |count, bucket| Ok(count + self.read_verified(bucket)?.len() as u64))
    }

    /// Verifies the bucket, once per process. Returns how many records were read to do so.
    fn verify_bucket(&mut self, bucket: u16) -> Result<usize, String> {
        if self.digests.is_verified(bucket) {
            return Ok(0);
        }
        self.read_verified(bucket).map(|records| records.len())
    }

    /// Reads a whole bucket and verifies its digest.
    fn read_verified(&mut self, bucket: u16) -> Result<Vec<KeyValue>, String> {
        let records = self.state.bucket(bucket)?;
        let settled = records.iter().filter(|(key, _)| !self.digests.in_flight.contains(key));
        let sum = settled.fold(0_u64, |sum, (key, record)| sum.wrapping_add(digest(key, record)));
        self.digests.verify(bucket, sum)?;
        Ok(records)
    }

    /// Durably marks the state as corrupt, so that it is not opened again.
    ///
    /// # Errors
    /// As [`State::mark_corrupt`].
    pub fn mark_corrupt(&mut self, why: &str) -> Result<(), String> {
        self.state.mark_corrupt(why)
    }
}

/// Decodes the record that the state has under `storage_key`.
fn decode(key: &RecordKey, storage_key: &[u8], bytes: &[u8]) -> Result<Record, String> {
    let key_bytes = storage_key.get(2..).unwrap_or_default();
    Record::decode(key, key_bytes, bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::steps::run_checkpoint;
    use super::*;
    use crate::domain::tenant::TenantId;
    use crate::store::embedded::codec::key::{IndexKind, SYSTEM_TENANT};
    use crate::store::embedded::journal::frame::CommitSeq;
    use crate::store::embedded::state::sled::SledState;

    /// The index entries of the store itself, which a start scans. Their owner is tenant 0, the
    /// smallest of all.
    #[test]
    fn a_scan_is_as_new_as_what_was_staged() {
        let temp = tempfile::tempdir().unwrap();
        let open = || Checkpointer::open(SledState::open(temp.path()).unwrap()).unwrap();
        let position = |seq| LogPosition { seq: CommitSeq(seq), crc: 1 };
        let deleting =
            |id| RecordKey::IndexEntry(SYSTEM_TENANT, IndexEntry::Deleting(TenantId(id)));
        let list = |checkpointer: &mut Checkpointer<_>, after: Option<u64>, limit| {
            let (tenant, index_kind) = (SYSTEM_TENANT, IndexKind::Deleting);
            let after = after.map(|id| IndexEntry::Deleting(TenantId(id)));
            let scan = IndexScan { tenant, index_kind, after, limit };
            let id = |entry| if let IndexEntry::Deleting(id) = entry { id.0 } else { 0 };
            checkpointer.list(&scan).unwrap().into_iter().map(id).collect::<Vec<_>>()
        };
        let there = Some(Record::IndexEntry);
        let mut checkpointer = open();
        checkpointer.stage([1, 3, 5].map(|id| (deleting(id), there.clone())), position(1));
        assert_eq!(list(&mut checkpointer, None, 9), [1, 3, 5]);
        assert_eq!(list(&mut checkpointer, Some(1), 1), [3]);
        run_checkpoint(checkpointer).unwrap();
        let mut checkpointer = open();
        assert_eq!(list(&mut checkpointer, None, 9), [1, 3, 5]);
        let changes = [(deleting(1), None), (deleting(4), there.clone()), (deleting(9), there)];
        checkpointer.stage(changes, position(2));
        assert_eq!(list(&mut checkpointer, None, 2), [3, 4]);
        assert_eq!(list(&mut checkpointer, Some(4), 9), [5, 9]);
    }
}
