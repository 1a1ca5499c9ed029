//! The records in memory: what the committer decides on, and what readers may see of it.
//!
//! Job: [`RecordCache`] holds one [`CacheEntry`] for each record in memory, bounded; [`CommittedRecord`] is the half that readers share.
//! Invariant: a slot's `record` may be ahead of what is durable, within a commit; what is published never is.
//! Must never: drop a record that somebody is deciding on or waits for, or one that the keeper was not yet told of (the committer hands over first).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::record::Record;

/// The durable record, shared with readers: one atomic load.
#[derive(Debug)]
pub struct CommittedRecord {
    record: ArcSwapOption<Record>,
    referenced: AtomicBool,
}

impl CommittedRecord {
    fn new(record: Option<Record>) -> Arc<Self> {
        Arc::new(Self { record: ArcSwapOption::new(record.map(Arc::new)), referenced: AtomicBool::new(true) })
    }

    /// The record as it was last committed; `None` if there is none.
    pub fn record(&self) -> Option<Arc<Record>> {
        if !self.referenced.load(Ordering::Relaxed) {
            self.referenced.store(true, Ordering::Relaxed);
        }
        self.record.load_full()
    }
}

/// A record in memory.
#[derive(Debug)]
pub struct CacheEntry {
    /// The record as decided so far.
    pub record: Option<Record>,
    /// Whether this commit changed it.
    pub dirty: bool,
    published: Arc<CommittedRecord>,
}

impl CacheEntry {
    /// The half that readers see.
    pub fn published(&self) -> Arc<CommittedRecord> {
        Arc::clone(&self.published)
    }
}

/// What readers look into: the published half of every record in memory.
pub type ReadView = Arc<papaya::HashMap<RecordKey, Arc<CommittedRecord>>>;

/// Every record in memory.
pub struct RecordCache {
    entries: HashMap<RecordKey, CacheEntry>,
    read_view: ReadView,
    clock_queue: VecDeque<RecordKey>,
    /// Keys that somebody waits for, and how many do.
    pinned: HashMap<RecordKey, u32>,
    capacity: usize,
}

impl RecordCache {
    /// Room for about `capacity` records.
    pub fn new(read_view: ReadView, capacity: usize) -> Self {
        Self { entries: HashMap::new(), read_view, clock_queue: VecDeque::new(), pinned: HashMap::new(), capacity }
    }

    /// The record's slot, if it is in memory.
    pub fn get_mut(&mut self, key: &RecordKey) -> Option<&mut CacheEntry> {
        let entry = self.entries.get_mut(key)?;
        entry.published.referenced.store(true, Ordering::Relaxed);
        Some(entry)
    }

    /// Whether it is in memory.
    pub fn contains(&self, key: &RecordKey) -> bool {
        self.entries.contains_key(key)
    }

    /// The record as decided so far, for the journal.
    pub fn record(&self, key: &RecordKey) -> Option<&Record> {
        self.entries.get(key)?.record.as_ref()
    }

    /// Brings a record (or the fact that there is none) into memory and shows it to readers.
    pub fn insert(&mut self, key: RecordKey, record: Option<Record>) {
        let published = CommittedRecord::new(record.clone());
        self.read_view.pin().insert(key.clone(), Arc::clone(&published));
        self.clock_queue.push_back(key.clone());
        self.entries.insert(key, CacheEntry { record, dirty: false, published });
    }

    /// Shows readers what was decided, after it became durable, and returns it.
    pub fn publish(&mut self, key: &RecordKey) -> Option<Record> {
        let entry = self.entries.get_mut(key)?;
        entry.dirty = false;
        entry.published.record.store(entry.record.clone().map(Arc::new));
        entry.record.clone()
    }

    /// Takes back what was decided and not written.
    pub fn roll_back(&mut self, key: &RecordKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.dirty = false;
            entry.record = entry.published.record.load_full().map(|record| (*record).clone());
        }
    }

    /// Keeps a record, here or to come, from being dropped, until it is unpinned as often.
    pub fn pin(&mut self, key: &RecordKey) {
        *self.pinned.entry(key.clone()).or_default() += 1;
    }

    /// Takes one pin out.
    pub fn unpin(&mut self, key: &RecordKey) {
        if let Some(pins) = self.pinned.get_mut(key) {
            *pins -= 1;
            if *pins == 0 {
                self.pinned.remove(key);
            }
        }
    }

    /// Whether more records are in memory than there is room for.
    pub fn is_over_capacity(&self) -> bool {
        self.entries.len() > self.capacity
    }

    /// Drops records that were not used since the hand last passed them, until there is room. Call it between two commits, after the keeper
    /// was told of everything.
    pub fn evict(&mut self) {
        let read_view = self.read_view.pin();
        let mut budget = self.clock_queue.len() * 2;
        while self.entries.len() > self.capacity && budget > 0 {
            budget -= 1;
            let Some(key) = self.clock_queue.pop_front() else { break };
            let Some(entry) = self.entries.get(&key) else { continue };
            if entry.published.referenced.swap(false, Ordering::Relaxed) || self.pinned.contains_key(&key) {
                self.clock_queue.push_back(key);
            } else {
                self.entries.remove(&key);
                read_view.remove(&key);
            }
        }
    }
}
