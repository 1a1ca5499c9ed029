//! A file in memory: what the process reads, what is durable, and which sectors are neither.
//!
//! Job: [`Inode`] writes, syncs, fails to sync, and loses what was not synced when the power is
//! cut.
//! Invariant: a clean sector that differs from what is durable is one that a failed sync gave up.
//! Must never: make such a sector durable before it is written again.

use crate::machine::Power;
use crate::support::Random;

/// What a disk writes at once; a power cut may tear it all the same.
pub(crate) const SECTOR: usize = 512;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inode {
    pub(crate) now: Vec<u8>,
    pub(crate) durable: Vec<u8>,
    dirty: Vec<bool>,
    size_dirty: bool,
}

impl Inode {
    fn sectors(&self) -> usize {
        self.now.len().div_ceil(SECTOR)
    }

    pub(crate) fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if bytes.is_empty() {
            return;
        }
        if end > self.now.len() {
            self.now.resize(end, 0);
            self.size_dirty = true;
        }
        self.dirty.resize(self.sectors(), false);
        self.now[offset..end].copy_from_slice(bytes);
        self.dirty[offset / SECTOR..end.div_ceil(SECTOR)].fill(true);
    }

    fn persist(&mut self, sector: usize) {
        let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(self.now.len()));
        if self.durable.len() < to {
            self.durable.resize(to, 0);
        }
        self.durable[from..to].copy_from_slice(&self.now[from..to]);
        self.dirty[sector] = false;
    }

    pub(crate) fn sync(&mut self) {
        if self.size_dirty {
            self.durable.resize(self.now.len(), 0);
            self.size_dirty = false;
        }
        (0..self.dirty.len())
            .filter(|&sector| self.dirty[sector])
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|sector| {
                self.persist(sector);
            });
    }

    /// The kernel gives up on pages and calls them clean; some had reached the disk.
    pub(crate) fn fail_sync(&mut self, power: &Power) {
        if std::mem::take(&mut self.size_dirty) && power.coin() {
            self.durable.resize(self.now.len(), 0);
        }
        for sector in 0..self.dirty.len() {
            if std::mem::take(&mut self.dirty[sector]) && power.coin() {
                self.persist(sector);
            }
        }
    }

    /// Pages that were given up on are read from the disk again once they were dropped from memory.
    pub(crate) fn evict(&mut self, random: &mut Random) {
        for sector in 0..self.sectors() {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(self.now.len()));
            let clean = !self.dirty.get(sector).copied().unwrap_or(false);
            if clean
                && to <= self.durable.len()
                && self.now[from..to] != self.durable[from..to]
                && random.one_in(2)
            {
                self.now[from..to].copy_from_slice(&self.durable[from..to]);
            }
        }
    }

    pub(crate) fn cut_power(&mut self, random: &mut Random) {
        if self.size_dirty && random.one_in(2) {
            self.durable.resize(self.now.len(), 0);
        }
        for sector in 0..self.dirty.len() {
            if !self.dirty[sector] || random.one_in(2) {
                continue;
            }
            let old = self.durable.get(sector * SECTOR..).unwrap_or_default();
            let old: Vec<u8> = old.iter().take(SECTOR).copied().collect();
            self.persist(sector);
            if random.between(0, 2) == 0 {
                // Torn: the new sector's beginning, the old one's end.
                let at = random.between(0, SECTOR as u64) as usize;
                let sector = &mut self.durable[sector * SECTOR..];
                let length = sector.len().min(SECTOR);
                for (index, byte) in sector.iter_mut().enumerate().take(length).skip(at) {
                    *byte = old.get(index).copied().unwrap_or(0);
                }
            }
        }
        self.now = self.durable.clone();
        self.dirty = vec![false; self.sectors()];
        self.size_dirty = false;
    }

    /// Cuts off what is behind `bytes`.
    pub(crate) fn trim(&mut self, bytes: usize) {
        self.now.resize(bytes, 0);
        self.dirty.truncate(self.sectors());
        self.size_dirty = true;
    }
}
