//! Rot: what goes wrong on a disk at rest, between two processes.
//!
//! Job: [`Rot::strike`] damages the journal, the state or a backup; [`Rot::mend_journal`] puts a
//! refused journal back, as an operator would who copies the disk again.
//! Invariant: at most one journal file is damaged at a time, and the damage is known to the byte.
//! Must never: damage what a start has accepted without leaving a note of it.

use crate::disk::Scar;
use crate::inode::SECTOR;
use crate::start::Site;
use crate::support::Random;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Rot {
    /// The state is not what was written, or is said not to be.
    pub(crate) state: bool,
    /// A backup is not what was written.
    pub(crate) backup: bool,
    scar: Option<Scar>,
    /// Every part of a journal file that was ever damaged: file, from, to.
    extents: Vec<(usize, usize, usize)>,
}

impl Rot {
    /// Something rots.
    pub(crate) fn strike(&mut self, random: &mut Random, site: &Site) {
        match random.between(0, 9) {
            0..4 => self.strike_journal(random, site),
            4..8 => {
                if let Some(what) = site.sled.as_ref().and_then(|sled| sled.rot(random)) {
                    site.power.lock().note("rot", "state", what);
                    self.state = true;
                }
            }
            _ => self.strike_backup(random, site),
        }
    }

    fn strike_journal(&mut self, random: &mut Random, site: &Site) {
        let files: Vec<usize> = site
            .journal
            .names()
            .into_iter()
            .filter(|(name, _)| name != "spare")
            .map(|f| f.1)
            .collect();
        if files.is_empty() || self.scar.is_some() {
            return;
        }
        let at = if random.one_in(2) { files.len() - 1 } else { random.index(files.len()) };
        let (inode, length) = (files[at], site.journal.length(files[at]) as u64);
        if length == 0 {
            return;
        }
        // Most of a segment is zeros; its beginning is where the frames are.
        let within = if random.one_in(2) { length.min(1024) } else { length };
        let byte = random.between(0, within - 1) as usize;
        let (what, from, to) = if random.between(0, 3) > 0 {
            ("flipped bit", byte, byte + 1)
        } else {
            let sector = byte / SECTOR * SECTOR;
            ("zeroed sector", sector, (sector + SECTOR).min(length as usize))
        };
        let bit = 1_u8 << random.between(0, 7);
        let flips = to == from + 1;
        let change = |bytes: &mut [u8]| if flips { bytes[0] ^= bit } else { bytes.fill(0) };
        site.power.lock().note("rot", "journal", what);
        self.scar = Some(site.journal.rot(inode, from, to, change));
        self.extents.push((inode, from, to));
    }

    fn strike_backup(&mut self, random: &mut Random, site: &Site) {
        let files: Vec<usize> = site.backups.names().into_iter().map(|file| file.1).collect();
        let Some(inode) = files.last().copied() else { return };
        let length = site.backups.length(inode) as u64;
        if length == 0 {
            return;
        }
        let byte = random.between(0, length - 1) as usize;
        let bit = 1_u8 << random.between(0, 7);
        site.power.lock().note("rot", "backups", "flipped bit");
        let _ = site.backups.rot(inode, byte, byte + 1, |bytes| bytes[0] ^= bit);
        self.backup = true;
    }

    /// A start went on with what there is.
    pub(crate) fn accepted(&mut self) {
        self.scar = None;
    }

    /// Whether the journal is damaged, and no start has gone on with what there is.
    pub(crate) fn is_journal_hurt(&self) -> bool {
        self.scar.is_some()
    }

    /// Puts the damaged bytes back; false if there are none.
    pub(crate) fn mend_journal(&mut self, site: &Site) -> bool {
        let Some(scar) = self.scar.take() else { return false };
        self.extents.pop();
        site.journal.mend(scar);
        true
    }

    /// Whether some damage is within these bytes of a journal file.
    pub(crate) fn touches(&self, (inode, from, to): (usize, usize, usize)) -> bool {
        self.extents.iter().any(|extent| extent.0 == inode && extent.1 < to && from < extent.2)
    }
}
