//! Time that does not pass as a program expects: a process that is stopped and goes on, and clocks
//! that jump.
//!
//! Job: the real binary under SIGSTOP, and under libfaketime, which shifts the clock of the wall
//! and not the monotonic one, as an administrator or NTP would.
//! Invariant: no counter notices.
//! Must never: change the clock of the machine.
//!
//! `ODOMETER_STOP_SECONDS` (1; the long form is 30) is how long the process is stopped.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::support::client::{Client, Failure, Protocol};
use crate::support::history::{Operation, Rules, Verdict, check};
use crate::support::server::{Builder, Keep, TestServer};
use crate::support::workload::{Clock, Load, PASSWORD, observe, register, runtime};
use crate::support::{Random, has_program, number_setting, require, say};
use rustix::process::Signal;
use tempfile::TempDir;

const CLIENTS: u32 = 8;
const TENANTS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(10);
const DAY: i64 = 86_400;

/// One folder, its tenants and what they were told.
struct Story {
    folder: TempDir,
    clock: Clock,
    keys: Vec<String>,
    history: Vec<Operation>,
    restarts: Vec<u64>,
    seed: u64,
}

impl Story {
    fn begin() -> Self {
        let (seed, folder) = (Random::run_seed(), TempDir::new().unwrap());
        say(&format!("clock: ODOMETER_SEED={seed}"));
        Self {
            folder,
            clock: Clock::start(),
            keys: Vec::new(),
            history: Vec::new(),
            restarts: Vec::new(),
            seed,
        }
    }

    fn server(&self) -> Builder {
        let builder =
            TestServer::builder().data_dir(self.folder.path().join("data")).keep(Keep::All);
        builder.flag("--checkpoint-interval", "100ms")
    }

    fn load(&mut self, server: &TestServer) -> Load {
        if self.keys.is_empty() {
            self.keys = runtime().block_on(register(&server.endpoint(), "time", TENANTS));
        }
        Load::start(&server.endpoint(), &self.keys, self.clock, CLIENTS, self.seed)
    }

    fn look(&mut self, server: &TestServer) {
        self.history.extend(runtime().block_on(observe(
            &server.endpoint(),
            self.clock,
            &self.keys,
        )));
    }

    fn stop(&mut self, server: TestServer) {
        server.stop();
        self.restarts.push(self.clock.now());
    }

    fn judge(&self, name: &str) -> Verdict {
        let verdict =
            check(&self.history, &Rules { restarts: self.restarts.clone(), ..Rules::default() });
        verdict.assert_clean(&format!("{name}, ODOMETER_SEED={}", self.seed));
        let Verdict { acknowledged, unknown, refused, gaps, .. } = verdict;
        say(&format!(
            "{name}: {acknowledged} acknowledged, {unknown} unknown, {refused} refused, {gaps} gaps explained; nothing lost, nothing twice"
        ));
        assert!(acknowledged > 0, "the load did nothing");
        verdict
    }
}

/// Lets the time pass that is the very thing under test.
fn let_pass(time: Duration) {
    let (_nobody_tells, told) = channel::<()>();
    assert!(told.recv_timeout(time).is_err(), "only the time can end this");
}

/// Until this many more increments are done.
#[track_caller]
fn wait_for_increments(server: &TestServer, more: f64) {
    let done = || server.metric("odometer_increments_total").unwrap_or(0.0);
    let (goal, until) = (done() + more, Instant::now() + DEADLINE);
    while done() < goal {
        assert!(
            Instant::now() < until,
            "the load does not go on: {}\n{}",
            done(),
            server.transcript()
        );
    }
}

#[test]
fn a_process_that_was_stopped_goes_on_where_it_was() {
    let seconds = number_setting("ODOMETER_STOP_SECONDS", 1);
    let mut story = Story::begin();
    let server = story.server().start();
    let load = story.load(&server);
    wait_for_increments(&server, 100.0);
    server.freeze();
    let_pass(Duration::from_secs(seconds));
    server.signal(Signal::CONT);
    assert_eq!(server.ops_get("/readyz"), (200, "ready\n".to_owned()));
    if seconds < 5 {
        // The same clients on the same connections; a longer stop is beyond their patience.
        wait_for_increments(&server, 100.0);
    }
    story.history.extend(load.finish());
    let load = story.load(&server);
    wait_for_increments(&server, 100.0);
    story.history.extend(load.finish());
    story.look(&server);
    story.stop(server);
    let server = story.server().start();
    story.look(&server);
    story.stop(server);
    let verdict = story.judge(&format!("stopped for {seconds} s"));
    if seconds < 5 {
        assert_eq!(
            (verdict.unknown, verdict.refused, verdict.gaps),
            (0, 0, 0),
            "a short stop is only a slow answer"
        );
    }
}

/// A clock that can be set while the server runs.
struct WallClock(PathBuf);

impl WallClock {
    fn is_possible() -> bool {
        require("faketime", has_program("faketime"))
    }

