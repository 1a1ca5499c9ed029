//! What a store must answer, step by step, told to the embedded store and to the model.
//!
//! Job: stories with the right answers in them, so that the model is held to the contract too.
//! Invariant: a story is about promises, and true of every store. Must never: look inside one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use odometer::domain::api_key::{KeyId, KeyLabel, Scopes, SecretHash};
use odometer::domain::counter::{CounterConfig, CounterName, Step, Value};
use odometer::domain::tenant::TenantId;
use odometer::store::embedded::{EmbeddedStore, Options};
use odometer::store::{
    CounterState, Health, IdempotencyToken, KeyRecord, NewCounter, Precondition, Proof, Refusal,
    SetCounter, Store, StoreError, TenantUpdate, TenantUsage, Version,
};
use odometer::telemetry::StoreMetrics;

use super::{counter_name, first_password, new_tenant, next_password, open, options, runtime};
use crate::model_store::ModelStore;

/// The story of the verbs, for one store.
async fn story(store: &dyn Store) {
    let name = CounterName::default_counter();
    assert_eq!(store.health(), Health::Ready);
    let tenant = store.register(new_tenant(1, false, 1)).await.unwrap();
    let taken = store.register(new_tenant(1, true, 2)).await;
    assert!(matches!(taken, Err(StoreError::Refused(Refusal::NameTaken))));
    assert!(
        store.api_key(KeyId([2; 8])).await.unwrap().is_none(),
        "a refused registration leaves no key"
    );
    assert_eq!(store.api_key(KeyId([1; 8])).await.unwrap().unwrap().0.tenant, tenant);
    assert_eq!(store.get_counter(tenant, &name).await.unwrap(), CounterState::default());
    let issued = store.advance(tenant, &name, 10, None).await.unwrap().result;
    assert_eq!(
        (issued.range.first.get(), issued.range.last.get(), issued.range.count),
        (2, 11, 10)
    );
    let once = Some(IdempotencyToken { key_hash: [1; 16], request_fingerprint: [2; 16] });
    let first = store.advance(tenant, &name, 5, once).await.unwrap();
    let again = store.advance(tenant, &name, 5, once).await.unwrap();
    assert_eq!((again.result, first.replayed, again.replayed), (first.result, false, true));
    let other = Some(IdempotencyToken { key_hash: [1; 16], request_fingerprint: [3; 16] });
    let reused = store.advance(tenant, &name, 6, other).await;
    assert!(
        matches!(reused, Err(StoreError::Refused(Refusal::IdempotencyKeyReused))),
        "{reused:?}"
    );
    // Another tenant's idempotency key of the same bytes is another key.
    let neighbour = store.register(new_tenant(2, false, 3)).await.unwrap();
    let theirs = store.advance(neighbour, &name, 5, once).await.unwrap();
    assert_eq!((theirs.result.range.last.get(), theirs.replayed), (6, false));
    let to = SetCounter {
        value: Value::DEFAULT_MAX,
        rewind: false,
        precondition: Precondition::OneOf(vec![first.result.version]),
    };
    store.set(tenant, &name, to.clone(), None).await.unwrap();
    let late = store.set(tenant, &name, to, None).await;
    assert!(matches!(late, Err(StoreError::Refused(Refusal::PreconditionFailed(_)))), "{late:?}");
    assert!(matches!(
        store.advance(tenant, &name, 1, None).await,
        Err(StoreError::Refused(Refusal::Counter(_)))
    ));
    assert_eq!(store.get_counter(tenant, &name).await.unwrap().counter.value(), Value::DEFAULT_MAX);
    store.close().await.unwrap();
    assert!(store.advance(tenant, &name, 1, None).await.is_err(), "a closed store takes nothing");
    store.close().await.unwrap();
}

