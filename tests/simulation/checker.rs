//! The checker: what the store says, compared with the ledger of everything that was written.
//!
//! Job: after each start, commit, read, backup and clean stop, compare with the truth as of that
//! frame; at the end, give the clients' history to the checker that all fault tests share.
//! Invariant: the truth comes from the bytes on their way to the disk, never from the store's
//! memory.
//! Must never: accept a lost frame, except where nothing can tell it from a torn write: every lost
//! frame is itself damaged.

use std::collections::BTreeMap;

use odometer::store::embedded::backup::directory::{backup_file_name, read_file};
use odometer::store::embedded::backup::format::{BackupError, RecordVisitor, Summary, read};
use odometer::store::embedded::codec::key::IndexScan;
use odometer::store::embedded::codec::key::{IndexEntry, IndexKind, RecordKey};
use odometer::store::embedded::codec::record::Record;
use odometer::store::embedded::journal::frame::LogPosition;
use odometer::store::embedded::recovery::open::{
    RebuiltState, StateOrigin, open_state_and_journal,
};
use odometer::store::embedded::recovery::rebuild::RebuildSource;
use odometer::store::embedded::state::State;

use odometer::domain::api_key::KeyId;
use odometer::domain::tenant::{TenantId, TenantName};

use crate::clients::{Place, Reply, What, key, places, value_of};
use crate::corruption::Rot;
use crate::keys::{Entry, Keys};
use crate::ledger::{Ledger, Truth, stored};
use crate::machine::Tally;
use crate::plan::Plan;
use crate::process::Process;
use crate::start::{Report, Site, files};
use crate::support::history::{Operation, Rules, check};
use crate::support::model::Counter;

/// What a start was.
pub(crate) enum Start {
    Right,
    /// The journal's last frames were acknowledged and then corrupted: the one loss that cannot be
    /// detected.
    InherentLoss,
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Checker {
    pub(crate) ledger: Ledger,
    /// Every record as of `last`.
    truth: Truth,
    /// The last frame that the store calls durable.
    last: LogPosition,
    /// The idempotency keys as of `last`.
    keys: Keys,
    pub(crate) tally: Tally,
    /// The last replies.
    pub(crate) answered: Vec<(What, Reply)>,
}

impl Checker {
    /// A process is up.
    pub(crate) fn started(
        &mut self,
        report: &Report,
        site: &Site,
        rot: &Rot,
        cause: bool,
    ) -> Result<Start, String> {
        if let Some(rebuilt) = report.rebuilt.as_ref().filter(|_| !cause) {
            return Err(format!("the state was rebuilt without a cause: {}", rebuilt.problem));
        }
        let needed = self.ledger.last_change(self.last);
        if !self.ledger.follows(report.last, needed) {
            let lost = self.ledger.places(report.last, needed);
            if lost.is_some_and(|lost| lost.into_iter().all(|place| rot.touches(place))) {
                return Ok(Start::InherentLoss);
            }
            return Err(format!(
                "the store goes on behind {:?}, but {needed:?} was answered",
                report.last
            ));
        }
        self.resume(report.last)?;
        if let Some(RebuiltState { rebuild_source: base, .. }) = &report.rebuilt {
            let from = match base {
                RebuildSource::Backup(..) => "a backup",
                _ => "the journal",
            };
            self.tally.add("rebuilt from", from, "");
            let records =
                site.sled.as_ref().map(|sled| sled.lock().records().clone()).unwrap_or_default();
            if records != stored(&self.truth) {
                return Err(format!(
                    "a state rebuilt from {base:?} is not that of {:?}",
                    report.last
                ));
            }
            if let RebuildSource::Backup(name, mark) = base
                && !self.ledger.follows(report.last, *mark)
            {
                return Err(format!(
                    "a state was rebuilt from {name}, which is of another history"
                ));
            }
        }
        Ok(Start::Right)
    }

