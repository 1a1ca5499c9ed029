//! The store as a specification: maps in memory and the counter rule, nothing else.
//!
//! Job: answer each verb as the contract says. Invariant: it is too small to be wrong. Must never: be used outside tests; it keeps nothing.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use odometer::domain::api_key::{KeyId, KeyLabel, Scopes};
use odometer::domain::counter::{Counter, CounterName};
use odometer::domain::tenant::{PasswordHash, TenantId, TenantLimit, TenantName};
use odometer::store::{
    Applied, CounterState, Health, IdempotencyToken, Issued, KeyRecord, ListedCounter, ListedKey, NewCounter,
    NewTenant, Page, Precondition, Refusal, SetCounter, Store, StoreError, StoreFuture, TenantRecord, TenantUpdate,
    TenantUsage, Unavailable, Version,
};

/// See the module's text.
#[derive(Clone, Default)]
pub(crate) struct ModelStore(Arc<Mutex<Model>>);

#[derive(Default)]
struct Model {
    registered: u64,
    tenants: HashMap<TenantId, Arc<TenantRecord>>,
    keys: BTreeMap<KeyId, Arc<KeyRecord>>,
    counters: BTreeMap<(TenantId, CounterName), CounterState>,
    born: HashMap<TenantId, u64>,
    answers: HashMap<(TenantId, [u8; 16]), ([u8; 16], Given)>,
    closed: bool,
}

/// An answer's kind: how it is kept, and how it is found again.
type Kind<T> = (fn(T) -> Given, fn(Given) -> Option<T>);

#[derive(Clone, Copy)]
enum Given {
    Issued(Issued),
    State(CounterState),
}

impl ModelStore {
    fn with<'a, T: Send + 'a>(&self, verb: impl FnOnce(&mut Model) -> Result<T, StoreError>) -> StoreFuture<'a, T> {
        let mut model = self.0.lock().unwrap();
        let outcome = if model.closed { Err(Unavailable::Closing.into()) } else { verb(&mut model) };
        Box::pin(std::future::ready(outcome))
    }
}

impl Model {
    fn tenant(&mut self, tenant: TenantId) -> Result<&mut TenantRecord, Refusal> {
        self.tenants.get_mut(&tenant).map(Arc::make_mut).ok_or(Refusal::NoSuchTenant)
    }

    fn counter(&self, tenant: TenantId, name: &CounterName) -> Result<CounterState, Refusal> {
        let found = self.counters.get(&(tenant, name.clone())).copied();
        found.or_else(|| name.is_default().then(CounterState::default)).ok_or(Refusal::NoSuchCounter)
    }

    fn keys_of(&self, tenant: TenantId) -> impl Iterator<Item = ListedKey> {
        self.keys.iter().filter(move |(_, key)| key.tenant == tenant).map(|(id, key)| (*id, Arc::clone(key)))
    }

    fn named(&self, tenant: TenantId) -> usize {
        self.counters.keys().filter(|(of, name)| *of == tenant && !name.is_default()).count()
    }

    /// Changes a counter once.
    fn once<T: Copy>(
        &mut self,
        tenant: TenantId,
        once: Option<IdempotencyToken>,
        (wrap, unwrap): Kind<T>,
        change: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<Applied<T>, StoreError> {
        let key = once.map(|once| (tenant, once.key_hash));
        if let (Some(key), Some(once)) = (key, once)
            && let Some((request, given)) = self.answers.get(&key)
        {
            let same = (*request == once.request_fingerprint).then(|| unwrap(*given)).flatten();
            return Ok(Applied { result: same.ok_or(Refusal::IdempotencyKeyReused)?, replayed: true });
        }
        let result = change(self)?;
        if let (Some(key), Some(once)) = (key, once) {
            self.answers.insert(key, (once.request_fingerprint, wrap(result)));
        }
        Ok(Applied { result, replayed: false })
    }

    fn write(&mut self, tenant: TenantId, name: &CounterName, mut state: CounterState) -> CounterState {
        state.version.revision += 1;
        self.counters.insert((tenant, name.clone()), state);
        state
    }
}

fn states() -> Kind<CounterState> {
    (Given::State, |given| if let Given::State(state) = given { Some(state) } else { None })
}

fn page<T>(mut items: Vec<T>, limit: usize) -> Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    Page { items, more }
}

