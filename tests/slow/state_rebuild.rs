//! A corrupt state is rebuilt by a start, from a backup and the journal, whatever interrupts it;
//! without a backup it is refused.
//!
//! Job: a table of damages by name, each examined as the campaign of `corruption` does with those
//! that it draws, and kills at the system calls of a rebuild and of a restore.
//! Invariant: the values are known before the damage and must be there after it, all of them.
//! Must never: accept a start that serves less.
//!
//! `ODOMETER_STATE_REBUILD_KILLS` (6): at how many system calls of a rebuild and of a restore the
//! process is killed; `all` for each of them. `ODOMETER_SEED` (printed). The kills need strace.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::corruption::round::{Outcome, Plan, Verdict, examine};
use super::corruption::seeds::{self, Seed};
use crate::faults::strace::traced;
use crate::support::client::Protocol;
use crate::support::command::{Ended, ended, odometer};
use crate::support::server::{TestServer, Written};
use crate::support::workload::runtime;
use crate::support::{Random, folder, has_program, number_setting, require, say, setting};

const DEADLINE: Duration = Duration::from_secs(30);
/// Whatever changes the disk or opens something: a kill at each of these is a kill at each state
/// that the disk can be in.
const CALLS: &str = "openat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,sync_file_range,pwrite64,write,ftruncate";

/// How the damaged folders are examined: the look is at the folder itself, which is stopped in
/// order.
const PLAN: Plan = Plan { apart: false, changed: 0, kill: false };

/// What a start has to make of a damage.
#[derive(Clone, Copy, Debug)]
enum Promise {
    /// A rebuilt state.
    Rebuilt,
    /// A rebuilt state, too, or one that is sound and served as it is: a lost snapshot or a torn
    /// log may be nothing that matters to sled.
    Served,
    /// A refusal with all of these words.
    Refused(&'static [&'static str]),
}

