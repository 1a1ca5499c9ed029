//! What the tests and benches share: the running server, its clients, the workload, and the history
//! checker.
//!
//! Invariant: every server has its own folder and ports that the kernel chose, so tests run side by
//! side; everything that a test started is ended with it. It must never wait for a while instead of
//! for an event, signal a process that it did not start, or skip a test silently (`require`).
#![allow(
    dead_code,
    reason = "every test crate and every bench uses its own part of the support code"
)]

pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod ecs;
pub(crate) mod folder;
pub(crate) mod history;
#[path = "../model/mod.rs"]
pub(crate) mod model;
pub(crate) mod process;
pub(crate) mod raw_client;
pub(crate) mod segment;
pub(crate) mod server;
pub(crate) mod strict_http1;
pub(crate) mod workload;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::Path;

/// Whether the test can run here. Prints why not, or fails when `ODOMETER_REQUIRE_ALL=1` (CI)
/// forbids skipping.
pub(crate) fn require(what: &str, present: bool) -> bool {
    if !present {
        assert!(
            setting("ODOMETER_REQUIRE_ALL").as_deref() != Some("1"),
            "ODOMETER_REQUIRE_ALL=1, but this needs {what}"
        );
        say(&format!("skipped: needs {what}"));
    }
    present
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn has_loop_devices() -> bool {
    Path::new("/dev/loop-control").exists()
}

/// Whether a program of this name can be started.
pub(crate) fn has_program(name: &str) -> bool {
    let path = setting("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/sbin"]);
    places.filter(|place| !place.is_empty()).any(|place| Path::new(place).join(name).is_file())
}

/// Reads the environment of the test run; the tests' own settings all start with `ODOMETER_`.
#[expect(clippy::disallowed_methods, reason = "the settings of a test run have no other owner")]
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A number from the environment, or the default; anything else there is a mistake of the caller.
pub(crate) fn number_setting(name: &str, default: u64) -> u64 {
    setting(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"))
    })
}

/// One line for the person who runs the tests, shown even when the test passes.
pub(crate) fn say(line: &str) {
    // A closed stderr must not fail a test.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A small seeded generator (SplitMix64), so that a failing run can be repeated from its printed
/// seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of this run: `ODOMETER_SEED`, or a fresh one.
    pub(crate) fn run_seed() -> u64 {
        number_setting("ODOMETER_SEED", RandomState::new().build_hasher().finish())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// One of so many things.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).expect("smaller than a usize")
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.index(things.len())]
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}
