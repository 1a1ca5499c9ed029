//! One story for every store: the contract of `trait Store`, run against the embedded store and
//! against a model in memory.
//!
//! Job: random operations on both at once, with the embedded store closed and opened again in
//! between; every answer must be the same.
//! Invariant: the model is the contract in its shortest form and shares no rule with the program.
//! Must never: look inside a store.
//!
//! stories.rs has what is told step by step, with the right answers in the text.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod stories;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use odometer::domain::api_key::{KeyId, KeyLabel, Scopes, SecretHash};
use odometer::domain::counter::{CounterConfig, CounterName, Step, Value};
use odometer::domain::tenant::{PasswordHash, TenantId, TenantLimit, TenantName};
use odometer::store::embedded::{EmbeddedStore, Options};
use odometer::store::{
    IdempotencyToken, KeyRecord, NewCounter, NewTenant, Precondition, Proof, SetCounter, Store,
    TenantUpdate, Version,
};
use odometer::telemetry::StoreMetrics;
use proptest::prelude::*;

use super::model_store::ModelStore;

/// What may happen to a store.
#[derive(Clone, Debug)]
enum What {
    Register {
        name: u8,
        upper: bool,
    },
    Advance {
        tenant: u64,
        name: u8,
        count: u32,
        once: Option<u8>,
    },
    Set {
        tenant: u64,
        name: u8,
        value: u64,
        rewind: bool,
        expected: Expected,
        once: Option<u8>,
    },
    Create {
        tenant: u64,
        name: u8,
        start: u64,
        step: u64,
        room: Option<u64>,
        rewindable: bool,
        once: Option<u8>,
    },
    Delete {
        tenant: u64,
        name: u8,
        expected: Expected,
    },
    Current {
        tenant: u64,
        name: u8,
    },
    Counters {
        tenant: u64,
        after: Option<u8>,
        limit: usize,
    },
    FindKey {
        key: u8,
    },
    AddKey {
        tenant: u64,
        proof: Proven,
    },
    RevokeKey {
        tenant: u64,
        key: u8,
        proof: Proven,
    },
    Keys {
        tenant: u64,
        after: Option<u8>,
        limit: usize,
    },
    Use {
        key: u8,
        day: u32,
    },
    Tenant {
        tenant: u64,
    },
    Change {
        tenant: u64,
        suspended: Option<bool>,
    },
    Password {
        tenant: u64,
        revoke: bool,
        proof: Proven,
    },
    DeleteTenant {
        tenant: u64,
        proof: Proven,
    },
    /// Changes of one counter, all sent before the first is answered.
    AtOnce(Vec<What>),
    Reopen,
}

/// By which credential a change of credentials is asked for.
#[derive(Clone, Copy, Debug)]
enum Proven {
    Operator,
    /// The password of the registration or of the change that was this step.
    Password(u8, bool),
    /// The key of this step.
    Key(u8),
}

fn proof(proven: Proven) -> Proof {
    match proven {
        Proven::Operator => Proof::Operator,
        Proven::Password(step, is_first) => {
            Proof::Password(if is_first { first_password(step) } else { next_password(step) })
        }
        Proven::Key(step) => Proof::Key(KeyId([step; 8])),
    }
}

fn first_password(step: u8) -> PasswordHash {
    PasswordHash { memory_kib: 8, passes: 1, lanes: 1, salt: [step; 16], hash: [1; 32] }
}

fn next_password(step: u8) -> PasswordHash {
    PasswordHash { hash: [2; 32], ..first_password(step) }
}

/// The versions that a change expects, if it does.
type Expected = Option<Vec<(u64, u64)>>;

