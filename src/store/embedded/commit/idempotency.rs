//! The idempotency table: which idempotency keys were used, and where their results are stored.
//!
//! Job: [`IdempotencyTable`] indexes every key of the last [`RETENTION_S`] seconds in memory, about
//! 100 bytes each. The results are in pages in the state. A page is written in the same frame as
//! the changes whose results it holds.
//!
//! ```text
//! execute    find: unknown ─► apply, insert ─► staged entries
//!            find: staged, or in a page, which the checkpointer loads ─► replay
//! append     encode_pages: the staged entries and the removal of expired pages go into the frame
//! published  commit: staged entries become pages         failed  roll_back: they are discarded
//! ```
//! Age is measured in seconds of store uptime, which is the running time of all the store's
//! processes together: the largest `store_uptime_s` of a page that the start found, plus the time
//! that this process has run ([`IdempotencyTable::set_uptime`], from the committer thread's
//! `Instant`). It is not the wall clock, so clock jumps and downtime do not expire keys. Uptime
//! after the newest page is lost at a stop, so a key lives for the retention time or longer, never
//! shorter.
//! Invariant: there are at most `capacity` keys, and one tenant has at most a quarter of them. More
//! are rejected, because evicting a live key early could allocate a number twice.
//! Must never: return a result that is not durable; staged results are replied to in their own
//! commit.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::domain::tenant::TenantId;
use crate::domain::time_format::SECONDS_PER_DAY;
use crate::failpoint::failpoint;
use crate::store::embedded::codec::idempotency_page::{
    IdempotencyEntry, IdempotencyPage, PAGE_ENTRIES, StoredResult,
};
use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::journal::frame::RecordWrite;
use crate::store::{Digest128, IdempotencyToken, Refusal};

/// How long a key is stored, in seconds of store uptime: 24 hours.
pub const RETENTION_S: u64 = SECONDS_PER_DAY;
/// One tenant may have this part of the capacity: a quarter.
const TENANT_SHARE_DIVISOR: usize = 4;
/// The largest number of expired pages that one commit removes.
const MAX_EXPIRED_PER_COMMIT: usize = 256;

/// Where the result of a key is.
#[derive(Clone, Copy, Debug)]
struct EntryLocation {
    page: u64,
    index: u32,
}

/// The scope of a key hash is its tenant: two tenants never share a key.
type ScopedKey = (TenantId, Digest128);

/// The keys of a durable page, without their results.
#[derive(Debug)]
struct IndexedPage {
    number: u64,
    store_uptime_s: u64,
    keys: Vec<ScopedKey>,
}

/// Result of looking an idempotency key up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The key is not stored.
    Miss,
    /// The key was used in this batch.
    InBatch(IdempotencyEntry),
    /// The result is stored in this page, at this index.
    Stored(RecordKey, usize),
}

/// The idempotency table.
#[derive(Debug)]
pub struct IdempotencyTable {
    capacity: usize,
    locations: HashMap<ScopedKey, EntryLocation>,
    count_by_tenant: HashMap<TenantId, usize>,
    /// The durable pages, oldest first.
    pages: VecDeque<IndexedPage>,
    /// The entries of this batch.
    staged: Vec<IdempotencyEntry>,
    /// The number of the page that the first staged entry goes into.
    next_page: u64,
    /// How many of the oldest pages this commit removes; they leave memory when it is durable.
    expiring: usize,
    /// The store's uptime when this process started.
    uptime_base_s: u64,
    now_s: u64,
}

impl IdempotencyTable {
    /// A table with the pages that a start found, in ascending order of their numbers.
    #[must_use]
    pub fn new(capacity: usize, pages: Vec<(u64, Arc<IdempotencyPage>)>) -> Self {
        let mut table = Self {
            capacity,
            locations: HashMap::new(),
            count_by_tenant: HashMap::new(),
            pages: VecDeque::new(),
            staged: Vec::new(),
            next_page: 0,
            expiring: 0,
            uptime_base_s: 0,
            now_s: 0,
        };
        for (number, page) in pages {
            table.uptime_base_s = table.uptime_base_s.max(page.store_uptime_s);
            table.next_page = table.next_page.max(number + 1);
            if failpoint!("idempotency-forgotten-at-start") {
                continue;
            }
            for (index, entry) in (0..).zip(&page.entries) {
                table.index_entry(entry, number, index);
            }
            table.push_page(number, page.store_uptime_s, &page.entries);
        }
        table.now_s = table.uptime_base_s;
        table
    }

