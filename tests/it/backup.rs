//! Backups of the running server: each is everything up to one commit and nothing behind it, and a
//! file that is not whole is refused.
//!
//! Invariant: a backup is compared with the journal of the data directory that it was made of, read
//! here frame by frame up to the backup's commit: the two must hold the same records, byte for
//! byte.
//! Must never: compare with what the server says of itself.
//!
//! `ODOMETER_BACKUP_ROUNDS` (3) backups under load; a long campaign has 50. `ODOMETER_SEED`
//! (printed).

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::client::Protocol;
use crate::support::command::{ended, odometer};
use crate::support::history::{Outcome, Rules, check};
use crate::support::server::TestServer;
use crate::support::workload::{Clock, Load, observe, register, runtime};
use crate::support::{Random, number_setting, say};
use odometer::store::embedded::backup::format::{Summary, read};
use odometer::store::embedded::data_dir::read_format;
use odometer::store::embedded::fs::OsDirectory;
use odometer::store::embedded::journal::frame::{CommitSeq, FramePayload, SegmentHeader};
use odometer::store::embedded::journal::reader::replay;
use odometer::store::embedded::journal::segment::JournalDir;
use tempfile::TempDir;

const CLIENTS: u32 = 16;
const TENANTS: usize = 5;
const DEADLINE: Duration = Duration::from_secs(30);

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Every record as of a commit, from the journal alone, which must still have its first frame.
fn ledger(data_dir: &Path, up_to: CommitSeq) -> Records {
    let store = read_format(data_dir).unwrap().unwrap();
    let files = JournalDir {
        dir: Arc::new(OsDirectory::new(data_dir.join("journal"))),
        store,
        segment_bytes: 0,
    };
    let mut records = Records::new();
    let tail = replay(&files, CommitSeq(0), &mut |mark, body| {
        let FramePayload::Commit(changes) = body else { return };
        for (key, record) in changes.into_iter().filter(|_| mark.seq <= up_to) {
            let stored = key.to_storage_key();
            match record {
                Some(record) => {
                    let mut bytes = Vec::new();
                    record.encode(crc32c::crc32c(&stored[2..]), &mut bytes);
                    records.insert(stored, bytes);
                }
                None => drop(records.remove(&stored)),
            }
        }
    });
    assert_eq!(
        tail.unwrap().unwrap().base.seq,
        CommitSeq(0),
        "the journal does not have its first frame any more"
    );
    records
}

fn contents(backup: &Path) -> (Summary, Records) {
    let mut records = Records::new();
    let summary = read(File::open(backup).unwrap(), &mut |key, record| {
        records.insert(key.to_vec(), record.to_vec());
        Ok(())
    });
    (summary.unwrap(), records)
}

fn take_backup(data_dir: &Path, to: &Path) {
    let mut command = odometer(["backup", "--data-dir"]);
    let said = ended(command.arg(data_dir).arg("--to").arg(to)).succeeded();
    assert!(said.contains("verified"), "{said}");
}

fn restore(from: &Path, data_dir: &Path) -> crate::support::command::Ended {
    let mut command = odometer(["restore", "--from"]);
    ended(command.arg(from).arg("--data-dir").arg(data_dir))
}

#[test]
fn backups_under_load_are_the_ledger_at_their_commit() {
    let (temp, seed) = (TempDir::new().unwrap(), Random::run_seed());
    let rounds = number_setting("ODOMETER_BACKUP_ROUNDS", 3);
    say(&format!("backup: {rounds} rounds, ODOMETER_SEED={seed}"));
    let server = TestServer::builder()
        .flag("--checkpoint-interval", "100ms")
        .flag("--journal-cap", "64GiB")
        .start();
    let (endpoint, clock) = (server.endpoint(), Clock::start());
    let keys = runtime().block_on(register(&endpoint, "backup", TENANTS));
    let mut random = Random::seeded(seed);
    let (mut history, mut cuts) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let load = Load::start(&endpoint, &keys, clock, CLIENTS, random.next());
        let file = temp.path().join(round.to_string());
        take_backup(server.data_dir(), &file);
        history.extend(load.finish());
        let (summary, records) = contents(&file);
        assert!(
            records == ledger(server.data_dir(), summary.header.position.seq),
            "round {round} differs from the ledger"
        );
        assert_eq!(summary.records, records.len() as u64);
        cuts.push(summary.header.position.seq.0);
        restored_serves(&temp.path().join(format!("restored-{round}")), &file, &keys, &records);
    }
    assert!(cuts.is_sorted(), "{cuts:?}");
    history.extend(runtime().block_on(observe(&endpoint, clock, &keys)));
    let verdict = check(&history, &Rules::default());
    verdict.assert_clean("the load beside the backups");
    server.stop();
    say(&format!(
        "backup: {rounds} backups equal to the ledger at commits {cuts:?}, {} acknowledged",
        verdict.acknowledged
    ));
}