fn steps() -> impl Strategy<Value = Vec<What>> {
    let near_max = Value::DEFAULT_MAX.get();
    let value = prop_oneof![0u64..50, near_max - 3..near_max + 3, Just(i64::MAX as u64)];
    let (tenant, name, key) = (1u64..4, 0u8..4, 0u8..30);
    let once = || prop::option::weighted(0.4, 0u8..6);
    let expected = || prop::option::weighted(0.4, prop::collection::vec((0u64..3, 0u64..5), 1..4));
    let of = (tenant.clone(), name.clone());
    let whose = tenant.clone();
    let proof = || {
        prop_oneof![
            2 => Just(Proven::Operator),
            2 => (0u8..40, any::<bool>()).prop_map(|(step, is_first)| Proven::Password(step, is_first)),
            2 => (0u8..40).prop_map(Proven::Key),
        ]
    };
    let at_once = (of.clone(), prop::collection::vec((1u32..4, value.clone(), once()), 2..7))
        .prop_map(|((tenant, name), changes)| {
            let change = |(count, value, once)| match count {
                3 => What::Set { tenant, name, value, rewind: true, expected: None, once },
                _ => What::Advance { tenant, name, count, once },
            };
            What::AtOnce(changes.into_iter().map(change).collect())
        });
    let step = prop_oneof![
        4 => at_once,
        3 => (0u8..5, any::<bool>()).prop_map(|(name, upper)| What::Register { name, upper }),
        8 => (of.clone(), prop_oneof![Just(1u32), 1u32..1000], once())
            .prop_map(|((tenant, name), count, once)| What::Advance { tenant, name, count, once }),
        4 => (of.clone(), value, any::<bool>(), expected(), once()).prop_map(
            |((tenant, name), value, rewind, expected, once)| What::Set { tenant, name, value, rewind, expected, once }),
        6 => (of.clone(), 0u64..20, 1u64..9, prop::option::of(0u64..200), any::<bool>(), once()).prop_map(
            |((tenant, name), start, step, room, rewindable, once)|
                What::Create { tenant, name, start, step, room, rewindable, once }),
        3 => (of.clone(), expected()).prop_map(|((tenant, name), expected)| What::Delete { tenant, name, expected }),
        4 => of.prop_map(|(tenant, name)| What::Current { tenant, name }),
        3 => (whose.clone(), prop::option::of(name), 1usize..4)
            .prop_map(|(tenant, after, limit)| What::Counters { tenant, after, limit }),
        2 => key.clone().prop_map(|key| What::FindKey { key }),
        4 => (whose.clone(), proof()).prop_map(|(tenant, proof)| What::AddKey { tenant, proof }),
        3 => (whose.clone(), key.clone(), proof())
            .prop_map(|(tenant, key, proof)| What::RevokeKey { tenant, key, proof }),
        2 => (whose.clone(), prop::option::of(key.clone()), 1usize..4)
            .prop_map(|(tenant, after, limit)| What::Keys { tenant, after, limit }),
        1 => (key, 1u32..9).prop_map(|(key, day)| What::Use { key, day }),
        2 => whose.clone().prop_map(|tenant| What::Tenant { tenant }),
        1 => (whose.clone(), prop::option::of(any::<bool>()))
            .prop_map(|(tenant, suspended)| What::Change { tenant, suspended }),
        2 => (whose.clone(), any::<bool>(), proof())
            .prop_map(|(tenant, revoke, proof)| What::Password { tenant, revoke, proof }),
        1 => (whose, proof()).prop_map(|(tenant, proof)| What::DeleteTenant { tenant, proof }),
        2 => Just(What::Reopen),
    ];
    prop::collection::vec(step, 1..80)
}

fn options(folder: &std::path::Path, cache_records: usize) -> Options {
    Options {
        data_dir: folder.to_owned(),
        journal_segment_bytes: 1 << 20,
        checkpoint_interval: Duration::from_millis(1),
        cache_records,
        idempotency_keys: 1000,
        min_free_disk_bytes: 0,
        backups: None,
    }
}

fn open(folder: &std::path::Path, cache_records: usize) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(&options(folder, cache_records), StoreMetrics::noop()).unwrap().0)
}

fn counter_name(number: u8) -> CounterName {
    CounterName::parse(["default", "invoices", "a.b_c-9", "E"][usize::from(number)]).unwrap()
}

fn new_tenant(name: u8, upper: bool, key: u8) -> NewTenant {
    let text = format!("tenant-{name}");
    let text = if upper { text.to_uppercase() } else { text };
    NewTenant {
        name: TenantName::parse(&text).unwrap(),
        password: first_password(key),
        key: KeyId([key; 8]),
        secret: SecretHash([key; 32]),
        created_unix_s: 7,
    }
}

fn expected(versions: &Expected) -> Precondition {
    let version = |(generation, revision): &(u64, u64)| Version {
        generation: *generation,
        revision: *revision,
    };
    let all = |versions: &Vec<_>| Precondition::OneOf(versions.iter().map(version).collect());
    versions.as_ref().map_or(Precondition::Any, all)
}

/// A request with this key; it is another request for another step of the same key, but for equal
/// ones.
fn once(key: Option<u8>, request: &What) -> Option<IdempotencyToken> {
    let digest = format!("{request:?}")
        .bytes()
        .fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let digest = u128::from(digest).to_be_bytes();
    // Two requests with one key are often the same one.
    let request = if digest[15] % 2 == 0 { digest } else { [0; 16] };
    key.map(|key| IdempotencyToken { key_hash: [key; 16], request_fingerprint: request })
}