    /// Sets how long this process has run, in seconds.
    pub fn set_uptime(&mut self, running_s: u64) {
        self.now_s = self.uptime_base_s.saturating_add(running_s);
    }

    /// The number of stored keys.
    pub fn count(&self) -> usize {
        self.locations.len()
    }

    /// Looks an idempotency key of a tenant up.
    pub fn find(&self, tenant: TenantId, token: &IdempotencyToken) -> Lookup {
        let tenant = if failpoint!("key-of-another-tenant-found") { TenantId(1) } else { tenant };
        let location = self.locations.get(&(tenant, token.key_hash));
        let Some(EntryLocation { page, index }) = location else { return Lookup::Miss };
        let index = usize::try_from(*index).unwrap_or(PAGE_ENTRIES);
        let nth = page.checked_sub(self.next_page).and_then(|nth| usize::try_from(nth).ok());
        match nth.and_then(|nth| self.staged.get(nth * PAGE_ENTRIES + index)) {
            Some(entry) => Lookup::InBatch(*entry),
            None => Lookup::Stored(RecordKey::IdempotencyPage(*page), index),
        }
    }

    /// Checks that one more key of the tenant fits.
    ///
    /// # Errors
    /// [`Refusal::IdempotencyFull`] if the table or the tenant's share of it is full.
    pub fn check_capacity(&self, tenant: TenantId) -> Result<(), Refusal> {
        let used = self.count_by_tenant.get(&tenant).copied().unwrap_or(0);
        let share = self.capacity.div_ceil(TENANT_SHARE_DIVISOR);
        let is_full = self.locations.len() >= self.capacity || used >= share;
        if is_full { Err(Refusal::IdempotencyFull) } else { Ok(()) }
    }

    /// Inserts the result of a command of this batch.
    pub fn insert(&mut self, tenant: TenantId, token: &IdempotencyToken, result: StoredResult) {
        let IdempotencyToken { key_hash, request_fingerprint } = *token;
        let entry = IdempotencyEntry { tenant, key_hash, request_fingerprint, result };
        let page = self.next_page + (self.staged.len() / PAGE_ENTRIES) as u64;
        let index = u32::try_from(self.staged.len() % PAGE_ENTRIES).unwrap_or(0);
        self.index_entry(&entry, page, index);
        self.staged.push(entry);
    }

    fn index_entry(&mut self, entry: &IdempotencyEntry, page: u64, index: u32) {
        if self.locations.insert(scoped_key(entry), EntryLocation { page, index }).is_none() {
            *self.count_by_tenant.entry(entry.tenant).or_default() += 1;
        }
    }

    /// What the commit writes for the table: the pages of the staged entries, and, if `expire`, the
    /// removal of expired pages.
    #[must_use]
    pub fn encode_pages(&mut self, expire: bool) -> Vec<RecordWrite> {
        let is_expired = |page: &&IndexedPage| {
            expire && page.store_uptime_s.saturating_add(RETENTION_S) < self.now_s
        };
        let mut early = failpoint!("page-expires-early");
        let is_expired = |page: &&IndexedPage| is_expired(page) || std::mem::take(&mut early);
        let expired = self.pages.iter().take(MAX_EXPIRED_PER_COMMIT).take_while(is_expired);
        let mut writes: Vec<RecordWrite> =
            expired.map(|page| (RecordKey::IdempotencyPage(page.number), None)).collect();
        self.expiring = writes.len();
        for (number, entries) in (self.next_page..).zip(self.staged.chunks(PAGE_ENTRIES)) {
            let page = IdempotencyPage { store_uptime_s: self.now_s, entries: entries.to_vec() };
            let record = Record::IdempotencyPage(page.into());
            writes.push((RecordKey::IdempotencyPage(number), Some(record)));
        }
        writes
    }

    /// Ends the batch after it became durable.
    pub fn commit(&mut self) {
        for page in self.pages.drain(..std::mem::take(&mut self.expiring)) {
            for key in page.keys {
                // An expired key may have been used again; its location is then in a newer page.
                let location = self.locations.get(&key);
                if location.is_some_and(|location| location.page == page.number) {
                    decrement(&mut self.count_by_tenant, key.0);
                    self.locations.remove(&key);
                }
            }
        }
        let staged = std::mem::take(&mut self.staged);
        for entries in staged.chunks(PAGE_ENTRIES) {
            let number = self.next_page;
            self.next_page += 1;
            self.push_page(number, self.now_s, entries);
        }
    }