    /// Goes on behind `last`.
    pub(crate) fn resume(&mut self, last: LogPosition) -> Result<(), String> {
        self.truth = self.ledger.truth(last)?;
        self.keys = Keys::of(&self.truth)?;
        self.last = last;
        Ok(())
    }

    /// The store stands at `last`, these replies came since the last call, and the store counted
    /// this many increments and integers.
    pub(crate) fn committed(
        &mut self,
        last: LogPosition,
        answered: Vec<(What, Reply)>,
        counted: (u64, u64),
        plan: &Plan,
    ) -> Result<(), String> {
        if last == self.last && answered.is_empty() && counted == (0, 0) {
            return Ok(());
        }
        if plan.strict {
            let (values, used) = (self.values(), self.used_keys(&answered));
            self.keys.begin();
            for (key, record) in self.ledger.changes_between(self.last, last)? {
                if let Some(what) = self.keys.note(key, record.as_ref())? {
                    self.tally.add("pages", what, "");
                }
            }
            self.ledger.advance(&mut self.truth, self.last, last)?;
            self.last = last;
            self.check_answers(&values, &answered)?;
            self.check_keys(&used, &answered, plan.idempotency_keys)?;
            check_count(&answered, counted)?;
        } else {
            self.ledger.advance(&mut self.truth, self.last, last)?;
            self.last = last;
        }
        if !answered.is_empty() {
            self.answered = answered;
        }
        Ok(())
    }

    /// What the keys of these requests are used for.
    fn used_keys(&self, answered: &[(What, Reply)]) -> Vec<Option<Entry>> {
        let used = |what: &What| what.token().and_then(|token| self.keys.get(&token));
        answered.iter().map(|(what, _)| used(what)).collect()
    }

    /// Replies to requests with a key: each is what is stored under it.
    fn check_keys(
        &mut self,
        used: &[Option<Entry>],
        answered: &[(What, Reply)],
        capacity: usize,
    ) -> Result<(), String> {
        for ((what, reply), before) in answered.iter().zip(used) {
            let Some(token) = what.token() else { continue };
            match self.keys.judge(&token, reply, *before, capacity) {
                Ok(Some(replayed)) => self.tally.add("replayed", replayed, ""),
                Ok(None) => {}
                Err(problem) => {
                    return Err(format!("{what:?} was answered {reply:?}, {problem}"));
                }
            }
        }
        Ok(())
    }

    fn values(&self) -> BTreeMap<Place, u64> {
        places().map(|place| (place, value_of(self.truth.get(&key(place))))).collect()
    }

    /// Replies of one batch: ranges follow each other from the old value to the new one, sets and
    /// reads say the new one.
    fn check_answers(
        &self,
        before: &BTreeMap<Place, u64>,
        answered: &[(What, Reply)],
    ) -> Result<(), String> {
        let after = self.values();
        let mut ranges: BTreeMap<Place, Vec<(u64, u64)>> = BTreeMap::new();
        let mut sets: Vec<Place> = Vec::new();
        for (what, reply) in answered {
            let right = match (what, reply) {
                (What::Advance(place, count, _), Reply::Value(last)) => {
                    ranges.entry(*place).or_default().push((*last, u64::from(*count)));
                    true
                }
                (What::Create(place, _), Reply::Value(value)) => {
                    *value == value_of(None) && self.truth.contains_key(&key(*place))
                }
                (What::Create(place, _), Reply::Refused("exists")) => {
                    self.truth.contains_key(&key(*place))
                }
                // Nothing is deleted here, so what was known must be listed; later names may be.
                (What::List(tenant, known), Reply::Names(names)) => {
                    let now = self.counters_of_tenant(*tenant);
                    known.iter().all(|name| names.contains(name))
                        && names.iter().all(|name| now.contains(name))
                }
                (_, Reply::Replayed(_)) => what.key().is_some(),
                (What::Set(place, value, _), Reply::Value(told)) => {
                    sets.push(*place);
                    told == value
                }
                (What::Read(place), Reply::Value(value)) => after.get(place) == Some(value),
                (What::Register(name, api_key), Reply::Tenant(id)) => {
                    self.is_registered(name, *api_key, *id)
                }
                (What::Register(name, _), Reply::Refused("name taken")) => {
                    self.truth.contains_key(&RecordKey::Name(name.normalized()))
                }
                (_, Reply::Refused(_) | Reply::Unknown) => true,
                _ => false,
            };
            if !right {
                return Err(format!("{what:?} was answered {reply:?}, which is not so"));
            }
        }
        for (place, mut ranges) in ranges {
            ranges.sort_unstable();
            let mut counter = Counter { value: before[&place], ..Counter::default() };
            let follows = |(last, count): &(u64, u64)| {
                counter.increment(*count).is_ok_and(|range| range.last == *last)
            };
            let followed = ranges.iter().all(follows);
            let right = followed && counter.value == after[&place];
            if !right && !sets.contains(&place) {
                let (was, is) = (before[&place], after[&place]);
                return Err(format!(
                    "{place:?} went from {was} to {is}, but {ranges:?} were answered"
                ));
            }
        }
        Ok(())
    }

