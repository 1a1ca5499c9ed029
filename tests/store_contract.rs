//! One story for every store: the contract of `trait Store`, run against the embedded store and against a model in memory.
//!
//! Job: random operations on both at once, with the embedded store closed and opened again in between; every answer must be the same.
//! Invariant: the model is the specification in its shortest form: a map and the counter rule. Must never: look inside a store.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod model;

use std::sync::Arc;
use std::time::Duration;

use model::ModelStore;
use odometer::counter::{Counter, CounterName, Value};
use odometer::store::embedded::{EmbeddedStore, Options};
use odometer::store::{Health, NewTenant, Refusal, Store, StoreError};
use odometer::telemetry::StoreMetrics;
use odometer::tenant::{KeyId, PasswordHash, SecretHash, TenantId, TenantName};
use proptest::prelude::*;

/// What may happen to a store.
#[derive(Clone, Debug)]
enum Step {
    Register { name: u8, upper: bool },
    Advance { tenant: u64, name: u8, count: u32 },
    Set { tenant: u64, name: u8, value: u64 },
    Current { tenant: u64, name: u8 },
    FindKey { key: u8 },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let near_max = Value::DEFAULT_MAX.get();
    let value = prop_oneof![1u64..50, near_max - 3..near_max + 3, Just(i64::MAX as u64)];
    let step = prop_oneof![
        2 => (0u8..6, any::<bool>()).prop_map(|(name, upper)| Step::Register { name, upper }),
        8 => (1u64..5, 0u8..3, prop_oneof![Just(1u32), 1u32..1000]).prop_map(|(tenant, name, count)| Step::Advance { tenant, name, count }),
        3 => (1u64..5, 0u8..3, value).prop_map(|(tenant, name, value)| Step::Set { tenant, name, value }),
        4 => (1u64..5, 0u8..3).prop_map(|(tenant, name)| Step::Current { tenant, name }),
        2 => (0u8..8).prop_map(|key| Step::FindKey { key }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

fn options(folder: &std::path::Path, cache_records: usize) -> Options {
    Options {
        data_dir: folder.to_owned(),
        journal_segment_bytes: 1 << 20,
        checkpoint_interval: Duration::from_millis(1),
        cache_records,
        min_free_disk_bytes: 0,
        backups: None,
    }
}

fn open(folder: &std::path::Path, cache_records: usize) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(&options(folder, cache_records), StoreMetrics::unrecorded()).unwrap().0)
}

fn counter_name(number: u8) -> CounterName {
    CounterName::parse(["default", "invoices", "a.b_c-9"][usize::from(number)]).unwrap()
}

fn new_tenant(name: u8, upper: bool, key: u8) -> NewTenant {
    let text = format!("tenant-{name}");
    let text = if upper { text.to_uppercase() } else { text };
    let password = PasswordHash { memory_kib: 8, passes: 1, lanes: 1, salt: [key; 16], hash: [1; 32] };
    NewTenant {
        name: TenantName::parse(&text).unwrap(),
        password,
        key: KeyId([key; 8]),
        secret: SecretHash([key; 32]),
        created_unix_s: 7,
    }
}

/// The answer of one step, as text, so that two stores can be compared whatever they answer.
async fn answer(store: &dyn Store, step: &Step, number: u8) -> String {
    match step {
        Step::Register { name, upper } => format!("{:?}", store.register(new_tenant(*name, *upper, number)).await),
        Step::Advance { tenant, name, count } => {
            format!("{:?}", store.advance(TenantId(*tenant), &counter_name(*name), *count).await)
        }
        Step::Set { tenant, name, value } => {
            format!("{:?}", store.set(TenantId(*tenant), &counter_name(*name), Value::new(*value).unwrap()).await)
        }
        Step::Current { tenant, name } => {
            format!("{:?}", store.current(TenantId(*tenant), &counter_name(*name)).await)
        }
        Step::FindKey { key } => {
            let found = store.find_key(KeyId([*key; 8])).await.unwrap();
            format!("{:?}", found.map(|key| (key.tenant, key.secret.0, key.created_unix_s)))
        }
        Step::Reopen => String::new(),
    }
}

async fn compare(steps: &[Step], cache_records: usize) -> Result<(), TestCaseError> {
    let temp = tempfile::tempdir().unwrap();
    let model = ModelStore::default();
    let mut store = open(temp.path(), cache_records);
    for (number, step) in (0u8..).zip(steps) {
        if matches!(step, Step::Reopen) {
            store.close().await.unwrap();
            store = open(temp.path(), cache_records);
            continue;
        }
        let expected = answer(&model, step, number).await;
        prop_assert_eq!(answer(store.as_ref(), step, number).await, expected, "step {} {:?}", number, step);
    }
    store.close().await.unwrap();
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_store_answers_as_the_model(steps in steps()) {
        runtime().block_on(compare(&steps, 1000))?;
    }

    /// With room for two records nearly every step loads from sled what an earlier one evicted.
    #[test]
    fn it_does_so_with_almost_no_memory(steps in steps()) {
        runtime().block_on(compare(&steps, 2))?;
    }
}

/// The story of the verbs, for one store.
async fn story(store: &dyn Store) {
    let name = CounterName::default_counter();
    assert_eq!(store.health(), Health::Ready);
    let tenant = store.register(new_tenant(1, false, 1)).await.unwrap();
    let taken = store.register(new_tenant(1, true, 2)).await;
    assert!(matches!(taken, Err(StoreError::Refused(Refusal::NameTaken))));
    assert!(store.find_key(KeyId([2; 8])).await.unwrap().is_none(), "a refused registration leaves no key");
    assert_eq!(store.find_key(KeyId([1; 8])).await.unwrap().unwrap().tenant, tenant);
    assert_eq!(store.current(tenant, &name).await.unwrap(), Counter::default());
    let range = store.advance(tenant, &name, 10).await.unwrap();
    assert_eq!((range.first.get(), range.last.get()), (2, 11));
    store.set(tenant, &name, Value::DEFAULT_MAX).await.unwrap();
    assert!(matches!(store.advance(tenant, &name, 1).await, Err(StoreError::Refused(Refusal::Counter(_)))));
    assert_eq!(store.current(tenant, &name).await.unwrap().value, Value::DEFAULT_MAX);
    store.close().await.unwrap();
    assert!(store.advance(tenant, &name, 1).await.is_err(), "a closed store takes nothing");
    store.close().await.unwrap();
}

#[test]
fn every_store_tells_the_story() {
    let temp = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        story(&ModelStore::default()).await;
        story(open(temp.path(), 1000).as_ref()).await;
    });
}

#[test]
fn many_at_once_get_every_integer_once_and_in_order() {
    let temp = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let store = open(temp.path(), 1000).for_worker();
        let name = CounterName::default_counter();
        let mut tasks = Vec::new();
        for _ in 0..64 {
            let (store, name) = (Arc::clone(&store), name.clone());
            tasks.push(tokio::spawn(async move {
                let mut own = Vec::new();
                for _ in 0..50 {
                    own.push(store.advance(TenantId(1), &name, 1).await.unwrap().last.get());
                }
                assert!(own.is_sorted(), "one caller's integers go up");
                own
            }));
        }
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all.sort_unstable();
        assert_eq!(all, (2..2 + 64 * 50).collect::<Vec<u64>>());
        store.close().await.unwrap();
    });
}
