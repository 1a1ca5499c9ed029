//! Which idempotency keys were used, and where their answers are.
//!
//! Job: [`IdempotencyTable`] knows every key of the last [`RETENTION_S`] seconds, in memory; the answers themselves are in pages, on the disk. A page
//! belongs to the commit whose changes it tells of, and is written in the same frame.
//!
//! ```text
//! decide     find: new ─► change, note ─► open page          find: in the open page, or in an older one (loaded by the keeper) ─► replay
//! append     seal: the open pages, and the removal of expired ones, go into the frame
//! published  keep  ─► older pages                            failed  forget: as if nothing had been noted
//! ```
//! Age is counted in seconds that the store ran, not by the wall clock: a clock that jumps forgets nothing, and a stopped server does not
//! either. It goes on from the newest page at a start, so a key is kept for a little longer than promised, and never less.
//! Invariant: at most `capacity` keys, and a quarter of them for one tenant; more are refused, since to forget one early would be to issue twice.
//! Memory is about 100 bytes for each. Must never: give an answer that is not durable (the open pages are answered with their own commit).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::domain::tenant::TenantId;
use crate::domain::time_format::SECONDS_PER_DAY;
use crate::store::embedded::codec::idempotency_page::{IdempotencyEntry, IdempotencyPage, PAGE_ENTRIES, StoredResult};
use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::journal::frame::RecordWrite;
use crate::store::{Digest128, IdempotencyToken, Refusal};

/// How long a key is remembered: 24 hours.
pub const RETENTION_S: u64 = SECONDS_PER_DAY;
/// A tenant may have this part of all keys.
const TENANT_SHARE_DIVISOR: usize = 4;
/// Expired pages that one commit removes at most.
const MAX_EXPIRED_PER_COMMIT: usize = 256;

/// Where an answer is.
#[derive(Clone, Copy, Debug)]
struct EntryLocation {
    page: u64,
    index: u32,
}

/// A tenant's key: two tenants never share one.
type ScopedKey = (TenantId, Digest128);

/// A durable page, without its answers.
#[derive(Debug)]
struct IndexedPage {
    number: u64,
    store_uptime_s: u64,
    keys: Vec<ScopedKey>,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It was not used.
    Miss,
    /// It was used in this commit.
    InBatch(IdempotencyEntry),
    /// Its answer is in this page, at this place.
    Stored(RecordKey, usize),
}

/// See the module's text.
#[derive(Debug)]
pub struct IdempotencyTable {
    capacity: usize,
    locations: HashMap<ScopedKey, EntryLocation>,
    count_by_tenant: HashMap<TenantId, usize>,
    pages: VecDeque<IndexedPage>,
    open: Vec<IdempotencyEntry>,
    next_page: u64,
    /// Pages of this commit that are expired; removed from memory when the commit is durable.
    expiring: usize,
    uptime_base_s: u64,
    now_s: u64,
}

impl IdempotencyTable {
    /// Goes on from the pages that a start found, in the order of their numbers.
    #[must_use]
    pub fn new(capacity: usize, pages: Vec<(u64, Arc<IdempotencyPage>)>) -> Self {
        let mut remembered = Self {
            capacity,
            locations: HashMap::new(),
            count_by_tenant: HashMap::new(),
            pages: VecDeque::new(),
            open: Vec::new(),
            next_page: 0,
            expiring: 0,
            uptime_base_s: 0,
            now_s: 0,
        };
        for (number, answers) in pages {
            remembered.uptime_base_s = remembered.uptime_base_s.max(answers.store_uptime_s);
            remembered.next_page = remembered.next_page.max(number + 1);
            for (index, entry) in (0..).zip(&answers.entries) {
                remembered.index_entry(entry, number, index);
            }
            remembered.push_page(number, answers.store_uptime_s, &answers.entries);
        }
        remembered.now_s = remembered.uptime_base_s;
        remembered
    }

    /// Tells how long this process has run, in seconds.
    pub fn set_uptime(&mut self, running_s: u64) {
        self.now_s = self.uptime_base_s.saturating_add(running_s);
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.locations.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.locations.is_empty()
    }

