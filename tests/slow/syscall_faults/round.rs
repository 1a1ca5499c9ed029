//! One round: a server whose n-th call fails, what its clients were told, how it ended, and what
//! the next start serves.
//!
//! Invariant: whatever the fault, nothing that was acknowledged is lost or answered twice, nothing
//! hangs, a process that gives up says so by its exit code, and the next start without a fault
//! works.
//! Must never: panic about the server, or the rest of the campaign would be lost; what is wrong is
//! collected in [`Round::violations`].

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::plan::{Phase, STAT, Target};
use super::scenario::Scenario;
use crate::faults::strace::Trace;
use crate::support::server::{Builder, Keep, TestServer};
use crate::support::workload::{register, runtime};

/// Nothing may take longer.
const HANG: Duration = Duration::from_secs(10);
/// From a failure that is not survived to the end of the process.
const EXIT_SECONDS: f64 = 2.0;
const FILL_LIMIT: Duration = Duration::from_secs(60);
const SEGMENT_BYTES: u64 = 1 << 20;
const TENANTS: usize = 24;
const LITTLE: usize = 20;
const MUCH: usize = 1_000;

/// How the faulty run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Refused,
    Poisoned,
    Unharmed,
}

/// What came of a round.
#[derive(Debug)]
pub(crate) struct Round {
    /// Nothing: the server makes fewer such calls.
    pub(crate) end: Option<End>,
    /// From the failed call to the end of a process that was poisoned by it.
    pub(crate) seconds: Option<f64>,
    pub(crate) violations: Vec<String>,
}

/// A folder that a killed server left, and what its clients were told.
#[derive(Debug)]
pub(crate) struct Template {
    folder: TempDir,
    scenario: Scenario,
}

fn server_on(data_dir: &Path) -> Builder {
    let builder = TestServer::builder().data_dir(data_dir).keep(Keep::Problems);
    builder
        .flag("--checkpoint-interval", "100ms")
        .flag("--journal-segment-size", SEGMENT_BYTES.to_string())
        .flag("--drain-timeout", "3s")
}

impl Template {
    pub(crate) fn make() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let server = server_on(&folder.path().join("data")).start();
        let keys = runtime().block_on(register(&server.endpoint(), "calls", TENANTS));
        let mut scenario = Scenario::with_keys(keys);
        scenario.load(&server, 8, 1, &|told| told >= 200);
        server.kill();
        scenario.end_of_process();
        Self { folder, scenario }
    }

    fn copy(&self, phase: Phase, to: &Path) -> Scenario {
        if phase == Phase::FirstStart {
            return Scenario::with_keys(Vec::new());
        }
        crate::support::folder::copy(&self.folder.path().join("data"), to);
        self.scenario.clone()
    }
}

/// Runs one round.
pub(crate) fn run(
    template: &Template,
    target: &Target,
    how: &'static str,
    nth: u64,
    seed: u64,
) -> Round {
    let folder = TempDir::new().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let mut scenario = template.copy(target.phase, &data_dir);
    let mut faulty = Faulty {
        trace: folder.path().join("trace"),
        data_dir,
        violations: Vec::new(),
        seconds: None,
    };
    let end = faulty.run(&mut scenario, target, how, nth, seed);
    scenario.end_of_process();
    let mut violations = faulty.violations;
    if end.is_some() {
        violations.extend(afterwards(&faulty.data_dir, &mut scenario).err());
        violations.extend(
            scenario.judge().violations.iter().map(|violation| format!("history: {violation:?}")),
        );
    }
    Round { end, seconds: faulty.seconds, violations }
}

/// The run with the fault.
struct Faulty {
    data_dir: PathBuf,
    trace: PathBuf,
    seconds: Option<f64>,
    violations: Vec<String>,
}