    fn push_page(&mut self, number: u64, store_uptime_s: u64, entries: &[IdempotencyEntry]) {
        let keys = entries.iter().map(scoped_key).collect();
        self.pages.push_back(IndexedPage { number, store_uptime_s, keys });
    }

    /// Discards the batch.
    pub fn roll_back(&mut self) {
        self.expiring = 0;
        for entry in self.staged.drain(..) {
            decrement(&mut self.count_by_tenant, entry.tenant);
            self.locations.remove(&scoped_key(&entry));
        }
    }
}

fn scoped_key(entry: &IdempotencyEntry) -> ScopedKey {
    (entry.tenant, entry.key_hash)
}

fn decrement(count_by_tenant: &mut HashMap<TenantId, usize>, tenant: TenantId) {
    if let Some(count) = count_by_tenant.get_mut(&tenant) {
        *count -= 1;
        if *count == 0 {
            count_by_tenant.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::CounterState;

    const TENANT: TenantId = TenantId(1);

    fn token(number: u64) -> IdempotencyToken {
        let mut key_hash = [0; 16];
        key_hash[..8].copy_from_slice(&number.to_be_bytes());
        IdempotencyToken { key_hash, request_fingerprint: [9; 16] }
    }

    fn result() -> StoredResult {
        StoredResult::State(CounterState::default())
    }

    /// Applies writes to `disk`, from which a start would read the pages.
    fn write(writes: Vec<RecordWrite>, disk: &mut Vec<(u64, Arc<IdempotencyPage>)>) {
        for (key, record) in writes {
            match (key, record) {
                (RecordKey::IdempotencyPage(number), Some(Record::IdempotencyPage(page))) => {
                    disk.push((number, page));
                }
                (RecordKey::IdempotencyPage(removed), None) => {
                    disk.retain(|(number, _)| *number != removed);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn stored(page: u64, index: usize) -> Lookup {
        Lookup::Stored(RecordKey::IdempotencyPage(page), index)
    }

    #[test]
    fn a_key_is_found_until_it_is_a_day_old_and_across_starts() {
        let mut disk = Vec::new();
        let mut table = IdempotencyTable::new(1000, Vec::new());
        for number in 0..130 {
            let token = token(number);
            assert_eq!(table.find(TENANT, &token), Lookup::Miss);
            table.insert(TENANT, &token, result());
            let found = table.find(TENANT, &token);
            assert!(matches!(found, Lookup::InBatch(entry) if entry.key_hash == token.key_hash));
        }
        write(table.encode_pages(true), &mut disk);
        table.commit();
        let lengths = disk.iter().map(|(number, page)| (*number, page.entries.len()));
        assert_eq!(lengths.collect::<Vec<_>>(), [(0, 64), (1, 64), (2, 2)]);
        table.set_uptime(RETENTION_S - 10);
        table.insert(TENANT, &token(500), result());
        write(table.encode_pages(true), &mut disk);
        table.commit();
        let mut table = IdempotencyTable::new(1000, disk.clone());
        assert_eq!(table.find(TENANT, &token(129)), stored(2, 1));
        assert_eq!(table.find(TenantId(2), &token(129)), Lookup::Miss);
        table.set_uptime(10);
        assert!(table.encode_pages(true).is_empty(), "not before the day is over");
        table.set_uptime(11);
        write(table.encode_pages(true), &mut disk);
        table.commit();
        assert_eq!((table.count(), disk.len()), (1, 1));
        assert_eq!(table.find(TENANT, &token(129)), Lookup::Miss);
        assert_eq!(table.find(TENANT, &token(500)), stored(3, 0));
    }

    #[test]
    fn what_was_rolled_back_is_not_found() {
        let mut table = IdempotencyTable::new(1000, Vec::new());
        table.insert(TENANT, &token(1), result());
        assert_eq!(table.encode_pages(true).len(), 1);
        table.roll_back();
        assert_eq!(table.find(TENANT, &token(1)), Lookup::Miss);
        assert_eq!((table.count(), table.count_by_tenant.len()), (0, 0));
    }

    #[test]
    fn one_tenant_has_a_quarter_and_all_have_the_whole() {
        let mut table = IdempotencyTable::new(8, Vec::new());
        for number in 0..8 {
            let tenant = TenantId(number / 2);
            assert!(table.check_capacity(tenant).is_ok());
            table.insert(tenant, &token(number), result());
            assert_eq!(table.check_capacity(tenant).is_ok(), number % 2 == 0);
        }
        assert_eq!(table.check_capacity(TenantId(9)), Err(Refusal::IdempotencyFull));
    }
}
