//! Store folders of different shape, and what each of their counters must be.
//!
//! Job: make them with the real binary; where thousands of changes are wanted quickly, with its
//! store in this process first. What a counter must be is what an undamaged copy serves.
//! Invariant: a seed folder is complete and stopped, and never written to again.
//! Must never: take a value from a client's memory; what was read and what is judged are copies of
//! the same bytes.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use odometer::auth::key::ApiKey;
use odometer::domain::counter::CounterName;
use odometer::domain::tenant::{PasswordHash, TenantId, TenantName};
use odometer::store::embedded::{BackupPolicy, EmbeddedStore, Options};
use odometer::store::{NewTenant, Store};
use odometer::telemetry::StoreMetrics;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::folder;
use crate::support::client::{Client, Protocol};
use crate::support::number_setting;
use crate::support::server::{Builder, Keep, TestServer};
use crate::support::workload::{Clock, Load, register, runtime};

/// Registered names are this and a number from 0.
pub(crate) const NAME: &str = "rot";
const FEW: usize = 12;
const MANY: usize = 300;
/// Changes of each of the many: about two segments of frames and one of sled.
const CHURN: u64 = 200;
const CLIENTS: u32 = 8;
const DEADLINE: Duration = Duration::from_secs(30);
/// The least that the server takes.
const SEGMENT: (u64, &str) = (1 << 20, "1MiB");

/// A folder with a store, its older self beside it, and what is known of it.
#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) name: String,
    home: PathBuf,
    pub(crate) keys: Vec<String>,
    /// The value of each key's counter.
    pub(crate) values: Vec<u64>,
    pub(crate) last_frames: Option<(String, Vec<Range<usize>>)>,
}

impl Seed {
    /// The store.
    pub(crate) fn store(&self) -> PathBuf {
        self.home.join("store")
    }

    /// The same store some time before.
    pub(crate) fn older(&self) -> PathBuf {
        self.home.join("older")
    }

    /// Whether the store has a file of this class that says something.
    pub(crate) fn has(&self, class: folder::Class) -> bool {
        let says = |path: &str| fs::metadata(self.store().join(path)).unwrap().len() > 0;
        let files = folder::store_files(&self.store());
        files.iter().any(|file| file.class == class && says(&file.path))
    }

    pub(crate) fn describe(&self) -> String {
        let files = folder::store_files(&self.store());
        let size = |path: &str| fs::metadata(self.store().join(path)).unwrap().len() / 1024;
        let files: Vec<String> =
            files.iter().map(|file| format!("{} {} KiB", file.path, size(&file.path))).collect();
        format!("{}: {} counters; {}", self.name, self.keys.len(), files.join(", "))
    }
}

/// Makes a store in a folder and returns its tenants' keys.
type Maker = fn(&Path) -> Vec<String>;

/// All seed folders below `place`, made if they are not there yet, in this order.
pub(crate) fn all(place: &Path) -> Vec<Seed> {
    let makers: [(&str, Maker); 6] = [
        ("never-checkpointed", never_checkpointed),
        ("stopped", stopped),
        ("killed-in-checkpoint", killed_in_checkpoint),
        ("many-new", many_new),
        ("many-stopped", many_stopped),
        ("many-killed", many_killed),
    ];
    makers.iter().map(|(name, make)| made(place, name, *make)).collect()
}

/// A folder whose journal no longer has its first commit, so that a corrupt state needs the backup.
pub(crate) fn backed_up(place: &Path) -> Seed {
    made(place, "backed-up", in_need_of_its_backup)
}

fn made(place: &Path, name: &str, make: Maker) -> Seed {
    let home = place.join(name);
    if !home.join("expected.json").exists() {
        fs::create_dir_all(&home).unwrap();
        let keys = make(&home);
        note(&home, &keys);
    }
    load(name, &home)
}