impl Faulty {
    fn run(
        &mut self,
        scenario: &mut Scenario,
        target: &Target,
        how: &'static str,
        nth: u64,
        seed: u64,
    ) -> Option<End> {
        let fault = target.fault(how, nth, &self.data_dir);
        let attaches = matches!(target.phase, Phase::Running | Phase::Rolling);
        let builder = server_on(&self.data_dir);
        let builder = if attaches { builder } else { builder.wrapper(fault.wrapper(&self.trace)) };
        let mut server = builder.spawn();
        let ready = server.wait_ready(HANG);
        let mut attached = None;
        if ready.is_ok() {
            if target.phase == Phase::Rolling {
                // Without strace, which would take a minute for it.
                scenario
                    .load_within(FILL_LIMIT, &server, 8, seed, &|_| is_almost_full(&self.data_dir));
            }
            let pid = server.pid();
            attached =
                attaches.then(|| fault.attach(pid.expect("a ready server runs"), &self.trace));
            self.use_it(scenario, &server, target.phase, seed);
            self.settle(&mut server, scenario);
        }
        let status = server.wait_exit(HANG);
        let transcript = told(&server);
        let Some(status) = status else {
            self.violations.push(format!("it hangs: {ready:?}\n{transcript}"));
            server.kill();
            return Some(End::Unharmed);
        };
        if let Some(attached) = attached {
            attached.finish();
        }
        let trace = Trace::read(&self.trace);
        let written = server.written();
        let poisoned = !written.actions("poison").is_empty();
        let mut wrong = |what: &str| {
            let calls = trace.injected.join("\n");
            self.violations
                .push(format!("{what} ({status})\n--- failed calls\n{calls}\n{transcript}"));
        };
        if trace.injected.is_empty() {
            if ready.is_err() || !status.success() {
                wrong("without any fault it failed");
            }
            return None;
        }
        self.seconds = trace.seconds_to_end.filter(|_| poisoned);
        let slow = trace.seconds_to_end.is_none_or(|seconds| seconds > EXIT_SECONDS);
        if ready.is_err() {
            // The standard library takes a file that cannot be looked at for one that is not
            // there; so the reason is then another one.
            let reasons: &[&str] = if target.calls == STAT { &[""] } else { &REASONS };
            if !says_why(&written.stderr, &self.data_dir, reasons) || status.code() != Some(1) {
                wrong(
                    "a start that was refused does not say so in one line with file and reason, and exit code 1",
                );
            }
            return Some(End::Refused);
        }
        if poisoned && status.code() != Some(1) {
            wrong("poisoned, but the exit code does not say so");
        } else if poisoned && slow {
            wrong(&format!("poisoned, and gone only {:?} s later", trace.seconds_to_end));
        } else if !poisoned && !status.success() {
            wrong("it failed without saying why");
        }
        if written.stderr.contains("panicked") {
            wrong("a panic");
        }
        Some(if poisoned { End::Poisoned } else { End::Unharmed })
    }

    /// Load, until enough was done or nothing can be done any more.
    fn use_it(&mut self, scenario: &mut Scenario, server: &TestServer, phase: Phase, seed: u64) {
        if scenario.keys.is_empty() {
            scenario.register(&server.endpoint(), "first");
        }
        let segment = newest_segment(&self.data_dir);
        match phase {
            Phase::FirstStart | Phase::LaterStart => {
                scenario.load(server, 2, seed, &|told| told >= LITTLE)
            }
            Phase::Running => scenario.load(server, 8, seed, &|told| told >= MUCH),
            Phase::Rolling => {
                scenario.load(server, 8, seed, &|_| newest_segment(&self.data_dir) > segment);
                scenario.load(server, 4, seed, &|told| told >= 4 * LITTLE);
            }
        }
    }