/// The story of versions and preconditions, for one store.
async fn story_of_versions(store: &dyn Store) {
    let tenant = store.register(new_tenant(1, false, 1)).await.unwrap();
    let name = counter_name(1);
    let config = CounterConfig::new(
        Value::new(5).unwrap(),
        Step::ONE,
        Value::ZERO,
        Value::new(9).unwrap(),
        false,
    );
    let new = NewCounter { config: config.unwrap(), created_unix_s: 1, quota: 2 };
    let set = |raw, rewind, precondition| SetCounter {
        value: Value::new(raw).unwrap(),
        rewind,
        precondition,
    };
    let one_of = |versions: &[Version]| Precondition::OneOf(versions.to_vec());
    let failed = |refused: Result<(), StoreError>| match refused {
        Err(StoreError::Refused(Refusal::PreconditionFailed(now))) => now,
        other => panic!("{other:?}"),
    };

    let born = store.create(tenant, &name, new, None).await.unwrap().result;
    let issued = store.advance(tenant, &name, 1, None).await.unwrap().result;
    assert_ne!(born.version, issued.version, "every change makes another version");
    let now = store.get_counter(tenant, &name).await.unwrap();
    assert_eq!((now.version, now.counter.value()), (issued.version, issued.range.last));

    // An old version changes nothing, one of several is enough, and the same value is no rewind.
    let old = || one_of(&[born.version]);
    let refused = store.set(tenant, &name, set(7, false, old()), None).await;
    assert_eq!(failed(refused.map(drop)), now);
    assert_eq!(failed(store.delete(tenant, &name, old()).await), now);
    assert_eq!(store.get_counter(tenant, &name).await.unwrap(), now);
    let either = one_of(&[born.version, now.version]);
    let same = store.set(tenant, &name, set(6, false, either), None).await.unwrap().result;
    assert_eq!(same.counter.value().get(), 6);
    let lower = store.set(tenant, &name, set(5, false, Precondition::Any), None).await;
    assert!(matches!(lower, Err(StoreError::Refused(Refusal::Counter(_)))), "{lower:?}");
    store.set(tenant, &name, set(5, true, one_of(&[same.version])), None).await.unwrap();

    // A counter that is created after a deletion is another one, from its first version on.
    store.delete(tenant, &name, Precondition::Any).await.unwrap();
    let again = store.create(tenant, &name, new, None).await.unwrap().result;
    assert_ne!(again.version.generation, born.version.generation);
    let of_both = [born, again].map(|state| (state.counter.value(), state.version.revision));
    assert_eq!(of_both[0], of_both[1]);
    let refused = store.set(tenant, &name, set(7, false, old()), None).await;
    assert_eq!(failed(refused.map(drop)), again);
    assert_eq!(failed(store.delete(tenant, &name, old()).await), again);
    store.delete(tenant, &name, one_of(&[again.version])).await.unwrap();
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
fn every_store_tells_the_story_of_versions() {
    let temp = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        story_of_versions(&ModelStore::default()).await;
        story_of_versions(open(temp.path(), 1000).as_ref()).await;
    });
}

/// Changes of credentials that were on their way while another one was made. The proof of each was
/// right when the request came.
async fn story_of_credentials(store: &dyn Store) {
    let tenant = store.register(new_tenant(1, false, 1)).await.unwrap();
    let (first, second) = (first_password(1), next_password(2));
    let add = |key: u8, proof| {
        let record = KeyRecord {
            tenant,
            secret: SecretHash([key; 32]),
            label: KeyLabel::default(),
            scopes: Scopes::ALL,
            created_unix_s: 1,
            expires_unix_s: None,
            last_used_day: None,
            epoch: 0,
        };
        store.add_key(KeyId([key; 8]), record, proof, 9)
    };
    let is_replaced = |result: Result<(), StoreError>| {
        matches!(result, Err(StoreError::Refused(Refusal::CredentialReplaced)))
    };
    let keys = async || {
        let listed = store.list_api_keys(tenant, None, 9).await.unwrap().items;
        assert_eq!(listed.len(), store.usage(tenant).await.unwrap().keys as usize);
        listed.into_iter().map(|(id, _)| id.0[0]).collect::<Vec<_>>()
    };
    add(2, Proof::Password(first)).await.unwrap();
    add(3, Proof::Key(KeyId([2; 8]))).await.unwrap();
    assert_eq!(keys().await, [1, 2, 3]);
    // With room for two records, both keys of the revocation are on disk by now.
    for number in 0..4 {
        let _ = store.get_counter(tenant, &counter_name(number)).await;
    }
    store.revoke_key(tenant, KeyId([2; 8]), Proof::Key(KeyId([1; 8]))).await.unwrap();
    assert!(is_replaced(add(4, Proof::Key(KeyId([2; 8]))).await), "a revoked key makes no key");

    let change = store.change_password(tenant, Proof::Password(first), second, true).await;
    assert_eq!(change.unwrap(), 2);
    for proof in [Proof::Password(first), Proof::Key(KeyId([1; 8])), Proof::Key(KeyId([3; 8]))] {
        assert!(is_replaced(add(5, proof).await), "{proof:?} makes no key");
        assert!(is_replaced(store.revoke_key(tenant, KeyId([9; 8]), proof).await));
        assert!(is_replaced(store.delete_tenant(tenant, proof).await));
        let late = store.change_password(tenant, proof, first, true).await;
        assert!(is_replaced(late.map(drop)), "{proof:?} changes no password");
    }
    assert!(keys().await.is_empty());
    assert!(store.api_key(KeyId([3; 8])).await.unwrap().is_none());

    // The owner goes on with the new password; a key of the tenant does not prove another's change.
    add(6, Proof::Password(second)).await.unwrap();
    assert_eq!(keys().await, [6]);
    let other = store.register(new_tenant(2, false, 7)).await.unwrap();
    assert!(is_replaced(store.delete_tenant(other, Proof::Key(KeyId([6; 8]))).await));
    store.change_tenant(tenant, TenantUpdate::Suspended(true)).await.unwrap();
    assert!(is_replaced(add(8, Proof::Password(second)).await), "a suspended tenant makes no key");
    store.delete_tenant(tenant, Proof::Operator).await.unwrap();
    store.close().await.unwrap();
}

