//! A disk that is full, and one that turns read-only under load: what is told to clients, what is
//! served, and what is there afterwards.
//!
//! Job: the real binary on a file system of its own.
//! Invariant: no acknowledgement is lost or repeated, reads go on while changes are refused, and a
//! start that cannot work says in one line where and why.
//! Must never: fill or change a file system that this test did not mount.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::faults::scratch_fs::Mounted;
use crate::support::client::{Client, Failure, Protocol};
use crate::support::history::{Operation, Rules, check};
use crate::support::server::{Builder, Keep, TestServer};
use crate::support::workload::{Clock, Load, PASSWORD, observe, register, runtime};
use crate::support::{Random, say};

const CLIENTS: u32 = 8;
const TENANTS: usize = 4;
const RESERVE: u64 = 8 << 20;
/// The disk is looked at twice a second.
const NOTICED: Duration = Duration::from_secs(5);
/// Two seconds are promised from the failed write on; the load brings the next write within the
/// rest.
const GONE: Duration = Duration::from_secs(4);

/// A folder through several servers, and what their clients were told.
struct Scenario {
    data_dir: PathBuf,
    clock: Clock,
    keys: Vec<String>,
    history: Vec<Operation>,
    restarts: Vec<u64>,
    seed: u64,
}

impl Scenario {
    fn begin(data_dir: PathBuf) -> Self {
        let (seed, clock) = (Random::run_seed(), Clock::start());
        say(&format!("disk: ODOMETER_SEED={seed}"));
        Self { data_dir, clock, keys: Vec::new(), history: Vec::new(), restarts: Vec::new(), seed }
    }

    fn server(&self) -> Builder {
        let builder = TestServer::builder().data_dir(&self.data_dir).keep(Keep::Problems);
        builder.flag("--checkpoint-interval", "100ms").flag("--journal-segment-size", "1MiB")
    }

    /// Starts a load; registers its tenants the first time.
    fn load(&mut self, server: &TestServer) -> Load {
        if self.keys.is_empty() {
            self.keys = runtime().block_on(register(&server.endpoint(), "disk", TENANTS));
        }
        Load::start(&server.endpoint(), &self.keys, self.clock, CLIENTS, self.seed)
    }

    /// A load until some hundred increments are done.
    fn some_load(&mut self, server: &mut TestServer) {
        let done = server.metric("odometer_increments_total").unwrap_or(0.0);
        let load = self.load(server);
        let enough = |server: &TestServer| {
            server.metric("odometer_increments_total").unwrap_or(0.0) > done + 200.0
        };
        wait_for("the load goes on", server, enough);
        self.history.extend(load.finish());
    }

    fn look(&mut self, server: &TestServer) {
        self.history.extend(runtime().block_on(observe(
            &server.endpoint(),
            self.clock,
            &self.keys,
        )));
    }

    fn end_of_process(&mut self) {
        self.restarts.push(self.clock.now());
    }

    /// A start with room: everything is there, and changes go on.
    fn conclude(mut self) {
        let mut server = self.server().flag("--min-free-disk", "0").start();
        self.look(&server);
        self.some_load(&mut server);
        self.look(&server);
        server.stop();
        let verdict = check(&self.history, &Rules { restarts: self.restarts, ..Rules::default() });
        verdict.assert_clean(&format!("disk, ODOMETER_SEED={}", self.seed));
        assert!(verdict.acknowledged > 0, "the load did nothing");
        say(&format!(
            "disk: {} acknowledged, {} refused, {} unknown, {} gaps explained; nothing lost, nothing twice",
            verdict.acknowledged, verdict.refused, verdict.unknown, verdict.gaps
        ));
    }
}

#[track_caller]
fn wait_for(what: &str, server: &mut TestServer, is_so: impl Fn(&TestServer) -> bool) {
    let until = Instant::now() + NOTICED;
    while !is_so(server) {
        let ended = server.wait_exit(Duration::from_millis(10));
        assert!(
            ended.is_none() && Instant::now() < until,
            "not within {NOTICED:?}: {what}; {}",
            server.transcript()
        );
    }
}

