//! What is made of a damaged folder: look, start, read everything, change something, end, start
//! again.
//!
//! Job: [`examine`] for a folder that somebody damaged; [`run`] damages one as its generator says.
//!
//! Invariant: every counter is read over TLS in every life that serves, and the outcome is the
//! worst of all that was seen.
//! Must never: wait without a limit; take a connection that broke for a refusal.
//!
//! `verify` opens sled as a start does, and sled changes its files when it opens them. So in half
//! of the rounds it looks at a copy of its own.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::folder::{self, Class};
use super::mutate::{Kind, Mutation, mutate};
use super::seeds::{self, NAME, Seed};
use crate::support::Random;
use crate::support::client::{Client, Failure, Protocol};
use crate::support::process::open_pidfd;
use crate::support::server::{STOP_DEADLINE, TestServer, binary};
use crate::support::workload::{PASSWORD, runtime};

/// A start or a look that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(10);

/// What became of a damaged folder, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Right,
    /// Right, and the look or the start said that something was mended or torn.
    Rebuilt,
    /// Met only while it served: an error or none, never a wrong value, then an end with one line,
    /// and the next start mended it.
    RebuiltLater,
    Refused,
    /// Served right, changed, and refused or stopped with one line after that.
    RefusedLater,
    /// The journal ends before the damage, which looks like a crash.
    Inherent,
    /// Served, but some counters answer an error.
    Unreadable,
    /// `verify` said that it is sound and the start refused it, or the other way round.
    Inconsistent,
    /// Refused with no line or more than one, or with one that does not say what is wrong.
    Mute,
    Crash,
    Hang,
    /// A name or a number was given a second time.
    Identity,
    /// A key is not known any more.
    Missing,
    OtherValue,
    Older,
}

impl Outcome {
    /// Whether the promise is kept.
    pub(crate) fn is_allowed(self) -> bool {
        self <= Self::Inherent
    }
}

/// A round's outcome and the words to it.
#[derive(Clone, Debug)]
pub(crate) struct RoundResult {
    pub(crate) seed: String,
    pub(crate) mutation: Mutation,
    pub(crate) outcome: Outcome,
    pub(crate) detail: String,
    pub(crate) panicked: bool,
}

/// What [`examine`] found.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) detail: String,
    panicked: bool,
    /// How the look ended, and what it said.
    pub(crate) code: Option<i32>,
    pub(crate) words: String,
    /// The events of the first start, and of the second, that tell of a state that was rebuilt.
    pub(crate) rebuilt: [Vec<Value>; 2],
}

/// How one life of the server went.
struct Life {
    outcome: Outcome,
    detail: String,
    panicked: bool,
    rebuilt: [Vec<Value>; 2],
}

impl Life {
    fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { outcome, detail: detail.into(), panicked: false, rebuilt: Default::default() }
    }
}

/// How a folder is examined.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// The look has a copy of its own.
    pub(crate) apart: bool,
    /// The counter that the first life increments.
    pub(crate) changed: usize,
    /// The first life is ended by SIGKILL and not in order.
    pub(crate) kill: bool,
}

/// What the counters may be.
struct Expected<'a> {
    values: &'a [u64],
    /// The other legal values, if the damage is of the kind that nobody can see.
    before: Option<&'a [u64]>,
}

/// Runs a round in the empty folder `place`. `what` is damaged, if it is there.
pub(crate) fn run(
    seed: &Seed,
    place: &Path,
    what: (Option<Class>, Option<Kind>),
    random: &mut Random,
) -> RoundResult {
    let data = place.join("data");
    folder::copy(&seed.store(), &data);
    let mutation = mutate(seed, &data, what, random);
    let apart = random.index(2) == 0;
    let before = mutation.end_like_a_crash(seed).and_then(|stretch| {
        seeds::values_of(
            &seed.store(),
            &place.join("shorter"),
            &seed.keys,
            Some((&mutation.file.path, stretch)),
        )
    });
    let plan = Plan { apart, changed: random.index(seed.keys.len()), kill: random.index(2) == 0 };
    let Verdict { outcome, detail, panicked, code, words, .. } =
        examine(seed, place, before.as_deref(), plan);
    let apart = if plan.apart { " on a copy" } else { "" };
    let detail = format!("verify{apart} {code:?} {words:?}; {detail}");
    RoundResult { seed: seed.name.clone(), mutation, outcome, detail, panicked }
}

