//! Secrets in every place that a request has, right and wrong ones: none of them is found again in
//! anything that the server writes or says.
//!
//! Job: `scenario` and `places` send them, `secret` looks for them. Searched are all log files at
//! the most verbose level, stdout and stderr of the server and of every command, `/metrics`, the
//! head and body of every answer, and all files of the data directory, of backups and of what is
//! restored from them.
//! Invariant: the same search finds what was planted on purpose in the logs, the answers, the
//! journal, the state and the backups.
//! Must never: leave out an answer because it is a success; only the value of a new key is, in the
//! one answer that shows it.
//!
//! `ODOMETER_SECRET_LEAKS_ROUNDS` (1; the long form is 10), `ODOMETER_SEED` (printed).

mod places;
mod scenario;
mod secret;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::client::Protocol;
use crate::support::command::{Ended, ended, odometer};
use crate::support::process::free_ports;
use crate::support::server::{Builder, TestServer};
use crate::support::{Random, number_setting, say};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use scenario::Scenario;
use secret::{Hit, Secrets};
use tempfile::TempDir;

const BACKUP_DEADLINE: Duration = Duration::from_secs(30);
/// Everything, but for each look at a page of the state: a million lines of page numbers, among
/// which the log would lose others.
const LEVEL: &str = "trace,sled::pagecache=debug";

#[test]
fn secrets_are_found_nowhere() {
    let (seed, rounds) = (Random::run_seed(), number_setting("ODOMETER_SECRET_LEAKS_ROUNDS", 1));
    say(&format!("secret leaks: {rounds} rounds, ODOMETER_SEED={seed}"));
    let folder = TempDir::new().expect("a temporary folder");
    let mut searched = Searched::default();
    let mut scenario = run_server(&folder, seed, rounds, &mut searched);
    let key_lines = tls_key(&folder.path().join("data/tls/key.pem"));
    key_lines.iter().for_each(|line| scenario.secrets.add("the TLS key", line.as_bytes()));

    commands(&mut scenario, &folder, &mut searched);
    let secrets = &scenario.secrets;
    let mut hits = Vec::new();
    for (place, bytes) in scenario.told.iter().chain(&searched.texts) {
        searched.bytes += bytes.len();
        hits.extend(secrets.search(place, bytes));
    }
    let files = secrets.search_folder(folder.path(), &mut hits);
    // The one file whose secret it is, in the folder and in no copy of it.
    let own = folder.path().join("data/tls/key.pem").display().to_string();
    hits.retain(|hit| hit.place != own || !hit.what.starts_with("the TLS key"));
    let (planted, hits): (Vec<_>, Vec<_>) =
        hits.into_iter().partition(|hit| hit.what.starts_with("planted"));
    say(&format!(
        "secret leaks: {} secrets in {} forms, {} answers and outputs, {files} files, {} hits, {} of what was planted",
        secrets.count(),
        secrets.forms().len(),
        scenario.told.len() + searched.texts.len(),
        hits.len(),
        planted.len(),
    ));
    assert!(hits.is_empty(), "secrets were told: {hits:#?}");
    assert_planted(&planted);
}

/// The search has to find what was put there on purpose.
fn assert_planted(planted: &[Hit]) {
    for (what, place) in [
        ("planted as a request's id", "/logs/"),
        ("planted as a request's id", "the answer to"),
        ("planted as a counter's name", "/data/journal/"),
        ("planted as a counter's name", "/data/sled/"),
        ("planted as a counter's name", "/data/backups/"),
        ("planted as a counter's name", "/asked.backup"),
        ("planted as a counter's name", "/restored/"),
        ("planted as a counter's name", "the answer to"),
        ("planted as a log file", "the output of config print"),
        ("planted as a log file", "the name of a file"),
        ("planted as a store", "the output of serve"),
    ] {
        let found =
            planted.iter().any(|hit| hit.what.starts_with(what) && hit.place.contains(place));
        assert!(found, "the search is blind: {what} was not found in {place} but in {planted:#?}");
    }
}

/// Outputs that are no answers.
#[derive(Default)]
struct Searched {
    texts: Vec<(String, Vec<u8>)>,
    bytes: usize,
}

impl Searched {
    fn add(&mut self, place: &str, text: impl Into<Vec<u8>>) {
        self.texts.push((place.to_owned(), text.into()));
    }