/// The answer of one step, as text, so that two stores can be compared whatever they answer.
async fn answer(store: &dyn Store, what: &What, number: u8) -> String {
    let value = |raw: u64| Value::new(raw).unwrap();
    match what {
        What::Register { name, upper } => {
            format!("{:?}", store.register(new_tenant(*name, *upper, number)).await)
        }
        What::Advance { tenant, name, count, once: key } => {
            let once = once(*key, what);
            format!(
                "{:?}",
                store.advance(TenantId(*tenant), &counter_name(*name), *count, once).await
            )
        }
        What::Set { tenant, name, value: raw, rewind, expected: version, once: key } => {
            let to =
                SetCounter { value: value(*raw), rewind: *rewind, precondition: expected(version) };
            format!(
                "{:?}",
                store.set(TenantId(*tenant), &counter_name(*name), to, once(*key, what)).await
            )
        }
        What::Create { tenant, name, start, step, room, rewindable, once: key } => {
            let max = room.map_or(Value::MAX, |room| value(start + room));
            let (start, step) = (value(*start), Step::new(*step).unwrap());
            let shape = CounterConfig::new(start, step, Value::ZERO, max, *rewindable).unwrap();
            let new = NewCounter { config: shape, created_unix_s: u64::from(number), quota: 2 };
            format!(
                "{:?}",
                store.create(TenantId(*tenant), &counter_name(*name), new, once(*key, what)).await
            )
        }
        What::Delete { tenant, name, expected: version } => {
            format!(
                "{:?}",
                store.delete(TenantId(*tenant), &counter_name(*name), expected(version)).await
            )
        }
        What::Current { tenant, name } => {
            format!("{:?}", store.get_counter(TenantId(*tenant), &counter_name(*name)).await)
        }
        What::Counters { tenant, after, limit } => {
            format!(
                "{:?}",
                store.list_counters(TenantId(*tenant), after.map(counter_name), *limit).await
            )
        }
        What::FindKey { key } => format!("{:?}", store.api_key(KeyId([*key; 8])).await),
        What::AddKey { tenant, proof: proven } => {
            let key = KeyRecord {
                tenant: TenantId(*tenant),
                secret: SecretHash([number; 32]),
                label: KeyLabel::parse("a label").unwrap(),
                scopes: Scopes::READ,
                created_unix_s: 8,
                expires_unix_s: Some(9),
                last_used_day: None,
                epoch: 0,
            };
            format!("{:?}", store.add_key(KeyId([number; 8]), key, proof(*proven), 4).await)
        }
        What::RevokeKey { tenant, key, proof: proven } => {
            let (tenant, key) = (TenantId(*tenant), KeyId([*key; 8]));
            format!("{:?}", store.revoke_key(tenant, key, proof(*proven)).await)
        }
        What::Keys { tenant, after, limit } => {
            format!(
                "{:?}",
                store
                    .list_api_keys(TenantId(*tenant), after.map(|key| KeyId([key; 8])), *limit)
                    .await
            )
        }
        What::Use { key, day } => {
            format!("{:?}", store.touch_api_key(KeyId([*key; 8]), *day).await)
        }
        What::Tenant { tenant } => {
            let tenant = TenantId(*tenant);
            let found = (
                store.find_tenant(tenant).await,
                store.usage(tenant).await,
                store.last_tenant_id().await,
            );
            let name = store.tenant_by_name(&TenantName::parse("Tenant-1").unwrap()).await;
            format!("{found:?} {name:?}")
        }
        What::Change { tenant, suspended } => {
            let limit = TenantUpdate::Limit(TenantLimit::Off);
            let change = suspended.map_or(limit, TenantUpdate::Suspended);
            format!("{:?}", store.change_tenant(TenantId(*tenant), change).await)
        }
        What::Password { tenant, revoke, proof: proven } => {
            let (tenant, password) = (TenantId(*tenant), next_password(number));
            let changed = store.change_password(tenant, proof(*proven), password, *revoke).await;
            format!("{changed:?}")
        }
        What::DeleteTenant { tenant, proof: proven } => {
            format!("{:?}", store.delete_tenant(TenantId(*tenant), proof(*proven)).await)
        }
        What::AtOnce(changes) => {
            // Each is sent when it is polled first, in this order.
            let answers = changes.iter().map(|change| Box::pin(answer(store, change, number)));
            join_all(answers).await.join("\n")
        }
        What::Reopen => String::new(),
    }
}

async fn compare(steps: &[What], cache_records: usize) -> Result<(), TestCaseError> {
    let temp = tempfile::tempdir().unwrap();
    let model = ModelStore::default();
    let mut store = open(temp.path(), cache_records);
    for (number, step) in (0u8..).zip(steps) {
        if matches!(step, What::Reopen) {
            store.close().await.unwrap();
            store = open(temp.path(), cache_records);
            continue;
        }
        let expected = answer(&model, step, number).await;
        prop_assert_eq!(
            answer(store.as_ref(), step, number).await,
            expected,
            "step {} {:?}",
            number,
            step
        );
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