#[test]
fn every_store_proves_credentials_when_it_decides() {
    let temp = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        story_of_credentials(&ModelStore::default()).await;
        story_of_credentials(open(temp.path(), 1000).as_ref()).await;
        // Every record of a decision has to be loaded first.
        story_of_credentials(open(temp.path().join("small").as_path(), 2).as_ref()).await;
    });
}

/// All keys of a tenant are revoked by one commit; their records go later, and the process may end
/// before that.
#[test]
fn keys_are_revoked_before_their_records_are_removed() {
    let temp = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let store = open(temp.path(), 1000);
        let tenant = store.register(new_tenant(1, false, 1)).await.unwrap();
        let mut change = store.change_password(tenant, Proof::Operator, next_password(2), true);
        // The first poll sends the command; a second one could go on to the records.
        assert!((&mut change).now_or_never().is_none(), "it was answered before its commit");
        while store.find_tenant(tenant).await.unwrap().unwrap().key_epoch == 0 {
            tokio::task::yield_now().await;
        }
        drop(change);
        let is_revoked = async |store: &dyn Store| {
            assert!(store.api_key(KeyId([1; 8])).await.unwrap().is_none());
            assert!(store.list_api_keys(tenant, None, 9).await.unwrap().items.is_empty());
            assert_eq!(store.usage(tenant).await.unwrap().keys, 0);
            let revoked = store.revoke_key(tenant, KeyId([1; 8]), Proof::Operator).await;
            assert!(matches!(revoked, Err(StoreError::Refused(Refusal::NoSuchKey))), "{revoked:?}");
        };
        is_revoked(store.as_ref()).await;
        store.close().await.unwrap();
        let store = open(temp.path(), 1000);
        is_revoked(store.as_ref()).await;
        let again = store.change_password(tenant, Proof::Operator, next_password(3), true).await;
        assert_eq!(again.unwrap(), 0, "none is revoked twice");
        is_revoked(store.as_ref()).await;
        store.close().await.unwrap();
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
                    own.push(
                        store
                            .advance(TenantId(1), &name, 1, None)
                            .await
                            .unwrap()
                            .result
                            .range
                            .last
                            .get(),
                    );
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

/// A client that deletes a tenant with many counters may be gone before all of it is: the next
/// start goes on, and comes to an end.
#[test]
fn a_deletion_that_was_interrupted_is_finished_by_the_next_start() {
    const COUNTERS: usize = 600;
    let temp = tempfile::tempdir().unwrap();
    let options =
        Options { checkpoint_interval: Duration::from_secs(3600), ..options(temp.path(), 10_000) };
    let open = || EmbeddedStore::open(&options, StoreMetrics::noop()).unwrap().0;
    runtime().block_on(async {
        let store = open();
        let tenant = store.register(new_tenant(1, false, 1)).await.unwrap();
        for number in 0..COUNTERS {
            let name = CounterName::parse(&format!("counter-{number}")).unwrap();
            let new = NewCounter { config: CounterConfig::DEFAULT, created_unix_s: 1, quota: 1000 };
            store.create(tenant, &name, new, None).await.unwrap();
        }
        let mut deletion = store.delete_tenant(tenant, Proof::Operator);
        while store.find_tenant(tenant).await.unwrap().is_some() {
            assert!(
                (&mut deletion).now_or_never().is_none(),
                "a deletion of 600 counters takes several commits"
            );
        }
        drop(deletion);
        store.close().await.unwrap();

        let store = open();
        assert!(
            store.list_counters(tenant, None, COUNTERS).await.unwrap().items.len() > 1,
            "nothing was left to do"
        );
        store.resume_deletions().await.unwrap();
        assert_eq!(
            store.list_counters(tenant, None, COUNTERS).await.unwrap().items.len(),
            1,
            "default alone"
        );
        assert_eq!(store.usage(tenant).await.unwrap(), TenantUsage::default());
        assert!(store.api_key(KeyId([1; 8])).await.unwrap().is_none());
        assert!(matches!(
            store.delete_tenant(tenant, Proof::Operator).await,
            Err(StoreError::Refused(Refusal::NoSuchTenant))
        ));
        store.resume_deletions().await.unwrap();
        store.close().await.unwrap();
    });
}
