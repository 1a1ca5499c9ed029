//! sled, the state behind the journal. sled lives only in this file.
//!
//! Job: keep bytes by key ([`State`], [`SledState`]), in order, and say up to which commit they are complete and durable.
//! Invariant: `synced_through` grows only after every change up to it was forced to the disk by our own `fdatasync`; sled's own `flush()`
//! calls `sync_file_range`, which survives a killed process but not a power cut.
//! Must never: be touched by two threads (0.34 can deadlock on mixed reads and writes), or be believed: seals.rs proves what it returns.
//!
//! sled is pinned to 0.34.7 and treated as a part that may fail: leftovers of an interrupted snapshot make it unopenable and are
//! removed first; its panics while opening are caught and become an error; its file lock may outlive its owner by a moment, so
//! opening waits for it for two seconds.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::store::embedded::fs::write_atomic;
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition};
use crate::store::embedded::layout::{CORRUPT_MARKER, DIGESTS_FILE};
use crate::store::embedded::state::{KeyValue, State, StateOpenError, WriteOp};

/// Cache of sled, in bytes: small, since the records in use are cached above it.
const SLED_CACHE_BYTES: u64 = 16 << 20;
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Its single byte is no stored key, which has three at least.
const SYNCED_THROUGH_KEY: &[u8] = &[0];

fn classify_io_error(error: &io::Error, text: String) -> StateOpenError {
    use io::ErrorKind::{
        Interrupted, OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, ResourceBusy, StorageFull,
        TimedOut, WouldBlock,
    };
    // Too many open files, in this process or in the system, have no kind of their own.
    let too_many_files = matches!(error.raw_os_error(), Some(23 | 24));
    match error.kind() {
        Interrupted | OutOfMemory | PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | ResourceBusy
        | StorageFull | TimedOut | WouldBlock => StateOpenError::Io(text),
        _ if too_many_files => StateOpenError::Io(text),
        _ => StateOpenError::Corrupt(text),
    }
}

/// The state in sled.
pub struct SledState {
    db: sled::Db,
    /// A second descriptor of sled's file, to sync it.
    file: File,
    dir: PathBuf,
    synced_through: LogPosition,
}

impl SledState {
    /// Opens the state in `dir`, or makes a new one.
    ///
    /// # Errors
    /// [`StateOpenError`], which tells damage from what the system refused.
    pub fn open(dir: &Path) -> Result<Self, StateOpenError> {
        let file =
            |name: &str, error: &io::Error| classify_io_error(error, format!("{}: {error}", dir.join(name).display()));
        match fs::read_to_string(dir.join(CORRUPT_MARKER)) {
            Ok(why) => return Err(StateOpenError::Corrupt(why)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file(CORRUPT_MARKER, &error)),
        }
        remove_unfinished_snapshots(dir).map_err(|error| file("", &error))?;
        drop_page_cache(&dir.join("db")).map_err(|error| file("db", &error))?;
        let deadline = Instant::now() + LOCK_WAIT;
        let db = loop {
            let config = sled::Config::new().path(dir).cache_capacity(SLED_CACHE_BYTES).flush_every_ms(None);
            match catch_unwind(AssertUnwindSafe(|| config.open())) {
                Ok(Ok(db)) => break db,
                Ok(Err(error)) if error.to_string().contains("could not acquire lock") => {
                    if Instant::now() >= deadline {
                        return Err(StateOpenError::Io(format!("{} is locked: {error}", dir.display())));
                    }
                    std::thread::park_timeout(Duration::from_millis(20));
                }
                Ok(Err(error)) => {
                    let text = format!("sled can not open {}: {error}", dir.display());
                    return Err(match error {
                        sled::Error::Io(error) => classify_io_error(&error, text),
                        _ => StateOpenError::Corrupt(text),
                    });
                }
                Err(_) => {
                    return Err(StateOpenError::Corrupt(format!("sled panicked while opening {}", dir.display())));
                }
            }
        };
        let options = OpenOptions::new().read(true).write(true).open(dir.join("db"));
        let db_file = options.map_err(|error| file("db", &error))?;
        let damaged = || StateOpenError::Corrupt("sled: the checkpoint number is damaged".to_owned());
        let synced_through = match catch_sled_panic(|| db.get(SYNCED_THROUGH_KEY)).map_err(StateOpenError::Corrupt)? {
            None => LogPosition::default(),
            Some(bytes) => parse_position(&bytes).ok_or_else(damaged)?,
        };
        Ok(Self { db, file: db_file, dir: dir.to_owned(), synced_through })
    }

    fn flush_and_sync(&self) -> Result<(), String> {
        self.db.flush().map_err(|e| format!("sled flush: {e}"))?;
        self.file.sync_data().map_err(|e| format!("sled fdatasync: {e}"))
    }
}