    fn output(&mut self, place: &str, ended: &Ended) {
        self.add(place, [&*ended.stdout, &ended.stderr].concat());
    }
}

fn builder(folder: &TempDir) -> Builder {
    let builder = TestServer::builder().data_dir(folder.path().join("data")).chosen_ports();
    let builder = builder.flag("--log-level", LEVEL).flag("--log-dir", folder.path().join("logs"));
    // Small and often, so that what is committed goes everywhere it ever goes.
    let builder =
        builder.flag("--checkpoint-interval", "100ms").flag("--journal-segment-size", "1MiB");
    builder.flag("--journal-cap", "2MiB").flag("--backup-interval", "1s")
}

/// The scenario on a running server, a backup meanwhile, and its end.
fn run_server(folder: &TempDir, seed: u64, rounds: u64, searched: &mut Searched) -> Scenario {
    let http = free_ports().0;
    let server = builder(folder).flag("--http-listen", http.to_string()).start();
    let mut scenario = Scenario::of(&server, http, Random::seeded(seed));
    let key = plant(&mut scenario);
    for round in 0..usize::try_from(rounds).expect("a small number") {
        scenario.tell(Protocol::Http1, round * 2);
        scenario.tell(Protocol::Http2, round * 2 + 1);
        server.signal(Signal::HUP);
    }
    let (_, metrics) = server.ops_get("/metrics");
    assert!(metrics.contains("odometer_auth_failures_total"), "{metrics}");
    assert!(
        metrics.contains("\nodometer_log_lines_dropped_total 0\n"),
        "lines that nobody can search: {metrics}"
    );
    searched.add("/metrics", metrics);
    let to = folder.path().join("asked.backup");
    searched.output(
        "the output of backup",
        &ended(odometer(["backup", "--data-dir"]).arg(server.data_dir()).arg("--to").arg(&to)),
    );
    assert!(to.exists(), "the backup was not made: {:?}", searched.texts.last());
    wait_for_backup(&server, &mut scenario, &key);
    scenario.hang_up();
    let written = server.stop();
    searched.add("stdout", written.log.join("\n"));
    searched.add("stderr", written.stderr);
    scenario
}

/// An automatic backup that was begun after the scenario has to be there. One is made only of what
/// is new, so something is.
fn wait_for_backup(server: &TestServer, scenario: &mut Scenario, key: &str) {
    let last = || server.metric("odometer_backup_last_success_timestamp_seconds");
    let (before, until) = (last(), Instant::now() + BACKUP_DEADLINE);
    while last() == before || last().is_none() {
        assert!(Instant::now() < until, "no automatic backup within {BACKUP_DEADLINE:?}");
        let bearer = format!("Bearer {key}");
        scenario.ask(
            Protocol::Http2,
            ("PUT", "/api/v1/integer/increment"),
            &[("authorization", &bearer)],
            "",
        );
    }
}

/// Words that the contract shows, to see that the search sees. Returns the key of who sent them.
fn plant(scenario: &mut Scenario) -> String {
    let id = scenario.secrets.word("planted as a request's id", &mut scenario.random);
    let name = scenario.secrets.word("planted as a counter's name", &mut scenario.random);
    let body = "username=planter&password=correct-horse-battery-staple-7";
    let answer = scenario.ask(
        Protocol::Http2,
        ("POST", "/users/create"),
        &[("content-type", scenario::FORM), ("x-request-id", &id)],
        body,
    );
    let key = answer.json()["data"]["attributes"]["api_key"].as_str().expect("a key").to_owned();
    let bearer = format!("Bearer {key}");
    let path = format!("/api/v1/counters?name={name}");
    let made = scenario.ask(Protocol::Http1, ("POST", &path), &[("authorization", &bearer)], "");
    assert_eq!(made.status, 201, "{}", made.text());
    key
}