    /// Whether a tenant has its name, its key and a place in the number of tenants.
    fn is_registered(&self, name: &TenantName, api_key: KeyId, id: TenantId) -> bool {
        let key = self.truth.get(&RecordKey::ApiKey(api_key));
        let tenants = self.truth.get(&RecordKey::Tenants);
        self.truth.get(&RecordKey::Name(name.normalized())) == Some(&Record::Name(id))
            && matches!(key, Some(Record::ApiKey(key)) if key.tenant == id)
            && matches!(tenants, Some(Record::Tenants(count)) if *count >= id.0)
    }

    /// The named counters of a tenant.
    pub(crate) fn counters_of_tenant(&self, tenant: u32) -> Vec<String> {
        let members = self.truth.keys().filter_map(|key| match key {
            RecordKey::IndexEntry(id, IndexEntry::Counter(name))
                if id.0 == u64::from(tenant) + 1 =>
            {
                Some(name.as_str().to_owned())
            }
            _ => None,
        });
        members.collect()
    }

    /// A process was closed: unless it was poisoned, the state holds every change.
    pub(crate) fn closed(&self, site: &Site, process: &Process) -> Result<(), String> {
        let covered = site.sled.as_ref().map(State::synced_through).unwrap_or_default();
        let last = self.ledger.last_change(self.last);
        if process.poisoned.is_none() && covered.seq < last.seq {
            return Err(format!("closed with the state at {covered:?}, but {last:?} is committed"));
        }
        Ok(())
    }

    /// A client read a value that the store publishes.
    pub(crate) fn read(&self, place: Place, value: u64) -> Result<(), String> {
        let is = value_of(self.truth.get(&key(place)));
        if value == is {
            Ok(())
        } else {
            Err(format!("{place:?} was read as {value}, but {is} is durable"))
        }
    }

    /// An automatic backup is said to be finished: its file holds the truth of its mark.
    pub(crate) fn backup(&self, site: &Site, mark: LogPosition) -> Result<(), String> {
        let name = backup_file_name(mark.seq);
        self.check_backup(&name, mark, |visit| read_file(&site.fork().backups, &name, visit))
    }

    /// An operator got a backup, as the content of an open file: it holds the truth of its mark.
    pub(crate) fn asked_backup(&self, bytes: &[u8], summary: &Summary) -> Result<(), String> {
        let mark = summary.header.position;
        self.check_backup("on demand", mark, |visit| read(bytes, visit))
    }