fn says(server: &TestServer, status: u16, word: &str) -> bool {
    server.ops_get("/readyz") == (status, format!("{word}\n"))
}

async fn connect(server: &TestServer) -> Client {
    server.endpoint().connect(Protocol::Http1).await.unwrap()
}

/// Every kind of change is refused as 507, and a read answers.
fn assert_reads_only(server: &TestServer, key: &str) {
    runtime().block_on(async {
        let mut client = connect(server).await;
        let value = client.read(key).await.unwrap();
        for refused in [client.increment(key).await, client.set(key, 5).await] {
            assert!(matches!(refused, Err(Failure::Refused { status: 507, .. })), "{refused:?}");
        }
        let refused = client.register("one-more", PASSWORD).await.unwrap_err();
        assert!(matches!(refused, Failure::Refused { status: 507, .. }), "{refused:?}");
        assert_eq!(client.read(key).await.unwrap(), value, "a refused change changed something");
    });
}

#[test]
fn a_full_disk_stops_changes_until_there_is_room_again() {
    if !Mounted::can_memory() {
        return;
    }
    let disk = Mounted::memory(32);
    let mut scenario = Scenario::begin(disk.point().join("data"));
    let mut server = scenario.server().flag("--min-free-disk", RESERVE.to_string()).start();
    for make_room in [true, false] {
        scenario.some_load(&mut server);
        let load = scenario.load(&server);
        let filler = disk.fill(RESERVE / 2);
        wait_for("the full disk is noticed", &mut server, |server| says(server, 503, "disk_low"));
        scenario.history.extend(load.finish());
        assert_reads_only(&server, &scenario.keys[0]);
        scenario.look(&server);
        if make_room {
            fs::remove_file(filler).unwrap();
        } else {
            disk.remount("size=64m");
        }
        wait_for("the room is noticed", &mut server, |server| says(server, 200, "ready"));
    }
    scenario.some_load(&mut server);
    // A stop while the disk is full still brings everything to rest: that is what the reserve is
    // for.
    disk.fill(RESERVE / 2);
    wait_for("the full disk is noticed", &mut server, |server| says(server, 503, "disk_low"));
    server.stop();
    scenario.end_of_process();
    fs::remove_file(disk.point().join("filler")).unwrap();
    scenario.conclude();
}

/// With a reserve that no disk has, no disk has to be filled.
#[test]
fn a_disk_that_is_almost_full_stops_changes_and_not_reads() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::builder().data_dir(folder.path()).start();
    let key = runtime().block_on(register(&server.endpoint(), "t", 1)).remove(0);
    server.stop();
    let server =
        TestServer::builder().data_dir(folder.path()).flag("--min-free-disk", "1000000GiB").start();
    assert_reads_only(&server, &key);
    assert_eq!(runtime().block_on(async { connect(&server).await.read(&key).await.unwrap() }), 1);
    assert!(says(&server, 503, "disk_low"));
    server.stop();
}

/// The disk is full to the last byte, and no reserve was kept: the next segment cannot be made.
#[test]
fn a_segment_that_does_not_fit_stops_changes_until_it_does() {
    if !Mounted::can_memory() {
        return;
    }
    let disk = Mounted::memory(32);
    let mut scenario = Scenario::begin(disk.point().join("data"));
    let server = |scenario: &Scenario, segment| {
        scenario
            .server()
            .flag("--min-free-disk", "0")
            .flag("--journal-segment-size", segment)
            .flag("--journal-cap", "64MiB")
    };
    let mut running = server(&scenario, "1MiB").start();
    scenario.some_load(&mut running);
    running.stop();
    scenario.end_of_process();
    let filler = disk.fill((5 << 20) + (1 << 18));
    // There is room for the segment that it goes on in and for sled, but not for the next spare
    // one.
    let mut running = server(&scenario, "4MiB").start();
    wait_for("the missing room is noticed", &mut running, |server| says(server, 503, "disk_low"));
    assert_reads_only(&running, &scenario.keys[0]);
    fs::remove_file(filler).unwrap();
    wait_for("the room is noticed", &mut running, |server| says(server, 200, "ready"));
    let warnings =
        running.log().iter().filter(|line| line.contains("journal-segment-failed")).count();
    assert!(warnings < 50, "it tried again and again: {warnings} warnings");
    scenario.some_load(&mut running);
    running.stop();
    scenario.end_of_process();
    scenario.conclude();
}

