//! Kills and power cuts at random moments under load: no acknowledged integer is lost, none is
//! answered twice, none is skipped beyond what unknown outcomes explain.
//!
//! Invariant: the history is accumulated over all rounds on the same data and judged as a whole. A
//! kill proves recovery only, since the page cache survives it; durability is proved by the power
//! cut (frozen first, see `power.rs`), and `the_cut_drops_what_was_not_synced` proves the cut. Each
//! other cut under load is followed by one during the start after it, and by one during a rebuild.
//! Nothing here may depend on how fast the machine is, apart from a start within 10 s.
//!
//! `ODOMETER_KILL_ROUNDS` (3), `ODOMETER_POWER_ROUNDS` (2), `ODOMETER_POWER_FS` (ext4, or xfs),
//! `ODOMETER_SEED` (printed).

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::faults::power::PowerDisk;
use crate::support::command::odometer;
use crate::support::history::{Operation, Rules, Verdict, check};
use crate::support::server::{Keep, TestServer};
use crate::support::workload::{Clock, Load, observe, register, runtime};
use crate::support::{Random, number_setting, say};
use tempfile::TempDir;

const CLIENTS: u32 = 16;
const TENANTS: usize = 5;
/// Far above any honest start; only a start that hangs or rebuilds everything exceeds it.
const READY_LIMIT: Duration = Duration::from_secs(10);
const LOAD_MS: (u64, u64) = (50, 800);
/// A long run is judged about this many times on its way, so that the cost stays in proportion.
const JUDGEMENTS: u64 = 10;

#[test]
fn kills_lose_and_repeat_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut trial =
        Trial::new("kill", folder.path().join("data"), number_setting("ODOMETER_KILL_ROUNDS", 3));
    for round in 0..trial.rounds {
        let server = trial.start_server();
        trial.look(&server);
        let load = trial.start_load(&server);
        let backup = trial.ask_for_a_backup_now_and_then(&server);
        trial.wait_a_random_while();
        server.kill();
        trial.end_of_process(load);
        backup.map(|mut command| command.wait().expect("without its server the command ends"));
        if trial.random.between(0, 3) == 0 {
            trial.kill_during_start();
        }
        trial.judge_now_and_then(round);
    }
    trial.conclude();
}

#[test]
fn power_cuts_lose_and_repeat_nothing() {
    if !PowerDisk::is_possible() {
        return;
    }
    let mut disk = PowerDisk::create();
    let data_dir = disk.mount_point().join("data");
    let mut trial = Trial::new("power cut", data_dir, number_setting("ODOMETER_POWER_ROUNDS", 2));
    let mut in_sync = 0;
    for round in 0..trial.rounds {
        let server = trial.start_server();
        trial.look(&server);
        let load = trial.start_load(&server);
        let backup = trial.ask_for_a_backup_now_and_then(&server);
        trial.wait_a_random_while();
        let cut = disk.arm();
        in_sync += u32::from(server.freeze());
        cut.now();
        server.kill();
        trial.end_of_process(load);
        backup.map(|mut command| command.wait().expect("without its server the command ends"));
        disk.restore();
        if round % 2 == 0 {
            trial.cut_during_start(&mut disk, false);
            trial.cut_during_start(&mut disk, true);
        }
        trial.judge_now_and_then(round);
    }
    say(&format!("power cut: {in_sync} of {} found the server waiting for the disk", trial.rounds));
    trial.conclude();
}

/// Without this the test above could pass because the cut is none.
#[test]
fn the_cut_drops_what_was_not_synced() {
    if !PowerDisk::is_possible() {
        return;
    }
    let mut disk = PowerDisk::create();
    let at = |name: &str| disk.mount_point().join(name);
    let (synced, created, overwritten) = (at("synced"), at("created"), at("overwritten"));
    write_synced(&synced, b"new");
    write_synced(&overwritten, &[b'0'; 4096]);
    File::open(disk.mount_point()).and_then(|folder| folder.sync_all()).expect("the folder syncs");

    fs::write(&created, b"never synced").expect("a write without a sync succeeds");
    let mut file = File::options().write(true).open(&overwritten).expect("the file is there");
    file.seek(SeekFrom::Start(512))
        .and_then(|_| file.write_all(b"1111"))
        .expect("a write without a sync succeeds");
    assert_eq!(&fs::read(&overwritten).expect("readable before the cut")[512..516], b"1111");
    disk.arm().now();
    assert!(file.sync_all().is_err(), "after the cut nothing can be synced any more");
    drop(file);
    disk.restore();

    assert_eq!(fs::read(&synced).expect("what was synced is there"), b"new");
    assert!(!created.exists(), "a file that was never synced survived the cut");
    assert_eq!(
        fs::read(&overwritten).expect("what was synced is there"),
        [b'0'; 4096],
        "an unsynced write survived"
    );
}

fn write_synced(path: &Path, bytes: &[u8]) {
    let mut file = File::create_new(path).expect("a new file");
    file.write_all(bytes).and_then(|()| file.sync_all()).expect("the file syncs");
}

/// One server folder through many ends and starts, and everything that clients were told about it.
struct Trial {
    name: &'static str,
    data_dir: PathBuf,
    rounds: u64,
    seed: u64,
    random: Random,
    clock: Clock,
    keys: Vec<String>,
    history: Vec<Operation>,
    restarts: Vec<u64>,
    slowest_start: Duration,
    last_start: Duration,
    /// The state was marked corrupt by the test.
    may_rebuild: bool,
    /// For files that are not to be lost with the disk.
    elsewhere: TempDir,
}

