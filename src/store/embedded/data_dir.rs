//! The data folder: who may use it, and whether its files are of this build's format.
//!
//! ```text
//! <data-dir>/            mode 0700
//!   LOCK                 locked by the one process that uses the folder; the kernel frees it with the process. See last_stop.rs
//!   FORMAT               what the files are: one line of text with a version and the store's id
//!   journal/             see journal.rs
//!   sled/                see state.rs
//!   backups/             see archive.rs
//!   quarantine-<time>/   a damaged sled/ that was replaced, see heal.rs
//!   admin.sock           how commands talk to the running server
//!   tls/                 the self-signed certificate of a first start
//! ```
//! Invariant: FORMAT appears, durably, after the first journal segment; so a folder that has FORMAT has a journal, and one without
//! FORMAT has no number that was ever answered.
//! Must never: open a folder of another format, or one that another process uses.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use thiserror::Error;

use crate::store::embedded::fs::write_atomic;
use crate::store::embedded::journal::frame::StoreId;
use crate::store::embedded::layout::{DIGESTS_FILE, RESTORING};
use crate::store::embedded::shutdown_record::{self, PreviousShutdown, ShutdownRecord};
use crate::store::embedded::upgrade::{self, SEALS_FILE};

/// The format of this build: 4 renamed three files of 3, see upgrade.rs.
const FORMAT_VERSION: u32 = 4;
/// The oldest format that this build can upgrade.
const OLDEST_FORMAT: u32 = 3;
const FORMAT_NAME: &str = "odometer data format";

/// Why a data folder can not be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// The system refused.
    #[error("{path}: {cause}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// There is something else at the path.
    #[error("{0} is not a folder")]
    NotAFolder(PathBuf),
    /// Another process has it.
    #[error("{0} is in use by another odometer process; stop that one first, or name another folder with --data-dir")]
    Locked(PathBuf),
    /// The files are not of a format that this build reads.
    #[error("{path} is not of a format that this build reads: {problem}")]
    Format {
        /// Which folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A data folder that belongs to this process until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
    previous_shutdown: PreviousShutdown,
}

impl DataDir {
    /// Takes the folder, making it if it is not there.
    ///
    /// # Errors
    /// [`DataDirError`]; nothing is changed then, but that an empty folder may have been made.
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        if path.join(RESTORING).exists() && !Self::is_initialized(path) {
            let problem = "a restore began here and did not end; run `odometer restore` again".to_owned();
            return Err(DataDirError::Format { path: path.to_owned(), problem });
        }
        let dir = Self::lock_for_restore(path)?;
        // A restore that was killed when all was done left its mark; later it would be taken for a folder that may be cleared.
        let marker = path.join(RESTORING);
        if Self::is_initialized(path) && marker.exists() {
            let clear = || {
                fs::remove_file(&marker)?;
                File::open(path)?.sync_all()
            };
            clear().map_err(|cause| DataDirError::Io { path: marker.clone(), cause })?;
        }
        Ok(dir)
    }

    /// As [`DataDir::take`], also where a restore has begun.
    ///
    /// # Errors
    /// As [`DataDir::take`].
    pub fn lock_for_restore(path: &Path) -> Result<Self, DataDirError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |cause| DataDirError::Io { path, cause }
        };
        if path.exists() && !path.is_dir() {
            return Err(DataDirError::NotAFolder(path.to_owned()));
        }
        // Before anything is made in it: a folder of another format is left exactly as it is.
        read_format(path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))?;
        let lock_path = path.join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(at(&lock_path)(source)),
        }
        for inner in ["journal", "sled", "backups"].map(|name| path.join(name)) {
            DirBuilder::new().recursive(true).mode(0o700).create(&inner).map_err(at(&inner))?;
        }
        File::open(path).and_then(|dir| dir.sync_all()).map_err(at(path))?;
        let previous_shutdown = PreviousShutdown::read(&lock, Self::is_initialized(path));
        let data_dir = Self { path: path.to_owned(), lock, previous_shutdown };
        data_dir.upgrade()?;
        Ok(data_dir)
    }

    /// Brings an older format to this build's, or finishes an upgrade that was cut off.
    fn upgrade(&self) -> Result<(), DataDirError> {
        let Some(Format { version, store }) = read(&self.path)? else { return Ok(()) };
        if version < FORMAT_VERSION {
            self.write_format(store)?;
        }
        upgrade::rename_files(&self.path).map_err(|cause| DataDirError::Io { path: self.path.clone(), cause })
    }

    /// How the process before this one left the folder.
    #[must_use]
    pub fn previous_shutdown(&self) -> &PreviousShutdown {
        &self.previous_shutdown
    }

    /// Leaves a line for the next process, if that can be done.
    pub(crate) fn record_shutdown(&self, record: ShutdownRecord<'_>) {
        let _ = shutdown_record::write(&self.lock, &record.text());
    }

    /// The same on a thread of its own: a disk that has just failed may hang, and others wait for who tells of it.
    pub(crate) fn record_shutdown_detached(&self, record: ShutdownRecord<'_>) {
        let text = record.text();
        if let Ok(lock) = self.lock.try_clone() {
            let write = move || drop(shutdown_record::write(&lock, &text));
            let _ = std::thread::Builder::new().name("odometer-last-stop".into()).spawn(write);
        }
    }

    /// Whether a folder at `path` holds a store.
    #[must_use]
    pub fn is_initialized(path: &Path) -> bool {
        path.join("FORMAT").is_file()
    }

    /// The folder of the journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The folder of sled.
    #[must_use]
    pub fn sled(&self) -> PathBuf {
        self.path.join("sled")
    }

    /// The folder of automatic backups.
    #[must_use]
    pub fn backups(&self) -> PathBuf {
        self.path.join("backups")
    }

    /// The data folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of a folder that is not there yet, to put damaged files into.
    #[must_use]
    pub fn quarantine_name(&self, now_unix_s: u64) -> String {
        let free = |name: &String| !self.path.join(name).exists();
        let mut names = (now_unix_s..).map(|time| format!("quarantine-{time}"));
        names.find(free).unwrap_or_else(|| unreachable!("there are more names than folders"))
    }

    /// The store's id; `None` if the folder holds no store yet.
    ///
    /// # Errors
    /// [`DataDirError::Format`] if FORMAT is of another kind, or missing beside data.
    pub fn format(&self) -> Result<Option<StoreId>, DataDirError> {
        read_format(&self.path)
    }
    /// Declares the folder a store of this build's format, durably.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn write_format(&self, store: StoreId) -> Result<(), DataDirError> {
        let text = format!("{FORMAT_NAME} {FORMAT_VERSION} store {}\n", HEXLOWER.encode(&store));
        let write = || -> io::Result<()> {
            write_atomic(&self.path, "FORMAT", text.as_bytes())?;
            // The folder itself may be as new as what is in it.
            match self.path.canonicalize()?.parent() {
                Some(parent) => File::open(parent)?.sync_all(),
                None => Ok(()),
            }
        };
        write().map_err(|cause| DataDirError::Io { path: self.path.join("FORMAT"), cause })
    }
}