/// Commands beside the server and after it, with secrets where somebody may have put them.
fn commands(scenario: &mut Scenario, folder: &TempDir, searched: &mut Searched) {
    let data = folder.path().join("data");
    let odd = scenario.secrets.word("planted as a log file", &mut scenario.random);
    let shown = folder.path().join(&odd);
    std::fs::create_dir(&shown).expect("a new folder");
    let print = ended(odometer(["config", "print", "--log-dir"]).arg(&shown));
    assert_eq!(print.code, Some(0), "{}", print.stderr);
    searched.output("the output of config print", &print);
    let word = scenario.secrets.word("planted as a store", &mut scenario.random);
    let refused = ended(odometer(["serve", "--log-level", &word, "--data-dir"]).arg(&data));
    assert_eq!(refused.code, Some(64), "{refused:?}");
    searched.output("the output of serve", &refused);
    let password = scenario.secrets.password("the password of a database", &mut scenario.random);
    let url = format!(
        "postgres://odometer:{}@localhost/odometer",
        form_urlencoded::byte_serialize(password.as_bytes()).collect::<String>()
    );
    for command in [&["config", "print"][..], &["serve"], &["healthcheck"], &["verify"]] {
        let place = format!("the output of {}", command.join(" "));
        let by_flag =
            ended(odometer(command).arg("--store").arg(&url).arg("--data-dir").arg(&data));
        let by_env =
            ended(odometer(command).env("ODOMETER_STORE", &url).arg("--data-dir").arg(&data));
        let config = folder.path().join("odometer.toml");
        std::fs::write(&config, format!("store = {url:?}\n")).expect("a new file");
        let by_file =
            ended(odometer(command).arg("--config").arg(&config).arg("--data-dir").arg(&data));
        std::fs::remove_file(&config).expect("the file is there");
        for ended in [by_flag, by_env, by_file] {
            assert_ne!(ended.code, Some(0), "{place}");
            searched.output(&place, &ended);
        }
    }
    let (cold, restored) = (folder.path().join("cold.backup"), folder.path().join("restored"));
    for mut command in [odometer(["verify"]), odometer(["backup"])] {
        if command.get_args().next().is_some_and(|name| name == "backup") {
            command.arg("--to").arg(&cold);
        }
        let ended = ended(command.arg("--data-dir").arg(&data));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        searched.output("the output of verify and backup", &ended);
    }
    let ended = ended(odometer(["restore", "--from"]).arg(&cold).arg("--data-dir").arg(&restored));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    searched.output("the output of restore", &ended);
}

/// The lines of a private key that are its secret, long enough to be told from chance.
fn tls_key(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("the server made its own certificate");
    // The first line is the same for all keys of a kind.
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with('-') && line.len() >= 24)
        .skip(1)
        .map(str::to_owned)
        .collect();
    assert!(!lines.is_empty(), "no key in {}", file.display());
    lines
}

/// The search finds every form of a secret wherever it stands, written by others than the search
/// itself.
#[test]
fn the_search_finds_each_form() {
    let mut random = Random::seeded(Random::run_seed());
    let mut secrets = Secrets::none();
    let password = secrets.password("password", &mut random);
    let key = format!("odo_0123456789abcdef_{}00000000", "9f".repeat(32));
    secrets.key("key", &key);
    let quoted: String = form_urlencoded::byte_serialize(password.as_bytes()).collect();
    let hex: String = password.bytes().map(|byte| format!("{byte:02X}")).collect();
    let percent: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut texts = vec![
        password.clone(),
        password.to_uppercase(),
        quoted,
        hex,
        percent,
        serde_json::json!(password).to_string(),
    ];
    texts.extend(
        ["", "a", "ab", "abc", "name:"]
            .map(|before| STANDARD.encode(format!("{before}{password}"))),
    );
    texts.extend([
        key.clone(),
        key[21..53].to_owned(),
        key[53..85].to_uppercase(),
        STANDARD.encode(&key),
    ]);
    texts.push(format!("{key:?}"));
    for text in texts {
        for (front, end) in [("", ""), ("x", "y"), ("\u{0}\u{0}", "\u{0}")] {
            let hits = secrets.search("here", format!("{front}{text}{end}").as_bytes());
            assert!(!hits.is_empty(), "blind for {text}");
        }
    }
    let bytes = [&[0x9f; 32][..], b"behind"].concat();
    assert!(
        !secrets.search("here", &[b"before", &bytes[..]].concat()).is_empty(),
        "blind for the key's bytes"
    );
    for (form, what) in secrets.forms() {
        let hits = secrets.search("here", &[b"in front ", &form[..], b" behind"].concat());
        assert!(hits.iter().any(|hit| hit.what == *what), "blind for {what}");
    }
    let nothing = "nothing of that: odo_0123456789abcdef_ correct-horse-battery-staple";
    assert_eq!(secrets.search("here", nothing.as_bytes()), []);
}
