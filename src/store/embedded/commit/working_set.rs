//! What a commit is decided on: records in memory, as decided so far.
//!
//! Job: [`Desk`] gives the deciders the newest records, takes what they write, and knows at the end of a turn what changed. Two kinds of records
//! are written and never decided on, members and pages of answers: these pass through without staying in memory.
//! Invariant: a record is read only when it is in memory; `Desk::missing` says which is not.
//! Must never: show anything to readers before it is durable.

use crate::domain::tenant::TenantId;
use crate::store::embedded::codec::key::{Key, STORE};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::cache::Residents;
use crate::store::embedded::commit::idempotency::Remembered;
use crate::store::embedded::journal::frame::Change;
use crate::store::{Holdings, Refusal, TenantRecord};

/// Keys of records.
pub(crate) type Needs = [Option<Key>; 3];

/// See the module's text.
pub struct Desk {
    pub(crate) residents: Residents,
    /// Which idempotency keys were used.
    pub(crate) remembered: Remembered,
    touched: Vec<Key>,
    passing: Vec<Change>,
    /// Increments decided in this turn, and the integers that they issue.
    pub(crate) increments: u64,
    pub(crate) integers: u64,
}

impl Desk {
    /// A desk with nothing on it.
    #[must_use]
    pub fn new(residents: Residents, remembered: Remembered) -> Self {
        Self { residents, remembered, touched: Vec::new(), passing: Vec::new(), increments: 0, integers: 0 }
    }

    /// The first of these that is not in memory.
    pub(crate) fn missing<'a>(&self, keys: &'a Needs) -> Option<&'a Key> {
        keys.iter().flatten().find(|key| !self.residents.contains(key))
    }

    /// The record as decided so far; `None` if there is none. It must be in memory.
    pub(crate) fn record(&self, key: &Key) -> Option<&Record> {
        self.residents.record(key)
    }

    /// Writes a record that is in memory, or one that is new and so has no older version to load; `None` removes it.
    pub(crate) fn write(&mut self, key: Key, record: Option<Record>) {
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
    pub(crate) fn pass(&mut self, key: Key, record: Option<Record>) {
        self.passing.push((key, record));
    }

    /// Brings in what goes into the frame besides what was decided, expired answers only if they are to `expire` now. Returns whether there is
    /// anything to commit.
    pub(crate) fn seal(&mut self, expire: bool) -> bool {
        self.passing.extend(self.remembered.seal(expire));
        !self.touched.is_empty() || !self.passing.is_empty()
    }

    /// Everything that changed, for the journal.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&Key, Option<&Record>)> {
        let decided = self.touched.iter().map(|key| (key, self.residents.record(key)));
        decided.chain(self.passing.iter().map(|(key, record)| (key, record.as_ref())))
    }

    /// It is durable: readers may see it, and it is handed over.
    pub(crate) fn publish(&mut self, hand_over: &mut Vec<Change>) {
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
pub(crate) fn holdings(desk: &Desk, tenant: TenantId) -> Holdings {
    match desk.record(&Key::Holdings(tenant)) {
        Some(Record::Holdings(holdings)) => *holdings,
        _ => Holdings::default(),
    }
}

/// The tenant, if it is there and stays there.
pub(crate) fn living(desk: &Desk, tenant: TenantId) -> Result<&TenantRecord, Refusal> {
    match desk.record(&Key::Tenant(tenant)) {
        Some(Record::Tenant(record)) if tenant != STORE && !record.doomed => Ok(record),
        _ => Err(Refusal::NoSuchTenant),
    }
}