/// Looks at the copy of `seed` that was damaged in `place`, at `data`, and uses it. `before` are
/// other values that are right as well.
pub(crate) fn examine(seed: &Seed, place: &Path, before: Option<&[u64]>, plan: Plan) -> Verdict {
    let data = place.join("data");
    let looked_at = if plan.apart { place.join("looked-at") } else { data.clone() };
    if plan.apart {
        folder::copy(&data, &looked_at);
    }
    let (code, words) = look(&looked_at, place);
    let life = lives(seed, &data, &Expected { values: &seed.values, before }, plan);
    let mut outcome = judge(code, &words, life.outcome);
    if matches!(code, None | Some(101)) {
        outcome = outcome.max(if code.is_none() && words == "hang" {
            Outcome::Hang
        } else {
            Outcome::Crash
        });
    }
    let panicked = life.panicked || words.contains("panicked");
    Verdict { outcome, detail: life.detail, panicked, code, words, rebuilt: life.rebuilt }
}

/// The outcome of the lives and the code of the look together.
fn judge(code: Option<i32>, words: &str, outcome: Outcome) -> Outcome {
    let sound = matches!(code, Some(0 | 3));
    match outcome {
        Outcome::Refused if sound => Outcome::Inconsistent,
        Outcome::RebuiltLater if code == Some(0) => Outcome::Inconsistent,
        Outcome::Right | Outcome::Rebuilt | Outcome::RebuiltLater | Outcome::RefusedLater
            if !sound =>
        {
            Outcome::Inconsistent
        }
        Outcome::Right if code == Some(3) || words.contains("unreadable frame") => Outcome::Rebuilt,
        other => other,
    }
}

/// Fails unless an undamaged copy is found sound and served as it is, through a kill and through a
/// stop.
pub(crate) fn assert_sound(seed: &Seed, place: &Path) {
    let data = place.join("data");
    folder::copy(&seed.store(), &data);
    let (code, words) = look(&data, place);
    assert_eq!(code, Some(0), "{}: {words}", seed.name);
    for kill in [false, true] {
        let copy = place.join(format!("copy-{kill}"));
        folder::copy(&seed.store(), &copy);
        let expected = Expected { values: &seed.values, before: None };
        let life = lives(seed, &copy, &expected, Plan { apart: false, changed: 0, kill });
        assert_eq!(life.outcome, Outcome::Right, "{}: {}", seed.name, life.detail);
    }
}

/// `odometer verify`: its exit code and what it said.
fn look(data: &Path, place: &Path) -> (Option<i32>, String) {
    let said = place.join("verify.txt");
    let output = File::create(&said).unwrap();
    let mut command = Command::new(binary().canonicalize().unwrap());
    command.args(["verify", "--data-dir"]).arg(data).current_dir(place);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ODOMETER_"))
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let mut child = command.spawn().unwrap();
    let pidfd = open_pidfd(child.id()).unwrap();
    let limit = Timespec::try_from(DEADLINE).unwrap();
    let ended =
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).is_ok_and(|count| count == 1);
    if !ended {
        child.kill().unwrap();
    }
    let code = child.wait().unwrap().code();
    let words = String::from_utf8_lossy(&fs::read(&said).unwrap()).trim().replace('\n', " | ");
    if ended { (code, words) } else { (None, "hang".to_owned()) }
}

