//! File-system abstraction for the journal and for backups: one flat directory of files.
//!
//! Job: the traits [`Directory`] and [`VfsFile`], and [`OsDirectory`], which is the real one. The
//! traits are narrow, so that the simulation can replace the disk and lose unsynced data at any
//! step.
//! Invariant: after a call, exactly that is durable which its comment says.
//! Must never: retry a failed sync, or hide an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::failpoint::failpoint;

/// A directory of files.
pub trait Directory: Send + Sync + 'static {
    /// An open file.
    type File: VfsFile;

    /// The file names in the directory, in no particular order.
    ///
    /// # Errors
    /// Any I/O error.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file of `bytes` zeros, replacing a file of that name. The zeros are written and
    /// not only reserved, so that a later write of any part changes neither size nor extents. The
    /// content is durable when this returns; the name is not.
    ///
    /// # Errors
    /// Any I/O error, for example a full disk; a part of the file may remain.
    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<Self::File>;

    /// Creates an empty file that grows with what is written, replacing a file of that name.
    /// Neither the file nor its name is durable when this returns.
    ///
    /// # Errors
    /// Any I/O error.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing, or for reading only if writing is not permitted.
    ///
    /// # Errors
    /// Any I/O error.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file atomically, replacing a file named `to`. Durable after
    /// [`Directory::sync_dir`].
    ///
    /// # Errors
    /// Any I/O error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after [`Directory::sync_dir`].
    ///
    /// # Errors
    /// Any I/O error.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names in the directory durable (`fsync` of the directory).
    ///
    /// # Errors
    /// Any I/O error; then it is unknown which name changes since the last call are durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Disk space in bytes that this process may still use.
    ///
    /// # Errors
    /// Any I/O error.
    fn available_bytes(&self) -> io::Result<u64>;
}

/// An open file of a [`Directory`].
pub trait VfsFile: Send {
    /// The whole content.
    ///
    /// # Errors
    /// Any I/O error.
    fn read_all(&self) -> io::Result<Vec<u8>>;

    /// Fills `buffer` from `offset` on and returns the number of bytes read, which is smaller than
    /// the buffer only at the end of the file.
    ///
    /// # Errors
    /// Any I/O error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. Durable after [`VfsFile::sync`].
    ///
    /// # Errors
    /// Any I/O error; then any part may have been written.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Truncates the file to `bytes`. Durable at some later time.
    ///
    /// # Errors
    /// Any I/O error; the file is then unchanged.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;

    /// Makes every earlier write of this file durable (`fdatasync`).
    ///
    /// # Errors
    /// Any I/O error. It is then unknown what is durable, for good: a second call may succeed
    /// although data was lost, because the kernel may have marked the lost pages clean.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct OsDirectory {
    dir: PathBuf,
}

impl OsDirectory {
    /// The directory that contains the file `path`.
    #[must_use]
    pub fn parent_of(path: &Path) -> Self {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        Self::new(dir.unwrap_or(Path::new(".")).to_owned())
    }

    /// The directory `dir`, which must exist.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }
}

/// An open file of an [`OsDirectory`].
#[derive(Debug)]
pub struct OsFile(File);

impl From<OsFile> for File {
    fn from(file: OsFile) -> Self {
        file.0
    }
}

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

impl Directory for OsDirectory {
    type File = OsFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.dir)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<OsFile> {
        let OsFile(file) = self.create(name)?;
        let mut offset = 0;
        while offset < bytes {
            let part = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(ZEROS.len());
            file.write_all_at(&ZEROS[..part], offset)?;
            offset += part as u64;
        }
        if !failpoint!("spare-not-synced") {
            file.sync_all()?;
        }
        Ok(OsFile(file))
    }

    fn create(&self, name: &str) -> io::Result<OsFile> {
        // An existing file is removed and not opened: it may be a link, or another process may be
        // reading it.
        let path = self.dir.join(name);
        ignore_not_found(fs::remove_file(&path))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        options.open(path).map(OsFile)
    }

    fn open(&self, name: &str) -> io::Result<OsFile> {
        const NOT_WRITABLE: [io::ErrorKind; 2] =
            [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
        let path = self.dir.join(name);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if NOT_WRITABLE.contains(&error.kind()) => File::open(path).map(OsFile),
            other => other.map(OsFile),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        if failpoint!("directory-never-synced") {
            Ok(())
        } else {
            File::open(&self.dir)?.sync_all()
        }
    }

    fn available_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl VfsFile for OsFile {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.0.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Makes a removal of what does not exist a success.
pub(crate) fn ignore_not_found(result: io::Result<()>) -> io::Result<()> {
    result
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Writes a whole file durably and atomically: to a temporary file that is synced, renamed, and
/// followed by a sync of the directory. After a crash either the old or the new file is there.
///
/// # Errors
/// Any I/O error; then either file may be there.
pub fn write_atomic(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    if !failpoint!("replaced-file-not-synced") {
        file.sync_all()?;
    }
    fs::rename(&temporary, dir.join(name))?;
    if failpoint!("replaced-name-not-synced") { Ok(()) } else { File::open(dir)?.sync_all() }
}
