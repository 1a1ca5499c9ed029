//! A damaged state is rebuilt by a start, from a backup and the journal, whatever interrupts it; without a backup it is refused.
//!
//! Invariant: the values are known before the damage and must be there after it, all of them. Must never: accept a start that serves less.
//!
//! `ODOMETER_STATE_REBUILD_KILLS` (6): at how many system calls of a heal and of a restore the process is killed; `all` for each of them.
//! `ODOMETER_SEED` (printed). The kills need strace.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::client::Protocol;
use crate::support::command::{ended, odometer};
use crate::support::server::TestServer;
use crate::support::workload::{register, runtime};
use crate::support::{Random, folder, has_program, require, say, setting};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);
/// Whatever changes the disk or opens something: a kill at each of these is a kill at each state that the disk can be in.
const CALLS: &str = "openat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,sync_file_range,pwrite64,write,ftruncate";

/// A folder whose journal no longer has its first commit, so that a damaged state needs the backup.
struct Sample {
    temp: TempDir,
    keys: Vec<String>,
    values: Vec<u64>,
}

impl Sample {
    fn make() -> Self {
        let temp = TempDir::new().unwrap();
        let data_dir = temp.path().join("data");
        let serve = || TestServer::builder().data_dir(&data_dir).flag("--backup-interval", "1s");
        let server = serve().start();
        let keys = runtime().block_on(register(&server.endpoint(), "heal", 3));
        server.stop();
        // The second start begins a second segment, so the first can go when a backup has it.
        let server = serve().flag("--checkpoint-interval", "100ms").start();
        let first = data_dir.join("journal/00000000000000000001.journal");
        let until = Instant::now() + DEADLINE;
        runtime().block_on(async {
            let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
            while first.exists() {
                for key in &keys {
                    client.increment(key).await.unwrap();
                }
                assert!(Instant::now() < until, "the first segment stays");
            }
            client.increment(&keys[1]).await.unwrap();
        });
        let values = read(&server, &keys);
        server.stop();
        Self { temp, keys, values }
    }

    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.temp.path().join(name);
        folder::copy(&self.temp.path().join("data"), &copy);
        copy
    }

    /// Starts on the folder and compares everything.
    fn assert_served(&self, data_dir: &Path, context: &str) -> crate::support::server::Written {
        let server = TestServer::builder().data_dir(data_dir).start();
        assert_eq!(read(&server, &self.keys), self.values, "{context}");
        let healed = server.metric("odometer_state_rebuilds_total");
        let written = server.stop();
        assert_eq!(healed, Some(if written.actions("state-rebuilt").is_empty() { 0.0 } else { 1.0 }), "{context}");
        written
    }
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

fn verify(data_dir: &Path) -> crate::support::command::Ended {
    ended(odometer(["verify", "--data-dir"]).arg(data_dir))
}

