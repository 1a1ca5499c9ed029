//! The state in memory: a double of sled that keeps what it must, forgets the rest, and rots.
//!
//! Job: [`Sled`] is what is on the disk, [`SimState`] an open one. What was written since the last
//! successful sync is lost at a crash in any subset; the position and the digests are durable when
//! their call succeeded, and may be when it failed.
//! Invariant: nothing that a successful `sync_through` or `save_digests` promised is lost, except
//! by [`Sled::rot`].
//! Must never: keep less than it promised.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use odometer::store::embedded::journal::frame::LogPosition;
use odometer::store::embedded::state::{KeyValue, State, StateOpenError, WriteOp};

use crate::machine::{Fate, Power};
use crate::support::Random;

const AREA: &str = "state";
/// Older states that are kept, for rot to bring back.
const KEPT_IMAGES: usize = 6;

pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A whole state as it once was.
#[derive(Clone, Debug)]
struct Image {
    records: Records,
    synced_through: LogPosition,
    digests: Option<Arc<Vec<u8>>>,
}

/// What is on the disk, and what the process wrote on top of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sled {
    now: Records,
    durable: Records,
    batches: Vec<Vec<WriteOp>>,
    synced_through: LogPosition,
    digests: Option<Arc<Vec<u8>>>,
    corrupt: Option<String>,
    refuses: bool,
    /// Old records that a read returns and a verification does not see: the bug of deceived
    /// digests.
    deceit: Records,
    images: Vec<Image>,
    /// It holds what was never written, or not what was.
    pub(crate) is_rotten: bool,
}

/// A state on a disk, to be opened.
#[derive(Clone)]
pub(crate) struct SimState {
    power: Power,
    sled: Arc<Mutex<Sled>>,
}

fn apply(records: &mut Records, batch: &[WriteOp]) {
    for (key, bytes) in batch {
        match bytes {
            Some(bytes) => drop(records.insert(key.clone(), bytes.clone())),
            None => drop(records.remove(key)),
        }
    }
}

impl Sled {
    /// A crash: a prefix of the batches since the last sync stays, or any subset of them, or of
    /// their records.
    fn crash(&mut self, random: &mut Random) {
        let beginning =
            random.one_in(2).then(|| random.between(0, self.batches.len() as u64) as usize);
        let halved = random.between(0, 3) == 0;
        for (index, mut batch) in std::mem::take(&mut self.batches).into_iter().enumerate() {
            if beginning.map_or_else(|| random.one_in(2), |length| index < length) {
                batch.retain(|_| !halved || random.one_in(2));
                apply(&mut self.durable, &batch);
            }
        }
        self.now = self.durable.clone();
    }

    /// Data at rest changes. Returns how, or nothing if there is nothing to change.
    fn rot(&mut self, random: &mut Random) -> Option<&'static str> {
        let image = match self.images.len() as u64 {
            0 => return None,
            count => self.images[random.between(0, count - 1) as usize].clone(),
        };
        let older = image
            .records
            .iter()
            .filter(|(key, bytes)| self.durable.get(*key).is_some_and(|is| is != *bytes));
        let older: Vec<_> = older.map(|(key, bytes)| (key.clone(), bytes.clone())).collect();
        let rot = match random.between(0, 7) {
            0 | 1 if !older.is_empty() => {
                let (key, bytes) = older[random.index(older.len())].clone();
                self.durable.insert(key, bytes);
                "older record"
            }
            2 if !self.durable.is_empty() => {
                let at = random.index(self.durable.len());
                let key = self.durable.keys().nth(at).cloned().unwrap_or_default();
                self.durable.remove(&key);
                "missing record"
            }
            3 => {
                self.durable = image.records;
                self.synced_through = image.synced_through;
                self.digests = image.digests;
                "rolled back with its digests"
            }
            4 => {
                self.durable = image.records;
                self.synced_through = image.synced_through;
                "rolled back without its digests"
            }
            5 => {
                self.refuses = true;
                "does not open"
            }
            6 => {
                self.digests = None;
                "digests missing"
            }
            _ => {
                let mut digests = self.digests.as_deref().cloned()?;
                let at = random.index(digests.len());
                digests[at] ^= 1 << random.between(0, 7);
                self.digests = Some(Arc::new(digests));
                "digests damaged"
            }
        };
        self.is_rotten = true;
        self.now = self.durable.clone();
        Some(rot)
    }

    /// The bug: records of an older time are what a reader gets.
    fn deceive(&mut self) {
        let older = self.images.first().map(|image| image.records.clone()).unwrap_or_default();
        self.deceit =
            older.into_iter().filter(|(key, bytes)| self.durable.get(key) != Some(bytes)).collect();
    }

    /// Everything in it.
    pub(crate) fn records(&self) -> &Records {
        &self.now
    }

    fn remember(&mut self) {
        if self.images.len() == KEPT_IMAGES {
            self.images.remove(0);
        }
        let image = Image {
            records: self.durable.clone(),
            synced_through: self.synced_through,
            digests: self.digests.clone(),
        };
        self.images.push(image);
    }
}