fn in_need_of_its_backup(home: &Path) -> Vec<String> {
    let serve = || serve(home).flag("--backup-interval", "1s");
    let server = serve().start();
    let keys = runtime().block_on(register(&server.endpoint(), NAME, FEW));
    server.stop();
    folder::copy(&home.join("store"), &home.join("older"));
    // The second start begins a second segment, so the first can go when a backup has it.
    let server = serve().start();
    let first = home.join("store/journal/00000000000000000001.journal");
    let until = Instant::now() + DEADLINE;
    while first.exists() {
        count(&server, &keys, 1);
        assert!(Instant::now() < until, "the first segment stays");
    }
    count(&server, &keys[1..2], 1);
    server.stop();
    keys
}

/// Only a journal: the state covers nothing.
fn never_checkpointed(home: &Path) -> Vec<String> {
    let server = serve(home).flag("--checkpoint-interval", "1h").start();
    let keys = runtime().block_on(register(&server.endpoint(), NAME, FEW));
    count(&server, &keys, 20);
    folder::copy(&home.join("store"), &home.join("older"));
    count(&server, &keys, 10);
    server.kill();
    keys
}

/// Several checkpoints in one process, and an end in order.
fn stopped(home: &Path) -> Vec<String> {
    let server = serve(home).start();
    let keys = runtime().block_on(register(&server.endpoint(), NAME, FEW));
    let load = Load::start(&server.endpoint(), &keys, Clock::start(), CLIENTS, 1);
    wait_checkpoints(&server, 3.0);
    folder::copy(&home.join("store"), &home.join("older"));
    wait_checkpoints(&server, 6.0);
    load.finish();
    server.stop();
    keys
}

/// Three processes, each killed under load, the last one while it writes to sled.
fn killed_in_checkpoint(home: &Path) -> Vec<String> {
    let mut keys = Vec::new();
    for life in 0..3 {
        let server = serve(home).start();
        if keys.is_empty() {
            keys = runtime().block_on(register(&server.endpoint(), NAME, FEW));
        }
        let load = Load::start(&server.endpoint(), &keys, Clock::start(), CLIENTS, life);
        wait_checkpoints(&server, 2.0);
        if life == 2 {
            wait_sled_written(home);
        }
        server.kill();
        load.finish();
        if life == 1 {
            folder::copy(&home.join("store"), &home.join("older"));
        }
    }
    keys
}

/// Hundreds of tenants, whose older changes are in sled alone since the journal has rolled; an end
/// in order, and never opened again: sled has no snapshot yet, and a start reads its whole log.
fn many_new(home: &Path) -> Vec<String> {
    churned(home)
}

/// The same one life later: sled has a snapshot.
fn many_stopped(home: &Path) -> Vec<String> {
    let keys = continued(home, "many-new");
    let server = serve(home).start();
    count(&server, &keys, 3);
    server.stop();
    keys
}

/// One more life later, killed before the newest changes came into sled.
fn many_killed(home: &Path) -> Vec<String> {
    let keys = continued(home, "many-stopped");
    let server = serve(home).flag("--checkpoint-interval", "1h").start();
    count(&server, &keys[..MANY / 2], 3);
    server.kill();
    keys
}

/// Begins as a copy of another seed folder.
fn continued(home: &Path, name: &str) -> Vec<String> {
    let before = load(name, &home.with_file_name(name));
    for copy in ["store", "older"] {
        folder::copy(&before.store(), &home.join(copy));
    }
    before.keys
}

fn serve(home: &Path) -> Builder {
    let server = TestServer::builder().data_dir(home.join("store")).keep(Keep::Problems);
    server.flag("--journal-segment-size", SEGMENT.1).flag("--checkpoint-interval", "100ms")
}

/// Increments each counter so many times, one commit each.
fn count(server: &TestServer, keys: &[String], times: u32) {
    runtime().block_on(async {
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        for _ in 0..times {
            for key in keys {
                client.increment(key).await.unwrap();
            }
        }
    });
}

fn wait_checkpoints(server: &TestServer, count: f64) {
    let until = Instant::now() + DEADLINE;
    while server
        .metric("odometer_checkpoint_duration_seconds_count")
        .is_none_or(|seen| seen < count)
    {
        assert!(Instant::now() < until, "no {count} checkpoints within {DEADLINE:?}");
        std::thread::yield_now();
    }
}