impl Trial {
    fn new(name: &'static str, data_dir: PathBuf, rounds: u64) -> Self {
        let seed = Random::run_seed();
        say(&format!("{name}: {rounds} rounds, ODOMETER_SEED={seed}"));
        Self {
            name,
            data_dir,
            rounds,
            seed,
            random: Random::seeded(seed),
            clock: Clock::start(),
            keys: Vec::new(),
            history: Vec::new(),
            restarts: Vec::new(),
            slowest_start: Duration::ZERO,
            last_start: Duration::ZERO,
            may_rebuild: false,
            elsewhere: TempDir::new().expect("a temporary folder"),
        }
    }

    fn start_server(&mut self) -> TestServer {
        let mut server = TestServer::builder().data_dir(&self.data_dir).keep(Keep::Problems);
        // Half of the processes checkpoint, roll and back up so often that the end falls into one
        // of these.
        if self.random.between(0, 1) == 0 {
            server = server
                .flag("--checkpoint-interval", "100ms")
                .flag("--journal-segment-size", "1MiB");
            server = server
                .flag("--journal-cap", "2MiB")
                .flag("--backup-interval", "1s")
                .flag("--backup-keep", "2");
        }
        let server = server.start();
        self.last_start = server.ready_after();
        self.slowest_start = self.slowest_start.max(self.last_start);
        assert!(server.ready_after() < READY_LIMIT, "ready only after {:?}", server.ready_after());
        // A rebuild that a cut interrupted is done by one of the starts after it.
        let rebuilds = server.metric("odometer_state_rebuilds_total");
        let is_expected = rebuilds == Some(0.0) || rebuilds == Some(1.0) && self.may_rebuild;
        assert!(is_expected, "a crash damages nothing, so nothing is to be rebuilt: {rebuilds:?}");
        self.may_rebuild = false;
        server
    }

    /// Reads all counters: what is served after a start is part of the history.
    fn look(&mut self, server: &TestServer) {
        let (endpoint, runtime) = (server.endpoint(), runtime());
        if self.keys.is_empty() {
            self.keys = runtime.block_on(register(&endpoint, "crash", TENANTS));
        }
        self.history.extend(runtime.block_on(observe(&endpoint, self.clock, &self.keys)));
    }

    fn start_load(&mut self, server: &TestServer) -> Load {
        Load::start(&server.endpoint(), &self.keys, self.clock, CLIENTS, self.random.next())
    }

    /// A backup that is asked for, whatever becomes of it.
    fn ask_for_a_backup_now_and_then(&mut self, server: &TestServer) -> Option<Child> {
        (self.random.between(0, 3) == 0).then(|| {
            let mut command = odometer(["backup", "--data-dir"]);
            command.arg(server.data_dir()).arg("--to").arg(self.elsewhere.path().join("asked"));
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts")
        })
    }

    /// The random moment of the fault; the load goes on meanwhile.
    fn wait_a_random_while(&mut self) {
        let (_nobody_tells, told) = channel::<()>();
        let ran_out =
            told.recv_timeout(Duration::from_millis(self.random.between(LOAD_MS.0, LOAD_MS.1)));
        assert!(ran_out.is_err(), "only the time can end this");
    }

    /// The process is dead: whatever it had not done by now it will not do.
    fn end_of_process(&mut self, load: Load) {
        self.restarts.push(self.clock.now());
        self.history.extend(load.finish());
    }

    fn kill_during_start(&mut self) {
        let mut server = TestServer::builder().data_dir(&self.data_dir).spawn();
        let ended = server.wait_exit(Duration::from_millis(self.random.between(0, 60)));
        assert!(
            ended.is_none(),
            "a start that nobody disturbed ended with {ended:?}\n{}",
            server.transcript()
        );
        server.kill();
    }

    /// Cuts the power while a server starts and, with `rebuild`, makes its state again.
    fn cut_during_start(&mut self, disk: &mut PowerDisk, rebuild: bool) {
        if rebuild {
            let sled = self.data_dir.join("sled");
            write_synced(&sled.join("odometer.corrupt"), b"the test says so");
            File::open(sled).and_then(|sled| sled.sync_all()).expect("the folder syncs");
            self.may_rebuild = true;
        }
        let server = TestServer::builder().data_dir(&self.data_dir);
        let cut = disk.arm();
        let mut server = server.flag("--journal-segment-size", "1MiB").spawn();
        // Within the time that the last start took; later the server does nothing.
        let limit = u64::try_from(self.last_start.as_millis()).expect("a start takes no years");
        let ended = server.wait_exit(Duration::from_millis(self.random.between(0, limit)));
        assert!(ended.is_none(), "it ended with {ended:?}\n{}", server.transcript());
        server.freeze();
        cut.now();
        server.kill();
        disk.restore();
    }

    fn judge(&self) -> Verdict {
        let verdict =
            check(&self.history, &Rules { restarts: self.restarts.clone(), ..Rules::default() });
        verdict.assert_clean(&format!("{}, ODOMETER_SEED={}", self.name, self.seed));
        verdict
    }

    fn judge_now_and_then(&self, round: u64) {
        if (round + 1).is_multiple_of(self.rounds.div_ceil(JUDGEMENTS)) {
            self.judge();
        }
    }

    fn conclude(mut self) {
        let server = self.start_server();
        self.look(&server);
        server.stop();
        self.restarts.push(self.clock.now());
        let server = self.start_server();
        self.look(&server);
        server.stop();
        let verdict = self.judge();
        assert!(verdict.acknowledged > 0, "the load did nothing");
        say(&format!(
            "{}: {} rounds, {} acknowledged, {} unknown, {} refused, {} gaps explained, {} lost, {} duplicates, max ready {} ms",
            self.name,
            self.rounds,
            verdict.acknowledged,
            verdict.unknown,
            verdict.refused,
            verdict.gaps,
            verdict.lost,
            verdict.duplicates,
            self.slowest_start.as_millis(),
        ));
    }
}