impl Store for ModelStore {
    fn register(&self, tenant: NewTenant) -> StoreFuture<'_, TenantId> {
        self.with(|model| {
            if model.tenants.values().any(|other| other.name.normalized() == tenant.name.normalized()) {
                return Err(Refusal::NameTaken.into());
            }
            model.registered += 1;
            let id = TenantId(model.registered);
            let NewTenant { name, password, key, secret, created_unix_s } = tenant;
            let (limit, label) = (TenantLimit::Default, KeyLabel::default());
            let record = TenantRecord { name, password, created_unix_s, suspended: false, limit, deleting: false };
            model.tenants.insert(id, Arc::new(record));
            let (scopes, expires_unix_s, last_used_day) = (Scopes::ALL, None, None);
            let first = KeyRecord { tenant: id, secret, label, scopes, created_unix_s, expires_unix_s, last_used_day };
            model.keys.insert(key, Arc::new(first));
            Ok(id)
        })
    }

    fn api_key(&self, key: KeyId) -> StoreFuture<'_, Option<Arc<KeyRecord>>> {
        self.with(|model| Ok(model.keys.get(&key).cloned()))
    }

    fn find_tenant(&self, tenant: TenantId) -> StoreFuture<'_, Option<Arc<TenantRecord>>> {
        self.with(|model| Ok(model.tenants.get(&tenant).cloned()))
    }

    fn tenant_by_name(&self, name: &TenantName) -> StoreFuture<'_, Option<TenantId>> {
        let is_it = |(_, tenant): &(&TenantId, &Arc<TenantRecord>)| tenant.name.normalized() == name.normalized();
        self.with(|model| Ok(model.tenants.iter().find(is_it).map(|(id, _)| *id)))
    }

    fn last_tenant_id(&self) -> StoreFuture<'_, TenantId> {
        self.with(|model| Ok(TenantId(model.registered)))
    }

    fn usage(&self, tenant: TenantId) -> StoreFuture<'_, TenantUsage> {
        self.with(|model| {
            let count = |count: usize| u32::try_from(count).unwrap();
            let born = model.born.get(&tenant).copied().unwrap_or(0);
            Ok(TenantUsage {
                counters: count(model.named(tenant)),
                keys: count(model.keys_of(tenant).count()),
                counters_created: born,
            })
        })
    }

    fn change_tenant(&self, tenant: TenantId, change: TenantUpdate) -> StoreFuture<'_, Arc<TenantRecord>> {
        self.with(|model| {
            let record = model.tenant(tenant)?;
            match change {
                TenantUpdate::Suspended(suspended) => record.suspended = suspended,
                TenantUpdate::Limit(limit) => record.limit = limit,
            }
            Ok(Arc::clone(&model.tenants[&tenant]))
        })
    }

    fn change_password(&self, tenant: TenantId, password: PasswordHash, revoke_keys: bool) -> StoreFuture<'_, u32> {
        self.with(|model| {
            model.tenant(tenant)?.password = password;
            let before = model.keys.len();
            model.keys.retain(|_, key| !revoke_keys || key.tenant != tenant);
            Ok(u32::try_from(before - model.keys.len()).unwrap())
        })
    }

    fn delete_tenant(&self, tenant: TenantId) -> StoreFuture<'_, ()> {
        self.with(|model| {
            model.tenants.remove(&tenant).ok_or(Refusal::NoSuchTenant)?;
            model.keys.retain(|_, key| key.tenant != tenant);
            model.counters.retain(|(of, _), _| *of != tenant);
            model.born.remove(&tenant);
            Ok(())
        })
    }

    fn add_key(&self, id: KeyId, key: KeyRecord, quota: u32) -> StoreFuture<'_, ()> {
        self.with(|model| {
            model.tenant(key.tenant)?;
            if model.keys_of(key.tenant).count() >= quota as usize {
                return Err(Refusal::Quota(quota).into());
            }
            model.keys.insert(id, Arc::new(key));
            Ok(())
        })
    }

    fn list_api_keys(&self, tenant: TenantId, after: Option<KeyId>, limit: usize) -> StoreFuture<'_, Page<ListedKey>> {
        let behind = |(id, _): &ListedKey| after.is_none_or(|after| *id > after);
        self.with(|model| Ok(page(model.keys_of(tenant).filter(behind).collect(), limit)))
    }

    fn revoke_key(&self, tenant: TenantId, key: KeyId) -> StoreFuture<'_, ()> {
        self.with(|model| {
            model.tenant(tenant)?;
            model.keys.get(&key).filter(|record| record.tenant == tenant).ok_or(Refusal::NoSuchKey)?;
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
        self.with(|model| Ok(model.counter(tenant, name)?))
    }

    fn list_counters(
        &self,
        tenant: TenantId,
        after: Option<CounterName>,
        limit: usize,
    ) -> StoreFuture<'_, Page<ListedCounter>> {
        self.with(|model| {
            let mut all: BTreeMap<CounterName, CounterState> = BTreeMap::new();
            all.insert(CounterName::default_counter(), CounterState::default());
            let own = model.counters.iter().filter(|((of, _), _)| *of == tenant);
            all.extend(own.map(|((_, name), state)| (name.clone(), *state)));
            let behind = |(name, _): &ListedCounter| after.as_ref().is_none_or(|after| name > after);
            Ok(page(all.into_iter().filter(behind).collect(), limit))
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
            model.once(tenant, once, states(), |model| {
                model.tenant(tenant)?;
                match model.counter(tenant, name) {
                    Ok(_) if name.is_default() => return Err(Refusal::DefaultCounter),
                    Ok(_) => return Err(Refusal::CounterExists),
                    Err(_) => {}
                }
                if model.named(tenant) >= new.quota as usize {
                    return Err(Refusal::Quota(new.quota));
                }
                let born = model.born.entry(tenant).or_default();
                *born += 1;
                let version = Version { generation: *born, revision: 0 };
                let counter = Counter::new(new.shape);
                let state = CounterState { counter, version, created_unix_s: new.created_unix_s };
                model.counters.insert((tenant, name.clone()), state);
                Ok(state)
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
        let unwrap = |given| if let Given::Issued(issued) = given { Some(issued) } else { None };
        self.with(|model| {
            model.once(tenant, once, (Given::Issued, unwrap), |model| {
                let mut state = model.counter(tenant, name)?;
                let range = state.counter.advance(count)?;
                Ok(Issued { range, version: model.write(tenant, name, state).version })
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
            model.once(tenant, once, states(), |model| {
                let mut state = model.counter(tenant, name)?;
                if !to.expected.is_met_by(state.version) {
                    return Err(Refusal::PreconditionFailed(state));
                }
                state.counter.set(to.value, to.rewind)?;
                Ok(model.write(tenant, name, state))
            })
        })
    }

    fn delete(&self, tenant: TenantId, name: &CounterName, expected: Precondition) -> StoreFuture<'_, ()> {
        self.with(|model| {
            if name.is_default() {
                return Err(Refusal::DefaultCounter.into());
            }
            let state = model.counter(tenant, name)?;
            if !expected.is_met_by(state.version) {
                return Err(Refusal::PreconditionFailed(state).into());
            }
            model.counters.remove(&(tenant, name.clone()));
            Ok(())
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
