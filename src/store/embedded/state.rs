//! sled, the state behind the journal. sled lives only in this file.
//!
//! Job: keep records by key ([`State`], [`SledState`]), and say up to which commit they are complete and durable.
//! Invariant: `covered` grows only after every change up to it was forced to the disk by our own `fdatasync`; sled's own `flush()`
//! calls `sync_file_range`, which survives a killed process but not a power cut.
//! Must never: be touched by two threads (0.34 can deadlock on mixed reads and writes), or return bytes whose checksum is wrong.
//!
//! sled is pinned to 0.34.7 and treated as a part that may fail: leftovers of an interrupted snapshot make it unopenable and are
//! removed first; its panics while opening are caught and become an error; its file lock may outlive its owner by a moment, so
//! opening waits for it for two seconds.

use std::fs::{self, File, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::frame::CommitSeq;
use super::record::{Key, Record};

/// Cache of sled, in bytes: small, since the records in use are cached above it.
const SLED_CACHE_BYTES: u64 = 16 << 20;
const LOCK_WAIT: Duration = Duration::from_secs(2);
const COVERED: &[u8] = &[0];

/// Records by key, complete up to a commit.
pub trait State: Send {
    /// The record of `key`; `None` if there is none.
    ///
    /// # Errors
    /// One sentence, if it can not be read or is not what was written.
    fn get(&self, key: &Key) -> Result<Option<Record>, String>;

    /// Writes or removes records. Durable after [`State::cover`].
    ///
    /// # Errors
    /// One sentence; then any of the records may have been written.
    fn put(&mut self, changes: &[(Key, Option<Record>)]) -> Result<(), String>;

    /// Forces everything to the disk, then notes, durably, that every commit up to `seq` is there.
    ///
    /// # Errors
    /// One sentence; then nothing is known, and it must not be tried again by this process.
    fn cover(&mut self, seq: CommitSeq) -> Result<(), String>;

    /// What the last successful [`State::cover`] noted; 0 for a new state.
    fn covered(&self) -> CommitSeq;
}

/// The state in sled.
pub struct SledState {
    db: sled::Db,
    /// A second descriptor of sled's file, to sync it.
    file: File,
    covered: CommitSeq,
}

impl SledState {
    /// Opens the state in `folder`, or makes a new one.
    ///
    /// # Errors
    /// One sentence saying what sled or the system refused.
    pub fn open(folder: &Path) -> Result<Self, String> {
        remove_unfinished_snapshots(folder)?;
        let deadline = Instant::now() + LOCK_WAIT;
        let db = loop {
            let config = sled::Config::new().path(folder).cache_capacity(SLED_CACHE_BYTES).flush_every_ms(None);
            match catch_unwind(AssertUnwindSafe(|| config.open())) {
                Ok(Ok(db)) => break db,
                Ok(Err(error)) if error.to_string().contains("could not acquire lock") && Instant::now() < deadline => {
                    std::thread::park_timeout(Duration::from_millis(20));
                }
                Ok(Err(error)) => return Err(format!("sled can not open {}: {error}", folder.display())),
                Err(_) => return Err(format!("sled panicked while opening {}", folder.display())),
            }
        };
        let path = folder.join("db");
        let file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let covered = match db.get(COVERED).map_err(|e| format!("sled: {e}"))? {
            None => CommitSeq(0),
            Some(bytes) => parse_covered(&bytes).ok_or("sled: the checkpoint number is damaged")?,
        };
        Ok(Self { db, file, covered })
    }

    /// Reads every record and returns how many there are.
    ///
    /// # Errors
    /// One sentence about the first record that is not as it was written.
    pub fn check_all(&self) -> Result<u64, String> {
        let mut count = 0;
        for entry in self.db.iter() {
            let (key_bytes, bytes) = entry.map_err(|e| format!("sled: {e}"))?;
            if *key_bytes == *COVERED {
                continue;
            }
            let key = Key::decode(&key_bytes).map_err(|e| format!("sled holds a damaged key: {e}"))?;
            Record::decode(&key, &key_bytes, &bytes).map_err(|e| format!("sled holds a damaged record: {e}"))?;
            count += 1;
        }
        Ok(count)
    }

    fn force(&self) -> Result<(), String> {
        self.db.flush().map_err(|e| format!("sled flush: {e}"))?;
        self.file.sync_data().map_err(|e| format!("sled fdatasync: {e}"))
    }
}

impl State for SledState {
    fn get(&self, key: &Key) -> Result<Option<Record>, String> {
        let mut key_bytes = Vec::with_capacity(64);
        key.encode(&mut key_bytes);
        let found = self.db.get(&key_bytes).map_err(|e| format!("sled: {e}"))?;
        found.map(|bytes| Record::decode(key, &key_bytes, &bytes).map_err(|e| e.to_string())).transpose()
    }

    fn put(&mut self, changes: &[(Key, Option<Record>)]) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        for (key, record) in changes {
            let mut key_bytes = Vec::with_capacity(64);
            key.encode(&mut key_bytes);
            match record {
                Some(record) => {
                    let mut bytes = Vec::with_capacity(128);
                    record.encode(crc32c::crc32c(&key_bytes), &mut bytes);
                    batch.insert(key_bytes, bytes);
                }
                None => batch.remove(key_bytes),
            }
        }
        self.db.apply_batch(batch).map_err(|e| format!("sled: {e}"))
    }

    fn cover(&mut self, seq: CommitSeq) -> Result<(), String> {
        // Two steps, so that the number can not reach the disk before the records that it speaks of.
        self.force()?;
        let mut bytes = seq.0.to_be_bytes().to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        self.db.insert(COVERED, bytes).map_err(|e| format!("sled: {e}"))?;
        self.force()?;
        self.covered = seq;
        Ok(())
    }

    fn covered(&self) -> CommitSeq {
        self.covered
    }
}

fn parse_covered(bytes: &[u8]) -> Option<CommitSeq> {
    let (number, crc) = bytes.split_first_chunk::<8>()?;
    (crc32c::crc32c(number).to_be_bytes() == crc).then_some(CommitSeq(u64::from_be_bytes(*number)))
}

fn remove_unfinished_snapshots(folder: &Path) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&path).map_err(fail)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::{Counter, CounterName};
    use crate::tenant::TenantId;

    #[test]
    fn records_and_the_covered_number_come_back() {
        let temp = tempfile::tempdir().unwrap();
        let key = Key::Counter(TenantId(1), CounterName::default_counter());
        let record = Some(Record::Counter(Counter::default()));
        let mut state = SledState::open(temp.path()).unwrap();
        assert_eq!(state.covered(), CommitSeq(0));
        state.put(&[(key.clone(), record.clone()), (Key::Tenants, Some(Record::Tenants(1)))]).unwrap();
        state.put(&[(Key::Tenants, None)]).unwrap();
        state.cover(CommitSeq(9)).unwrap();
        drop(state);
        fs::write(temp.path().join("snap.0000.generating"), b"half").unwrap();
        let state = SledState::open(temp.path()).unwrap();
        assert_eq!(state.covered(), CommitSeq(9));
        assert_eq!(state.get(&key).unwrap(), record);
        assert_eq!(state.get(&Key::Tenants).unwrap(), None);
    }
}
