//! The model as a store, so that the contract suite can ask both the same questions.
//!
//! Job: put [`Counters`] and [`IdempotencyTable`] of `tests/model` behind `trait Store`, with
//! tenants and keys in maps beside them. Invariant: what is decided about a counter is decided by
//! the model; types of the program are only what is asked and answered with. Must never: call the
//! program's counter rule, its preconditions or its comparison of names; be used outside tests.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use odometer::domain::api_key::{KeyId, KeyLabel, Scopes};
use odometer::domain::counter::CounterName;
use odometer::domain::tenant::{PasswordHash, TenantId, TenantLimit, TenantName};
use odometer::store::{
    Applied, CounterState, FoundKey, Health, IdempotencyToken, Issued, KeyRecord, ListedCounter,
    ListedKey, NewCounter, NewTenant, Page, Precondition, Proof, Refusal, SetCounter, Store,
    StoreError, StoreFuture, TenantRecord, TenantUpdate, TenantUsage, Unavailable,
};

use crate::support::model::{Counters, IdempotencyTable, Lookup};
use crate::words::{condition_of, range_of, refusal_of, shape_of, state_of, version_of};

/// See the module's text.
#[derive(Clone, Default)]
pub(crate) struct ModelStore(Arc<Mutex<Model>>);

#[derive(Default)]
struct Model {
    registered: u64,
    tenants: HashMap<TenantId, Arc<TenantRecord>>,
    keys: BTreeMap<KeyId, Arc<KeyRecord>>,
    /// With the time of each counter's creation.
    counters: HashMap<TenantId, Counters<u64>>,
    results: IdempotencyTable<(TenantId, [u8; 16]), (Kind, [u8; 16]), Given>,
    closed: bool,
}

/// Requests of different kinds are different requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Increment,
    State,
}

#[derive(Clone, Copy, Debug)]
enum Given {
    Issued(Issued),
    State(CounterState),
}

impl From<Given> for Issued {
    fn from(given: Given) -> Self {
        let Given::Issued(issued) = given else { panic!("{given:?} was given to an increment") };
        issued
    }
}

impl From<Given> for CounterState {
    fn from(given: Given) -> Self {
        let Given::State(state) = given else {
            panic!("{given:?} was given to a set or a creation")
        };
        state
    }
}

impl ModelStore {
    fn with<'a, T: Send + 'a>(
        &self,
        verb: impl FnOnce(&mut Model) -> Result<T, StoreError>,
    ) -> StoreFuture<'a, T> {
        let mut model = self.0.lock().unwrap();
        let outcome =
            if model.closed { Err(Unavailable::Closing.into()) } else { verb(&mut model) };
        Box::pin(std::future::ready(outcome))
    }
}

impl Model {
    fn tenant(&mut self, tenant: TenantId) -> Result<&mut TenantRecord, Refusal> {
        self.tenants.get_mut(&tenant).map(Arc::make_mut).ok_or(Refusal::NoSuchTenant)
    }

    /// Whether who asks for a change of credentials may still do so.
    fn prove(&mut self, tenant: TenantId, proof: Proof) -> Result<(), Refusal> {
        let (password, suspended) = {
            let record = self.tenant(tenant)?;
            (record.password, record.suspended)
        };
        let holds = match proof {
            Proof::Operator => return Ok(()),
            Proof::Password(hash) => hash == password,
            Proof::Key(key) => self.keys.get(&key).is_some_and(|key| key.tenant == tenant),
        };
        if holds && !suspended { Ok(()) } else { Err(Refusal::CredentialReplaced) }
    }

    fn counters(&mut self, tenant: TenantId) -> &mut Counters<u64> {
        self.counters.entry(tenant).or_default()
    }

    fn keys_of(&self, tenant: TenantId) -> impl Iterator<Item = ListedKey> {
        self.keys
            .iter()
            .filter(move |(_, key)| key.tenant == tenant)
            .map(|(id, key)| (*id, Arc::clone(key)))
    }

    /// Changes a counter once.
    fn once<T: From<Given>>(
        &mut self,
        tenant: TenantId,
        kind: Kind,
        once: Option<IdempotencyToken>,
        change: impl FnOnce(&mut Self) -> Result<Given, Refusal>,
    ) -> Result<Applied<T>, StoreError> {
        let entry = once.map(|once| ((tenant, once.key_hash), (kind, once.request_fingerprint)));
        if let Some((key, request)) = &entry {
            match self.results.lookup(key, request) {
                Lookup::New => {}
                Lookup::Replay(given) => {
                    return Ok(Applied { result: (*given).into(), replayed: true });
                }
                Lookup::Reused => return Err(Refusal::IdempotencyKeyReused.into()),
            }
        }
        let given = change(self)?;
        if let Some((key, request)) = entry {
            self.results.record(key, request, given);
        }
        Ok(Applied { result: given.into(), replayed: false })
    }
}

