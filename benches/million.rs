//! A million tenants on disk: how soon is the server ready, how much memory does it take, and what
//! does a backup cost meanwhile?
//!
//! Job: register tenants through the store itself (no passwords are hashed), close it, start the
//! real binary on the folder, and print time to ready and resident memory, at rest and after
//! reading a sample of cold counters; then increments per second of 64 connections while one backup
//! after another is taken. References: the same binary on an empty folder; the same server a moment
//! before, without a backup.
//! Must never: assert a time. `ODOMETER_BENCH_TENANTS` says how many (1,000,000; 2,000 without
//! `--bench`).

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::load_client::{Mode, drive};
use common::machine::median;
use odometer::auth::key::ApiKey;
use odometer::domain::counter::CounterName;
use odometer::domain::tenant::{PasswordHash, TenantName};
use odometer::store::embedded::{EmbeddedStore, Options};
use odometer::store::{NewTenant, Store};
use odometer::telemetry::StoreMetrics;
use support::client::Protocol;
use support::command::odometer;
use support::say;
use support::server::TestServer;

/// Keys kept to read with: one tenant in so many.
const SAMPLE: u64 = 1000;
const AT_ONCE: u64 = 1000;
const CONNECTIONS: usize = 64;
const PERIOD: Duration = Duration::from_secs(3);

fn main() {
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let default = if is_test { 2000 } else { 1_000_000 };
    let tenants = support::number_setting("ODOMETER_BENCH_TENANTS", default);
    let (full, empty) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let start = Instant::now();
    let keys = runtime.block_on(load(full.path(), tenants));
    say(&format!(
        "loaded {tenants} tenants in {:.1} s; {} MiB on disk",
        start.elapsed().as_secs_f64(),
        folder_mib(full.path())
    ));
    for (name, folder, keys) in [("empty", empty.path(), &[][..]), ("full", full.path(), &keys[..])]
    {
        // The first start of a folder makes its certificate and takes the journal; the second is
        // what a restart costs.
        for round in ["first start", "restart"] {
            runtime.block_on(measure(name, round, folder, keys));
        }
    }
    beside_backups(full.path(), &keys, if is_test { 1 } else { 5 });
}

/// Increments with and without a backup under way, in turn, on one server.
fn beside_backups(folder: &Path, keys: &[String], rounds: usize) {
    let server =
        TestServer::builder().data_dir(folder).flag("--log-level", "warn").chosen_ports().start();
    let target = tempfile::tempdir().expect("a folder");
    let file = target.path().join("backup");
    let increments =
        || drive(&server.endpoint(), keys, Mode::Spread, CONNECTIONS, PERIOD, 1).per_second;
    let (mut alone, mut beside, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.push(increments());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let backups = scope.spawn(|| {
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    let mut command = odometer(["backup", "--data-dir"]);
                    let status =
                        command.arg(folder).arg("--to").arg(&file).stdout(Stdio::null()).status();
                    assert!(status.is_ok_and(|status| status.success()), "a backup failed");
                    took.push(started.elapsed().as_secs_f64());
                }
                took
            });
            beside.push(increments());
            stop.store(true, Ordering::Relaxed);
            took.extend(backups.join().expect("backups"));
        });
    }
    let mib = std::fs::metadata(&file).expect("a backup").len() >> 20;
    let (alone, beside) = (median(alone), median(beside));
    say(&format!(
        "{CONNECTIONS} connections: {alone:.0} increments/s, {beside:.0} beside backups ({:.2}); a backup of {mib} MiB took {:.2} s \
         (medians of {rounds} rounds, {} backups)",
        beside / alone,
        median(took.clone()),
        took.len()
    ));
    server.stop();
}

async fn load(folder: &Path, tenants: u64) -> Vec<String> {
    let options = Options {
        data_dir: folder.to_owned(),
        journal_segment_bytes: 16 << 20,
        checkpoint_interval: Duration::from_secs(30),
        cache_records: 100_000,
        idempotency_keys: 1000,
        min_free_disk_bytes: 0,
        backups: None,
    };
    let (store, _) = EmbeddedStore::open(&options, StoreMetrics::noop()).expect("a new store");
    let store = store.for_worker();
    let mut sample = Vec::new();
    let mut next = 0;
    while next < tenants {
        let mut batch = Vec::new();
        for number in next..(next + AT_ONCE).min(tenants) {
            let key = ApiKey::generate().expect("random bytes");
            if number % SAMPLE == 0 {
                sample.push(key.expose().to_string());
            }
            batch.push(tokio::spawn(register(Arc::clone(&store), number, key)));
        }
        next += AT_ONCE;
        for task in batch {
            task.await.expect("a task");
        }
    }
    store.close().await.expect("closed");
    sample
}

async fn register(store: Arc<dyn Store>, number: u64, key: ApiKey) {
    let password = PasswordHash {
        memory_kib: 19456,
        passes: 2,
        lanes: 1,
        salt: [number.to_le_bytes()[0]; 16],
        hash: [7; 32],
    };
    let name = TenantName::parse(&format!("tenant-{number}@example.com")).expect("a name");
    let tenant =
        NewTenant { name, password, key: key.id(), secret: key.secret_hash(), created_unix_s: 1 };
    let id = store.register(tenant).await.expect("registered");
    store.advance(id, &CounterName::default_counter(), 1, None).await.expect("incremented");
}

async fn measure(name: &str, round: &str, folder: &Path, keys: &[String]) {
    let server = TestServer::builder().data_dir(folder).start();
    let ready = server.ready_after();
    let at_rest = resident_mib(server.pid().expect("a running server"));
    let mut client = server.endpoint().connect(Protocol::Http1).await.expect("a connection");
    for key in keys {
        client.increment(key).await.expect("an increment");
    }
    say(&format!(
        "{name}, {round}: ready after {:.2} s, resident {at_rest} MiB, {} MiB after {} cold tenants",
        ready.as_secs_f64(),
        resident_mib(server.pid().expect("a running server")),
        keys.len()
    ));
    drop(client);
    server.stop();
}

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running server");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") / 1024
}

fn folder_mib(folder: &Path) -> u64 {
    let output = std::process::Command::new("du").arg("-sm").arg(folder).output().expect("du");
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .next()
        .and_then(|mib| mib.parse().ok())
        .unwrap_or(0)
}