    /// After the load the server is ready, changes go on, and it stops when told to; or it ends by
    /// itself.
    fn settle(&mut self, server: &mut TestServer, scenario: &mut Scenario) {
        let until = Instant::now() + HANG;
        let mut last = None;
        while server.wait_exit(Duration::from_millis(5)).is_none() {
            last = server.try_ops("/readyz").or(last);
            if last.as_ref().is_some_and(|(status, _)| *status == 200) {
                let before = scenario.acknowledged();
                scenario.load(server, 1, 0, &|told| told >= 2);
                let still_ready =
                    server.try_ops("/readyz").is_some_and(|(status, _)| status == 200);
                if scenario.acknowledged() == before && still_ready && scenario.keys.len() > 1 {
                    self.violations
                        .push(format!("ready, but it changes nothing\n{}", told(server)));
                }
                break;
            }
            if Instant::now() > until {
                self.violations.push(format!(
                    "it neither recovers nor ends: /readyz {last:?}\n{}",
                    told(server)
                ));
                break;
            }
        }
        server.signal(Signal::TERM);
    }
}

/// What the server wrote, without the lines of single requests and without the length of a stack.
fn told(server: &TestServer) -> String {
    const SHOWN: usize = 400;
    let short = |line: &str| line.chars().take(SHOWN).collect::<String>();
    let transcript = server.transcript();
    let lines = transcript.lines().filter(|line| !line.contains("odometer::access")).map(short);
    lines.collect::<Vec<_>>().join("\n")
}

/// What the faults are called in messages.
const REASONS: [&str; 3] =
    ["Input/output error", "No space left on device", "failed to write whole buffer"];

/// One line, ours, with the folder and what the system said.
fn says_why(stderr: &str, data_dir: &Path, reasons: &[&str]) -> bool {
    stderr.lines().count() == 1
        && stderr.starts_with("odometer: ")
        && stderr.contains(&data_dir.display().to_string())
        && reasons.iter().any(|reason| stderr.contains(reason))
}

/// The number of the newest journal segment.
fn newest_segment(data_dir: &Path) -> u64 {
    let entries =
        fs::read_dir(data_dir.join("journal")).into_iter().flatten().filter_map(Result::ok);
    let numbers = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".journal")?.parse().ok());
    numbers.max().unwrap_or(0)
}

/// Whether frames have come close to the end of the newest journal segment, which is written ahead
/// with zeros.
fn is_almost_full(data_dir: &Path) -> bool {
    let path = data_dir.join(format!("journal/{:020}.journal", newest_segment(data_dir)));
    let mut bytes = [0; 4096];
    let read =
        fs::File::open(path).and_then(|file| file.read_at(&mut bytes, SEGMENT_BYTES - 3 * 4096));
    read.is_ok_and(|length| bytes[..length].iter().any(|byte| *byte != 0))
}

/// The next start has no fault: it works, and its values are part of the history.
fn afterwards(data_dir: &Path, scenario: &mut Scenario) -> Result<(), String> {
    let mut server = server_on(data_dir).spawn();
    let failed =
        |what: &str, server: &TestServer| Err(format!("the next start: {what}\n{}", told(server)));
    if let Err(reason) = server.wait_ready(HANG) {
        if server.wait_exit(Duration::from_secs(1)).is_some() {
            // Once it has ended, all that it wrote is collected.
            server.written();
        }
        return failed(&reason, &server);
    }
    if scenario.keys.len() < 2 {
        scenario.register(&server.endpoint(), "again");
    }
    let failure = runtime().block_on(scenario.read_all(&server.endpoint()));
    if let Some(failure) = failure {
        return failed(&format!("an acknowledged key or value is not there: {failure:?}"), &server);
    }
    let before = scenario.acknowledged();
    scenario.load(&server, 2, 0, &|told| told >= LITTLE);
    if scenario.acknowledged() == before {
        return failed("it changes nothing", &server);
    }
    server.signal(Signal::TERM);
    match server.wait_exit(HANG) {
        Some(status) if status.success() => {}
        status => return failed(&format!("it does not stop cleanly: {status:?}"), &server),
    }
    scenario.end_of_process();
    Ok(())
}
