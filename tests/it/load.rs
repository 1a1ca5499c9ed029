//! Many clients on one counter and on a hundred: every answer distinct, every set of answers
//! gapless, and all of it there after a restart.
//!
//! `ODOMETER_LOAD_INCREMENTS` is the number of increments of each of the 64 clients (200; the long
//! form is 10,000).
//! Invariant: nothing goes wrong here that would excuse a gap, so unlike in `crash.rs` none is
//! allowed.

use std::sync::Arc;
use std::time::Instant;

use crate::support::client::{Endpoint, Protocol};
use crate::support::history::{Op, Operation, Rules, check};
use crate::support::server::{Builder, Keep, TestServer};
use crate::support::workload::{Clock, observe, perform, register, runtime};
use crate::support::{number_setting, say};
use tempfile::TempDir;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const CLIENTS: u32 = 64;

#[test]
fn one_tenant_gets_every_integer_once() {
    load_and_restart("one tenant", 1);
}

#[test]
fn a_hundred_tenants_get_every_integer_once() {
    load_and_restart("100 tenants", 100);
}

fn server_on(folder: &TempDir) -> Builder {
    TestServer::builder().data_dir(folder.path().join("data")).keep(Keep::Problems)
}

fn load_and_restart(name: &str, tenants: usize) {
    let each = number_setting("ODOMETER_LOAD_INCREMENTS", 200);
    let folder = TempDir::new().expect("a temporary folder");
    let clock = Clock::start();
    let runtime = runtime();

    let server = server_on(&folder).start();
    let endpoint = server.endpoint();
    let keys: Arc<[String]> = runtime.block_on(register(&endpoint, "load", tenants)).into();
    let started = Instant::now();
    let mut history = runtime.block_on(increment_all(&endpoint, clock, &keys, each));
    let seconds = started.elapsed().as_secs_f64();
    history.extend(runtime.block_on(observe(&endpoint, clock, &keys)));
    server.stop();
    let restarts = vec![clock.now()];

    let server = server_on(&folder).start();
    let after = runtime.block_on(observe(&server.endpoint(), clock, &keys));
    server.stop();
    history.extend(&after);

    let sent = u64::from(CLIENTS) * each;
    assert_complete(&history, &after, sent);
    let verdict = check(&history, &Rules { restarts, ..Rules::default() });
    verdict.assert_clean(name);
    assert_eq!(
        (verdict.acknowledged, verdict.unknown, verdict.refused, verdict.gaps),
        (sent, 0, 0, 0),
        "{name}"
    );
    let rate = sent as f64 / seconds;
    say(&format!(
        "load, {name}: {CLIENTS} clients, {sent} increments, {rate:.0}/s, all distinct, gapless and kept"
    ));
}

/// Without the checker, as a check of the checker: each tenant's answers are exactly 2, 3, … up to
/// what the restarted server reads.
fn assert_complete(history: &[Operation], after: &[Operation], sent: u64) {
    let mut total = 0;
    for last in after {
        let of_tenant = |operation: &&Operation| {
            operation.tenant == last.tenant && operation.op == Op::Increment
        };
        let mut values: Vec<u64> = history.iter().filter(of_tenant).map(value_of).collect();
        values.sort_unstable();
        total += u64::try_from(values.len()).expect("a small number");
        assert!(
            values.iter().copied().eq(2..=value_of(last)),
            "tenant {}: {values:?}, then {last:?}",
            last.tenant
        );
    }
    assert_eq!(total, sent);
}

fn value_of(operation: &Operation) -> u64 {
    match operation.outcome {
        crate::support::history::Outcome::Ok(value) => value,
        _ => panic!("nothing may fail under plain load: {operation:?}"),
    }
}

async fn increment_all(
    endpoint: &Endpoint,
    clock: Clock,
    keys: &Arc<[String]>,
    each: u64,
) -> Vec<Operation> {
    let connected = Arc::new(Barrier::new(CLIENTS as usize));
    let mut tasks = JoinSet::new();
    for client in 0..CLIENTS {
        let (endpoint, keys, connected) =
            (endpoint.clone(), Arc::clone(keys), Arc::clone(&connected));
        tasks.spawn(async move {
            let protocol = if client % 4 == 3 { Protocol::Http2 } else { Protocol::Http1 };
            let mut connection =
                endpoint.connect(protocol).await.expect("the server accepts 64 connections");
            connected.wait().await;
            let mut told = Vec::new();
            for round in 0..each {
                let tenant = u32::try_from((u64::from(client) + round) % keys.len() as u64)
                    .expect("a small number");
                let who = (client, tenant, keys[tenant as usize].as_str());
                let (operation, failure) =
                    perform(&mut connection, clock, who, Op::Increment).await;
                assert!(failure.is_none(), "nothing may fail under plain load: {failure:?}");
                told.push(operation);
            }
            told
        });
    }
    tasks.join_all().await.concat()
}
