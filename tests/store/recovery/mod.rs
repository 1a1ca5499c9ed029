//! What a start accepts of a folder that is not as its last process left it: each thing that
//! recovery compares, with a folder for which nothing but that comparison speaks.
//!
//! Job: small stores in real folders, one fault in each, and what the next opening says. `journal`
//! has the faults of the journal and of FORMAT, `state` those of sled, its digests and backups, and
//! `retention` when the journal may lose a segment at all.
//! Invariant: a folder is served with its last value, rebuilt, or refused, and a folder that was
//! refused has the files that it had.
//! Must never: leave a start two reasons to refuse, or a comparison that is gone is not noticed.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod journal;
mod retention;
mod state;

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::time::Duration;

use odometer::domain::counter::CounterName;
use odometer::domain::tenant::TenantId;
use odometer::store::embedded::recovery::open::RecoveryReport;
use odometer::store::embedded::{BackupPolicy, EmbeddedStore, Options};
use odometer::store::{Store, StoreError};
use odometer::telemetry::StoreMetrics;

use crate::support::folder;
use crate::support::workload::runtime;

/// Much smaller than a server takes: a few dozen commits fill one.
const SEGMENT_BYTES: u64 = 4096;
const TENANT: TenantId = TenantId(1);
const LONG: Duration = Duration::from_secs(3600);

/// Options of a store that does nothing by itself: no checkpoint before its end, no backup.
fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        journal_segment_bytes: SEGMENT_BYTES,
        checkpoint_interval: LONG,
        cache_records: 1000,
        idempotency_keys: 1000,
        min_free_disk_bytes: 0,
        backups: Some(BackupPolicy { interval: LONG, journal_cap_bytes: u64::MAX, keep: 7 }),
    }
}

fn open(data_dir: &Path) -> Result<(EmbeddedStore, RecoveryReport), String> {
    EmbeddedStore::open(&options(data_dir), StoreMetrics::noop()).map_err(|error| error.to_string())
}

/// Increments the counter, `times` times, one commit each; returns its value.
fn count(store: &EmbeddedStore, times: u64) -> u64 {
    count_by(store, times, 1)
}

fn count_by(store: &EmbeddedStore, times: u64, by: u32) -> u64 {
    let name = CounterName::default_counter();
    runtime().block_on(async {
        let mut value = store.get_counter(TENANT, &name).await.unwrap().counter.value().get();
        for _ in 0..times {
            value = loop {
                match store.advance(TENANT, &name, by, None).await {
                    Ok(advanced) => break advanced.result.range.last.get(),
                    // The next segment is being made.
                    Err(StoreError::Unavailable(_)) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            };
        }
        value
    })
}

fn close(store: &EmbeddedStore) {
    // A poisoned store says so when it is closed.
    let _ = runtime().block_on(store.close());
}

/// A process that counts and ends in order; the value.
fn life(data_dir: &Path, times: u64) -> u64 {
    let (store, _) = open(data_dir).unwrap();
    let value = count(&store, times);
    close(&store);
    value
}

/// A process that counts and is killed: what it left is at `left`. Returns the value.
fn killed_life(data_dir: &Path, left: &Path, times: u64) -> u64 {
    let (store, _) = open(data_dir).unwrap();
    let value = count(&store, times);
    folder::copy(data_dir, left);
    close(&store);
    value
}

/// A process that counts, makes a backup in the folder of backups, counts again and ends in order.
/// Returns the value and the path of the backup.
fn backed_up_life(data_dir: &Path, times: u64) -> (u64, PathBuf) {
    let (store, _) = open(data_dir).unwrap();
    count(&store, times);
    let (mut file, summary) = runtime().block_on(store.backup()).unwrap();
    let path = backup_path(data_dir, summary.header.position.seq.0);
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    fs::write(&path, bytes).unwrap();
    let value = count(&store, times);
    close(&store);
    (value, path)
}

fn backup_path(data_dir: &Path, seq: u64) -> PathBuf {
    data_dir.join(format!("backups/{seq:020}.backup"))
}

/// What a start serves: the value and the report.
#[track_caller]
fn served(data_dir: &Path) -> (u64, RecoveryReport) {
    let (store, report) = open(data_dir).unwrap();
    let value = count(&store, 0);
    close(&store);
    (value, report)
}

/// A start refuses the folder with all of these words, and leaves it as it was.
#[track_caller]
fn assert_refused(data_dir: &Path, words: &[&str]) {
    let before = files(data_dir);
    let said = match open(data_dir) {
        Err(said) => said,
        Ok((store, report)) => {
            close(&store);
            panic!("it is served, and should be refused with {words:?}: {report}")
        }
    };
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} are not all in {said}");
    assert_eq!(before, files(data_dir), "a start that was refused changed something: {said}");
}

/// Every file of journal, backups and the folder itself, and its length. Opening sled writes.
fn files(data_dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for dir in ["", "journal", "backups"].map(|name| data_dir.join(name)) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            // LOCK and directories that are made anew are no loss.
            if entry.file_type().unwrap().is_file() && entry.file_name() != "LOCK" {
                found.push((entry.path(), entry.metadata().unwrap().len()));
            }
        }
    }
    found.sort();
    found
}

fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir.join("journal")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "journal"));
    paths.sort();
    paths
}

fn empty(dir: &Path) {
    fs::remove_dir_all(dir).unwrap();
    fs::create_dir(dir).unwrap();
}

fn edit(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}
