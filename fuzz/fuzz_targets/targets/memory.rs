//! A disk that is a map in memory.
//!
//! Job: [`MemoryDisk`], whose files are what a fuzzer made up.
//! Invariant: it keeps what is written and nothing fails but a name that is not there.
//! Must never: touch the real disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use odometer::store::embedded::fs::{Directory, VfsFile};

/// File names and what is in them.
pub(crate) type Contents = BTreeMap<String, Vec<u8>>;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct MemoryDisk(Mutex<BTreeMap<String, MemoryFile>>);

/// A file of a [`MemoryDisk`].
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryFile(Arc<Mutex<Vec<u8>>>);

impl MemoryDisk {
    /// A disk that holds these files.
    pub(crate) fn of(files: &Contents) -> Self {
        let file = |bytes: &Vec<u8>| MemoryFile(Arc::new(Mutex::new(bytes.clone())));
        Self(Mutex::new(files.iter().map(|(name, bytes)| (name.clone(), file(bytes))).collect()))
    }

    /// What it holds now.
    pub(crate) fn contents(&self) -> Contents {
        self.files().iter().map(|(name, file)| (name.clone(), file.bytes().clone())).collect()
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, MemoryFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, name: &str, bytes: Vec<u8>) -> MemoryFile {
        let file = MemoryFile(Arc::new(Mutex::new(bytes)));
        self.files().insert(name.to_owned(), file.clone());
        file
    }
}

impl Directory for MemoryDisk {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<MemoryFile> {
        Ok(self.put(name, vec![0; length(bytes)?]))
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        Ok(self.put(name, Vec::new()))
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        self.files().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.files().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files().insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn available_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl MemoryFile {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VfsFile for MemoryFile {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        Ok(self.bytes().clone())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes();
        let rest = bytes.get(length(offset)?..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&mut self, written: &[u8], offset: u64) -> io::Result<()> {
        let (mut bytes, start) = (self.bytes(), length(offset)?);
        let end = start + written.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(written);
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let length = length(bytes)?;
        self.bytes().resize(length, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn length(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}
