//! sled, the checkpointed state behind the journal. No other file uses sled.
//!
//! Job: store bytes by key in order ([`State`], [`SledState`]), and record up to which commit they
//! are complete and durable.
//! Invariant: `synced_through` grows only after every change up to it was synced by our own
//! `fdatasync`. sled's `flush()` calls `sync_file_range`, which survives a killed process but not a
//! power failure.
//! Must never: be used by two threads, because sled 0.34 can deadlock on mixed reads and writes; or
//! be trusted: digests.rs verifies what sled returns.
//!
//! sled is pinned to 0.34.7 and handled as a component that may fail. Files of an interrupted
//! snapshot make it impossible to open and are removed first. Its panics are caught and become
//! errors. Its file lock may outlive its owner for a short time, so opening waits for it, 2 s at
//! most.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failpoint::failpoint;
use crate::store::embedded::fs::write_atomic;
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition};
use crate::store::embedded::layout::{
    CORRUPT_MARKER, CORRUPT_MARKER_V3, DIGESTS_FILE, DIGESTS_FILE_V3,
};
use crate::store::embedded::state::{KeyValue, State, StateOpenError, WriteOp};

/// The size of sled's own cache in bytes. It is small, because the record cache above it holds the
/// records in use.
const SLED_CACHE_BYTES: u64 = 16 << 20;
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// One byte, so it is not a storage key: those have at least three.
const SYNCED_THROUGH_KEY: &[u8] = &[0];

/// Tells corruption from errors of the operating system that a later attempt may not meet.
fn classify_io_error(error: &io::Error, problem: String) -> StateOpenError {
    use io::ErrorKind::{
        Interrupted, OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
        ResourceBusy, StorageFull, TimedOut, WouldBlock,
    };
    // ENFILE and EMFILE, too many open files in the system or in this process, have no `ErrorKind`.
    let too_many_files = matches!(error.raw_os_error(), Some(23 | 24));
    match error.kind() {
        Interrupted | OutOfMemory | PermissionDenied | QuotaExceeded | ReadOnlyFilesystem
        | ResourceBusy | StorageFull | TimedOut | WouldBlock => StateOpenError::Io(problem),
        _ if too_many_files => StateOpenError::Io(problem),
        _ => StateOpenError::Corrupt(problem),
    }
}

/// The state in sled.
pub struct SledState {
    db: sled::Db,
    /// A second descriptor of sled's file, for `fdatasync`.
    file: File,
    dir: PathBuf,
    synced_through: LogPosition,
}

impl SledState {
    /// Opens the state in `dir`, or creates an empty one.
    ///
    /// # Errors
    /// [`StateOpenError::Corrupt`] if the state has to be rebuilt, [`StateOpenError::Io`] if the
    /// operating system returned an error or the lock stayed taken for 2 s.
    pub fn open(dir: &Path) -> Result<Self, StateOpenError> {
        let io_error = |name: &str, error: &io::Error| {
            classify_io_error(error, format!("{}: {error}", dir.join(name).display()))
        };
        for marker in [CORRUPT_MARKER, CORRUPT_MARKER_V3] {
            match fs::read_to_string(dir.join(marker)) {
                Ok(_) if failpoint!("corrupt-mark-ignored") => {}
                Ok(why) => return Err(StateOpenError::Corrupt(why)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error(marker, &error)),
            }
        }
        remove_unfinished_snapshots(dir).map_err(|error| io_error("", &error))?;
        drop_page_cache(&dir.join("db")).map_err(|error| io_error("db", &error))?;
        let db = open_sled(dir)?;
        let file = OpenOptions::new().read(true).write(true).open(dir.join("db"));
        let file = file.map_err(|error| io_error("db", &error))?;
        let position = catch_sled_panic(|| db.get(SYNCED_THROUGH_KEY));
        let synced_through = match position.map_err(StateOpenError::Corrupt)? {
            None => LogPosition::default(),
            Some(bytes) => parse_position(&bytes).ok_or_else(|| {
                StateOpenError::Corrupt("sled: the checkpoint number is corrupt".to_owned())
            })?,
        };
        Ok(Self { db, file, dir: dir.to_owned(), synced_through })
    }

    /// Flushes sled's buffers to its file and syncs the file with `fdatasync`.
    fn flush_and_sync(&self) -> Result<(), String> {
        self.db.flush().map_err(|e| format!("sled flush: {e}"))?;
        if failpoint!("sled-not-synced") {
            return Ok(());
        }
        self.file.sync_data().map_err(|e| format!("sled fdatasync: {e}"))
    }

    fn file_error(&self, name: &str, error: &io::Error) -> String {
        format!("{}: {error}", self.dir.join(name).display())
    }
}

fn open_sled(dir: &Path) -> Result<sled::Db, StateOpenError> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        let config = sled::Config::new().path(dir).cache_capacity(SLED_CACHE_BYTES);
        let config = config.flush_every_ms(None);
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(error)) if error.to_string().contains("could not acquire lock") => {
                if Instant::now() >= deadline {
                    let problem = format!("{} is locked: {error}", dir.display());
                    return Err(StateOpenError::Io(problem));
                }
                std::thread::park_timeout(LOCK_RETRY_INTERVAL);
            }
            Ok(Err(error)) => {
                let problem = format!("sled cannot open {}: {error}", dir.display());
                return Err(match error {
                    sled::Error::Io(error) => classify_io_error(&error, problem),
                    _ => StateOpenError::Corrupt(problem),
                });
            }
            Err(_) => {
                let problem = format!("sled panicked while opening {}", dir.display());
                return Err(StateOpenError::Corrupt(problem));
            }
        }
    }
}