    /// What is known of a tenant's key.
    #[must_use]
    pub fn find(&self, tenant: TenantId, token: &IdempotencyToken) -> Lookup {
        let Some(EntryLocation { page, index }) = self.locations.get(&(tenant, token.key_hash)) else {
            return Lookup::Miss;
        };
        let index = usize::try_from(*index).unwrap_or(PAGE_ENTRIES);
        let opened = page.checked_sub(self.next_page).and_then(|page| usize::try_from(page).ok());
        match opened.and_then(|page| self.open.get(page * PAGE_ENTRIES + index)) {
            Some(entry) => Lookup::InBatch(*entry),
            None => Lookup::Stored(RecordKey::IdempotencyPage(*page), index),
        }
    }

    /// Whether another key of the tenant may be noted.
    ///
    /// # Errors
    /// [`Refusal::IdempotencyFull`].
    pub fn check_capacity(&self, tenant: TenantId) -> Result<(), Refusal> {
        let own = self.count_by_tenant.get(&tenant).copied().unwrap_or(0);
        let full = self.locations.len() >= self.capacity || own >= self.capacity.div_ceil(TENANT_SHARE_DIVISOR);
        if full { Err(Refusal::IdempotencyFull) } else { Ok(()) }
    }

    /// Notes what was decided in this commit.
    pub fn insert(&mut self, tenant: TenantId, token: &IdempotencyToken, result: StoredResult) {
        let entry = IdempotencyEntry {
            tenant,
            key_hash: token.key_hash,
            request_fingerprint: token.request_fingerprint,
            result,
        };
        let page = self.next_page + (self.open.len() / PAGE_ENTRIES) as u64;
        self.index_entry(&entry, page, u32::try_from(self.open.len() % PAGE_ENTRIES).unwrap_or(0));
        self.open.push(entry);
    }

    fn index_entry(&mut self, entry: &IdempotencyEntry, page: u64, index: u32) {
        if self.locations.insert(scoped_key(entry), EntryLocation { page, index }).is_none() {
            *self.count_by_tenant.entry(entry.tenant).or_default() += 1;
        }
    }

    /// What this commit has to write besides its records: the pages that were opened, and, if it is to `expire` them, that old ones are gone.
    pub fn encode_pages(&mut self, expire: bool) -> Vec<RecordWrite> {
        let expired = |page: &&IndexedPage| expire && page.store_uptime_s.saturating_add(RETENTION_S) < self.now_s;
        let expiring = self.pages.iter().take(MAX_EXPIRED_PER_COMMIT).take_while(expired);
        let mut changes: Vec<RecordWrite> =
            expiring.map(|page| (RecordKey::IdempotencyPage(page.number), None)).collect();
        self.expiring = changes.len();
        for (number, list) in (self.next_page..).zip(self.open.chunks(PAGE_ENTRIES)) {
            let answers = IdempotencyPage { store_uptime_s: self.now_s, entries: list.to_vec() };
            changes.push((RecordKey::IdempotencyPage(number), Some(Record::IdempotencyPage(answers.into()))));
        }
        changes
    }

    /// The commit is durable.
    pub fn commit(&mut self) {
        for page in self.pages.drain(..std::mem::take(&mut self.expiring)) {
            for key in page.keys {
                // A key that expired may have been used again since.
                if self.locations.get(&key).is_some_and(|index_entry| index_entry.page == page.number) {
                    decrement(&mut self.count_by_tenant, key.0);
                    self.locations.remove(&key);
                }
            }
        }
        let open = std::mem::take(&mut self.open);
        for list in open.chunks(PAGE_ENTRIES) {
            let number = self.next_page;
            self.next_page += 1;
            self.push_page(number, self.now_s, list);
        }
    }

    fn push_page(&mut self, number: u64, store_uptime_s: u64, list: &[IdempotencyEntry]) {
        let keys = list.iter().map(scoped_key).collect();
        self.pages.push_back(IndexedPage { number, store_uptime_s, keys });
    }