/// Without a reserve a write can fail for real. That is a failed write like any other: it may end
/// the process, and costs no acknowledgement.
#[test]
fn a_write_that_finds_no_room_costs_no_acknowledgement() {
    if !Mounted::can_memory() {
        return;
    }
    let disk = Mounted::memory(32);
    let mut scenario = Scenario::begin(disk.point().join("data"));
    let mut server = scenario.server().flag("--min-free-disk", "0").start();
    scenario.some_load(&mut server);
    let load = scenario.load(&server);
    disk.fill(0);
    let ended = server.wait_exit(GONE);
    scenario.history.extend(load.finish());
    let ended = ended.or_else(|| {
        // A commit that changes no size needs no room, so the server may well live; but then it
        // stops like any other.
        server.signal(rustix::process::Signal::TERM);
        server.wait_exit(Duration::from_secs(8))
    });
    let code = ended.expect("it ends").code();
    let poisoned = !server.written().actions("poison").is_empty();
    say(&format!("disk: full to the last byte, poisoned: {poisoned}, exit code {code:?}"));
    assert_eq!(code, Some(i32::from(poisoned)), "{}", server.transcript());
    scenario.end_of_process();
    // A start without room works or says why.
    let mut server = scenario.server().flag("--min-free-disk", "0").spawn();
    if server.wait_ready(Duration::from_secs(10)).is_ok() {
        server.kill();
    } else {
        assert_refused(&mut server, &scenario.data_dir, "No space left on device");
    }
    scenario.end_of_process();
    fs::remove_file(disk.point().join("filler")).unwrap();
    scenario.conclude();
}

#[test]
fn a_disk_that_turns_read_only_is_a_failed_write() {
    if !Mounted::can_ext4() {
        return;
    }
    let disk = Mounted::ext4();
    let mut scenario = Scenario::begin(disk.point().join("data"));
    let mut server = scenario.server().start();
    scenario.some_load(&mut server);
    let load = scenario.load(&server);
    disk.remount("abort");
    let status = server.wait_exit(GONE);
    scenario.history.extend(load.finish());
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(1),
        "{status:?}\n{}",
        server.transcript()
    );
    assert_eq!(
        server.written().actions("poison").len(),
        1,
        "the log says why\n{}",
        server.transcript()
    );
    scenario.end_of_process();
    assert_refused(&mut scenario.server().spawn(), &scenario.data_dir, "Read-only file system");
    disk.mount_again();
    let mut server = scenario.server().start();
    scenario.look(&server);
    scenario.some_load(&mut server);
    server.stop();
    scenario.end_of_process();
    disk.remount("ro");
    assert_refused(&mut scenario.server().spawn(), &scenario.data_dir, "Read-only file system");
    disk.remount("rw");
    scenario.conclude();
}

/// It does not start, and says in one line where and why.
#[track_caller]
fn assert_refused(server: &mut TestServer, data_dir: &Path, why: &str) {
    let status = server.wait_exit(Duration::from_secs(10)).expect("it ends by itself");
    let stderr = server.written().stderr;
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let place = data_dir.display().to_string();
    assert!(
        stderr.starts_with("odometer: ") && stderr.contains(&place) && stderr.contains(why),
        "{stderr}"
    );
}