/// A damage of a state, by name.
type Row = (&'static str, fn(&Path), Promise);

const DAMAGES: [Row; 6] = [
    ("gone", |data| fs::remove_dir_all(data.join("sled")).unwrap(), Promise::Rebuilt),
    ("cut", |data| cut_off(data), Promise::Rebuilt),
    ("zeroed", |data| open(data, "sled/db").write_all_at(&[0; 512], 0).unwrap(), Promise::Served),
    (
        "digests",
        |data| fs::write(data.join("sled/odometer.digests"), "x").unwrap(),
        Promise::Rebuilt,
    ),
    ("snapshot", |data| fs::write(snapshot(data), "not a snapshot").unwrap(), Promise::Served),
    (
        "no whole backup",
        |data| {
            fs::remove_file(data.join("sled/db")).unwrap();
            spoil_backups(data);
        },
        Promise::Refused(&["commits are missing", "not a whole backup", "odometer restore --from"]),
    ),
];

fn open(data: &Path, file: &str) -> File {
    OpenOptions::new().write(true).open(data.join(file)).unwrap()
}

fn cut_off(data: &Path) {
    open(data, "sled/db").set_len(1000).unwrap();
}

fn snapshot(data: &Path) -> PathBuf {
    let is_snapshot = |path: &PathBuf| path.to_string_lossy().contains("snap.");
    let mut paths = fs::read_dir(data.join("sled")).unwrap().map(|entry| entry.unwrap().path());
    paths.find(is_snapshot).unwrap()
}

fn spoil_backups(data: &Path) {
    for entry in fs::read_dir(data.join("backups")).unwrap().map(Result::unwrap) {
        let mut bytes = fs::read(entry.path()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(entry.path(), bytes).unwrap();
    }
}

#[test]
fn a_damaged_state_is_rebuilt_or_refused_as_the_table_says() {
    let temp = TempDir::new().unwrap();
    let seed = seeds::backed_up(temp.path());
    for (name, damage, promise) in DAMAGES {
        let place = temp.path().join(format!("damaged: {name}"));
        let data = place.join("data");
        folder::copy(&seed.store(), &data);
        damage(&data);
        let verdict = examine(&seed, &place, None, PLAN);
        match promise {
            Promise::Rebuilt => {
                assert_eq!(verdict.code, Some(3), "{name}: sound all the same: {verdict:?}");
                assert_rebuilt(name, &seed, &data, &verdict);
            }
            Promise::Served => assert_rebuilt(name, &seed, &data, &verdict),
            Promise::Refused(words) => {
                assert_eq!(
                    (verdict.outcome, verdict.code),
                    (Outcome::Refused, Some(4)),
                    "{name}: {verdict:?}"
                );
                assert!(
                    words.iter().all(|word| verdict.detail.contains(word)),
                    "{name}: {verdict:?}"
                );
                for said in [&verdict.detail, &verdict.words] {
                    assert!(!said.contains("panicked"), "{name}: {verdict:?}");
                }
            }
        }
    }
}

/// It was rebuilt once, its ruins are kept, and from then on it is a store like any other.
fn assert_rebuilt(name: &str, seed: &Seed, data: &Path, verdict: &Verdict) {
    assert!(matches!(verdict.outcome, Outcome::Right | Outcome::Rebuilt), "{name}: {verdict:?}");
    if verdict.code != Some(0) {
        assert_eq!(verdict.code, Some(3), "{name}: {verdict:?}");
        assert!(verdict.words.contains("rebuilds the state from backups/"), "{name}: {verdict:?}");
        let [event] = &verdict.rebuilt[0][..] else { panic!("{name}: not one event: {verdict:?}") };
        let quarantine = event["file.directory"].as_str().unwrap();
        assert!(data.join(quarantine).join("sled").is_dir(), "{name}");
    } else {
        assert!(verdict.rebuilt[0].is_empty(), "{name}: sound, and rebuilt: {verdict:?}");
    }
    assert!(verdict.rebuilt[1].is_empty(), "{name}: rebuilt twice: {verdict:?}");
    let mut values = seed.values.clone();
    values[PLAN.changed] += 1;
    assert!(
        assert_served(data, &seed.keys, &values, name).actions("state-rebuilt").is_empty(),
        "{name}: rebuilt again"
    );
    assert!(verify(data).succeeded().starts_with("clean"), "{name}");
}

/// Starts on the folder and compares everything.
fn assert_served(data: &Path, keys: &[String], values: &[u64], context: &str) -> Written {
    let server = TestServer::builder().data_dir(data).start();
    assert_eq!(read(&server, keys), values, "{context}");
    let rebuilt = server.metric("odometer_state_rebuilds_total");
    let written = server.stop();
    assert_eq!(rebuilt, Some(written.actions("state-rebuilt").len() as f64), "{context}");
    assert!(written.actions("state-rebuilt").len() < 2, "{context}");
    written
}

fn read(server: &TestServer, keys: &[String]) -> Vec<u64> {
    runtime().block_on(async {
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        let mut values = Vec::new();
        for key in keys {
            values.push(client.read(key).await.unwrap());
        }
        values
    })
}

fn verify(data_dir: &Path) -> Ended {
    ended(odometer(["verify", "--data-dir"]).arg(data_dir))
}

/// A system call by its name, and which one of that name in a thread, from 1: so strace counts.
type KillPoint = (String, u64);

/// The calls of a trace to kill at: a random few, or each of them.
fn kill_points(trace: &Path, random: &mut Random) -> Vec<KillPoint> {
    let mut all = calls(trace);
    assert!(!all.is_empty(), "the trace shows no call");
    if setting("ODOMETER_STATE_REBUILD_KILLS").as_deref() == Some("all") {
        return all;
    }
    let wanted = number_setting("ODOMETER_STATE_REBUILD_KILLS", 6);
    (0..wanted).map(|_| all.swap_remove(random.index(all.len()))).collect()
}

/// strace around a command, which is killed at this call, if there is one.
fn killed_at(trace: &Path, point: Option<&KillPoint>) -> Vec<OsString> {
    let kill = point.map(|(call, nth)| format!("{call}:signal=SIGKILL:when={nth}"));
    traced(trace, CALLS, kill.as_deref())
}

/// Every call in a trace; of those with one name, the calls of the thread that made most.
fn calls(trace: &Path) -> Vec<KillPoint> {
    let text = fs::read_to_string(trace).unwrap();
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (thread, call) in text.lines().filter_map(|line| line.split_once(char::is_whitespace)) {
        if let Some((name, _)) = call.trim_start().split_once('(').filter(|call| is_name(call.0)) {
            *counts.entry((name, thread)).or_default() += 1;
        }
    }
    let mut most: BTreeMap<&str, u64> = BTreeMap::new();
    for ((name, _), count) in counts {
        let known = most.entry(name).or_default();
        *known = count.max(*known);
    }
    let each = |(name, count): (&str, u64)| {
        let name = name.to_owned();
        (1..=count).map(move |nth| (name.clone(), nth))
    };
    most.into_iter().flat_map(each).collect()
}

/// Whether it is a call that begins here, and not the rest of one or a signal.
fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether the state was replaced, by any process so far: its ruins are kept.
fn was_rebuilt(data_dir: &Path) -> bool {
    let mut entries = fs::read_dir(data_dir).unwrap().map(Result::unwrap);
    entries.any(|entry| {
        let is_quarantine = entry.file_name().to_string_lossy().starts_with("quarantine-");
        is_quarantine && entry.path().join("sled").is_dir()
    })
}

/// A few numbers are larger than that of the last call, since no two runs make the same calls; but
/// a strace that kills nothing must not look like a process that bears everything.
#[track_caller]
fn assert_most_killed(killed: usize, rounds: usize) {
    assert!(killed * 2 > rounds, "only {killed} of {rounds} rounds killed the process");
}

#[test]
fn a_rebuild_that_is_killed_anywhere_is_done_by_the_next_start() {
    if !require("strace", has_program("strace")) {
        return;
    }
    let (temp, seed) = (TempDir::new().unwrap(), Random::run_seed());
    let sample = seeds::backed_up(temp.path());
    let mut random = Random::seeded(seed);
    let trace = temp.path().join("trace");
    let damaged = |name: &str| {
        let data_dir = temp.path().join(name);
        folder::copy(&sample.store(), &data_dir);
        cut_off(&data_dir);
        data_dir
    };
    let data_dir = damaged("counted");
    // With small segments most calls are those of the rebuild, and not of the segment that is made
    // beside it.
    let serve = |data_dir: &Path, point: Option<&KillPoint>| {
        let server = TestServer::builder().data_dir(data_dir).wrapper(killed_at(&trace, point));
        server.flag("--journal-segment-size", "1MiB")
    };
    serve(&data_dir, None).start().stop();
    let points = kill_points(&trace, &mut random);
    let count = calls(&trace).len();
    say(&format!(
        "state rebuild: kills at {} of {count} calls, ODOMETER_SEED={seed}",
        points.len()
    ));
    let (mut killed, rounds) = (0, points.len());
    for (round, point) in points.iter().enumerate() {
        let at = format!("{point:?}");
        let data_dir = damaged(&format!("killed-{round}"));
        let mut server = serve(&data_dir, Some(point)).spawn();
        // Where the call comes only after the start, a stop is as good a moment.
        let _ = server.wait_ready(DEADLINE);
        server.signal(rustix::process::Signal::TERM);
        let status = server.wait_exit(DEADLINE).expect("it was told to stop");
        killed += usize::from(status.signal() == Some(9));
        assert_served(&data_dir, &sample.keys, &sample.values, &format!("killed at call {at}"));
        assert!(was_rebuilt(&data_dir), "killed at call {at}: nothing was rebuilt");
        assert!(verify(&data_dir).succeeded().starts_with("clean"), "killed at call {at}");
        fs::remove_dir_all(&data_dir).unwrap();
    }
    say(&format!("state rebuild: {killed} of {rounds} killed, each rebuilt by the next start"));
    assert_most_killed(killed, rounds);
}

#[test]
fn a_restore_that_is_killed_anywhere_leaves_no_store_or_the_whole_one() {
    if !require("strace", has_program("strace")) {
        return;
    }
    let (temp, seed) = (TempDir::new().unwrap(), Random::run_seed());
    let sample = seeds::backed_up(temp.path());
    let mut random = Random::seeded(seed);
    let (trace, backup) = (temp.path().join("trace"), temp.path().join("backup"));
    ended(odometer(["backup", "--data-dir"]).arg(sample.store()).arg("--to").arg(&backup))
        .succeeded();
    let restore = |target: &Path, point: Option<&KillPoint>| {
        let words = killed_at(&trace, point);
        let mut command = std::process::Command::new(&words[0]);
        let binary = crate::support::server::binary().canonicalize().unwrap();
        command
            .args(&words[1..])
            .arg(binary)
            .args(["restore", "--from"])
            .arg(&backup)
            .arg("--data-dir")
            .arg(target);
        command.output().unwrap()
    };
    let target = temp.path().join("counted");
    assert!(restore(&target, None).status.success());
    let points = kill_points(&trace, &mut random);
    let count = calls(&trace).len();
    say(&format!("restore: kills at {} of {count} calls, ODOMETER_SEED={seed}", points.len()));
    let (mut none, mut whole) = (0, 0);
    let (mut killed, rounds) = (0, points.len());
    for point in &points {
        let at = format!("{point:?}");
        let target = temp.path().join("killed");
        // strace ends as the process did.
        killed += usize::from(restore(&target, Some(point)).status.signal() == Some(9));
        if verify(&target).code == Some(0) {
            whole += 1;
        } else {
            none += 1;
            // Nothing may start on a half of it; another restore begins again.
            if target.join("RESTORING").exists() {
                let mut server = TestServer::builder().data_dir(&target).spawn();
                let status = server.wait_exit(DEADLINE).expect("it does not serve");
                let stderr = server.written().stderr;
                assert!(
                    status.code() == Some(1) && stderr.contains("restore"),
                    "killed at {at}: {status}: {stderr}"
                );
            }
            ended(odometer(["restore", "--from"]).arg(&backup).arg("--data-dir").arg(&target))
                .succeeded();
        }
        assert_served(
            &target,
            &sample.keys,
            &sample.values,
            &format!("restore killed at call {at}"),
        );
        fs::remove_dir_all(&target).unwrap();
    }
    say(&format!("restore: {killed} killed; no store after {none}, the whole one after {whole}"));
    assert_most_killed(killed, rounds);
}
