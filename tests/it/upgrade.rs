//! Every later build opens what the first one wrote.
//!
//! Job: unpack each data directory in `tests/fixtures`, start the real binary on it, and compare
//! what it holds with what was written down then.
//! Invariant: a fixture is never made anew; a new format gets a fixture of its own, and the old one
//! stays.
//! Must never: take what a fixture holds from the fixture's own records; the expected values stand
//! in it as text.
//!
//! A fixture is text: `file <path> <bytes>`, then `<offset> <hexadecimal>` for each line of 32
//! bytes that is not all zeros; and `counter <tenant> <name> <value>`.
//! `ODOMETER_WRITE_FIXTURE=<file>` writes one of this build's format, for the build that brings it.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::support::command::{ended, odometer};
use crate::support::server::TestServer;
use crate::support::{folder, setting};
use odometer::domain::api_key::{KeyId, KeyLabel, Scopes, SecretHash};
use odometer::domain::counter::{CounterConfig, CounterName, Step, Value};
use odometer::domain::tenant::{PasswordHash, TenantId, TenantName};
use odometer::store::embedded::backup::directory::backup_file_name;
use odometer::store::embedded::{BackupPolicy, EmbeddedStore, Options};
use odometer::store::{
    IdempotencyToken, KeyRecord, NewCounter, NewTenant, Precondition, Proof, SetCounter, Store,
};
use odometer::telemetry::StoreMetrics;
use tempfile::TempDir;

const LINE: usize = 32;
const SEGMENT_BYTES: u64 = 1 << 20;

fn open(data_dir: &Path) -> EmbeddedStore {
    let options = Options {
        data_dir: data_dir.to_owned(),
        journal_segment_bytes: SEGMENT_BYTES,
        checkpoint_interval: Duration::from_secs(3600),
        cache_records: 1000,
        idempotency_keys: 1000,
        min_free_disk_bytes: 0,
        backups: Some(BackupPolicy {
            interval: Duration::from_secs(3600),
            journal_cap_bytes: 1 << 30,
            keep: 7,
        }),
    };
    EmbeddedStore::open(&options, StoreMetrics::noop()).unwrap().0
}

fn name(text: &str) -> CounterName {
    CounterName::parse(text).unwrap()
}

/// A request that was answered when the fixture was made.
const TOKEN: IdempotencyToken =
    IdempotencyToken { key_hash: [5; 16], request_fingerprint: [6; 16] };

fn new_counter() -> NewCounter {
    let value = |raw| Value::new(raw).unwrap();
    let config =
        CounterConfig::new(value(10), Step::new(2).unwrap(), value(0), Value::MAX, false).unwrap();
    NewCounter { config, created_unix_s: 1_700_000_000, quota: 9 }
}

/// Makes the store of a fixture, and tells what each counter must be. It is copied as it stands, as
/// if its process were killed.
async fn write_store(data_dir: &Path, copy: &Path) -> Vec<(u64, &'static str, u64)> {
    let store = open(data_dir);
    for number in 1..=3 {
        let tenant = NewTenant {
            name: TenantName::parse(&format!("tenant-{number}")).unwrap(),
            password: PasswordHash {
                memory_kib: 19456,
                passes: 2,
                lanes: 1,
                salt: [number; 16],
                hash: [7; 32],
            },
            key: KeyId([number; 8]),
            secret: SecretHash([number; 32]),
            created_unix_s: 1_700_000_000,
        };
        store.register(tenant).await.unwrap();
    }
    let to = SetCounter {
        value: Value::new(41).unwrap(),
        rewind: false,
        precondition: Precondition::Any,
    };
    store.set(TenantId(1), &name("default"), to, None).await.unwrap();
    for (tenant, counter) in [(2, "invoices"), (3, "a.b_c-9")] {
        store.create(TenantId(tenant), &name(counter), new_counter(), None).await.unwrap();
    }
    store.advance(TenantId(2), &name("invoices"), 1000, Some(TOKEN)).await.unwrap();
    let (label, scopes) = (KeyLabel::parse("of the build").unwrap(), Scopes::INCREMENT);
    let (id, secret, expires_unix_s) = (KeyId([9; 8]), SecretHash([9; 32]), Some(1_900_000_000));
    let (tenant, created_unix_s, last_used_day) = (TenantId(2), 1_700_000_000, None);
    let key = KeyRecord {
        tenant,
        secret,
        label,
        scopes,
        created_unix_s,
        expires_unix_s,
        last_used_day,
        epoch: 0,
    };
    store.add_key(id, key, Proof::Operator, 9).await.unwrap();
    store.close().await.unwrap();
    let store = open(data_dir);
    store.advance(TenantId(1), &name("default"), 1, None).await.unwrap();
    let (mut backup, summary) = store.backup().await.unwrap();
    let mut bytes = Vec::new();
    backup.rewind().unwrap();
    backup.read_to_end(&mut bytes).unwrap();
    fs::write(data_dir.join("backups").join(backup_file_name(summary.header.position.seq)), bytes)
        .unwrap();
    store.advance(TenantId(3), &name("a.b_c-9"), 7, None).await.unwrap();
    folder::copy(data_dir, copy);
    store.close().await.unwrap();
    vec![(1, "default", 42), (2, "invoices", 2010), (3, "a.b_c-9", 24), (3, "default", 1)]
}

