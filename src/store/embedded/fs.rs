//! What the journal and the backups need of a disk: one folder of flat files, and calls that say what is durable after them.
//!
//! Job: the traits [`Directory`] and [`VfsFile`], and [`OsDirectory`]. They are this narrow so that a test can stand in for the disk
//! and forget, at any step, what was not synced.
//! Invariant: nothing is durable but what the comment of a call says.
//! Must never: retry a failed sync, or hide an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A folder of files.
pub trait Directory: Send + Sync + 'static {
    /// An open file.
    type File: VfsFile;

    /// The names in the folder, in no order.
    ///
    /// # Errors
    /// Any error of the system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of `bytes` zeros, written and not only reserved, so that a later write of any part changes neither size nor
    /// extents. An older file of that name is replaced. Its content is durable when this returns, its name is not.
    ///
    /// # Errors
    /// Any error of the system, a full disk among them; a part of the file may be left.
    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<Self::File>;

    /// Makes an empty file, which grows with what is written. An older file of that name is replaced. Neither the file nor its name is
    /// durable yet.
    ///
    /// # Errors
    /// Any error of the system.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing; where only reading is allowed, for that.
    ///
    /// # Errors
    /// Any error of the system.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name at once. Durable after [`Directory::sync_dir`].
    ///
    /// # Errors
    /// Any error of the system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after [`Directory::sync_dir`].
    ///
    /// # Errors
    /// Any error of the system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    ///
    /// # Errors
    /// Any error of the system; then no name that changed since the last call is known to be durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes that this process may still write.
    ///
    /// # Errors
    /// Any error of the system.
    fn available_bytes(&self) -> io::Result<u64>;
}

/// An open file of a [`Directory`].
pub trait VfsFile: Send {
    /// The whole content.
    ///
    /// # Errors
    /// Any error of the system.
    fn read_all(&self) -> io::Result<Vec<u8>>;

    /// Reads into `buffer` from `offset`; fewer bytes than it holds only at the file's end.
    ///
    /// # Errors
    /// Any error of the system.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. Durable after [`VfsFile::sync`].
    ///
    /// # Errors
    /// Any error of the system; then any part may have been written.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts off what is behind `bytes`; durable at some later time.
    ///
    /// # Errors
    /// Any error of the system; the file is then as it was.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;

    /// Makes everything that was written durable (`fdatasync`).
    ///
    /// # Errors
    /// Any error of the system. What was written is then unknown for good: a second call proves nothing, since the kernel may have
    /// marked the lost pages clean.
    fn sync(&mut self) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct OsDirectory {
    dir: PathBuf,
}

impl OsDirectory {
    /// The disk that is the folder of the file `path`.
    #[must_use]
    pub fn parent_of(path: &Path) -> Self {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        Self::new(dir.unwrap_or(Path::new(".")).to_owned())
    }

    /// The disk that is `dir`, which must exist.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }
}

/// A file of a [`OsDirectory`].
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
        fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<OsFile> {
        let OsFile(file) = self.create(name)?;
        let mut offset = 0;
        while offset < bytes {
            let part = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(ZEROS.len());
            file.write_all_at(&ZEROS[..part], offset)?;
            offset += part as u64;
        }
        file.sync_all()?;
        Ok(OsFile(file))
    }

    fn create(&self, name: &str) -> io::Result<OsFile> {
        // A file that is there is replaced and not opened: it might be a link, or have readers.
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).map(OsFile)
    }

    fn open(&self, name: &str) -> io::Result<OsFile> {
        let path = self.dir.join(name);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error)
                if [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem].contains(&error.kind()) =>
            {
                File::open(path).map(OsFile)
            }
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
        File::open(&self.dir)?.sync_all()
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

/// Writes a file whole and durably: the old one or the new one is there after a crash.
///
/// # Errors
/// Any error of the system; then either may be there.
pub fn write_atomic(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}
