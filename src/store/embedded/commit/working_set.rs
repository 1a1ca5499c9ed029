//! The working set: the uncommitted changes of one batch, on top of the record cache.
//!
//! Job: [`WorkingSet`] gives commands the newest version of each record, which includes the changes
//! of earlier commands of the batch, collects what they write, and yields it for the journal frame.
//! Index entries and idempotency pages are written but not cached, because no command reads them
//! from here.
//! Invariant: a record is read only if it is in the cache; `WorkingSet::first_missing` finds the
//! one that is not.
//! Must never: show a change to readers before it is durable.

use crate::domain::tenant::TenantId;
use crate::failpoint::failpoint;
use crate::store::embedded::codec::key::{RecordKey, SYSTEM_TENANT};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::cache::RecordCache;
use crate::store::embedded::commit::idempotency::IdempotencyTable;
use crate::store::embedded::journal::frame::RecordWrite;
use crate::store::{Refusal, TenantRecord, TenantUsage};

/// The keys of the records that a command reads.
pub(crate) type ReadSet = [Option<RecordKey>; 4];

/// The record cache, the idempotency table, and what the batch has changed in them.
pub struct WorkingSet {
    pub(crate) cache: RecordCache,
    pub(crate) idempotency: IdempotencyTable,
    /// Keys of the cached records that the batch changed.
    dirty: Vec<RecordKey>,
    uncached_writes: Vec<RecordWrite>,
    /// Increments of the batch.
    pub(crate) increments: u64,
    /// Integers that these increments issue.
    pub(crate) integers: u64,
}

impl WorkingSet {
    /// A working set without changes.
    #[must_use]
    pub fn new(cache: RecordCache, idempotency: IdempotencyTable) -> Self {
        let (dirty, uncached_writes) = (Vec::new(), Vec::new());
        Self { cache, idempotency, dirty, uncached_writes, increments: 0, integers: 0 }
    }

    /// The first key of the read set that is not in the cache.
    pub(crate) fn first_missing<'a>(&self, keys: &'a ReadSet) -> Option<&'a RecordKey> {
        keys.iter().flatten().find(|key| !self.cache.contains(key))
    }

    /// The record with the changes of this batch; `None` if there is none. It must be in the cache.
    pub(crate) fn get(&self, key: &RecordKey) -> Option<&Record> {
        self.cache.record(key)
    }

    /// Writes a record; `None` removes it. The record must be in the cache, or new, so that there
    /// is no older version to load.
    pub(crate) fn write(&mut self, key: &RecordKey, record: Option<Record>) {
        if !self.cache.contains(key) {
            self.cache.insert(key.clone(), None);
        }
        if let Some(entry) = self.cache.get_mut(key) {
            entry.record = record;
            if !entry.dirty {
                entry.dirty = true;
                self.dirty.push(key.clone());
            }
        }
        if failpoint!("change-shown-before-its-commit") {
            drop(self.cache.publish(key));
        }
    }

    /// Writes a record that no command reads, without caching it.
    pub(crate) fn write_uncached(&mut self, key: RecordKey, record: Option<Record>) {
        self.uncached_writes.push((key, record));
    }

    /// Adds the idempotency pages of the batch to its writes, and, if `expire`, the removal of
    /// expired pages. Returns whether there is anything to commit.
    pub(crate) fn stage_idempotency(&mut self, expire: bool) -> bool {
        self.uncached_writes.extend(self.idempotency.encode_pages(expire));
        !self.dirty.is_empty() || !self.uncached_writes.is_empty()
    }

    /// Every write of the batch, for the journal.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&RecordKey, Option<&Record>)> {
        let cached = self.dirty.iter().map(|key| (key, self.cache.record(key)));
        cached.chain(self.uncached_writes.iter().map(|(key, record)| (key, record.as_ref())))
    }

    /// Ends the batch after it became durable: shows its changes to readers and appends them to
    /// `unstaged`.
    pub(crate) fn publish(&mut self, unstaged: &mut Vec<RecordWrite>) {
        let hidden = usize::from(failpoint!("first-record-of-a-batch-not-published"));
        for key in self.dirty.drain(..).skip(hidden) {
            let record = self.cache.publish(&key);
            unstaged.push((key, record));
        }
        unstaged.append(&mut self.uncached_writes);
        self.idempotency.commit();
    }

    /// Discards the batch: no change of it becomes visible. After a failed write it is unknown
    /// whether the batch is on the disk; the store is then poisoned.
    pub(crate) fn roll_back(&mut self) {
        self.dirty.drain(..).for_each(|key| self.cache.roll_back(&key));
        self.uncached_writes.clear();
        if !failpoint!("idempotency-not-rolled-back") {
            self.idempotency.roll_back();
        }
    }
}

/// How many counters and API keys the tenant has.
pub(crate) fn usage(working_set: &WorkingSet, tenant: TenantId) -> TenantUsage {
    match working_set.get(&RecordKey::Usage(tenant)) {
        Some(Record::Usage(usage)) => *usage,
        _ => TenantUsage::default(),
    }
}

/// The tenant, or an error if it does not exist or is marked deleted.
pub(crate) fn live_tenant(
    working_set: &WorkingSet,
    tenant: TenantId,
) -> Result<&TenantRecord, Refusal> {
    match working_set.get(&RecordKey::Tenant(tenant)) {
        Some(Record::Tenant(record)) if tenant != SYSTEM_TENANT && !record.deleting => Ok(record),
        _ => Err(Refusal::NoSuchTenant),
    }
}