fn pack(folder: &Path, below: &str, text: &mut String) {
    let mut entries: Vec<_> =
        fs::read_dir(folder.join(below)).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            pack(folder, &format!("{path}/"), text);
            continue;
        }
        let bytes = fs::read(entry.path()).unwrap();
        writeln!(text, "file {path} {}", bytes.len()).unwrap();
        for (index, line) in
            bytes.chunks(LINE).enumerate().filter(|(_, line)| !folder::is_zero(line))
        {
            write!(text, "{} ", index * LINE).unwrap();
            line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
    }
}

/// Makes the data directory; returns the counters.
fn unpack(text: &str, folder: &Path) -> Vec<(u64, String, u64)> {
    let (mut file, mut counters) = (None, Vec::new());
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["file", path, bytes] => {
                let path = folder.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let made = File::create(path).unwrap();
                made.set_len(bytes.parse().unwrap()).unwrap();
                file = Some(made);
            }
            ["counter", tenant, name, value] => {
                counters.push((tenant.parse().unwrap(), name.to_owned(), value.parse().unwrap()));
            }
            [offset, hex] => {
                let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digit).collect();
                file.as_ref().unwrap().write_all_at(&bytes, offset.parse().unwrap()).unwrap();
            }
            _ => panic!("not a line of a fixture: {line}"),
        }
    }
    counters
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    crate::support::workload::runtime().block_on(future)
}

