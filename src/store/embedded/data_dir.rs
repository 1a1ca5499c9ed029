//! The data directory: its lock, its format version and its layout.
//!
//! ```text
//! <data-dir>/            mode 0700
//!   LOCK                 locked by the process that uses the directory; the kernel releases the
//!                        lock when the process ends. Contents: see shutdown_record.rs
//!   FORMAT               one line: the format version and the store's id
//!   journal/             see journal/writer.rs
//!   sled/                see state/sled.rs
//!   backups/             see backup/directory.rs
//!   quarantine-<time>/   a corrupt sled/ that was replaced, see recovery/rebuild.rs
//!   admin.sock           the socket by which commands reach the running server
//!   tls/                 the self-signed certificate of the first start
//! ```
//! Job: lock a data directory, check and upgrade its format, and name what is in it.
//! Invariant: FORMAT becomes durable after the first journal segment. So a directory with FORMAT
//! has a journal, and in a directory without FORMAT no number was ever issued.
//! Must never: open a directory of another format, or one that another process uses.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use thiserror::Error;

use crate::failpoint::failpoint;
use crate::store::embedded::fs::write_atomic;
use crate::store::embedded::journal::frame::StoreId;
use crate::store::embedded::layout::{DIGESTS_FILE, DIGESTS_FILE_V3, RESTORING};
use crate::store::embedded::shutdown_record::{self, PreviousShutdown, ShutdownRecord};
use crate::store::embedded::upgrade;

/// The format that this build writes. It is raised whenever a file gets bytes or a name that an
/// older build does not know: that build then refuses the directory, instead of taking a record of
/// a new layout for corruption or for a torn tail. Format 4 renamed three files of format 3, see
/// upgrade.rs; format 5 gave tenants and API keys an epoch, see codec/record.rs.
const FORMAT_VERSION: u32 = 5;
/// The oldest format that this build can upgrade.
const OLDEST_FORMAT: u32 = 3;
const FORMAT_NAME: &str = "odometer data format";

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// The operating system returned an error.
    #[error("{path}: {cause}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error.
        cause: io::Error,
    },
    /// The path is a file.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// Another process uses it.
    #[error(
        "{0} is in use by another odometer process; stop that process first, or choose another \
         directory with --data-dir"
    )]
    Locked(PathBuf),
    /// The files are not of a format that this build reads.
    #[error("{path} is not of a format that this build reads: {problem}")]
    Format {
        /// The data directory.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A data directory that this process has locked; dropping it releases the lock.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
    previous_shutdown: PreviousShutdown,
}

impl DataDir {
    /// Locks the data directory; creates it if it does not exist.
    ///
    /// # Errors
    /// [`DataDirError`]; then nothing was changed, except that empty directories may have been
    /// created.
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        if path.join(RESTORING).exists() && !Self::is_initialized(path) {
            let problem = "a restore into it was interrupted; run `odometer restore` again";
            return Err(format_error(path, problem.to_owned()));
        }
        let dir = Self::lock_for_restore(path)?;
        // A restore that was killed at its very end left its marker. If FORMAT got lost, a later
        // restore would take the marker as permission to clear the directory.
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