fn wait_sled_written(home: &Path) {
    let written =
        || fs::metadata(home.join("store/sled/db")).and_then(|data| data.modified()).unwrap();
    let (before, until) = (written(), Instant::now() + DEADLINE);
    while written() == before {
        assert!(Instant::now() < until, "no checkpoint within {DEADLINE:?}");
        std::thread::yield_now();
    }
}

/// A store of many tenants, each changed often enough that segments were removed.
fn churned(home: &Path) -> Vec<String> {
    runtime().block_on(async {
        let options = Options {
            data_dir: home.join("store"),
            journal_segment_bytes: SEGMENT.0,
            checkpoint_interval: Duration::from_millis(100),
            cache_records: 100_000,
            idempotency_keys: 1000,
            min_free_disk_bytes: 0,
            backups: Some(BackupPolicy {
                interval: DEADLINE * 100,
                journal_cap_bytes: SEGMENT.0,
                keep: 2,
            }),
        };
        let (store, _) = EmbeddedStore::open(&options, StoreMetrics::noop()).unwrap();
        let store = store.for_worker();
        let mut keys = Vec::new();
        for number in 0..MANY {
            let key = ApiKey::generate().unwrap();
            store.register(tenant(number, &key)).await.unwrap();
            keys.push(key.expose().to_string());
        }
        let rounds = number_setting("ODOMETER_CORRUPTION_CHURN", CHURN);
        for round in 0..rounds {
            let tasks: Vec<_> = (0..MANY as u64)
                .map(|id| tokio::spawn(advance(Arc::clone(&store), id + 1)))
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            if round == rounds / 2 {
                folder::copy(&home.join("store"), &home.join("older"));
            }
        }
        store.close().await.unwrap();
        keys
    })
}

async fn advance(store: Arc<dyn Store>, tenant: u64) {
    store.advance(TenantId(tenant), &CounterName::default_counter(), 1, None).await.unwrap();
}

fn tenant(number: usize, key: &ApiKey) -> NewTenant {
    let name = TenantName::parse(&format!("{NAME}-{number}")).unwrap();
    let password =
        PasswordHash { memory_kib: 19456, passes: 2, lanes: 1, salt: [1; 16], hash: [7; 32] };
    NewTenant { name, password, key: key.id(), secret: key.secret_hash(), created_unix_s: 1 }
}

/// Writes down what the folder is worth.
fn note(home: &Path, keys: &[String]) {
    let store = home.join("store");
    let place = TempDir::new().unwrap();
    let values = values_of(&store, &place.path().join("whole"), keys, None)
        .expect("a sound folder is served");
    let text = json!({ "keys": keys, "values": values }).to_string();
    fs::write(home.join("expected.json"), text).unwrap();
}

/// What a copy of the folder serves, without a stretch of a file if one is named; `None` if it is
/// refused. Where sled covers a frame, a start without it is refused: then nothing but the values
/// of now is right.
pub(crate) fn values_of(
    store: &Path,
    copy: &Path,
    keys: &[String],
    without: Option<(&str, Range<usize>)>,
) -> Option<Vec<u64>> {
    folder::copy(store, copy);
    if let Some((path, frame)) = without {
        let file = fs::File::options().write(true).open(copy.join(path)).unwrap();
        file.write_all_at(&vec![0; frame.len()], frame.start as u64).unwrap();
    }
    let mut server = TestServer::builder().data_dir(copy).spawn();
    server.wait_ready(DEADLINE).ok()?;
    let values = runtime().block_on(async {
        let mut client: Client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        let mut values = Vec::new();
        for key in keys {
            values.push(client.read(key).await.unwrap());
        }
        values
    });
    server.kill();
    Some(values)
}

fn load(name: &str, home: &Path) -> Seed {
    let known: Value =
        serde_json::from_slice(&fs::read(home.join("expected.json")).unwrap()).unwrap();
    let numbers = |list: &str| {
        known[list].as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).collect()
    };
    let keys = known["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key.as_str().unwrap().to_owned())
        .collect();
    Seed {
        name: name.to_owned(),
        home: home.to_owned(),
        keys,
        values: numbers("values"),
        last_frames: folder::last_frames(&home.join("store")),
    }
}