/// Names that differ only in case are the same name.
fn is_same_name(one: &TenantName, other: &TenantName) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

fn page<T>(mut items: Vec<T>, limit: usize) -> Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    Page { items, more }
}

impl Store for ModelStore {
    fn register(&self, tenant: NewTenant) -> StoreFuture<'_, TenantId> {
        self.with(|model| {
            if model.tenants.values().any(|other| is_same_name(&other.name, &tenant.name)) {
                return Err(Refusal::NameTaken.into());
            }
            model.registered += 1;
            let id = TenantId(model.registered);
            let NewTenant { name, password, key, secret, created_unix_s } = tenant;
            let (limit, label) = (TenantLimit::Default, KeyLabel::default());
            let record = TenantRecord {
                name,
                password,
                created_unix_s,
                suspended: false,
                limit,
                deleting: false,
                key_epoch: 0,
            };
            model.tenants.insert(id, Arc::new(record));
            let (scopes, expires_unix_s, last_used_day) = (Scopes::ALL, None, None);
            let first = KeyRecord {
                tenant: id,
                secret,
                label,
                scopes,
                created_unix_s,
                expires_unix_s,
                last_used_day,
                epoch: 0,
            };
            model.keys.insert(key, Arc::new(first));
            Ok(id)
        })
    }

    fn api_key(&self, key: KeyId) -> StoreFuture<'_, Option<FoundKey>> {
        self.with(|model| {
            let found = model.keys.get(&key).cloned();
            Ok(found.map(|key| (Arc::clone(&key), Arc::clone(&model.tenants[&key.tenant]))))
        })
    }

    fn find_tenant(&self, tenant: TenantId) -> StoreFuture<'_, Option<Arc<TenantRecord>>> {
        self.with(|model| Ok(model.tenants.get(&tenant).cloned()))
    }

    fn tenant_by_name(&self, name: &TenantName) -> StoreFuture<'_, Option<TenantId>> {
        let is_it =
            |(_, tenant): &(&TenantId, &Arc<TenantRecord>)| is_same_name(&tenant.name, name);
        self.with(|model| Ok(model.tenants.iter().find(is_it).map(|(id, _)| *id)))
    }

    fn last_tenant_id(&self) -> StoreFuture<'_, TenantId> {
        self.with(|model| Ok(TenantId(model.registered)))
    }

    fn usage(&self, tenant: TenantId) -> StoreFuture<'_, TenantUsage> {
        self.with(|model| {
            let count = |count: usize| u32::try_from(count).unwrap();
            let keys = count(model.keys_of(tenant).count());
            let counters = model.counters(tenant);
            Ok(TenantUsage {
                counters: count(counters.named()),
                keys,
                counters_created: counters.created,
            })
        })
    }

    fn change_tenant(
        &self,
        tenant: TenantId,
        change: TenantUpdate,
    ) -> StoreFuture<'_, Arc<TenantRecord>> {
        self.with(|model| {
            let record = model.tenant(tenant)?;
            match change {
                TenantUpdate::Suspended(suspended) => record.suspended = suspended,
                TenantUpdate::Limit(limit) => record.limit = limit,
            }
            Ok(Arc::clone(&model.tenants[&tenant]))
        })
    }

    fn change_password(
        &self,
        tenant: TenantId,
        proof: Proof,
        password: PasswordHash,
        revoke_keys: bool,
    ) -> StoreFuture<'_, u32> {
        self.with(|model| {
            model.prove(tenant, proof)?;
            let record = model.tenant(tenant)?;
            record.password = password;
            record.key_epoch += u64::from(revoke_keys);
            let before = model.keys.len();
            model.keys.retain(|_, key| !revoke_keys || key.tenant != tenant);
            Ok(u32::try_from(before - model.keys.len()).unwrap())
        })
    }

    fn delete_tenant(&self, tenant: TenantId, proof: Proof) -> StoreFuture<'_, ()> {
        self.with(|model| {
            model.prove(tenant, proof)?;
            model.tenants.remove(&tenant).ok_or(Refusal::NoSuchTenant)?;
            model.keys.retain(|_, key| key.tenant != tenant);
            model.counters.remove(&tenant);
            Ok(())
        })
    }

    fn add_key(&self, id: KeyId, key: KeyRecord, proof: Proof, quota: u32) -> StoreFuture<'_, ()> {
        self.with(|model| {
            model.prove(key.tenant, proof)?;
            let epoch = model.tenant(key.tenant)?.key_epoch;
            if model.keys_of(key.tenant).count() >= quota as usize {
                return Err(Refusal::Quota(quota).into());
            }
            model.keys.insert(id, Arc::new(KeyRecord { epoch, ..key }));
            Ok(())
        })
    }

    fn list_api_keys(
        &self,
        tenant: TenantId,
        after: Option<KeyId>,
        limit: usize,
    ) -> StoreFuture<'_, Page<ListedKey>> {
        let behind = |(id, _): &ListedKey| after.is_none_or(|after| *id > after);
        self.with(|model| Ok(page(model.keys_of(tenant).filter(behind).collect(), limit)))
    }

    fn revoke_key(&self, tenant: TenantId, key: KeyId, proof: Proof) -> StoreFuture<'_, ()> {
        self.with(|model| {
            model.prove(tenant, proof)?;
            model
                .keys
                .get(&key)
                .filter(|record| record.tenant == tenant)
                .ok_or(Refusal::NoSuchKey)?;
            model.keys.remove(&key);
            Ok(())
        })
    }

    fn touch_api_key(&self, key: KeyId, day: u32) -> StoreFuture<'_, ()> {
        self.with(|model| {
            if let Some(key) = model.keys.get_mut(&key).map(Arc::make_mut) {
                key.last_used_day = key.last_used_day.max(Some(day));
            }
            Ok(())
        })
    }

    fn get_counter(&self, tenant: TenantId, name: &CounterName) -> StoreFuture<'_, CounterState> {
        self.with(|model| {
            let found = model.counters(tenant).get(name.as_str()).map(state_of);
            Ok(found.ok_or(Refusal::NoSuchCounter)?)
        })
    }

    fn list_counters(
        &self,
        tenant: TenantId,
        after: Option<CounterName>,
        limit: usize,
    ) -> StoreFuture<'_, Page<ListedCounter>> {
        self.with(|model| {
            let behind = |name: &str| after.as_ref().is_none_or(|after| name > after.as_str());
            let all = model.counters(tenant).iter().filter(|(name, _)| behind(name));
            let listed =
                all.map(|(name, entry)| (CounterName::parse(name).unwrap(), state_of(entry)));
            Ok(page(listed.collect(), limit))
        })
    }

    fn create(
        &self,
        tenant: TenantId,
        name: &CounterName,
        new: NewCounter,
        once: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<CounterState>> {
        self.with(|model| {
            model.once(tenant, Kind::State, once, |model| {
                model.tenant(tenant)?;
                let NewCounter { config: shape, created_unix_s, quota } = new;
                let created = model.counters(tenant).create(
                    name.as_str(),
                    shape_of(shape),
                    quota,
                    created_unix_s,
                );
                Ok(Given::State(state_of(&created.map_err(refusal_of)?)))
            })
        })
    }

    fn advance(
        &self,
        tenant: TenantId,
        name: &CounterName,
        count: u32,
        once: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<Issued>> {
        self.with(|model| {
            model.once(tenant, Kind::Increment, once, |model| {
                let issued = model.counters(tenant).increment(name.as_str(), count.into());
                let (range, version) = issued.map_err(refusal_of)?;
                Ok(Given::Issued(Issued { range: range_of(range), version: version_of(version) }))
            })
        })
    }

    fn set(
        &self,
        tenant: TenantId,
        name: &CounterName,
        to: SetCounter,
        once: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<CounterState>> {
        self.with(|model| {
            model.once(tenant, Kind::State, once, |model| {
                let SetCounter { value, rewind, precondition } = to;
                let condition = condition_of(&precondition);
                let set =
                    model.counters(tenant).set(name.as_str(), value.get(), rewind, &condition);
                Ok(Given::State(state_of(&set.map_err(refusal_of)?)))
            })
        })
    }

    fn delete(
        &self,
        tenant: TenantId,
        name: &CounterName,
        expected: Precondition,
    ) -> StoreFuture<'_, ()> {
        self.with(|model| {
            let deleted = model.counters(tenant).delete(name.as_str(), &condition_of(&expected));
            Ok(deleted.map_err(refusal_of)?)
        })
    }

    fn health(&self) -> Health {
        Health::Ready
    }

    fn wait_poisoned(&self) -> StoreFuture<'_, Arc<str>> {
        Box::pin(std::future::pending())
    }

    fn for_worker(&self) -> Arc<dyn Store> {
        Arc::new(self.clone())
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.0.lock().unwrap().closed = true;
        Box::pin(std::future::ready(Ok(())))
    }
}
