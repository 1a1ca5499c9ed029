//! A checkpoint, with or without a backup in front of it, as a sequence of small steps.
//!
//! Job: move the flushing memtable into the state, `STEP_RECORDS` records at a time, so that
//! loads are served between two steps.
//!
//! ```text
//! start ─► snapshot? ─► subtract digests ─► write ─► sync ─► finished; the committer appends a
//!          │            of old records      batches         checkpoint frame
//!          └ a backup is the state merged with the flushing memtable, read before the first write
//! ```
//! Invariant: the digests of the records to be replaced are subtracted, and the table is durable,
//! before the first record is written.
//! Must never: report a checkpoint as finished before state and digests are durable.

use std::collections::{BTreeMap, HashMap};

use super::Checkpointer;
use crate::failpoint::failpoint;
use crate::store::embedded::backup::format::BackupEncoder;
use crate::store::embedded::codec::key::{BUCKETS, RecordKey, bucket_of_storage_key};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::state::checkpoint_step::{CheckpointError, Phase, Step};
use crate::store::embedded::state::digests::{self, BucketDigests};
use crate::store::embedded::state::{State, WriteOp};

/// The largest number of records that one step handles.
const STEP_RECORDS: usize = 512;
/// The largest number of buckets that one step reads; in a small store most of them are empty.
const STEP_BUCKETS: u16 = 256;

impl<S: State> Checkpointer<S> {
    /// Starts a checkpoint of everything staged so far; does nothing while one is in progress.
    pub fn start_checkpoint(&mut self) {
        if self.in_progress() {
            return;
        }
        // The target of an interrupted checkpoint may be later than the last commit, because it may
        // be a checkpoint frame. The target must not go back: the state may be synced up to it.
        let reached = self.digests.target;
        let reached_more = reached.seq > self.memtable_end.seq;
        self.target = if reached_more { reached } else { self.memtable_end };
        self.flushing = std::mem::take(&mut self.memtable);
        self.batch = self.flushing.iter().map(|(key, record)| encode(key, record)).collect();
        // In key order, sled writes neighbours together and a backup can merge bucket by bucket.
        self.batch.sort_unstable();
        self.next_digests.clone_from(&self.digests.table);
        self.phase = Phase::SubtractDigests(0);
    }

    /// Starts a checkpoint with a backup in front of it; [`Checkpointer::step`] returns its bytes.
    /// No checkpoint must be in progress.
    pub fn start_backup(&mut self, encoder: BackupEncoder) {
        self.start_checkpoint();
        self.phase = Phase::Snapshot(0, Box::new(encoder));
    }

    /// Abandons the backup in progress, if there is one; its checkpoint continues.
    pub fn abandon_backup(&mut self) {
        if matches!(self.phase, Phase::Snapshot(..)) {
            self.phase = Phase::SubtractDigests(0);
        }
    }

    /// Whether a checkpoint is in progress, with or without a backup in front of it.
    pub fn in_progress(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// Runs one step of the checkpoint in progress.
    ///
    /// # Errors
    /// [`CheckpointError`]; the store must then stop.
    pub fn step(&mut self) -> Result<Step, CheckpointError> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => Ok(Step::Idle),
            Phase::Snapshot(bucket, encoder) => {
                self.snapshot_step(bucket, encoder).map_err(CheckpointError::Corrupt)
            }
            // Nothing changed since the last checkpoint.
            Phase::SubtractDigests(_)
                if self.target == self.digests.target && self.batch.is_empty() =>
            {
                Ok(Step::Idle)
            }
            Phase::SubtractDigests(done) => self.subtract_step(done),
            Phase::Write(done) => self.write_step(done).map_err(CheckpointError::Io),
            Phase::Sync => self.finish().map_err(CheckpointError::Io),
        }
    }

    fn snapshot_step(
        &mut self,
        mut bucket: u16,
        mut encoder: Box<BackupEncoder>,
    ) -> Result<Step, String> {
        let (mut buckets, mut records) = (0, 0);
        while bucket < BUCKETS && buckets < STEP_BUCKETS && records < STEP_RECORDS {
            let merged = self.merged_bucket(bucket)?;
            merged.iter().for_each(|(key, record)| encoder.add(key, record));
            records += merged.len();
            buckets += 1;
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

    /// The records of a bucket as they will be after the checkpoint in progress.
    fn merged_bucket(&mut self, bucket: u16) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
        let is_believed = failpoint!("backup-of-unverified-records");
        let read =
            if is_believed { self.state.bucket(bucket)? } else { self.read_verified(bucket)? };
        let mut records: BTreeMap<_, _> = read.into_iter().collect();
        let of_bucket = |(key, _): &&WriteOp| bucket_of_storage_key(key) == bucket;
        let start = self.batch.partition_point(|(key, _)| bucket_of_storage_key(key) < bucket);
        for (key, bytes) in self.batch.iter().skip(start).take_while(of_bucket) {
            match bytes {
                Some(bytes) => drop(records.insert(key.clone(), bytes.clone())),
                None => drop(records.remove(key)),
            }
        }
        Ok(records)
    }

    /// Subtracts the records that will be replaced from the digests, and saves the digests before
    /// the first of these records is replaced.
    fn subtract_step(&mut self, mut done: usize) -> Result<Step, CheckpointError> {
        let mut records = 0;
        while records < STEP_RECORDS
            && let Some((key, _)) = self.batch.get(done)
        {
            let (key, bucket) = (key.clone(), bucket_of_storage_key(key));
            // The bucket is verified before a record is subtracted. If sled returned a stale
            // record, the digest of the right one would stay in the sum forever, and the write
            // would replace the only evidence of the corruption.
            records += 1 + self.verify_bucket(bucket).map_err(CheckpointError::Corrupt)?;
            // Keys in flight are skipped: the interrupted checkpoint has already subtracted them,
            // and the table does not count them until this checkpoint writes them.
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
        let checkpointed = self.digests.checkpointed;
        let bytes = BucketDigests::encode(checkpointed, self.target, &self.next_digests);
        if !failpoint!("digests-not-saved-before-writes") {
            self.state.save_digests(&bytes).map_err(CheckpointError::Io)?;
        }
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

    /// Syncs the state, saves its digests, and drops the flushing memtable.
    fn finish(&mut self) -> Result<Step, String> {
        let target = self.target;
        if failpoint!("digests-saved-before-records") {
            let table = &self.next_digests;
            self.state.save_digests(&BucketDigests::encode(target, target, table))?;
        }
        self.state.sync_through(target)?;
        let table = std::mem::take(&mut self.next_digests);
        self.state.save_digests(&BucketDigests::encode(target, target, &table))?;
        self.digests.finish_checkpoint(target, table);
        self.flushing = HashMap::new();
        let in_memtable = |key: &Vec<u8>| {
            RecordKey::from_storage_key(key).is_ok_and(|key| self.memtable.contains_key(&key))
        };
        self.index_overlay.retain(|key, _| in_memtable(key));
        self.batch = Vec::new();
        Ok(Step::Finished(target))
    }
}

fn encode(key: &RecordKey, record: &Option<Record>) -> WriteOp {
    let storage_key = key.to_storage_key();
    let bytes = record.as_ref().map(|record| {
        let mut bytes = Vec::with_capacity(64);
        let key_bytes = storage_key.get(2..).unwrap_or_default();
        record.encode(crc32c::crc32c(key_bytes), &mut bytes);
        bytes
    });
    (storage_key, bytes)
}

/// Runs a whole checkpoint of everything staged so far.
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