#[test]
fn folders_of_every_earlier_format_are_served() {
    let place = TempDir::new().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    if let Some(file) = setting("ODOMETER_WRITE_FIXTURE") {
        let (store, copy) = (place.path().join("store"), place.path().join("copy"));
        let counters = block_on(write_store(&store, &copy));
        let mut text = String::new();
        counters.iter().for_each(|(tenant, name, value)| {
            writeln!(text, "counter {tenant} {name} {value}").unwrap()
        });
        pack(&copy, "", &mut text);
        fs::write(file, text).unwrap();
    }
    let mut served = 0;
    let fixtures: Vec<_> = fs::read_dir(fixtures).unwrap().map(Result::unwrap).collect();
    for (entry, is_cut_off) in fixtures.iter().flat_map(|entry| [(entry, false), (entry, true)]) {
        let data_dir = place.path().join(format!("{}-{is_cut_off}", entry.file_name().display()));
        let counters = unpack(&fs::read_to_string(entry.path()).unwrap(), &data_dir);
        if is_cut_off {
            // The first step of an upgrade; then the process was killed.
            let format = fs::read_to_string(data_dir.join("FORMAT")).unwrap();
            if !format.contains("format 3 ") {
                continue;
            }
            fs::write(data_dir.join("FORMAT"), format.replace("format 3 ", "format 5 ")).unwrap();
        }
        assert!(counters.len() > 2, "{entry:?} says nothing");
        // Commands that read leave the format as it is: the older build can still go on.
        let names = |dir: &str| {
            let entries = fs::read_dir(data_dir.join(dir)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<BTreeSet<String>>()
        };
        let before = (fs::read(data_dir.join("FORMAT")).unwrap(), names("journal"), names("sled"));
        let said = ended(odometer(["verify", "--data-dir"]).arg(&data_dir)).succeeded();
        assert!(said.starts_with("clean"), "{said}");
        let offline = place.path().join("offline.backup");
        ended(odometer(["backup", "--data-dir"]).arg(&data_dir).arg("--to").arg(&offline))
            .succeeded();
        let after = (fs::read(data_dir.join("FORMAT")).unwrap(), names("journal"), names("sled"));
        assert_eq!((&before.0, &before.1), (&after.0, &after.1), "{entry:?}");
        let old = "odometer.seals".to_owned();
        assert_eq!(before.2.contains(&old), after.2.contains(&old), "{entry:?}: {after:?}");
        let backup =
            fs::read_dir(data_dir.join("backups")).unwrap().next().unwrap().unwrap().path();
        assert!(
            ended(odometer(["restore", "--verify", "--from"]).arg(backup))
                .succeeded()
                .starts_with("whole")
        );
        TestServer::builder().data_dir(&data_dir).start().stop();
        let store = open(&data_dir);
        for (tenant, counter, value) in counters {
            let found = block_on(store.get_counter(TenantId(tenant), &name(&counter))).unwrap();
            assert_eq!(
                found.counter.value().get(),
                value,
                "{entry:?}: tenant {tenant}, counter {counter}"
            );
            let next = block_on(store.advance(TenantId(tenant), &name(&counter), 1, None)).unwrap();
            assert_eq!(next.result.range.first.get(), value + found.counter.config().step().get());
        }
        let again =
            block_on(store.advance(TenantId(2), &name("invoices"), 1000, Some(TOKEN))).unwrap();
        assert_eq!(
            (again.replayed, again.result.range.last.get()),
            (true, 2010),
            "what was answered is answered again"
        );
        let listed = block_on(store.list_counters(TenantId(2), None, 9)).unwrap();
        assert_eq!(
            listed.items.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["default", "invoices"]
        );
        let keys = block_on(store.list_api_keys(TenantId(2), None, 9)).unwrap();
        assert_eq!(
            keys.items.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [KeyId([2; 8]), KeyId([9; 8])]
        );
        assert_eq!(
            (keys.items[1].1.scopes, keys.items[1].1.expires_unix_s),
            (Scopes::INCREMENT, Some(1_900_000_000))
        );
        let (key, _) = block_on(store.api_key(KeyId([2; 8]))).unwrap().expect("the key is there");
        assert_eq!((key.tenant, key.secret), (TenantId(2), SecretHash([2; 32])));
        // Records of the old layout are replaced like any others.
        let (tenant, hash) = (TenantId(3), key.secret.0);
        let password = PasswordHash { memory_kib: 8, passes: 1, lanes: 1, salt: [1; 16], hash };
        let change = store.change_password(tenant, Proof::Key(KeyId([3; 8])), password, true);
        assert_eq!(block_on(change).unwrap(), 1, "keys that are revoked");
        assert!(block_on(store.api_key(KeyId([3; 8]))).unwrap().is_none());
        block_on(store.touch_api_key(KeyId([2; 8]), 20_000)).unwrap();
        block_on(store.close()).unwrap();
        let said = ended(odometer(["verify", "--data-dir"]).arg(&data_dir)).succeeded();
        assert!(said.starts_with("clean"), "{said}");
        assert!(
            fs::read_to_string(data_dir.join("FORMAT")).unwrap().contains(" format 5 "),
            "{entry:?}"
        );
        for (old, new) in [
            ("journal/newest", "journal/CURRENT"),
            ("sled/odometer.seals", "sled/odometer.digests"),
        ] {
            assert!(
                !data_dir.join(old).exists() && data_dir.join(new).exists(),
                "{entry:?}: {old} is {new} now"
            );
        }
        served += 1;
    }
    assert!(served > 0, "there is no fixture");
}