/// Two lives: read, change, end; then read again.
fn lives(seed: &Seed, data: &Path, expected: &Expected<'_>, plan: Plan) -> Life {
    let Plan { changed, kill, .. } = plan;
    let mut server = match begin(data) {
        Ok(server) => server,
        Err(life) => return life,
    };
    let mut life = read_all(&server, seed, expected);
    let mut values = expected.values.to_vec();
    if life.outcome == Outcome::Inherent {
        values = expected.before.unwrap_or_default().to_vec();
    }
    if matches!(life.outcome, Outcome::Right | Outcome::Inherent) {
        values[changed] += 1;
        let probed = runtime().block_on(probe(&server, seed, changed, values[changed]));
        life = probed.map_or_else(|worse| worse, |()| life);
    }
    life.panicked |= server.log().iter().any(|line| line.contains("panicked"));
    if !matches!(life.outcome, Outcome::Right | Outcome::Inherent) {
        return mended(server, life, seed, data, expected, changed);
    }
    let counted = server.metric("odometer_state_rebuilds_total");
    let written = if kill {
        server.kill()
    } else {
        server.signal(Signal::TERM);
        let status = server.wait_exit(STOP_DEADLINE);
        if !status.is_some_and(|status| status.success()) {
            return after_all(ended_badly(server, status));
        }
        server.written()
    };
    life.rebuilt[0] = written.actions("state-rebuilt");
    if counted != Some(life.rebuilt[0].len() as f64) {
        return Life::new(
            Outcome::Inconsistent,
            format!("{counted:?} rebuilds are counted: {:?}", life.rebuilt[0]),
        );
    }
    let server = match begin(data) {
        Ok(server) => server,
        Err(again) => return after_all(again),
    };
    let again = read_all(&server, seed, &Expected { values: &values, before: None });
    life.rebuilt[1] = server.kill().actions("state-rebuilt");
    if again.outcome == Outcome::Right {
        return life;
    }
    Life {
        detail: format!(
            "after {} of the first life: {}",
            if kill { "a kill" } else { "a stop" },
            again.detail
        ),
        ..again
    }
}

/// A life that met damage: if it answered nothing wrong and ended by itself with 1, the next one
/// decides.
fn mended(
    mut server: TestServer,
    life: Life,
    seed: &Seed,
    data: &Path,
    expected: &Expected<'_>,
    changed: usize,
) -> Life {
    let ended = server.wait_exit(DEADLINE);
    let honest =
        life.outcome < Outcome::Identity && ended.is_some_and(|status| status.code() == Some(1));
    if !honest || server.written().actions("poison").is_empty() {
        server.kill();
        return life;
    }
    let server = match begin(data) {
        Ok(server) => server,
        Err(again) => {
            return Life { detail: format!("{}; then {}", life.detail, again.detail), ..again };
        }
    };
    let mut again = read_all(&server, seed, expected);
    if again.outcome != Outcome::Right {
        // The increment may have happened before the damage was met.
        let mut values = expected.values.to_vec();
        values[changed] += 1;
        again = read_all(&server, seed, &Expected { values: &values, before: None });
    }
    server.kill();
    if again.outcome == Outcome::Right {
        again.outcome = Outcome::RebuiltLater;
    }
    Life { detail: format!("{}; then {}", life.detail, again.detail), ..again }
}

/// A refusal that came only after the folder was served right.
fn after_all(life: Life) -> Life {
    let outcome =
        if life.outcome == Outcome::Refused { Outcome::RefusedLater } else { life.outcome };
    Life { outcome, detail: format!("served right at first, then: {}", life.detail), ..life }
}

fn begin(data: &Path) -> Result<TestServer, Life> {
    let server = TestServer::builder()
        .data_dir(data)
        .flag("--journal-segment-size", "1MiB")
        .flag("--workers", "1");
    let mut server = server.spawn();
    match server.wait_ready(DEADLINE) {
        Ok(()) => Ok(server),
        Err(_) => {
            // A closed output comes a moment before the end of the process.
            let status = server.wait_exit(Duration::from_secs(1));
            Err(ended_badly(server, status))
        }
    }
}

/// A start or a stop that went wrong: with an exit code and one line, or worse.
fn ended_badly(mut server: TestServer, status: Option<ExitStatus>) -> Life {
    let Some(status) = status else {
        let shown = server.transcript();
        server.kill();
        return Life::new(Outcome::Hang, format!("neither ready nor ended: {shown}"));
    };
    let written = server.written();
    let panicked = written.stderr.contains("panicked")
        || written.log.iter().any(|line| line.contains("panicked"));
    let lines: Vec<&str> =
        written.stderr.lines().filter(|line| line.starts_with("odometer: ")).collect();
    let names = |line: &str| {
        ["journal", "sled", "FORMAT", "of a format", "commits are missing"]
            .iter()
            .any(|word| line.contains(word))
    };
    let outcome = match (status.code(), lines.as_slice()) {
        (None | Some(101), _) => Outcome::Crash,
        (Some(1), [line]) if names(line) => Outcome::Refused,
        _ => Outcome::Mute,
    };
    Life {
        panicked,
        ..Life::new(outcome, format!("{status}: {}", written.stderr.trim().replace('\n', " | ")))
    }
}

