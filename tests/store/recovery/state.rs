//! Faults of the state: an older one, one of another history, one whose records are not those that
//! were written, and backups that it must not be rebuilt from.
//!
//! Job: swap the state or its digests for others that are valid in themselves.
//! Invariant: what is served afterwards is the last value.
//! Must never: change a byte that a checksum of sled's own would find.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use odometer::admin;
use odometer::domain::counter::CounterName;
use odometer::store::embedded::backup::format::{BackupEncoder, Header, read};
use odometer::store::embedded::codec::key::{RecordKey, bucket_of_storage_key};
use odometer::store::embedded::recovery::open::RebuiltState;
use odometer::store::embedded::recovery::rebuild::RebuildSource;
use odometer::store::embedded::recovery::verify::{VerifyResult, verify};
use odometer::store::embedded::state::digests::BucketDigests;
use odometer::store::embedded::{EmbeddedStore, Options};
use odometer::store::{Health, Store, StoreError};
use odometer::telemetry::StoreMetrics;
use tempfile::TempDir;

use super::{
    TENANT, assert_refused, backed_up_life, close, count_by, life, open, options, segments, served,
};
use crate::support::folder;
use crate::support::workload::runtime;

fn replace(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    folder::copy(from, to);
}

/// The state was rebuilt, and the value is this one; returns how it was rebuilt.
#[track_caller]
fn assert_rebuilt(data_dir: &Path, value: u64) -> RebuiltState {
    let (served_value, report) = served(data_dir);
    assert_eq!(served_value, value);
    report.rebuilt.expect("a state that is not the journal's was believed")
}

#[test]
fn a_state_that_was_rolled_back_is_rebuilt() {
    let temp = TempDir::new().unwrap();
    let (data, older) = (temp.path().join("data"), temp.path().join("older"));
    life(&data, 5);
    folder::copy(&data.join("sled"), &older);
    let value = life(&data, 5);
    replace(&older, &data.join("sled"));
    let problem = assert_rebuilt(&data, value).problem;
    assert!(problem.contains("the journal knows a checkpoint of"), "{problem}");
}

/// The records are the older ones and the digests the newer, or the other way round.
#[test]
fn a_state_and_digests_of_two_checkpoints_are_rebuilt() {
    for digests_are_older in [false, true] {
        let temp = TempDir::new().unwrap();
        let (data, older) = (temp.path().join("data"), temp.path().join("older"));
        life(&data, 5);
        folder::copy(&data.join("sled"), &older);
        let value = life(&data, 5);
        let (digests, sled) = (older.join("odometer.digests"), data.join("sled"));
        if digests_are_older {
            fs::copy(digests, sled.join("odometer.digests")).unwrap();
        } else {
            fs::copy(sled.join("odometer.digests"), digests).unwrap();
            replace(&older, &sled);
        }
        let problem = assert_rebuilt(&data, value).problem;
        assert!(problem.contains("its digest file is of commits"), "{problem}");
    }
}

/// Two ends of one store with the same number of commits: the state is of the one and the journal
/// of the other.
#[test]
fn a_state_of_another_history_is_rebuilt() {
    let temp = TempDir::new().unwrap();
    let (data, other) = (temp.path().join("data"), temp.path().join("other"));
    life(&data, 5);
    folder::copy(&data, &other);
    let value = life(&data, 5);
    let (store, _) = open(&other).unwrap();
    count_by(&store, 5, 2);
    close(&store);
    replace(&other.join("sled"), &data.join("sled"));
    let problem = assert_rebuilt(&data, value).problem;
    assert!(problem.contains("is not the journal's"), "{problem}");
}

#[test]
fn a_state_that_ends_before_the_journal_begins_is_refused() {
    let temp = TempDir::new().unwrap();
    let (data, older) = (temp.path().join("data"), temp.path().join("older"));
    life(&data, 5);
    folder::copy(&data.join("sled"), &older);
    // Without backups a segment goes when the state has it.
    let options = Options { backups: None, ..options(&data) };
    let (store, _) = EmbeddedStore::open(&options, StoreMetrics::noop()).unwrap();
    count_by(&store, 100, 1);
    close(&store);
    assert!(!segments(&data)[0].ends_with(format!("{:020}.journal", 1)), "the first one stays");
    replace(&older, &data.join("sled"));
    assert_refused(&data, &["commits are missing", "sled ends before commit"]);
}

#[test]
fn a_state_that_is_marked_corrupt_is_not_opened() {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    let value = life(&data, 5);
    fs::write(data.join("sled/odometer.corrupt"), "found corrupt").unwrap();
    assert_eq!(assert_rebuilt(&data, value).problem, "found corrupt");
}