impl State for SledState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let found = catch_sled_panic(|| self.db.get(key))?;
        Ok(found.map(|bytes| bytes.to_vec()))
    }

    fn bucket(&self, bucket: u16) -> Result<Vec<KeyValue>, String> {
        catch_sled_panic(|| {
            let entries = self.db.scan_prefix(bucket.to_be_bytes());
            entries.map(|entry| entry.map(|(key, bytes)| (key.to_vec(), bytes.to_vec()))).collect()
        })
    }

    fn keys_after(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, String> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        catch_sled_panic(|| {
            let keys = self.db.range::<&[u8], _>(behind).keys().map(|key| key.map(|key| key.to_vec()));
            keys.take_while(|key| key.as_ref().map_or(true, |key| key.starts_with(prefix))).take(limit).collect()
        })
    }

    fn write_batch(&mut self, entries: &[WriteOp]) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        for (key, bytes) in entries {
            match bytes {
                Some(bytes) => batch.insert(key.as_slice(), bytes.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        self.db.apply_batch(batch).map_err(|e| format!("sled: {e}"))
    }

    fn sync_through(&mut self, position: LogPosition) -> Result<(), String> {
        // Two steps, so that the number can not reach the disk before the records that it speaks of.
        self.flush_and_sync()?;
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
        match fs::read(self.dir.join(DIGESTS_FILE)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{DIGESTS_FILE}: {error}")),
        }
    }

    fn save_digests(&mut self, bytes: &[u8]) -> Result<(), String> {
        write_atomic(&self.dir, DIGESTS_FILE, bytes).map_err(|error| format!("{DIGESTS_FILE}: {error}"))
    }

    fn mark_corrupt(&mut self, why: &str) -> Result<(), String> {
        write_atomic(&self.dir, CORRUPT_MARKER, why.as_bytes()).map_err(|error| format!("{CORRUPT_MARKER}: {error}"))
    }
}

/// sled's answer; where it panics on a damaged page, that is an error too.
fn catch_sled_panic<T>(ask: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(answer) => answer.map_err(|error| format!("sled: {error}")),
        Err(_) => Err("sled panicked while reading".to_owned()),
    }
}

fn parse_position(bytes: &[u8]) -> Option<LogPosition> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let (seq, chain) = body.split_first_chunk::<8>()?;
    let position =
        LogPosition { seq: CommitSeq(u64::from_be_bytes(*seq)), crc: u32::from_be_bytes(chain.try_into().ok()?) };
    (crc32c::crc32c(body).to_be_bytes() == *crc).then_some(position)
}

/// Makes sure that what is read is what the disk has: after a sync that failed, pages may look clean that never got there, and what the
/// seals prove must be there after a power cut too.
fn drop_page_cache(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => {
            file.sync_data()?;
            // Advice; where it is not taken, there is nothing else to do.
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
    fn entries_seals_and_the_covered_mark_come_back() {
        let temp = tempfile::tempdir().unwrap();
        let (key, other) = (vec![0, 7, 1], vec![0, 8, 1]);
        let position = LogPosition { seq: CommitSeq(9), crc: 4 };
        let mut state = SledState::open(temp.path()).unwrap();
        assert_eq!((state.synced_through(), state.load_digests().unwrap()), (LogPosition::default(), None));
        state.write_batch(&[(key.clone(), Some(b"a".to_vec())), (other.clone(), Some(b"b".to_vec()))]).unwrap();
        state.write_batch(&[(other.clone(), None)]).unwrap();
        state.sync_through(position).unwrap();
        state.save_digests(b"seals").unwrap();
        drop(state);
        fs::write(temp.path().join("snap.0000.generating"), b"half").unwrap();
        let mut state = SledState::open(temp.path()).unwrap();
        assert_eq!((state.synced_through(), state.load_digests().unwrap()), (position, Some(b"seals".to_vec())));
        assert_eq!((state.get(&key).unwrap(), state.get(&other).unwrap()), (Some(b"a".to_vec()), None));
        assert_eq!(state.bucket(7).unwrap(), [(key, b"a".to_vec())]);
        assert_eq!(state.bucket(0).unwrap(), []);
        let behind = |after: &[u8]| state.keys_after(&[0, 7], after, 9).unwrap();
        assert_eq!((behind(&[0, 7]), behind(&[0, 7, 1])), (vec![vec![0, 7, 1]], vec![]));
        state.mark_corrupt("it lied").unwrap();
        drop(state);
        assert_eq!(SledState::open(temp.path()).err(), Some(StateOpenError::Corrupt("it lied".to_owned())));
    }
}
