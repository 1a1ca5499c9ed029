//! The store as a specification: a map in memory and the counter rule, nothing else.
//!
//! Job: answer each verb as the contract says. Invariant: it is too small to be wrong. Must never: be used outside tests; it keeps nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use odometer::counter::{Counter, CounterName, Range, Value};
use odometer::store::{Health, KeyRecord, NewTenant, Refusal, Store, StoreError, StoreFuture, Unavailable};
use odometer::tenant::{KeyId, TenantId};

/// See the module's text.
#[derive(Clone, Default)]
pub(crate) struct ModelStore(Arc<Mutex<Model>>);

#[derive(Default)]
struct Model {
    names: Vec<String>,
    keys: HashMap<KeyId, Arc<KeyRecord>>,
    counters: HashMap<(TenantId, CounterName), Counter>,
    closed: bool,
}

impl ModelStore {
    fn with<'a, T: Send + 'a>(&self, verb: impl FnOnce(&mut Model) -> Result<T, StoreError>) -> StoreFuture<'a, T> {
        let mut model = self.0.lock().unwrap();
        let outcome = if model.closed { Err(Unavailable::Closing.into()) } else { verb(&mut model) };
        Box::pin(std::future::ready(outcome))
    }
}

impl Model {
    fn counter(&mut self, tenant: TenantId, name: &CounterName) -> &mut Counter {
        self.counters.entry((tenant, name.clone())).or_default()
    }
}

impl Store for ModelStore {
    fn register(&self, tenant: NewTenant) -> StoreFuture<'_, TenantId> {
        self.with(|model| {
            if model.names.contains(&tenant.name.folded()) {
                return Err(Refusal::NameTaken.into());
            }
            model.names.push(tenant.name.folded());
            let id = TenantId(model.names.len() as u64);
            let key = KeyRecord { tenant: id, secret: tenant.secret, created_unix_s: tenant.created_unix_s };
            model.keys.insert(tenant.key, Arc::new(key));
            Ok(id)
        })
    }

    fn find_key(&self, key: KeyId) -> StoreFuture<'_, Option<Arc<KeyRecord>>> {
        self.with(|model| Ok(model.keys.get(&key).cloned()))
    }

    fn current(&self, tenant: TenantId, name: &CounterName) -> StoreFuture<'_, Counter> {
        self.with(|model| Ok(*model.counter(tenant, name)))
    }

    fn advance(&self, tenant: TenantId, name: &CounterName, count: u32) -> StoreFuture<'_, Range> {
        self.with(|model| Ok(model.counter(tenant, name).advance(count).map_err(Refusal::Counter)?))
    }

    fn set(&self, tenant: TenantId, name: &CounterName, value: Value) -> StoreFuture<'_, Value> {
        self.with(|model| Ok(model.counter(tenant, name).set(value).map_err(Refusal::Counter)?))
    }

    fn health(&self) -> Health {
        Health::Ready
    }

    fn poisoned(&self) -> StoreFuture<'_, Arc<str>> {
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
