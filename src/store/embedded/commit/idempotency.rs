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
use crate::domain::time_format::SECONDS_A_DAY;
use crate::store::embedded::codec::idempotency_page::{IdempotencyEntry, IdempotencyPage, PAGE_ENTRIES, StoredResult};
use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::journal::frame::RecordWrite;
use crate::store::{Digest128, IdempotencyToken, Refusal};

/// How long a key is remembered: 24 hours.
pub const RETENTION_S: u64 = SECONDS_A_DAY;
/// A tenant may have this part of all keys.
const SHARE: usize = 4;
/// Expired pages that one commit removes at most.
const REMOVED_AT_ONCE: usize = 256;

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
    age_s: u64,
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
    places: HashMap<ScopedKey, EntryLocation>,
    of_tenant: HashMap<TenantId, usize>,
    pages: VecDeque<IndexedPage>,
    open: Vec<IdempotencyEntry>,
    next_page: u64,
    /// Pages of this commit that are expired; removed from memory when the commit is durable.
    expiring: usize,
    base_s: u64,
    now_s: u64,
}

impl IdempotencyTable {
    /// Goes on from the pages that a start found, in the order of their numbers.
    #[must_use]
    pub fn new(capacity: usize, pages: Vec<(u64, Arc<IdempotencyPage>)>) -> Self {
        let mut remembered = Self {
            capacity,
            places: HashMap::new(),
            of_tenant: HashMap::new(),
            pages: VecDeque::new(),
            open: Vec::new(),
            next_page: 0,
            expiring: 0,
            base_s: 0,
            now_s: 0,
        };
        for (number, answers) in pages {
            remembered.base_s = remembered.base_s.max(answers.age_s);
            remembered.next_page = remembered.next_page.max(number + 1);
            for (index, answered) in (0..).zip(&answers.list) {
                remembered.place(answered, number, index);
            }
            remembered.push_page(number, answers.age_s, &answers.list);
        }
        remembered.now_s = remembered.base_s;
        remembered
    }

