//! The campaign of planted faults: each failpoint of `src` must turn its test red.
//!
//! Job: build the tests once with the feature `failpoints`, run the test of each failpoint without
//! a fault, where it must pass, and with the fault, where it must fail.
//!
//! ```sh
//! cargo test --features failpoints --test failpoints             # all of them, once
//! ODOMETER_FAILPOINT_RUNS=3 cargo test --features failpoints --test failpoints -- journal- key-
//! ```
//!
//! Invariant: a fault counts as caught if its test ran and an assertion failed; a test that hangs,
//! or that no name matches, does not count.
//! Must never: plant a fault in a process that it did not start.

mod registry;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use registry::Failpoint;
use support::{number_setting, say};

/// Seconds after which a test counts as hanging.
const HANGS_AFTER: &str = "300";

/// A test target and a part of a test's path.
type TestName = (&'static str, &'static str);

fn main() -> ExitCode {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let chosen: Vec<&Failpoint> = registry::all()
        .filter(|point| wanted.is_empty() || wanted.iter().any(|part| point.name.contains(part)))
        .collect();
    let runs = number_setting("ODOMETER_FAILPOINT_RUNS", 1);
    let executables = build();

    let tests: BTreeSet<TestName> = chosen.iter().map(|point| point.seen_by).collect();
    let mut jobs: Vec<(TestName, Option<&Failpoint>)> =
        tests.into_iter().map(|test| (test, None)).collect();
    for _ in 0..runs {
        jobs.extend(chosen.iter().map(|point| (point.seen_by, Some(*point))));
    }
    let wrong = run_all(jobs, &executables);
    say(&format!("{} faults, {runs} runs each: {} wrong", chosen.len(), wrong.len()));
    for line in &wrong {
        say(&format!("  {line}"));
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Builds every test with faults in it. Returns the executable of each test target.
fn build() -> BTreeMap<String, PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--no-run", "--locked", "--features", "failpoints"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "the tests do not build with the feature failpoints");
    let messages = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    messages.lines().filter_map(executable).collect()
}

/// The test executable that one of cargo's messages is about.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    if message["profile"]["test"] != true {
        return None;
    }
    let target = &message["target"];
    let is_lib = target["kind"][0] == "lib";
    let name = if is_lib { "lib" } else { target["name"].as_str()? };
    // The binary has unit tests of its own, under the name of the library.
    (target["kind"][0] != "bin").then(|| (name.to_owned(), PathBuf::from(path)))
}

/// Runs the jobs, two at a time since most of them wait for a disk. Returns what was wrong.
fn run_all(
    jobs: Vec<(TestName, Option<&'static Failpoint>)>,
    executables: &BTreeMap<String, PathBuf>,
) -> Vec<String> {
    let (queue, wrong) = (Mutex::new(jobs.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((test, point)) = { queue.lock().expect("no panic").next() } {
                    let executable = executables.get(test.0);
                    let executable = executable.expect("the registry names a test target");
                    if let Err(reason) = run(executable, test, point) {
                        wrong.lock().expect("no panic").push(reason);
                    }
                }
            });
        }
    });
    wrong.into_inner().expect("no panic")
}

/// Runs one test, with the fault or without, and prints a line.
///
/// # Errors
/// The test did not do what it must.
fn run(executable: &Path, test: TestName, point: Option<&Failpoint>) -> Result<(), String> {
    let begun = Instant::now();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", HANGS_AFTER]).arg(executable).arg(test.1);
    // A skipped test sees nothing.
    command.env("ODOMETER_REQUIRE_ALL", "1");
    command.env_remove("FAILPOINT").current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(point) = point {
        command.env("FAILPOINT", point.name);
    }
    let output = command.output().expect("timeout runs");
    let log = String::from_utf8_lossy(&output.stdout);
    let verdict = match (point, output.status.code()) {
        (_, Some(0)) if log.contains("running 0 tests") => Err("no test has that name"),
        (None, Some(0)) => Ok("passes"),
        (None, _) => Err("fails without a fault"),
        (Some(_), Some(101)) if log.contains("test result: FAILED") => Ok("caught"),
        (Some(_), Some(0)) => Err("NOT SEEN"),
        (Some(_), Some(124 | 137)) => Err("hangs"),
        (Some(_), _) => Err("ended in another way than by a failed test"),
    };
    let name = point.map_or("(no fault)", |point| point.name);
    let what = verdict.unwrap_or_else(|what| what);
    let seconds = begun.elapsed().as_secs_f64();
    say(&format!("{name:<48} {}::{} {what} ({seconds:.1} s)", test.0, test.1));
    let fault = point.map_or("", |point| point.fault);
    verdict.map(|_| ()).map_err(|what| format!("{name}: {}::{} {what}. {fault}", test.0, test.1))
}
