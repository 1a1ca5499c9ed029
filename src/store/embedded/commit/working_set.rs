//! What a commit is decided on: records in memory, as decided so far.
//!
//! Job: [`WorkingSet`] gives the deciders the newest records, takes what they write, and knows at the end of a turn what changed. Two kinds of records
//! are written and never decided on, members and pages of answers: these pass through without staying in memory.
//! Invariant: a record is read only when it is in memory; `WorkingSet::missing` says which is not.
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
    pub(crate) residents: RecordCache,
    /// Which idempotency keys were used.
    pub(crate) remembered: IdempotencyTable,
    touched: Vec<RecordKey>,
    passing: Vec<RecordWrite>,
    /// Increments decided in this turn, and the integers that they issue.
    pub(crate) increments: u64,
    pub(crate) integers: u64,
}

impl WorkingSet {
    /// A desk with nothing on it.
    #[must_use]
    pub fn new(residents: RecordCache, remembered: IdempotencyTable) -> Self {
        Self { residents, remembered, touched: Vec::new(), passing: Vec::new(), increments: 0, integers: 0 }
    }

    /// The first of these that is not in memory.
    pub(crate) fn missing<'a>(&self, keys: &'a ReadSet) -> Option<&'a RecordKey> {
        keys.iter().flatten().find(|key| !self.residents.contains(key))
    }

    /// The record as decided so far; `None` if there is none. It must be in memory.
    pub(crate) fn record(&self, key: &RecordKey) -> Option<&Record> {
        self.residents.record(key)
    }

    /// Writes a record that is in memory, or one that is new and so has no older version to load; `None` removes it.
    pub(crate) fn write(&mut self, key: RecordKey, record: Option<Record>) {
        if !self.residents.contains(&key) {
            self.residents.install(key.clone(), None);
        }
        if let Some(slot) = self.residents.get_mut(&key) {
            slot.record = record;
            if !slot.touched {
                slot.touched = true;
                self.touched.push(key);
            }
        }
    }

    /// Writes a record that nobody decides on.
    pub(crate) fn pass(&mut self, key: RecordKey, record: Option<Record>) {
        self.passing.push((key, record));
    }

    /// Brings in what goes into the frame besides what was decided, expired answers only if they are to `expire` now. Returns whether there is
    /// anything to commit.
    pub(crate) fn seal(&mut self, expire: bool) -> bool {
        self.passing.extend(self.remembered.seal(expire));
        !self.touched.is_empty() || !self.passing.is_empty()
    }

    /// Everything that changed, for the journal.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&RecordKey, Option<&Record>)> {
        let decided = self.touched.iter().map(|key| (key, self.residents.record(key)));
        decided.chain(self.passing.iter().map(|(key, record)| (key, record.as_ref())))
    }

    /// It is durable: readers may see it, and it is handed over.
    pub(crate) fn publish(&mut self, hand_over: &mut Vec<RecordWrite>) {
        for key in self.touched.drain(..) {
            let record = self.residents.publish(&key);
            hand_over.push((key, record));
        }
        hand_over.append(&mut self.passing);
        self.remembered.keep();
    }

    /// It did not happen, as far as this process goes.
    pub(crate) fn roll_back(&mut self) {
        self.touched.drain(..).for_each(|key| self.residents.roll_back(&key));
        self.passing.clear();
        self.remembered.forget();
    }
}

/// How much the tenant has.
pub(crate) fn holdings(desk: &WorkingSet, tenant: TenantId) -> TenantUsage {
    match desk.record(&RecordKey::Usage(tenant)) {
        Some(Record::Usage(holdings)) => *holdings,
        _ => TenantUsage::default(),
    }
}

/// The tenant, if it is there and stays there.
pub(crate) fn living(desk: &WorkingSet, tenant: TenantId) -> Result<&TenantRecord, Refusal> {
    match desk.record(&RecordKey::Tenant(tenant)) {
        Some(Record::Tenant(record)) if tenant != SYSTEM_TENANT && !record.doomed => Ok(record),
        _ => Err(Refusal::NoSuchTenant),
    }
}