    /// As [`DataDir::lock`], but also for a directory with an unfinished restore.
    ///
    /// # Errors
    /// As [`DataDir::lock`].
    pub fn lock_for_restore(path: &Path) -> Result<Self, DataDirError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |cause| DataDirError::Io { path, cause }
        };
        if path.exists() && !path.is_dir() {
            return Err(DataDirError::NotADirectory(path.to_owned()));
        }
        // Checked before anything is created: a directory of another format stays unchanged.
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
            Err(TryLockError::WouldBlock) if failpoint!("lock-not-taken") => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Locked(path.to_owned())),
            Err(TryLockError::Error(cause)) => return Err(at(&lock_path)(cause)),
        }
        for subdir in ["journal", "sled", "backups"].map(|name| path.join(name)) {
            DirBuilder::new().recursive(true).mode(0o700).create(&subdir).map_err(at(&subdir))?;
        }
        if !failpoint!("subdirectories-not-synced") {
            File::open(path).and_then(|dir| dir.sync_all()).map_err(at(path))?;
        }
        let previous_shutdown = PreviousShutdown::read(&lock, Self::is_initialized(path));
        Ok(Self { path: path.to_owned(), lock, previous_shutdown })
    }

    /// Upgrades an older format, or finishes an interrupted upgrade. Only a server does so before
    /// it opens the store; commands that read leave the directory to the older build as well.
    ///
    /// # Errors
    /// [`DataDirError::Io`]; FORMAT may name the new format then, and the next start continues.
    pub(crate) fn upgrade(&self) -> Result<(), DataDirError> {
        let Some(Format { version, store }) = read(&self.path)? else { return Ok(()) };
        let is_older = version < FORMAT_VERSION;
        if is_older && failpoint!("upgrade-renames-before-format") {
            let _ = upgrade::rename_files(&self.path);
        }
        if is_older {
            write_atomic(&self.path, "FORMAT", format_line(store).as_bytes())
                .map_err(|cause| DataDirError::Io { path: self.path.join("FORMAT"), cause })?;
        }
        upgrade::rename_files(&self.path)
            .map_err(|cause| DataDirError::Io { path: self.path.clone(), cause })
    }

    /// How the previous process stopped.
    pub fn previous_shutdown(&self) -> &PreviousShutdown {
        &self.previous_shutdown
    }

    /// Writes the shutdown record for the next process; best effort.
    pub(crate) fn record_shutdown(&self, record: ShutdownRecord<'_>) {
        let _ = shutdown_record::write(&self.lock, &record.line());
    }

    /// Writes the shutdown record on a separate thread, because the disk that has just failed may
    /// block and the caller must not wait.
    pub(crate) fn record_shutdown_detached(&self, record: ShutdownRecord<'_>) {
        let line = record.line();
        if let Ok(lock) = self.lock.try_clone() {
            let write = move || drop(shutdown_record::write(&lock, &line));
            let _ = std::thread::Builder::new().name("odometer-record".into()).spawn(write);
        }
    }

    /// Whether the directory `path` contains a store.
    pub fn is_initialized(path: &Path) -> bool {
        path.join("FORMAT").is_file()
    }

    /// The directory of the journal.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The directory of sled.
    pub fn sled(&self) -> PathBuf {
        self.path.join("sled")
    }

    /// The directory of automatic backups.
    pub fn backups(&self) -> PathBuf {
        self.path.join("backups")
    }

    /// The path of the data directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An unused name of a quarantine directory, for corrupt files.
    #[must_use]
    pub fn quarantine_name(&self, now_unix_s: u64) -> String {
        let free = |name: &String| !self.path.join(name).exists();
        let mut names = (now_unix_s..).map(|time| format!("quarantine-{time}"));
        names.find(free).unwrap_or_else(|| unreachable!("some name is unused"))
    }

    /// The store's id; `None` if the directory contains no store yet.
    ///
    /// # Errors
    /// [`DataDirError::Format`] if FORMAT is not valid, or missing although there is data.
    pub fn format(&self) -> Result<Option<StoreId>, DataDirError> {
        read_format(&self.path)
    }

    /// Writes FORMAT durably: from now on the directory contains the store `store`.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn write_format(&self, store: StoreId) -> Result<(), DataDirError> {
        let line = format_line(store);
        let write = || -> io::Result<()> {
            write_atomic(&self.path, "FORMAT", line.as_bytes())?;
            // The data directory may be new too, so its own name is synced in its parent.
            match self.path.canonicalize()?.parent() {
                Some(parent) if !failpoint!("data-directory-not-synced") => {
                    File::open(parent)?.sync_all()
                }
                _ => Ok(()),
            }
        };
        write().map_err(|cause| DataDirError::Io { path: self.path.join("FORMAT"), cause })
    }
}