    fn check_backup(
        &self,
        name: &str,
        mark: LogPosition,
        read: impl FnOnce(RecordVisitor<'_>) -> Result<Summary, BackupError>,
    ) -> Result<(), String> {
        let mut records = BTreeMap::new();
        let summary = read(&mut |key, record| {
            records.insert(key.to_vec(), record.to_vec());
            Ok(())
        });
        let summary =
            summary.map_err(|error| format!("the finished backup {name} is not one: {error}"))?;
        if summary.header.position != mark || records != stored(&self.ledger.truth(mark)?) {
            return Err(format!("the backup {name} is not what the ledger holds at {mark:?}"));
        }
        Ok(())
    }

    /// Starts a copy of the site, as it is on the disk, and reads every record of it.
    pub(crate) fn look(&self, site: &Site, plan: &Plan) -> Result<BTreeMap<Place, u64>, String> {
        let copy = site.fork();
        let state = copy
            .sled
            .as_ref()
            .ok_or("there is no state")?
            .open()
            .map_err(|error| format!("{error:?}"))?;
        let recovered = open_state_and_journal(
            state,
            &files(&copy.journal, plan.segment_bytes),
            StateOrigin::Existing,
        );
        let mut recovered =
            recovered.map_err(|error| format!("a copy of the directory is refused: {error:?}"))?;
        for (key, record) in self.truth.iter().filter(|_| plan.strict) {
            if recovered.checkpointer.load(key)?.as_ref() != Some(record) {
                return Err(format!("{key:?} is not {record:?} after a restart"));
            }
        }
        let answers = self.truth.iter().filter_map(|(key, record)| match (key, record) {
            (RecordKey::IdempotencyPage(page), Record::IdempotencyPage(answers)) => {
                Some((*page, answers.clone()))
            }
            _ => None,
        });
        if plan.strict && recovered.idempotency_pages != answers.collect::<Vec<_>>() {
            return Err("a start does not find the answers that are to be given again".to_owned());
        }
        for tenant in (0..3).filter(|_| plan.strict) {
            let tenant_id = TenantId(u64::from(tenant) + 1);
            let listing = IndexScan {
                tenant: tenant_id,
                index_kind: IndexKind::Counters,
                after: None,
                limit: 100,
            };
            let listed = recovered.checkpointer.list(&listing)?;
            let wanted = self.counters_of_tenant(tenant);
            if !listed
                .iter()
                .map(|member| format!("{member:?}"))
                .eq(wanted.iter().map(|name| format!("Counter(CounterName({name:?}))")))
            {
                return Err(format!("tenant {tenant} has {wanted:?}, and {listed:?} are listed"));
            }
        }
        places()
            .map(|place| Ok((place, value_of(recovered.checkpointer.load(&key(place))?.as_ref()))))
            .collect()
    }

    /// The bug of numbers issued twice: the last frame disappears.
    pub(crate) fn forget_the_last_frame(&self, site: &Site) {
        if let Some((inode, from, to)) = self.ledger.place(self.last) {
            let _ = site.journal.rot(inode, from, to, |bytes| bytes.fill(0));
        }
    }

    /// The counters that a frame changes, and to what.
    pub(crate) fn counters_of(&self, mark: LogPosition) -> Vec<(Place, u64)> {
        let changes = self.ledger.changes(mark);
        let value = |place: Place| {
            changes.iter().find(|(is, _)| *is == key(place)).map(|(_, record)| record.as_ref())
        };
        places().filter_map(|place| value(place).map(|record| (place, value_of(record)))).collect()
    }
}

/// What the store counted as increments and integers is what it answered.
fn check_count(answered: &[(What, Reply)], counted: (u64, u64)) -> Result<(), String> {
    let issued = answered.iter().filter_map(|answer| match answer {
        (What::Advance(_, count, _), Reply::Value(_)) => Some(u64::from(*count)),
        _ => None,
    });
    let right = issued.fold((0, 0), |(times, integers), count| (times + 1, integers + count));
    if counted == right {
        Ok(())
    } else {
        Err(format!("{right:?} increments and integers were answered, but {counted:?} counted"))
    }
}

/// Judges the replies that clients got.
pub(crate) fn history(operations: &[Operation], restarts: &[u64]) -> Result<(), String> {
    let verdict = check(operations, &Rules { restarts: restarts.to_vec(), ..Rules::default() });
    if verdict.is_clean() {
        Ok(())
    } else {
        Err(format!("the history: {:?}", verdict.violations.first()))
    }
}