/// The store's id by the folder's FORMAT, changing nothing.
///
/// # Errors
/// As [`DataDir::format`].
pub fn read_format(dir: &Path) -> Result<Option<StoreId>, DataDirError> {
    Ok(read(dir)?.map(|format| format.store))
}

/// What FORMAT says.
struct Format {
    version: u32,
    store: StoreId,
}

fn read(dir: &Path) -> Result<Option<Format>, DataDirError> {
    let path = dir.join("FORMAT");
    let problem = |problem: String| DataDirError::Format { path: dir.to_owned(), problem };
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The first checkpoint saves seals; before it nothing is in sled, and a first start may be begun again.
            let has_digests = |name: &&str| dir.join("sled").join(name).exists();
            let used = [DIGESTS_FILE, SEALS_FILE].iter().any(has_digests) && !dir.join(RESTORING).exists();
            return if used { Err(problem("it has data, but the file FORMAT is missing".into())) } else { Ok(None) };
        }
        Err(cause) => return Err(DataDirError::Io { path, cause }),
    };
    let record = text.strip_suffix('\n').unwrap_or(&text);
    let words = record.strip_prefix(FORMAT_NAME).and_then(|rest| rest.trim_start().split_once(" store "));
    let Some((version, id)) = words else {
        return Err(problem("the file FORMAT does not say \"odometer data format\"".into()));
    };
    let version = match version.parse::<u32>() {
        Ok(known @ OLDEST_FORMAT..=FORMAT_VERSION) => known,
        Ok(newer) if newer > FORMAT_VERSION => {
            return Err(problem(format!("format {newer} is newer than {FORMAT_VERSION}; use the newer build")));
        }
        _ => {
            return Err(problem(format!(
                "format {version:?} is unknown; this build reads {OLDEST_FORMAT} to {FORMAT_VERSION}"
            )));
        }
    };
    let id = HEXLOWER_PERMISSIVE.decode(id.as_bytes()).ok().and_then(|id| id.try_into().ok());
    id.map(|store| Some(Format { version, store }))
        .ok_or_else(|| problem("the store id in FORMAT is not 32 hexadecimal digits".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_folder_says_its_id_and_takes_one_owner() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::lock(temp.path()).unwrap();
        assert_eq!(dir.format().unwrap(), None);
        dir.write_format([0xA5; 16]).unwrap();
        assert_eq!(dir.format().unwrap(), Some([0xA5; 16]));
        assert!(matches!(DataDir::lock(temp.path()), Err(DataDirError::Locked(_))));
    }

    #[test]
    fn another_format_is_refused_by_name() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::lock(temp.path()).unwrap();
        let id = "0".repeat(32);
        for (text, says) in [
            (format!("odometer data format 5 store {id}\n"), "newer"),
            (format!("odometer data format 2 store {id}\n"), "unknown"),
            ("odometer data format 4 store xyz\n".to_owned(), "store id"),
            (format!("odometer data format 3 store {id}00\n"), "store id"),
            (format!("odometer data format 3 store {id} \n"), "store id"),
            ("something else\n".to_owned(), "does not say"),
            (String::new(), "does not say"),
        ] {
            fs::write(temp.path().join("FORMAT"), &text).unwrap();
            let error = dir.format().unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
        let upper = format!("odometer data format 3 store {}", "A5".repeat(16));
        fs::write(temp.path().join("FORMAT"), upper).unwrap();
        assert_eq!(dir.format().unwrap(), Some([0xA5; 16]));
    }
}