/// FORMAT of this build's version.
fn format_line(store: StoreId) -> String {
    format!("{FORMAT_NAME} {FORMAT_VERSION} store {}\n", HEXLOWER.encode(&store))
}

/// The store's id from the FORMAT file in `dir`; changes nothing.
///
/// # Errors
/// As [`DataDir::format`].
pub fn read_format(dir: &Path) -> Result<Option<StoreId>, DataDirError> {
    Ok(read(dir)?.map(|format| format.store))
}

/// The content of FORMAT.
struct Format {
    version: u32,
    store: StoreId,
}

fn format_error(dir: &Path, problem: String) -> DataDirError {
    DataDirError::Format { path: dir.to_owned(), problem }
}

fn read(dir: &Path) -> Result<Option<Format>, DataDirError> {
    let path = dir.join("FORMAT");
    let problem = |problem: String| Err(format_error(dir, problem));
    let content = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The first checkpoint saves the digests. Before it sled is empty, and an interrupted
            // first start can simply be repeated.
            let has_digests = [DIGESTS_FILE, DIGESTS_FILE_V3]
                .iter()
                .any(|name| dir.join("sled").join(name).exists());
            let is_lost = has_digests && !failpoint!("format-lost-beside-a-state");
            if is_lost && !dir.join(RESTORING).exists() {
                return problem("it has data, but the file FORMAT is missing".to_owned());
            }
            return Ok(None);
        }
        Err(cause) => return Err(DataDirError::Io { path, cause }),
    };
    let line = content.strip_suffix('\n').unwrap_or(&content);
    let rest = line.strip_prefix(FORMAT_NAME);
    let fields = rest.and_then(|rest| rest.trim_start().split_once(" store "));
    let Some((version, id)) = fields else {
        return problem(format!("the file FORMAT does not say \"{FORMAT_NAME}\""));
    };
    let version = match version.parse::<u32>() {
        Ok(known @ OLDEST_FORMAT..=FORMAT_VERSION) => known,
        Ok(newer) if newer > FORMAT_VERSION => {
            return problem(format!(
                "format {newer} is newer than {FORMAT_VERSION}; use the newer build"
            ));
        }
        _ => {
            return problem(format!(
                "format {version:?} is unknown; this build reads {OLDEST_FORMAT} to \
                 {FORMAT_VERSION}"
            ));
        }
    };
    let id = HEXLOWER_PERMISSIVE.decode(id.as_bytes()).ok().and_then(|id| id.try_into().ok());
    match id {
        Some(store) => Ok(Some(Format { version, store })),
        None => problem("the store id in FORMAT is not 32 hexadecimal digits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_a_format_has_an_id_and_one_owner() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::lock(temp.path()).unwrap();
        assert_eq!(dir.format().unwrap(), None);
        dir.write_format([0xA5; 16]).unwrap();
        assert_eq!(dir.format().unwrap(), Some([0xA5; 16]));
        assert!(matches!(DataDir::lock(temp.path()), Err(DataDirError::Locked(_))));
    }

    #[test]
    fn another_format_is_refused_with_its_number() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::lock(temp.path()).unwrap();
        let id = "0".repeat(32);
        for (content, says) in [
            (format!("odometer data format {} store {id}\n", FORMAT_VERSION + 1), "newer"),
            (format!("odometer data format 2 store {id}\n"), "unknown"),
            ("odometer data format 5 store xyz\n".to_owned(), "store id"),
            (format!("odometer data format 3 store {id}00\n"), "store id"),
            (format!("odometer data format 3 store {id} \n"), "store id"),
            ("something else\n".to_owned(), "does not say"),
            (String::new(), "does not say"),
        ] {
            fs::write(temp.path().join("FORMAT"), &content).unwrap();
            let error = dir.format().unwrap_err().to_string();
            assert!(error.contains(says), "{content:?}: {error}");
        }
        let upper = format!("odometer data format 3 store {}", "A5".repeat(16));
        fs::write(temp.path().join("FORMAT"), upper).unwrap();
        assert_eq!(dir.format().unwrap(), Some([0xA5; 16]));
    }
}