/// Makes the digest of the counter's bucket another one, as if sled returned an older record.
fn disagree(data_dir: &Path) {
    let path = data_dir.join("sled/odometer.digests");
    let mut digests = BucketDigests::decode(&fs::read(&path).unwrap()).unwrap();
    let key = RecordKey::Counter(TENANT, CounterName::default_counter()).to_storage_key();
    digests.table[usize::from(bucket_of_storage_key(&key))] ^= 1;
    let bytes = BucketDigests::encode(digests.checkpointed, digests.target, &digests.table);
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_record_that_is_not_the_one_written_stops_the_store_and_is_rebuilt() {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    let value = life(&data, 5);
    disagree(&data);
    let (store, report) = open(&data).unwrap();
    assert_eq!(report.rebuilt, None, "the start reads no counter");
    runtime().block_on(store.mark_running());
    let name = CounterName::default_counter();
    runtime().block_on(async {
        let read = store.get_counter(TENANT, &name).await;
        assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
        store.wait_poisoned().await.unwrap();
    });
    assert_eq!(store.health(), Health::Poisoned);
    let says_poisoned = || fs::read_to_string(data.join("LOCK")).unwrap().starts_with("poisoned: ");
    let until = Instant::now() + Duration::from_secs(10);
    while !says_poisoned() {
        assert!(Instant::now() < until, "the shutdown record does not say why the store stopped");
        std::thread::yield_now();
    }
    close(&store);
    assert!(says_poisoned(), "the shutdown record says something else after the close");
    assert!(data.join("sled/odometer.corrupt").exists(), "the next start would open it again");
    // The thread that wrote why the store stopped is waited for by nobody, because a disk that hangs
    // may hold it up; it has the lock until it ends, which in a server is the end of the process.
    while verify(&data).is_err() {
        assert!(Instant::now() < until, "a store that was closed is still locked");
        std::thread::yield_now();
    }
    assert_rebuilt(&data, value);
}

#[test]
fn a_look_finds_it_and_leaves_a_mark() {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    let value = life(&data, 5);
    assert!(matches!(verify(&data).unwrap(), VerifyResult::Clean(_)));
    disagree(&data);
    let found = verify(&data).unwrap();
    assert!(matches!(found, VerifyResult::Repairable(_, RebuildSource::JournalOnly)), "{found:?}");
    assert!(data.join("sled/odometer.corrupt").exists(), "the next start may not find it");
    assert_rebuilt(&data, value);
}

#[test]
fn no_backup_is_made_of_a_corrupt_state() {
    let temp = TempDir::new().unwrap();
    let (data, to) = (temp.path().join("data"), temp.path().join("file"));
    life(&data, 5);
    let backup = || admin::backup::backup(&data, &to, 1, &mut |_| {});
    backup().unwrap();
    fs::remove_file(&to).unwrap();
    disagree(&data);
    let said = backup().unwrap_err().to_string();
    assert!(said.contains("other records than were written"), "{said}");
    let left = fs::read_dir(temp.path()).unwrap().count();
    assert_eq!(left, 1, "a backup that failed left a file");
}

/// The backup with another header, valid in itself.
fn with_header(path: &PathBuf, change: impl FnOnce(&mut Header)) {
    let mut records = Vec::new();
    let summary = read(File::open(path).unwrap(), &mut |key, record| {
        records.push((key.to_vec(), record.to_vec()));
        Ok(())
    });
    let mut header = summary.unwrap().header;
    change(&mut header);
    let mut encoder = BackupEncoder::new(&header);
    records.iter().for_each(|(key, record)| encoder.add(key, record));
    fs::write(path, encoder.finish()).unwrap();
}

/// The journal has every commit, so a backup that does not fit costs nothing but time.
#[test]
fn a_state_is_rebuilt_from_a_whole_backup_of_this_store_and_history_alone() {
    let spoil = |path: &PathBuf| {
        let mut bytes = fs::read(path).unwrap();
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let faults: [(&str, &dyn Fn(&PathBuf)); 4] = [
        ("none", &|_| {}),
        ("another store", &|path| with_header(path, |header| header.store[0] ^= 1)),
        ("another history", &|path| with_header(path, |header| header.position.crc ^= 1)),
        ("not whole", &spoil),
    ];
    for (fault, damage) in faults {
        let temp = TempDir::new().unwrap();
        let data = temp.path().join("data");
        let (value, backup) = backed_up_life(&data, 5);
        damage(&backup);
        fs::write(data.join("sled/odometer.corrupt"), fault).unwrap();
        let source = assert_rebuilt(&data, value).rebuild_source;
        let is_backup = matches!(source, RebuildSource::Backup(..));
        assert_eq!(is_backup, fault == "none", "{fault}: {source}");
    }
}
