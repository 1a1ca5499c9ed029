//! The record cache: what the committer works on, and what readers see of it.
//!
//! Job: [`RecordCache`] holds one [`CacheEntry`] for each record in memory, up to a capacity, and
//! evicts by CLOCK (second chance). [`CommittedRecord`] is the part of an entry that readers share;
//! the [`ReadView`] is the concurrent map by which they find it.
//! Invariant: within a commit, the `record` of an entry may be newer than what is durable; the
//! committed record never is.
//! Must never: evict a pinned record, or one whose newest version the checkpointer does not have
//! (the committer stages them first).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

use crate::failpoint::failpoint;
use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::record::Record;

/// The durable version of a record, shared with readers, who read it by one atomic load.
#[derive(Debug)]
pub struct CommittedRecord {
    record: ArcSwapOption<Record>,
    /// The reference bit of CLOCK.
    referenced: AtomicBool,
}

impl CommittedRecord {
    fn new(record: Option<Record>) -> Arc<Self> {
        let record = ArcSwapOption::new(record.map(Arc::new));
        Arc::new(Self { record, referenced: AtomicBool::new(true) })
    }

    /// The record as of the last commit; `None` if there is none.
    pub fn record(&self) -> Option<Arc<Record>> {
        // Read before write: the cache line stays shared between cores while the bit is set.
        if !self.referenced.load(Ordering::Relaxed) {
            self.referenced.store(true, Ordering::Relaxed);
        }
        self.record.load_full()
    }
}

/// A record in memory.
#[derive(Debug)]
pub struct CacheEntry {
    /// The record with the uncommitted changes of the batch.
    pub record: Option<Record>,
    /// Whether the batch changed the record.
    pub dirty: bool,
    committed: Arc<CommittedRecord>,
}

impl CacheEntry {
    /// The part that readers see.
    pub fn committed(&self) -> Arc<CommittedRecord> {
        Arc::clone(&self.committed)
    }
}

/// The concurrent map that readers look up: the committed part of every cache entry.
pub type ReadView = Arc<papaya::HashMap<RecordKey, Arc<CommittedRecord>>>;

/// The records in memory.
pub struct RecordCache {
    entries: HashMap<RecordKey, CacheEntry>,
    read_view: ReadView,
    /// The ring of CLOCK; its front is the hand.
    clock_queue: VecDeque<RecordKey>,
    /// Keys that deferred commands need, and how many commands do.
    pinned: HashMap<RecordKey, u32>,
    capacity: usize,
}

impl RecordCache {
    /// A cache for about `capacity` records.
    pub fn new(read_view: ReadView, capacity: usize) -> Self {
        let (entries, clock_queue) = (HashMap::new(), VecDeque::new());
        Self { entries, read_view, clock_queue, pinned: HashMap::new(), capacity }
    }

    /// The entry of `key`, if it is in memory.
    pub fn get_mut(&mut self, key: &RecordKey) -> Option<&mut CacheEntry> {
        let entry = self.entries.get_mut(key)?;
        entry.committed.referenced.store(true, Ordering::Relaxed);
        Some(entry)
    }

    /// Whether `key` is in memory.
    pub fn contains(&self, key: &RecordKey) -> bool {
        self.entries.contains_key(key)
    }

    /// The record with the uncommitted changes of the batch.
    pub fn record(&self, key: &RecordKey) -> Option<&Record> {
        self.entries.get(key)?.record.as_ref()
    }

    /// Inserts a committed record, or the fact that there is none, and shows it to readers.
    pub fn insert(&mut self, key: RecordKey, record: Option<Record>) {
        let committed = CommittedRecord::new(record.clone());
        self.read_view.pin().insert(key.clone(), Arc::clone(&committed));
        self.clock_queue.push_back(key.clone());
        self.entries.insert(key, CacheEntry { record, dirty: false, committed });
    }

    /// Shows the changed record to readers, after the commit became durable, and returns it.
    pub fn publish(&mut self, key: &RecordKey) -> Option<Record> {
        let entry = self.entries.get_mut(key)?;
        entry.dirty = false;
        entry.committed.record.store(entry.record.clone().map(Arc::new));
        entry.record.clone()
    }

    /// Discards the uncommitted change of a record.
    pub fn roll_back(&mut self, key: &RecordKey) {
        if failpoint!("rolled-back-change-stays-in-the-cache") {
            return;
        }
        if let Some(entry) = self.entries.get_mut(key) {
            entry.dirty = false;
            entry.record = entry.committed.record.load_full().map(|record| (*record).clone());
        }
    }

    /// Pins a key, whether its record is in memory or not: the record is not evicted until the key
    /// was unpinned as often as it was pinned.
    pub fn pin(&mut self, key: &RecordKey) {
        *self.pinned.entry(key.clone()).or_default() += 1;
    }

    /// Reverts one [`RecordCache::pin`].
    pub fn unpin(&mut self, key: &RecordKey) {
        if let Some(pins) = self.pinned.get_mut(key) {
            *pins -= 1;
            if *pins == 0 {
                self.pinned.remove(key);
            }
        }
    }

    /// Whether there are more records in memory than the capacity.
    pub fn is_over_capacity(&self) -> bool {
        self.entries.len() > self.capacity
    }

    /// Evicts records by CLOCK until the capacity is met, or no further record can be evicted. Call
    /// it between two commits, after every durable change was given to the checkpointer.
    pub fn evict(&mut self) {
        let read_view = self.read_view.pin();
        // CLOCK, also called second chance: the hand takes a key from the front of the queue. If
        // the record was referenced since the hand passed it last, its reference bit is cleared and
        // the key goes to the back; otherwise the record is evicted. The first round clears every
        // bit and the second finds them clear, so after two rounds only pinned records are left,
        // and the loop must end even if they alone exceed the capacity.
        let mut budget = self.clock_queue.len() * 2;
        while self.entries.len() > self.capacity && budget > 0 {
            budget -= 1;
            let Some(key) = self.clock_queue.pop_front() else { break };
            let Some(entry) = self.entries.get(&key) else { continue };
            let was_referenced = entry.committed.referenced.swap(false, Ordering::Relaxed);
            if was_referenced || self.pinned.contains_key(&key) {
                self.clock_queue.push_back(key);
            } else {
                self.entries.remove(&key);
                read_view.remove(&key);
            }
        }
    }
}