/// Ways to damage a state, by name.
fn damages() -> [(&'static str, fn(&Path)); 5] {
    [
        ("gone", |sled| fs::remove_dir_all(sled).unwrap()),
        ("cut", |sled| OpenOptions::new().write(true).open(sled.join("db")).unwrap().set_len(1000).unwrap()),
        ("zeroed", |sled| {
            OpenOptions::new().write(true).open(sled.join("db")).unwrap().write_all_at(&[0; 512], 0).unwrap();
        }),
        ("seals", |sled| fs::write(sled.join("odometer.digests"), "x").unwrap()),
        ("snapshot", |sled| {
            let snapshot = |path: &PathBuf| path.to_string_lossy().contains("snap.");
            let mut paths = fs::read_dir(sled).unwrap().map(|entry| entry.unwrap().path());
            fs::write(paths.find(snapshot).unwrap(), "not a snapshot").unwrap();
        }),
    ]
}

#[test]
fn a_damaged_state_is_rebuilt_from_the_backup_and_the_journal() {
    let sample = Sample::make();
    for (name, damage) in damages() {
        let data_dir = sample.copy(name);
        damage(&data_dir.join("sled"));
        let said = verify(&data_dir);
        // A lost snapshot or a torn log may be nothing that matters to sled; then it is clean, and served as it is.
        if said.code != Some(0) {
            assert_eq!(said.code, Some(3), "{name}: {said:?}");
            assert!(said.stdout.contains("rebuilds the state from backups/"), "{name}: {said:?}");
            let written = sample.assert_served(&data_dir, name);
            let [event] = &written.actions("state-rebuilt")[..] else { panic!("{name}: not one event: {written:?}") };
            let quarantine = event["file.directory"].as_str().unwrap();
            assert!(data_dir.join(quarantine).join("sled").is_dir(), "{name}");
        }
        assert!(sample.assert_served(&data_dir, name).actions("state-rebuilt").is_empty(), "{name}: healed twice");
        assert!(verify(&data_dir).succeeded().starts_with("clean"), "{name}");
    }
}

#[test]
fn without_a_whole_backup_a_damaged_state_is_refused_and_nothing_changes() {
    let sample = Sample::make();
    let data_dir = sample.copy("refused");
    fs::remove_file(data_dir.join("sled/db")).unwrap();
    for entry in fs::read_dir(data_dir.join("backups")).unwrap().map(Result::unwrap) {
        let mut bytes = fs::read(entry.path()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(entry.path(), bytes).unwrap();
    }
    let said = verify(&data_dir);
    assert_eq!(said.code, Some(4), "{said:?}");
    let mut server = TestServer::builder().data_dir(&data_dir).spawn();
    let status = server.wait_exit(DEADLINE).expect("it does not serve");
    let stderr = server.written().stderr;
    assert_eq!(status.code(), Some(1), "{stderr}");
    for word in ["commits are missing", "not a whole backup", "odometer restore --from"] {
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Which calls to kill at, out of `count`: a random few, or all.
fn kill_points(count: u64, random: &mut Random) -> Vec<u64> {
    match setting("ODOMETER_STATE_REBUILD_KILLS").as_deref() {
        Some("all") => (1..=count).collect(),
        some => {
            let wanted = some.map_or(6, |text| text.parse().expect("a number, or all"));
            (0..wanted).map(|_| random.between(1, count)).collect()
        }
    }
}

fn strace(trace: &Path, kill_at: Option<u64>) -> Vec<String> {
    let mut words = vec!["strace".to_owned(), "-f".to_owned(), "-o".to_owned(), trace.display().to_string()];
    words.extend(["-e".to_owned(), format!("trace={CALLS}")]);
    if let Some(at) = kill_at {
        words.extend(["-e".to_owned(), format!("inject={CALLS}:signal=SIGKILL:when={at}")]);
    }
    words
}

/// The calls of the thread that made most of them: `when` counts for each thread by itself.
fn calls(trace: &Path) -> u64 {
    let text = fs::read_to_string(trace).unwrap();
    let mut counts = std::collections::HashMap::new();
    for line in text.lines().filter(|line| line.contains('(')) {
        *counts.entry(line.split(' ').next().unwrap_or_default()).or_insert(0_u64) += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

#[test]
fn a_heal_that_is_killed_anywhere_is_done_by_the_next_start() {
    if !require("strace", has_program("strace")) {
        return;
    }
    let (sample, seed) = (Sample::make(), Random::run_seed());
    let mut random = Random::seeded(seed);
    let trace = sample.temp.path().join("trace");
    let damaged = |name: &str| {
        let data_dir = sample.copy(name);
        OpenOptions::new().write(true).open(data_dir.join("sled/db")).unwrap().set_len(1000).unwrap();
        data_dir
    };
    let data_dir = damaged("counted");
    TestServer::builder().data_dir(&data_dir).wrapper(strace(&trace, None)).start().stop();
    let points = kill_points(calls(&trace), &mut random);
    say(&format!("state rebuild: kills at {} of {} calls, ODOMETER_SEED={seed}", points.len(), calls(&trace)));
    let mut killed = 0;
    for (round, at) in points.into_iter().enumerate() {
        let data_dir = damaged(&format!("killed-{round}"));
        let mut server = TestServer::builder().data_dir(&data_dir).wrapper(strace(&trace, Some(at))).spawn();
        // Where the call comes only after the start, a stop is as good a moment.
        let _ = server.wait_ready(DEADLINE);
        server.signal(rustix::process::Signal::TERM);
        let status = server.wait_exit(DEADLINE).expect("it was told to stop");
        killed += u32::from(status.signal() == Some(9));
        sample.assert_served(&data_dir, &format!("killed at call {at}"));
        assert!(verify(&data_dir).succeeded().starts_with("clean"), "killed at call {at}");
        fs::remove_dir_all(&data_dir).unwrap();
    }
    say(&format!("state rebuild: {killed} killed, each healed by the next start"));
}

#[test]
fn a_restore_that_is_killed_anywhere_leaves_no_store_or_the_whole_one() {
    if !require("strace", has_program("strace")) {
        return;
    }
    let (sample, seed) = (Sample::make(), Random::run_seed());
    let mut random = Random::seeded(seed);
    let (trace, backup) = (sample.temp.path().join("trace"), sample.temp.path().join("backup"));
    ended(odometer(["backup", "--data-dir"]).arg(sample.temp.path().join("data")).arg("--to").arg(&backup)).succeeded();
    let restore = |target: &Path, kill_at: Option<u64>| {
        let words = strace(&trace, kill_at);
        let mut command = std::process::Command::new(&words[0]);
        let binary = crate::support::server::binary().canonicalize().unwrap();
        command.args(&words[1..]).arg(binary).args(["restore", "--from"]).arg(&backup).arg("--data-dir").arg(target);
        command.output().unwrap()
    };
    let target = sample.temp.path().join("counted");
    assert!(restore(&target, None).status.success());
    let points = kill_points(calls(&trace), &mut random);
    say(&format!("restore: kills at {} of {} calls, ODOMETER_SEED={seed}", points.len(), calls(&trace)));
    let (mut none, mut whole) = (0, 0);
    for at in points {
        let target = sample.temp.path().join(format!("killed-{at}"));
        let _ = fs::remove_dir_all(&target);
        restore(&target, Some(at));
        if verify(&target).code == Some(0) {
            whole += 1;
        } else {
            none += 1;
            // Nothing may start on a half of it; another restore begins again.
            if target.join("RESTORING").exists() {
                let mut server = TestServer::builder().data_dir(&target).spawn();
                let status = server.wait_exit(DEADLINE).expect("it does not serve");
                let stderr = server.written().stderr;
                assert!(status.code() == Some(1) && stderr.contains("restore"), "killed at {at}: {status}: {stderr}");
            }
            ended(odometer(["restore", "--from"]).arg(&backup).arg("--data-dir").arg(&target)).succeeded();
        }
        sample.assert_served(&target, &format!("restore killed at call {at}"));
        fs::remove_dir_all(&target).unwrap();
    }
    say(&format!("restore: no store after {none}, the whole one after {whole}"));
}