impl SimState {
    /// A new, empty state.
    pub(crate) fn new(power: Power) -> Self {
        Self { power, sled: Arc::default() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Sled> {
        self.sled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy that shares nothing with this one, on another machine.
    pub(crate) fn fork(&self, power: Power) -> Self {
        let sled = Arc::new(Mutex::new(self.lock().clone()));
        Self { power, sled }
    }

    /// Opens it, as [`odometer::store::embedded::state::sled::SledState::open`] does.
    pub(crate) fn open(&self) -> Result<Self, StateOpenError> {
        self.power.whole(AREA, "open").map_err(|error| StateOpenError::Io(error.to_string()))?;
        let sled = self.lock();
        match &sled.corrupt {
            Some(why) => Err(StateOpenError::Corrupt(why.clone())),
            None if sled.refuses => Err(StateOpenError::Corrupt("sled cannot open".to_owned())),
            None => Ok(self.clone()),
        }
    }

    pub(crate) fn crash(&self, random: &mut Random) {
        self.lock().crash(random);
    }

    pub(crate) fn rot(&self, random: &mut Random) -> Option<&'static str> {
        self.lock().rot(random)
    }

    pub(crate) fn deceive(&self) {
        self.lock().deceive();
    }

    /// A reason that this very state may have to be rebuilt.
    pub(crate) fn is_hurt(&self) -> bool {
        let sled = self.lock();
        sled.is_rotten || sled.corrupt.is_some()
    }

    fn read(&self) -> Result<(), String> {
        match self.power.act(AREA, "read") {
            Fate::Fine => Ok(()),
            fate => {
                self.power.lock().failed_reads += u64::from(fate == Fate::Fails);
                Err("sled: the disk does not answer".to_owned())
            }
        }
    }
}

impl State for SimState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.read()?;
        let sled = self.lock();
        Ok(sled.deceit.get(key).or_else(|| sled.now.get(key)).cloned())
    }

    fn bucket(&self, bucket: u16) -> Result<Vec<KeyValue>, String> {
        let prefix = bucket.to_be_bytes();
        let found: Vec<KeyValue> = {
            let sled = self.lock();
            let behind =
                sled.now.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(&prefix));
            behind.map(|(key, bytes)| (key.clone(), bytes.clone())).collect()
        };
        // Most buckets are empty; if each of these reads were an operation, most crashes would be
        // in them.
        if !found.is_empty() || self.power.is_dead() {
            self.read()?;
        }
        Ok(found)
    }

    fn keys_after(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, String> {
        self.read()?;
        let sled = self.lock();
        let behind = sled
            .now
            .range::<[u8], _>((Bound::Excluded(after), Bound::Unbounded))
            .map(|(key, _)| key);
        Ok(behind.take_while(|key| key.starts_with(prefix)).take(limit).cloned().collect())
    }

    fn write_batch(&mut self, entries: &[WriteOp]) -> Result<(), String> {
        let fate = self.power.act(AREA, "put");
        if fate != Fate::Dead {
            let part = match fate {
                Fate::Fine => entries.len(),
                _ => self.power.between(0, entries.len() as u64) as usize,
            };
            let entries = &entries[..part];
            let mut sled = self.lock();
            apply(&mut sled.now, entries);
            sled.batches.push(entries.to_vec());
            entries.iter().for_each(|(key, _)| drop(sled.deceit.remove(key)));
        }
        if fate == Fate::Fine { Ok(()) } else { Err("sled: a write failed".to_owned()) }
    }

    fn sync_through(&mut self, mark: LogPosition) -> Result<(), String> {
        self.power.whole(AREA, "sync").map_err(|error| error.to_string())?;
        {
            let mut sled = self.lock();
            sled.durable = sled.now.clone();
            sled.batches.clear();
        }
        let fate = self.power.act(AREA, "record position");
        if fate == Fate::Fine || (fate != Fate::Dead && self.power.coin()) {
            self.lock().synced_through = mark;
        }
        if fate == Fate::Fine { Ok(()) } else { Err("sled: the position is not synced".to_owned()) }
    }

    fn synced_through(&self) -> LogPosition {
        self.lock().synced_through
    }

    fn load_digests(&self) -> Result<Option<Vec<u8>>, String> {
        self.read()?;
        Ok(self.lock().digests.as_deref().cloned())
    }

    fn save_digests(&mut self, bytes: &[u8]) -> Result<(), String> {
        let fate = self.power.act(AREA, "save digests");
        if fate == Fate::Fine || (fate != Fate::Dead && self.power.coin()) {
            let mut sled = self.lock();
            sled.digests = Some(Arc::new(bytes.to_vec()));
            sled.remember();
        }
        if fate == Fate::Fine { Ok(()) } else { Err("the digests are not synced".to_owned()) }
    }

    fn mark_corrupt(&mut self, why: &str) -> Result<(), String> {
        let fate = self.power.act(AREA, "mark corrupt");
        if fate == Fate::Fine || (fate != Fate::Dead && self.power.coin()) {
            self.lock().corrupt = Some(why.to_owned());
        }
        if fate == Fate::Fine { Ok(()) } else { Err("the marker is not synced".to_owned()) }
    }
}
