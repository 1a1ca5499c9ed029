//! A disk in memory that forgets what was not synced: the double of the journal's and the backups'
//! directory.
//!
//! Job: [`SimDisk`] and [`SimFile`] are a `Directory` with two views, what the process reads and
//! what is durable; [`SimDisk::cut_power`] and [`SimDisk::kill`] are what a crash leaves of them.
//!
//! ```text
//! file   now      sector sector sector …  what the process reads
//!        dirty      ·      x      ·       sync makes the dirty ones durable; a failed sync makes
//!                                         some of them durable and marks all clean
//!        durable  sector sector …         after a power cut: this, and any subset of the dirty
//!                                         ones, each whole or torn
//! names  now, durable, and the changes in between, of which a power cut keeps any subset
//! ```
//! Invariant: what was synced successfully is never lost, and nothing else is sure to stay. A file
//! exists only while it has a durable name.
//! Must never: let a page that a failed sync marked clean become durable by a later sync.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use odometer::store::embedded::fs::{Directory, VfsFile};

use crate::bugs::Bug;
use crate::inode::Inode;
use crate::machine::{Fate, Power, io_error};
use crate::support::Random;

const JOURNAL: &str = "journal";
/// The end of a segment's name.
const SUFFIX: &str = ".journal";

/// A write as the process meant it: the file, where, what. Frames are read out of it.
pub(crate) type Written = (usize, u64, Vec<u8>);

#[derive(Clone, Debug)]
enum NameChange {
    Made(String, usize),
    Removed(String),
    Renamed(String, String, usize),
}

#[derive(Clone, Debug, Default)]
struct Dir {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<NameChange>,
    written: Vec<Written>,
}

/// See the module's text.
#[derive(Clone)]
pub(crate) struct SimDisk {
    power: Power,
    area: &'static str,
    bug: Option<Bug>,
    dir: Arc<Mutex<Dir>>,
}

/// An open file of a [`SimDisk`].
pub(crate) struct SimFile {
    disk: SimDisk,
    inode: usize,
}

/// Bytes as they were before something happened to them.
#[derive(Clone, Debug)]
pub(crate) struct Scar {
    inode: usize,
    now: Vec<u8>,
    durable: Vec<u8>,
}

impl Dir {
    fn make(&mut self, name: &str) -> usize {
        let inode = self.inodes.len();
        self.inodes.push(Inode::default());
        self.names.insert(name.to_owned(), inode);
        self.changes.push(NameChange::Made(name.to_owned(), inode));
        inode
    }

    fn sync(&mut self) {
        self.durable_names = self.names.clone();
        self.changes.clear();
    }

    fn cut_power(&mut self, random: &mut Random) {
        let changes = std::mem::take(&mut self.changes);
        // A journaling file system keeps a prefix of them; POSIX allows any subset.
        let beginning = random.one_in(2).then(|| random.between(0, changes.len() as u64) as usize);
        for (index, change) in changes.into_iter().enumerate() {
            if !beginning.map_or_else(|| random.one_in(2), |length| index < length) {
                continue;
            }
            let names = &mut self.durable_names;
            match change {
                NameChange::Made(name, inode) => drop(names.insert(name, inode)),
                NameChange::Removed(name) => drop(names.remove(&name)),
                NameChange::Renamed(from, to, inode) => {
                    if names.get(&from) == Some(&inode) {
                        names.remove(&from);
                    }
                    names.insert(to, inode);
                }
            }
        }
        self.names = self.durable_names.clone();
    }
}