    fn new(folder: &Path) -> Self {
        let clock = Self(folder.join("offset"));
        clock.jump(0);
        clock
    }

    /// So many seconds from the true time, from now on.
    fn jump(&self, seconds: i64) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        fs::rename(new, &self.0).unwrap();
    }

    fn give(&self, builder: Builder) -> Builder {
        // The loader puts in `$LIB`, which differs between machines.
        let builder = builder.env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1");
        let builder = builder.env("FAKETIME_TIMESTAMP_FILE", &self.0).env("FAKETIME_NO_CACHE", "1");
        builder.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1")
    }
}

async fn connect(server: &TestServer) -> Client {
    server.endpoint().connect(Protocol::Http1).await.unwrap()
}

/// Waits until the server's log is that far from the true date: without it a test could pass
/// because nothing jumped. Each look is a request over a connection of its own, so it looks at the
/// certificate too. (The header `Date` would not do: hyper remembers it until its time is over.)
#[track_caller]
fn wait_for_date(server: &TestServer, seconds: i64) {
    let until = Instant::now() + DEADLINE;
    loop {
        let refused = runtime().block_on(async { connect(server).await.read("no key").await });
        assert!(matches!(refused, Err(Failure::Refused { .. })), "{refused:?}");
        let (wanted, line) = (dates_in(seconds), server.last_log().unwrap_or_default());
        if wanted.iter().any(|date| line.contains(&format!("\"@timestamp\":\"{date}T"))) {
            return;
        }
        assert!(Instant::now() < until, "the server's date is not {wanted:?}: {line}");
    }
}

/// The dates between a minute before and now, so far from the true time.
fn dates_in(seconds: i64) -> [String; 2] {
    let format = time::macros::format_description!("[year]-[month]-[day]");
    #[expect(clippy::disallowed_methods, reason = "the wall clock is the subject")]
    let now =
        time::OffsetDateTime::from(std::time::SystemTime::now()) + time::Duration::seconds(seconds);
    [now, now - time::Duration::minutes(1)]
        .map(|date| date.format(format).expect("a date can be written"))
}

#[test]
fn counters_do_not_notice_a_clock_that_jumps() {
    if !WallClock::is_possible() {
        return;
    }
    let mut story = Story::begin();
    let wall = WallClock::new(story.folder.path());
    for (begin, jumps) in [(0, [DAY, -DAY, 0]), (-DAY, [0, DAY, -DAY]), (DAY, [-DAY, 0, DAY])] {
        wall.jump(begin);
        let server = wall.give(story.server()).start();
        if !story.keys.is_empty() {
            story.look(&server);
        }
        let load = story.load(&server);
        for offset in jumps {
            wait_for_increments(&server, 50.0);
            wall.jump(offset);
            wait_for_date(&server, offset);
        }
        wait_for_increments(&server, 50.0);
        story.history.extend(load.finish());
        story.look(&server);
        assert_eq!(server.ops_get("/readyz"), (200, "ready\n".to_owned()));
        story.stop(server);
    }
    let verdict = story.judge("clocks that jump");
    assert_eq!((verdict.unknown, verdict.refused, verdict.gaps), (0, 0, 0));
}

#[test]
fn limits_do_not_notice_a_clock_that_jumps() {
    if !WallClock::is_possible() {
        return;
    }
    let story = Story::begin();
    let wall = WallClock::new(story.folder.path());
    let builder =
        story.server().flag("--tenant-rate-limit", "5/h:5").flag("--client-rate-limit", "4/s:4");
    let server = wall.give(builder).start();
    let limited =
        |result: &Result<u64, Failure>| matches!(result, Err(Failure::Refused { status: 429, .. }));
    runtime().block_on(async {
        let mut client = connect(&server).await;
        let (spent, fresh) = (
            client.register("spent", PASSWORD).await.unwrap(),
            client.register("fresh", PASSWORD).await,
        );
        for value in 2..7 {
            assert_eq!(client.increment(&spent).await.unwrap(), value);
        }
        assert!(limited(&client.increment(&spent).await), "the limit is five");
        // Forward is no refill, and back is no penalty.
        for offset in [DAY, -DAY] {
            wall.jump(offset);
            assert!(limited(&client.increment(&spent).await), "{offset} s made the limit forget");
        }
        let fresh = fresh.unwrap();
        for value in 2..7 {
            assert_eq!(client.increment(&fresh).await.unwrap(), value);
        }
        let stranger = format!("odo_{}_{}", "0".repeat(16), "0".repeat(72));
        while !limited(&client.read(&stranger).await) {}
        wall.jump(-2 * DAY);
        let until = Instant::now() + DEADLINE;
        while limited(&client.read(&stranger).await) {
            assert!(Instant::now() < until, "a clock that went back keeps the limit shut");
        }
    });
    wait_for_date(&server, -2 * DAY);
    server.stop();
}
