//! What a commit is decided on: records in memory, as decided so far.
//!
//! Job: [`WorkingSet`] gives the deciders the newest records, takes what they write, and knows at the end of a turn what changed. Two kinds of records
//! are written and never decided on, members and pages of answers: these pass through without staying in memory.
//! Invariant: a record is read only when it is in memory; `WorkingSet::first_missing` says which is not.
//! Must never: show anything to readers before it is durable.

use crate::domain::tenant::TenantId;
use crate::store::embedded::codec::key::{RecordKey, SYSTEM_TENANT};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::cache::RecordCache;
use crate::store::embedded::commit::idempotency::IdempotencyTable;
use crate::store::embedded::journal::frame::RecordWrite;
use crate::store::{Refusal, TenantRecord, TenantUsage};

/// Keys of records.
pub(crate) type ReadSet = [Option<RecordKey>; 3];

/// See the module's text.
pub struct WorkingSet {
    pub(crate) cache: RecordCache,
    /// Which idempotency keys were used.
    pub(crate) idempotency: IdempotencyTable,
    dirty: Vec<RecordKey>,
    uncached_writes: Vec<RecordWrite>,
    /// Increments decided in this turn, and the integers that they issue.
    pub(crate) increments: u64,
    pub(crate) integers: u64,
}

impl WorkingSet {
    /// A desk with nothing on it.
    #[must_use]
    pub fn new(cache: RecordCache, idempotency: IdempotencyTable) -> Self {
        Self { cache, idempotency, dirty: Vec::new(), uncached_writes: Vec::new(), increments: 0, integers: 0 }
    }

    /// The first of these that is not in memory.
    pub(crate) fn first_missing<'a>(&self, keys: &'a ReadSet) -> Option<&'a RecordKey> {
        keys.iter().flatten().find(|key| !self.cache.contains(key))
    }

    /// The record as decided so far; `None` if there is none. It must be in memory.
    pub(crate) fn get(&self, key: &RecordKey) -> Option<&Record> {
        self.cache.record(key)
    }

    /// Writes a record that is in memory, or one that is new and so has no older version to load; `None` removes it.
    pub(crate) fn write(&mut self, key: RecordKey, record: Option<Record>) {
        if !self.cache.contains(&key) {
            self.cache.insert(key.clone(), None);
        }
        if let Some(entry) = self.cache.get_mut(&key) {
            entry.record = record;
            if !entry.dirty {
                entry.dirty = true;
                self.dirty.push(key);
            }
        }
    }

    /// Writes a record that nobody decides on.
    pub(crate) fn write_uncached(&mut self, key: RecordKey, record: Option<Record>) {
        self.uncached_writes.push((key, record));
    }

    /// Brings in what goes into the frame besides what was decided, expired answers only if they are to `expire` now. Returns whether there is
    /// anything to commit.
    pub(crate) fn stage_idempotency(&mut self, expire: bool) -> bool {
        self.uncached_writes.extend(self.idempotency.encode_pages(expire));
        !self.dirty.is_empty() || !self.uncached_writes.is_empty()
    }

    /// Everything that changed, for the journal.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&RecordKey, Option<&Record>)> {
        let decided = self.dirty.iter().map(|key| (key, self.cache.record(key)));
        decided.chain(self.uncached_writes.iter().map(|(key, record)| (key, record.as_ref())))
    }

    /// It is durable: readers may see it, and it is handed over.
    pub(crate) fn publish(&mut self, unflushed: &mut Vec<RecordWrite>) {
        for key in self.dirty.drain(..) {
            let record = self.cache.publish(&key);
            unflushed.push((key, record));
        }
        unflushed.append(&mut self.uncached_writes);
        self.idempotency.commit();
    }

    /// It did not happen, as far as this process goes.
    pub(crate) fn roll_back(&mut self) {
        self.dirty.drain(..).for_each(|key| self.cache.roll_back(&key));
        self.uncached_writes.clear();
        self.idempotency.roll_back();
    }
}

/// How much the tenant has.
pub(crate) fn usage(working_set: &WorkingSet, tenant: TenantId) -> TenantUsage {
    match working_set.get(&RecordKey::Usage(tenant)) {
        Some(Record::Usage(usage)) => *usage,
        _ => TenantUsage::default(),
    }
}

/// The tenant, if it is there and stays there.
pub(crate) fn live_tenant(working_set: &WorkingSet, tenant: TenantId) -> Result<&TenantRecord, Refusal> {
    match working_set.get(&RecordKey::Tenant(tenant)) {
        Some(Record::Tenant(record)) if tenant != SYSTEM_TENANT && !record.deleting => Ok(record),
        _ => Err(Refusal::NoSuchTenant),
    }
}