impl SimDisk {
    pub(crate) fn new(power: Power, area: &'static str, bug: Option<Bug>) -> Self {
        Self { power, area, bug, dir: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Dir> {
        self.dir.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the disk that shares nothing with it, on another machine.
    pub(crate) fn fork(&self, power: Power) -> Self {
        let dir = Arc::new(Mutex::new(self.lock().clone()));
        Self { power, area: self.area, bug: None, dir }
    }

    /// What only the process knew is gone and what the kernel knew stays, except for pages that a
    /// failed sync left behind.
    pub(crate) fn kill(&self, random: &mut Random) {
        self.lock().inodes.iter_mut().for_each(|inode| inode.evict(random));
    }

    /// What was not synced is gone, or not, or torn.
    pub(crate) fn cut_power(&self, random: &mut Random) {
        let mut dir = self.lock();
        dir.inodes.iter_mut().for_each(|inode| inode.cut_power(random));
        dir.cut_power(random);
    }

    /// What was written since the last call.
    pub(crate) fn take_written(&self) -> Vec<Written> {
        std::mem::take(&mut self.lock().written)
    }

    /// The files, by name.
    pub(crate) fn names(&self) -> Vec<(String, usize)> {
        self.lock().names.iter().map(|(name, inode)| (name.clone(), *inode)).collect()
    }

    pub(crate) fn length(&self, inode: usize) -> usize {
        self.lock().inodes[inode].now.len()
    }

    /// Changes bytes behind everybody's back, on the disk itself.
    pub(crate) fn rot(
        &self,
        inode: usize,
        from: usize,
        to: usize,
        change: impl Fn(&mut [u8]),
    ) -> Scar {
        let mut dir = self.lock();
        let file = &mut dir.inodes[inode];
        let scar = Scar { inode, now: file.now.clone(), durable: file.durable.clone() };
        for bytes in [&mut file.now, &mut file.durable] {
            if let Some(part) = bytes.get_mut(from..to) {
                change(part);
            }
        }
        scar
    }

    /// Undoes [`SimDisk::rot`].
    pub(crate) fn mend(&self, scar: Scar) {
        let mut dir = self.lock();
        let file = &mut dir.inodes[scar.inode];
        (file.now, file.durable) = (scar.now, scar.durable);
    }
}

impl Directory for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.power.whole(self.area, "list")?;
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<SimFile> {
        let bytes = bytes as usize;
        let fate = self.power.act(self.area, "create zeroed");
        if fate == Fate::Dead || (fate == Fate::Fails && self.power.coin()) {
            return Err(full());
        }
        let part =
            if fate == Fate::Fine { bytes } else { self.power.between(0, bytes as u64) as usize };
        let mut dir = self.lock();
        let inode = dir.make(name);
        dir.inodes[inode].write(&vec![0; part], 0);
        match fate {
            Fate::Fine => {
                dir.inodes[inode].sync();
                Ok(SimFile { disk: self.clone(), inode })
            }
            Fate::Fails if self.power.coin() => {
                dir.inodes[inode].write(&vec![0; bytes], 0);
                dir.inodes[inode].fail_sync(&self.power);
                Err(io_error())
            }
            _ => Err(full()),
        }
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let fate = self.power.act(self.area, "create");
        if fate == Fate::Dead || fate == Fate::Fails {
            return Err(full());
        }
        let inode = self.lock().make(name);
        if fate == Fate::Fine { Ok(SimFile { disk: self.clone(), inode }) } else { Err(io_error()) }
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        self.power.whole(self.area, "open")?;
        let inode = self.lock().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let fate = self.power.act(self.area, "rename");
        if fate == Fate::Fine || (fate == Fate::Crash && self.power.coin()) {
            let mut dir = self.lock();
            let inode = dir.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            dir.names.insert(to.to_owned(), inode);
            if to.ends_with(SUFFIX) {
                self.power.tally_phase("segments begun");
            }
            dir.changes.push(NameChange::Renamed(from.to_owned(), to.to_owned(), inode));
        }
        if fate == Fate::Fine { Ok(()) } else { Err(io_error()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let fate = self.power.act(self.area, "remove");
        if fate == Fate::Fine || (fate == Fate::Crash && self.power.coin()) {
            let mut dir = self.lock();
            dir.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            dir.changes.push(NameChange::Removed(name.to_owned()));
            if name.ends_with(SUFFIX) {
                self.power.tally_phase("segments removed");
            }
        }
        if fate == Fate::Fine { Ok(()) } else { Err(io_error()) }
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.power.whole(self.area, "sync dir")?;
        if self.bug != Some(Bug::DirSyncForgotten) || self.area != JOURNAL {
            self.lock().sync();
        }
        Ok(())
    }

    fn available_bytes(&self) -> io::Result<u64> {
        Ok(if self.power.lock().low { 0 } else { u64::MAX })
    }
}

impl SimFile {
    /// What a reader of the file would find, without an operation of the machine.
    pub(crate) fn content(&self) -> Vec<u8> {
        self.disk.lock().inodes[self.inode].now.clone()
    }
}

impl VfsFile for SimFile {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        self.disk.power.whole(self.disk.area, "read")?;
        Ok(self.disk.lock().inodes[self.inode].now.clone())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.power.whole(self.disk.area, "read")?;
        let dir = self.disk.lock();
        let rest = dir.inodes[self.inode].now.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let fate = self.disk.power.act(self.disk.area, "write");
        if fate == Fate::Dead {
            return Err(io_error());
        }
        let part = match fate {
            Fate::Fine => bytes.len(),
            _ => self.disk.power.between(0, bytes.len() as u64) as usize,
        };
        let mut dir = self.disk.lock();
        let (bug, area) = (self.disk.bug, self.disk.area);
        dir.written.push((self.inode, offset, bytes.to_vec()));
        let file = &mut dir.inodes[self.inode];
        let there = file.now.get(offset as usize..).is_some_and(|rest| rest.starts_with(bytes));
        if !(bug == Some(Bug::NothingRewritten) && area == JOURNAL && there) {
            file.write(&bytes[..part], offset as usize);
        }
        if fate == Fate::Fine { Ok(()) } else { Err(io_error()) }
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let fate = self.disk.power.act(self.disk.area, "trim");
        if fate == Fate::Fine || (fate == Fate::Crash && self.disk.power.coin()) {
            let mut dir = self.disk.lock();
            dir.inodes[self.inode].trim(bytes as usize);
        }
        if fate == Fate::Fine { Ok(()) } else { Err(io_error()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let fate = self.disk.power.act(self.disk.area, "sync");
        let lies = self.disk.bug == Some(Bug::SyncLies)
            && self.disk.area == JOURNAL
            && self.disk.power.coin();
        let file = &mut self.disk.lock().inodes[self.inode];
        match fate {
            Fate::Fine if lies => Ok(()),
            Fate::Fine => {
                file.sync();
                Ok(())
            }
            Fate::Fails => {
                file.fail_sync(&self.disk.power);
                Err(io_error())
            }
            Fate::Crash | Fate::Dead => Err(io_error()),
        }
    }
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}