    /// The commit did not happen.
    pub fn roll_back(&mut self) {
        self.expiring = 0;
        for entry in self.open.drain(..) {
            decrement(&mut self.count_by_tenant, entry.tenant);
            self.locations.remove(&scoped_key(&entry));
        }
    }
}

fn scoped_key(entry: &IdempotencyEntry) -> ScopedKey {
    (entry.tenant, entry.key_hash)
}

fn decrement(count_by_tenant: &mut HashMap<TenantId, usize>, tenant: TenantId) {
    if let Some(own) = count_by_tenant.get_mut(&tenant) {
        *own -= 1;
        if *own == 0 {
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
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.to_be_bytes());
        IdempotencyToken { key_hash: key, request_fingerprint: [9; 16] }
    }

    fn result() -> StoredResult {
        StoredResult::State(CounterState::default())
    }

    /// What a start would find.
    fn written(changes: Vec<RecordWrite>, disk: &mut Vec<(u64, Arc<IdempotencyPage>)>) {
        for (key, record) in changes {
            match (key, record) {
                (RecordKey::IdempotencyPage(page), Some(Record::IdempotencyPage(answers))) => {
                    disk.push((page, answers))
                }
                (RecordKey::IdempotencyPage(page), None) => disk.retain(|(number, _)| *number != page),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_key_is_found_until_it_is_a_day_old_and_across_starts() {
        let mut disk = Vec::new();
        let mut remembered = IdempotencyTable::new(1000, Vec::new());
        for number in 0..130 {
            assert_eq!(remembered.find(TENANT, &token(number)), Lookup::Miss);
            remembered.insert(TENANT, &token(number), result());
            assert!(
                matches!(remembered.find(TENANT, &token(number)), Lookup::InBatch(entry) if entry.key_hash == token(number).key_hash)
            );
        }
        written(remembered.encode_pages(true), &mut disk);
        remembered.commit();
        assert_eq!(
            disk.iter().map(|(page, answers)| (*page, answers.entries.len())).collect::<Vec<_>>(),
            [(0, 64), (1, 64), (2, 2)]
        );
        remembered.set_uptime(RETENTION_S - 10);
        remembered.insert(TENANT, &token(500), result());
        written(remembered.encode_pages(true), &mut disk);
        remembered.commit();
        let mut remembered = IdempotencyTable::new(1000, disk.clone());
        assert_eq!(remembered.find(TENANT, &token(129)), Lookup::Stored(RecordKey::IdempotencyPage(2), 1));
        assert_eq!(remembered.find(TenantId(2), &token(129)), Lookup::Miss);
        remembered.set_uptime(10);
        assert!(remembered.encode_pages(true).is_empty(), "not before the day is over");
        remembered.set_uptime(11);
        written(remembered.encode_pages(true), &mut disk);
        remembered.commit();
        assert_eq!((remembered.len(), disk.len()), (1, 1));
        assert_eq!(remembered.find(TENANT, &token(129)), Lookup::Miss);
        assert_eq!(remembered.find(TENANT, &token(500)), Lookup::Stored(RecordKey::IdempotencyPage(3), 0));
    }

    #[test]
    fn what_was_not_committed_is_not_remembered() {
        let mut remembered = IdempotencyTable::new(1000, Vec::new());
        remembered.insert(TENANT, &token(1), result());
        remembered.encode_pages(true);
        remembered.roll_back();
        assert_eq!(
            (remembered.find(TENANT, &token(1)), remembered.len(), remembered.count_by_tenant.len()),
            (Lookup::Miss, 0, 0)
        );
    }

    #[test]
    fn one_tenant_has_a_quarter_and_all_have_the_whole() {
        let mut remembered = IdempotencyTable::new(8, Vec::new());
        for number in 0..8 {
            let tenant = TenantId(number / 2);
            assert!(remembered.check_capacity(tenant).is_ok());
            remembered.insert(tenant, &token(number), result());
            assert_eq!(remembered.check_capacity(tenant).is_ok(), number % 2 == 0);
        }
        assert_eq!(remembered.check_capacity(TenantId(9)), Err(Refusal::IdempotencyFull));
    }
}