impl State for SledState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let record = catch_sled_panic(|| self.db.get(key))?;
        Ok(record.map(|bytes| bytes.to_vec()))
    }

    fn bucket(&self, bucket: u16) -> Result<Vec<KeyValue>, String> {
        catch_sled_panic(|| {
            let entries = self.db.scan_prefix(bucket.to_be_bytes());
            entries.map(|entry| entry.map(|(key, bytes)| (key.to_vec(), bytes.to_vec()))).collect()
        })
    }

    fn keys_after(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, String> {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        // An error passes `take_while`, so that it is returned.
        let has_prefix =
            |key: &sled::Result<Vec<u8>>| key.as_ref().map_or(true, |key| key.starts_with(prefix));
        catch_sled_panic(|| {
            let keys = self.db.range::<&[u8], _>(range).keys();
            let keys = keys.map(|key| key.map(|key| key.to_vec()));
            keys.take_while(has_prefix).take(limit).collect()
        })
    }

    fn write_batch(&mut self, batch: &[WriteOp]) -> Result<(), String> {
        let mut sled_batch = sled::Batch::default();
        for (key, bytes) in batch {
            match bytes {
                Some(bytes) => sled_batch.insert(key.as_slice(), bytes.as_slice()),
                None => sled_batch.remove(key.as_slice()),
            }
        }
        self.db.apply_batch(sled_batch).map_err(|e| format!("sled: {e}"))
    }

    fn sync_through(&mut self, position: LogPosition) -> Result<(), String> {
        // Two syncs, so that the position cannot reach the device before its records.
        if !failpoint!("position-with-its-records") {
            self.flush_and_sync()?;
        }
        let mut bytes = position.seq.0.to_be_bytes().to_vec();
        bytes.extend_from_slice(&position.crc.to_be_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        self.db.insert(SYNCED_THROUGH_KEY, bytes).map_err(|e| format!("sled: {e}"))?;
        self.flush_and_sync()?;
        self.synced_through = position;
        Ok(())
    }

    fn synced_through(&self) -> LogPosition {
        self.synced_through
    }

    fn load_digests(&self) -> Result<Option<Vec<u8>>, String> {
        // A command that changes nothing may read a state of format 3.
        for name in [DIGESTS_FILE, DIGESTS_FILE_V3] {
            match fs::read(self.dir.join(name)) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.file_error(name, &error)),
            }
        }
        Ok(None)
    }

    fn save_digests(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = write_atomic(&self.dir, DIGESTS_FILE, bytes);
        written.map_err(|error| self.file_error(DIGESTS_FILE, &error))
    }

    fn mark_corrupt(&mut self, why: &str) -> Result<(), String> {
        if failpoint!("corrupt-state-not-marked") {
            return Ok(());
        }
        let written = write_atomic(&self.dir, CORRUPT_MARKER, why.as_bytes());
        written.map_err(|error| self.file_error(CORRUPT_MARKER, &error))
    }
}

/// Calls sled; its errors and its panics, which corrupt pages cause, both become an error.
fn catch_sled_panic<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| format!("sled: {error}")),
        Err(_) => Err("sled panicked while reading".to_owned()),
    }
}

fn parse_position(bytes: &[u8]) -> Option<LogPosition> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let (seq, frame_crc) = body.split_first_chunk::<8>()?;
    let position = LogPosition {
        seq: CommitSeq(u64::from_be_bytes(*seq)),
        crc: u32::from_be_bytes(frame_crc.try_into().ok()?),
    };
    (crc32c::crc32c(body).to_be_bytes() == *crc).then_some(position)
}

/// Drops the file's pages from the page cache (`POSIX_FADV_DONTNEED`), so that reads come from the
/// device. After a failed `fdatasync`, pages may look clean that never reached the device, and what
/// the digests verify must be there after a power failure too.
fn drop_page_cache(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => {
            if !failpoint!("sled-not-synced-at-a-start") {
                file.sync_data()?;
            }
            // The kernel may ignore this advice; there is no other way to drop the pages.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_unfinished_snapshots(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_digests_and_the_synced_position_come_back() {
        let temp = tempfile::tempdir().unwrap();
        let (key, other) = (vec![0, 7, 1], vec![0, 8, 1]);
        let position = LogPosition { seq: CommitSeq(9), crc: 4 };
        let durable = |state: &SledState| (state.synced_through(), state.load_digests().unwrap());
        let mut state = SledState::open(temp.path()).unwrap();
        assert_eq!(durable(&state), (LogPosition::default(), None));
        let (one, two) = (Some(b"a".to_vec()), Some(b"b".to_vec()));
        state.write_batch(&[(key.clone(), one), (other.clone(), two)]).unwrap();
        state.write_batch(&[(other.clone(), None)]).unwrap();
        state.sync_through(position).unwrap();
        state.save_digests(b"digests").unwrap();
        drop(state);
        fs::write(temp.path().join("snap.0000.generating"), b"half").unwrap();
        let mut state = SledState::open(temp.path()).unwrap();
        assert_eq!(durable(&state), (position, Some(b"digests".to_vec())));
        assert_eq!(state.get(&key).unwrap(), Some(b"a".to_vec()));
        assert_eq!(state.get(&other).unwrap(), None);
        assert_eq!(state.bucket(7).unwrap(), [(key, b"a".to_vec())]);
        assert_eq!(state.bucket(0).unwrap(), []);
        let keys_after = |after: &[u8]| state.keys_after(&[0, 7], after, 9).unwrap();
        assert_eq!(keys_after(&[0, 7]), [[0, 7, 1]]);
        assert!(keys_after(&[0, 7, 1]).is_empty());
        state.mark_corrupt("bucket 7 is stale").unwrap();
        drop(state);
        let error = SledState::open(temp.path()).err();
        assert_eq!(error, Some(StateOpenError::Corrupt("bucket 7 is stale".to_owned())));
    }
}