/// A server on the restored data directory knows the keys and continues each counter where the
/// backup left it.
fn restored_serves(data_dir: &Path, backup: &Path, keys: &[String], records: &Records) {
    let said = restore(backup, data_dir).succeeded();
    assert!(said.contains("issued again"), "{said}");
    let verified = ended(odometer(["verify", "--data-dir"]).arg(data_dir)).succeeded();
    assert!(verified.starts_with("clean"), "{verified}");
    let server = TestServer::builder().data_dir(data_dir).start();
    let (endpoint, clock) = (server.endpoint(), Clock::start());
    let mut read: Vec<u64> = Vec::new();
    for operation in runtime().block_on(observe(&endpoint, clock, keys)) {
        let Outcome::Ok(value) = operation.outcome else { panic!("{operation:?}") };
        read.push(value);
    }
    // A counter's key is kind 5; its record a version, the value, the maximum, a checksum.
    let counters = records.iter().filter(|(key, _)| key.get(2) == Some(&5));
    let mut stored: Vec<u64> =
        counters.map(|(_, record)| u64::from_be_bytes(record[1..9].try_into().unwrap())).collect();
    // One that nobody has touched yet has no record.
    stored.resize(keys.len(), 1);
    stored.sort_unstable();
    let mut sorted = read.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, stored);
    let next = runtime().block_on(async {
        endpoint.connect(Protocol::Http1).await.unwrap().increment(&keys[0]).await.unwrap()
    });
    assert_eq!(next, read[0] + 1);
    server.stop();
}

/// A small folder with a backup of it.
fn sample(temp: &Path) -> (PathBuf, PathBuf, Vec<String>) {
    let (data_dir, file) = (temp.join("data"), temp.join("file"));
    let server = TestServer::builder().data_dir(&data_dir).start();
    let keys = runtime().block_on(register(&server.endpoint(), "sample", 2));
    take_backup(&data_dir, &file);
    server.stop();
    (data_dir, file, keys)
}

