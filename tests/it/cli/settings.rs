//! Where a setting comes from, and what the binary says of itself.
//!
//! Invariant: what `config print` shows is what the server does.
//! Must never: check a parser; those have tests of their own.

use std::process::{Command, Stdio};

use super::{Place, ended};
use crate::support::client::{Failure, Protocol};
use crate::support::server::TestServer;
use crate::support::workload::{PASSWORD, runtime};
use crate::support::{has_program, require};

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let place = Place::new();
    place.file("odometer.toml", "log_keep = 3\nworkers = 3\ncache_records = 3000\n");
    let other = place.file("other.toml", "log_keep = 4\n");
    let print = |arguments: &[&str], env: &[(&str, &str)]| {
        let mut command = place.command(["config", "print"]);
        ended(command.args(arguments).envs(env.iter().copied())).succeeded()
    };
    let has = |text: &str, line: &str| {
        assert!(text.lines().any(|printed| printed == line), "no {line:?} in\n{text}")
    };
    let all = print(&["--log-keep", "1"], &[("ODOMETER_LOG_KEEP", "2"), ("ODOMETER_WORKERS", "2")]);
    has(&all, "log_keep = 1  # flag --log-keep");
    has(&all, "workers = 2  # env ODOMETER_WORKERS");
    has(&all, "cache_records = 3000  # file ./odometer.toml");
    has(&all, "checkpoint_interval = \"30s\"  # default");
    let named = print(&["--config", "other.toml"], &[("ODOMETER_CONFIG", "none.toml")]);
    has(&named, "log_keep = 4  # file other.toml");
    has(&named, "workers = \"auto\"  # default");
    let by_env =
        print(&[], &[("ODOMETER_CONFIG", other.to_str().unwrap()), ("ODOMETER_WORKERS", "")]);
    has(&by_env, &format!("log_keep = 4  # file {}", other.display()));
    has(&by_env, "workers = \"auto\"  # default");

    // What is printed is a file of settings, and means the same.
    let without_origins = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect()
    };
    let printed = place.file("printed.toml", &all);
    let again = print(&["--config", "printed.toml"], &[]);
    assert_eq!(without_origins(&again), without_origins(&all));
    assert_eq!(
        again.matches("  # file printed.toml").count(),
        again.matches(" = ").count(),
        "{again}"
    );
    let data_dir = place.path("data");
    TestServer::builder().flag("--config", printed).data_dir(data_dir).start().stop();
}

#[test]
fn the_server_obeys_the_layers() {
    let place = Place::new();
    let file = place.file("o.toml", "tenant_rate_limit = \"1/h:3\"\nlog_format = \"text\"\n");
    let builder = TestServer::builder().without("--tenant-rate-limit").flag("--config", file);
    let server = builder
        .env("ODOMETER_TENANT_RATE_LIMIT", "1/h:2")
        .env("ODOMETER_LOG_FORMAT", "text")
        .start();
    let statuses: Vec<u16> = runtime().block_on(async {
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        let key = client.register("layers", PASSWORD).await.unwrap();
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(match client.increment(&key).await {
                Ok(_) => 200,
                Err(Failure::Refused { status, .. }) => status,
                Err(other) => panic!("{other:?}"),
            });
        }
        statuses
    });
    assert_eq!(
        statuses,
        [200, 200, 429],
        "the environment's burst is 2, the file's 3; the flag's log format is JSON"
    );
    server.stop();
}

#[test]
fn versions_completions_and_manual() {
    let place = Place::new();
    for flag in ["--version", "-V"] {
        let version = place.run(&[flag]).succeeded();
        let revision =
            version.trim_end().strip_prefix(concat!("odometer ", env!("CARGO_PKG_VERSION"), " ("));
        let revision = revision
            .and_then(|rest| rest.strip_suffix(')'))
            .unwrap_or_else(|| panic!("{version:?}"));
        let is_revision = revision == "unknown"
            || revision.len() >= 7 && revision.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(is_revision, "{version:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            place.run(&["completions", shell]).succeeded().contains("tenant-rate-limit"),
            "{shell}"
        );
    }
    if require("bash", has_program("bash")) {
        place.file("odometer.bash", &place.run(&["completions", "bash"]).succeeded());
        let script = "source ./odometer.bash && complete -p odometer";
        let output =
            Command::new("bash").args(["-c", script]).current_dir(place.0.path()).output().unwrap();
        assert!(
            output.status.success(),
            "bash takes the completions: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let manual = place.run(&["man"]).succeeded();
    assert!(manual.contains(".TH odometer 1") && manual.contains("verify"), "{manual}");
    for words in [&["--help"][..], &["help"], &["serve", "--help"], &["verify", "-h"]] {
        assert!(place.run(words).succeeded().contains("Usage:"), "{words:?}");
    }
    // A reader that has seen enough is no failure of ours, and above all no panic.
    let mut child =
        place.command(["man"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
}