/// Reads every counter over one connection.
fn read_all(server: &TestServer, seed: &Seed, expected: &Expected<'_>) -> Life {
    let answers = runtime().block_on(async {
        let Ok(mut client) = server.endpoint().connect(Protocol::Http1).await else {
            return Vec::new();
        };
        let mut answers = Vec::new();
        for key in &seed.keys {
            let answer = client.read(key).await;
            let go_on = answer.as_ref().err().is_none_or(Failure::is_answer);
            answers.push(answer);
            if !go_on {
                break;
            }
        }
        answers
    });
    let values: Vec<u64> =
        answers.iter().filter_map(|answer| answer.as_ref().ok().copied()).collect();
    if values == expected.values {
        return Life::new(Outcome::Right, "served right");
    }
    if expected.before.is_some_and(|before| values == before) {
        return Life::new(Outcome::Inherent, "served without the last frame");
    }
    if answers.is_empty() {
        return Life::new(Outcome::Hang, "ready, but takes no connection");
    }
    let seen = answers.iter().zip(expected.values).enumerate();
    let wrong: Vec<(Outcome, String)> = seen
        .filter(|(_, (answer, value))| answer.as_ref().ok() != Some(*value))
        .map(|(index, (answer, value))| {
            (weigh(answer, *value), format!("counter {index}: {answer:?}, not {value}"))
        })
        .collect();
    let outcome = wrong.iter().map(|(outcome, _)| *outcome).max().unwrap_or(Outcome::Crash);
    let first =
        wrong.iter().find(|(worst, _)| *worst == outcome).map_or("", |(_, words)| words.as_str());
    Life::new(
        outcome,
        format!("{} of {} counters are wrong; {first}", wrong.len(), seed.keys.len()),
    )
}

fn weigh(answer: &Result<u64, Failure>, expected: u64) -> Outcome {
    match answer {
        Ok(value) if *value < expected => Outcome::Older,
        Ok(_) => Outcome::OtherValue,
        Err(Failure::Refused { status: 401, .. }) => Outcome::Missing,
        Err(failure) if failure.is_answer() => Outcome::Unreadable,
        Err(Failure::Unknown(reason)) if reason.starts_with("no answer") => Outcome::Hang,
        Err(_) => Outcome::Crash,
    }
}

/// One increment, a new tenant, and a name that is taken: the records that reads do not look at.
async fn probe(server: &TestServer, seed: &Seed, changed: usize, value: u64) -> Result<(), Life> {
    let connected = server.endpoint().connect(Protocol::Http1).await;
    let mut client =
        connected.map_err(|error| Life::new(Outcome::Crash, format!("no connection: {error}")))?;
    let incremented = client.increment(&seed.keys[changed]).await;
    if incremented.as_ref().ok() != Some(&value) {
        let detail =
            format!("an increment of counter {changed} answered {incremented:?}, not {value}");
        return Err(Life::new(weigh(&incremented, value), detail));
    }
    let (status, _) = registered(&mut client, &format!("{NAME}-{changed}")).await?;
    if status != 422 {
        return Err(Life::new(name_or_error(status), format!("a name that is taken: {status}")));
    }
    let (status, id) = registered(&mut client, "somebody-new").await?;
    let next = (seed.keys.len() + 1).to_string();
    if status != 200 || id.as_deref() != Some(next.as_str()) {
        return Err(Life::new(
            name_or_error(status),
            format!("a new tenant: {status} {id:?}, not {next}"),
        ));
    }
    Ok(())
}

fn name_or_error(status: u16) -> Outcome {
    if status == 200 { Outcome::Identity } else { Outcome::Unreadable }
}

async fn registered(client: &mut Client, name: &str) -> Result<(u16, Option<String>), Life> {
    let body = json!({ "username": name, "password": PASSWORD }).to_string();
    let answer = client
        .request("POST", "/users/create", &[("content-type", "application/json")], body)
        .await;
    let answer = answer
        .map_err(|failure| Life::new(weigh(&Err(failure), 0), "a registration was not answered"))?;
    let id = match &answer.json()["data"]["id"] {
        Value::String(id) => Some(id.clone()),
        _ => None,
    };
    Ok((answer.status, id))
}