    /// Tells how long this process has run, in seconds.
    pub fn tick(&mut self, running_s: u64) {
        self.now_s = self.base_s.saturating_add(running_s);
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What is known of a tenant's key.
    #[must_use]
    pub fn find(&self, tenant: TenantId, once: &IdempotencyToken) -> Lookup {
        let Some(EntryLocation { page, index }) = self.places.get(&(tenant, once.key)) else { return Lookup::Miss };
        let index = usize::try_from(*index).unwrap_or(PAGE_ENTRIES);
        let opened = page.checked_sub(self.next_page).and_then(|page| usize::try_from(page).ok());
        match opened.and_then(|page| self.open.get(page * PAGE_ENTRIES + index)) {
            Some(answered) => Lookup::InBatch(*answered),
            None => Lookup::Stored(RecordKey::IdempotencyPage(*page), index),
        }
    }

    /// Whether another key of the tenant may be noted.
    ///
    /// # Errors
    /// [`Refusal::IdempotencyFull`].
    pub fn has_room(&self, tenant: TenantId) -> Result<(), Refusal> {
        let own = self.of_tenant.get(&tenant).copied().unwrap_or(0);
        let full = self.places.len() >= self.capacity || own >= self.capacity.div_ceil(SHARE);
        if full { Err(Refusal::IdempotencyFull) } else { Ok(()) }
    }

    /// Notes what was decided in this commit.
    pub fn note(&mut self, tenant: TenantId, once: &IdempotencyToken, given: StoredResult) {
        let answered = IdempotencyEntry { tenant, key: once.key, request: once.request, given };
        let page = self.next_page + (self.open.len() / PAGE_ENTRIES) as u64;
        self.place(&answered, page, u32::try_from(self.open.len() % PAGE_ENTRIES).unwrap_or(0));
        self.open.push(answered);
    }

    fn place(&mut self, answered: &IdempotencyEntry, page: u64, index: u32) {
        if self.places.insert(used(answered), EntryLocation { page, index }).is_none() {
            *self.of_tenant.entry(answered.tenant).or_default() += 1;
        }
    }

    /// What this commit has to write besides its records: the pages that were opened, and, if it is to `expire` them, that old ones are gone.
    pub fn seal(&mut self, expire: bool) -> Vec<RecordWrite> {
        let expired = |page: &&IndexedPage| expire && page.age_s.saturating_add(RETENTION_S) < self.now_s;
        let expiring = self.pages.iter().take(REMOVED_AT_ONCE).take_while(expired);
        let mut changes: Vec<RecordWrite> =
            expiring.map(|page| (RecordKey::IdempotencyPage(page.number), None)).collect();
        self.expiring = changes.len();
        for (number, list) in (self.next_page..).zip(self.open.chunks(PAGE_ENTRIES)) {
            let answers = IdempotencyPage { age_s: self.now_s, list: list.to_vec() };
            changes.push((RecordKey::IdempotencyPage(number), Some(Record::IdempotencyPage(answers.into()))));
        }
        changes
    }

    /// The commit is durable.
    pub fn keep(&mut self) {
        for page in self.pages.drain(..std::mem::take(&mut self.expiring)) {
            for key in page.keys {
                // A key that expired may have been used again since.
                if self.places.get(&key).is_some_and(|place| place.page == page.number) {
                    leave(&mut self.of_tenant, key.0);
                    self.places.remove(&key);
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

    fn push_page(&mut self, number: u64, age_s: u64, list: &[IdempotencyEntry]) {
        let keys = list.iter().map(used).collect();
        self.pages.push_back(IndexedPage { number, age_s, keys });
    }

    /// The commit did not happen.
    pub fn forget(&mut self) {
        self.expiring = 0;
        for answered in self.open.drain(..) {
            leave(&mut self.of_tenant, answered.tenant);
            self.places.remove(&used(&answered));
        }
    }
}

fn used(answered: &IdempotencyEntry) -> ScopedKey {
    (answered.tenant, answered.key)
}

fn leave(of_tenant: &mut HashMap<TenantId, usize>, tenant: TenantId) {
    if let Some(own) = of_tenant.get_mut(&tenant) {
        *own -= 1;
        if *own == 0 {
            of_tenant.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::CounterState;

    const TENANT: TenantId = TenantId(1);

    fn once(number: u64) -> IdempotencyToken {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.to_be_bytes());
        IdempotencyToken { key, request: [9; 16] }
    }

    fn given() -> StoredResult {
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
            assert_eq!(remembered.find(TENANT, &once(number)), Lookup::Miss);
            remembered.note(TENANT, &once(number), given());
            assert!(
                matches!(remembered.find(TENANT, &once(number)), Lookup::InBatch(answered) if answered.key == once(number).key)
            );
        }
        written(remembered.seal(true), &mut disk);
        remembered.keep();
        assert_eq!(
            disk.iter().map(|(page, answers)| (*page, answers.list.len())).collect::<Vec<_>>(),
            [(0, 64), (1, 64), (2, 2)]
        );
        remembered.tick(RETENTION_S - 10);
        remembered.note(TENANT, &once(500), given());
        written(remembered.seal(true), &mut disk);
        remembered.keep();
        let mut remembered = IdempotencyTable::new(1000, disk.clone());
        assert_eq!(remembered.find(TENANT, &once(129)), Lookup::Stored(RecordKey::IdempotencyPage(2), 1));
        assert_eq!(remembered.find(TenantId(2), &once(129)), Lookup::Miss);
        remembered.tick(10);
        assert!(remembered.seal(true).is_empty(), "not before the day is over");
        remembered.tick(11);
        written(remembered.seal(true), &mut disk);
        remembered.keep();
        assert_eq!((remembered.len(), disk.len()), (1, 1));
        assert_eq!(remembered.find(TENANT, &once(129)), Lookup::Miss);
        assert_eq!(remembered.find(TENANT, &once(500)), Lookup::Stored(RecordKey::IdempotencyPage(3), 0));
    }

    #[test]
    fn what_was_not_committed_is_not_remembered() {
        let mut remembered = IdempotencyTable::new(1000, Vec::new());
        remembered.note(TENANT, &once(1), given());
        remembered.seal(true);
        remembered.forget();
        assert_eq!(
            (remembered.find(TENANT, &once(1)), remembered.len(), remembered.of_tenant.len()),
            (Lookup::Miss, 0, 0)
        );
    }

    #[test]
    fn one_tenant_has_a_quarter_and_all_have_the_whole() {
        let mut remembered = IdempotencyTable::new(8, Vec::new());
        for number in 0..8 {
            let tenant = TenantId(number / 2);
            assert!(remembered.has_room(tenant).is_ok());
            remembered.note(tenant, &once(number), given());
            assert_eq!(remembered.has_room(tenant).is_ok(), number % 2 == 0);
        }
        assert_eq!(remembered.has_room(TenantId(9)), Err(Refusal::IdempotencyFull));
    }
}
