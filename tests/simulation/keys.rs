//! The idempotency keys that are stored, by the frames of the journal.
//!
//! Job: [`Keys::note`] takes what frames write; [`Keys::judge`] compares an answer with it.
//! Invariant: a key of a tenant is stored once. An answer is right only if the key's entry, before
//! the commit or after it, is one of the same request with that very result.
//! Must never: look at what the store has in memory.

use std::collections::BTreeMap;

use odometer::domain::tenant::TenantId;
use odometer::store::IdempotencyToken;
use odometer::store::embedded::codec::idempotency_page::StoredResult;
use odometer::store::embedded::codec::key::RecordKey;
use odometer::store::embedded::codec::record::Record;

use crate::clients::{FULL, REUSED, Reply};
use crate::ledger::Truth;

/// One tenant may have a quarter of all keys.
const TENANT_SHARE: usize = 4;

type Owner = (TenantId, [u8; 16]);

/// What a key was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    page: u64,
    fingerprint: [u8; 16],
    value: u64,
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Keys {
    entries: BTreeMap<Owner, Entry>,
    /// The tenants of the keys that are new since [`Keys::begin`].
    added: Vec<TenantId>,
    /// How many keys there were then.
    before: usize,
    /// The first page of this process.
    first_page: u64,
}

impl Keys {
    /// The keys of a store that goes on from this truth.
    ///
    /// # Errors
    /// A key is stored twice.
    pub(crate) fn of(truth: &Truth) -> Result<Self, String> {
        let mut keys = Self::default();
        for (key, record) in truth {
            keys.note(key, Some(record))?;
            if let RecordKey::IdempotencyPage(page) = key {
                keys.first_page = keys.first_page.max(page + 1);
            }
        }
        Ok(keys)
    }

    /// A frame writes this record, or removes it. Returns what the tally says about it.
    ///
    /// # Errors
    /// A key is stored twice.
    pub(crate) fn note(
        &mut self,
        key: &RecordKey,
        record: Option<&Record>,
    ) -> Result<Option<&'static str>, String> {
        let RecordKey::IdempotencyPage(page) = key else { return Ok(None) };
        let Some(Record::IdempotencyPage(stored)) = record else {
            self.entries.retain(|_, entry| entry.page != *page);
            return Ok(Some("removed"));
        };
        for entry in &stored.entries {
            let value = match &entry.result {
                StoredResult::Issued(issued) => issued.range.last.get(),
                StoredResult::State(state) => state.counter.value().get(),
            };
            let fingerprint = entry.request_fingerprint;
            let new = Entry { page: *page, fingerprint, value };
            self.added.push(entry.tenant);
            if let Some(old) = self.entries.insert((entry.tenant, entry.key_hash), new) {
                return Err(format!("a key is stored twice: {old:?} and {new:?}"));
            }
        }
        Ok(Some("written"))
    }

    /// The frames of a commit follow.
    pub(crate) fn begin(&mut self) {
        self.added.clear();
        self.before = self.entries.len();
    }

    /// What a key is used for now.
    pub(crate) fn get(&self, (tenant, token): &(TenantId, IdempotencyToken)) -> Option<Entry> {
        self.entries.get(&(*tenant, token.key_hash)).copied()
    }

    /// Whether the answer to a request with this key is right, whose entry was `before` before the
    /// commit. Returns where it was replayed from, if it was; `capacity` is the number of keys of
    /// all tenants.
    pub(crate) fn judge(
        &self,
        (tenant, token): &(TenantId, IdempotencyToken),
        reply: &Reply,
        before: Option<Entry>,
        capacity: usize,
    ) -> Result<Option<&'static str>, &'static str> {
        let after = self.entries.get(&(*tenant, token.key_hash)).copied();
        let is_own = |entry: &Entry| entry.fingerprint == token.request_fingerprint;
        let known = [before, after];
        let right = match reply {
            Reply::Value(value) => {
                // It may have been stored before, if that page expired in this very commit.
                let is_new = after.map(|entry| entry.page) != before.map(|entry| entry.page);
                is_new && after.is_some_and(|entry| is_own(&entry) && entry.value == *value)
            }
            Reply::Replayed(value) => {
                let is_it = |entry: &&Entry| is_own(entry) && entry.value == *value;
                if let Some(entry) = known.iter().flatten().find(is_it) {
                    return Ok(Some(match before {
                        Some(_) if entry.page < self.first_page => "after a restart",
                        Some(_) => "from a page",
                        None => "in its batch",
                    }));
                }
                false
            }
            Reply::Refused(REUSED) => known.iter().flatten().any(|entry| !is_own(entry)),
            Reply::Refused(FULL) => {
                // What expires in this commit was in the way, and what is new in it may have been.
                let share = capacity.div_ceil(TENANT_SHARE);
                let removed = self.before + self.added.len() - self.entries.len();
                let of_tenant = self.entries.keys().filter(|(owner, _)| owner == tenant).count();
                self.before + self.added.len() >= capacity || of_tenant + removed >= share
            }
            _ => true,
        };
        right.then_some(None).ok_or("which is not what is stored under its key")
    }
}