#[test]
fn a_flipped_bit_is_refused_and_leaves_nothing_behind() {
    let temp = TempDir::new().unwrap();
    let (_, file, _) = sample(temp.path());
    let good = fs::read(&file).unwrap();
    let mut random = Random::seeded(Random::run_seed());
    let (damaged, target) = (temp.path().join("damaged"), temp.path().join("new"));
    for _ in 0..100 {
        let bit = random.between(0, good.len() as u64 * 8 - 1);
        let mut bytes = good.clone();
        bytes[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        fs::write(&damaged, &bytes).unwrap();
        let checked = ended(odometer(["restore", "--verify", "--from"]).arg(&damaged));
        checked.complained(4, &["damaged", "not a whole backup"]);
        restore(&damaged, &target).complained(1, &["damaged", "not a whole backup"]);
        assert!(!target.exists(), "bit {bit}: a folder was made");
    }
    let said = ended(odometer(["restore", "--verify", "--from"]).arg(&file)).succeeded();
    assert!(said.starts_with("whole"), "{said}");
}

#[test]
fn a_backup_without_a_server_is_the_same_and_changes_nothing() {
    let temp = TempDir::new().unwrap();
    let (data_dir, file, _) = sample(temp.path());
    let offline = temp.path().join("offline");
    take_backup(&data_dir, &offline);
    assert_eq!(contents(&file).1, contents(&offline).1);
    // A restored store is another one: files of the two must not get mixed.
    let copy = temp.path().join("restored");
    restore(&file, &copy).succeeded();
    let id = |dir: &Path| read_format(dir).unwrap().unwrap();
    assert_eq!(contents(&file).0.header.store, id(&data_dir));
    assert_ne!(id(&copy), id(&data_dir), "a restored store has the id of the one backed up");
    let mut journal =
        fs::read_dir(copy.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let segment =
        journal.find(|path| path.extension().is_some_and(|end| end == "journal")).unwrap();
    let header = SegmentHeader::decode(&fs::read(segment).unwrap()).unwrap();
    assert_eq!(header.store, id(&copy));
    fs::remove_dir_all(&copy).unwrap();
    // The file is replaced as a whole, and a folder is none.
    take_backup(&data_dir, &offline);
    let mut onto_folder = odometer(["backup", "--data-dir"]);
    ended(onto_folder.arg(&data_dir).arg("--to").arg(temp.path()))
        .complained(1, &["not a file's name"]);
    let mut nowhere = odometer(["backup", "--data-dir"]);
    ended(nowhere.arg(temp.path().join("none")).arg("--to").arg(&offline))
        .complained(1, &["none", "no odometer data"]);
    assert!(!temp.path().join("none").exists());
    let left: Vec<_> =
        fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "something is left: {left:?}");
}

/// The answer to a request for a backup, over the admin socket.
fn sent_backup(data_dir: &Path) -> (String, Vec<u8>) {
    let mut stream = UnixStream::connect(data_dir.join("admin.sock")).unwrap();
    stream
        .write_all(b"POST /backup HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head has an end");
    (
        String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase(),
        bytes[end + 4..].to_vec(),
    )
}

#[test]
fn a_backup_is_sent_with_its_length_and_one_that_ends_early_is_none() {
    let temp = TempDir::new().unwrap();
    let (data_dir, file) = (temp.path().join("data"), temp.path().join("file"));
    let server = TestServer::builder().data_dir(&data_dir).start();
    runtime().block_on(register(&server.endpoint(), "piece", 2));
    let (head, body) = sent_backup(&data_dir);
    fs::write(&file, &body).unwrap();
    let (summary, _) = contents(&file);
    for line in [
        "http/1.1 200 ok".to_owned(),
        "content-type: application/octet-stream".to_owned(),
        format!("content-length: {}", body.len()),
        format!("odometer-commit-seq: {}", summary.header.position.seq.0),
        format!("odometer-records: {}", summary.records),
    ] {
        assert!(head.lines().any(|found| found == line), "{line:?} is not in {head}");
    }
    server.stop();

    // A server that dies in the middle.
    let half = UnixListener::bind(data_dir.join("admin.sock")).unwrap();
    let dying = std::thread::spawn(move || {
        let (mut stream, _) = half.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        stream.write_all(&body[..body.len() - 1]).unwrap();
    });
    let target = temp.path().join("short");
    let mut command = odometer(["backup", "--data-dir"]);
    ended(command.arg(&data_dir).arg("--to").arg(&target))
        .complained(1, &["with 1 of", "bytes missing"]);
    assert!(!target.exists());
    dying.join().unwrap();
}

#[test]
fn a_restore_wants_an_empty_folder() {
    let temp = TempDir::new().unwrap();
    let (data_dir, file, _) = sample(temp.path());
    restore(&file, &data_dir).complained(1, &["data", "not empty"]);
    let other = temp.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("mine.txt"), "mine").unwrap();
    restore(&file, &other).complained(1, &["not empty", "mine.txt"]);
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    let missing = temp.path().join("missing");
    restore(&missing, &temp.path().join("new")).complained(1, &["missing"]);
}

#[test]
fn automatic_backups_come_by_themselves_and_old_ones_go() {
    let temp = TempDir::new().unwrap();
    let server = TestServer::builder().data_dir(temp.path().join("data"));
    let server = server.flag("--backup-interval", "1s").flag("--backup-keep", "2").start();
    let backups = server.data_dir().join("backups");
    let until = Instant::now() + DEADLINE;
    let key = runtime().block_on(register(&server.endpoint(), "auto", 1)).remove(0);
    let mut seen = std::collections::BTreeSet::new();
    runtime().block_on(async {
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        while seen.len() < 4 {
            client.increment(&key).await.unwrap();
            let names = fs::read_dir(&backups)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let whole: Vec<_> = names.filter(|name| name.ends_with(".backup")).collect();
            assert!(whole.len() <= 3, "two are kept, and a third for a moment: {whole:?}");
            seen.extend(whole);
            assert!(Instant::now() < until, "only {seen:?}");
        }
    });
    let newest_at = || server.metric("odometer_backup_last_success_timestamp_seconds").unwrap();
    assert!(newest_at() > 1.6e9);
    // Where nothing changes no new one is made, and after a while the newest still counts as new.
    let made = || server.log().iter().filter(|line| line.contains("\"backup\"")).count();
    let mut before = (made(), newest_at());
    while made() != before.0 || newest_at() <= before.1 {
        if made() != before.0 {
            before = (made(), newest_at());
        }
        assert!(Instant::now() < until, "{before:?}");
    }
    let written = server.stop();
    let left: Vec<_> = fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 2, "two are kept: {left:?}");
    let newest = left.iter().max().unwrap();
    assert!(written.actions("backup").len() >= 3);
    assert!(
        ended(odometer(["restore", "--verify", "--from"]).arg(newest))
            .succeeded()
            .starts_with("whole")
    );
}
