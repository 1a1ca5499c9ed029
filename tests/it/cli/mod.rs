//! The binary as people and scripts run it: exit codes, one-line errors, precedence, health,
//! verification, banner, signals.
//!
//! Job: section 6 of the design. `refusals` what does not start, and why; `settings` the layers;
//! `banner` what a first run shows; `signals` how it ends; `stopped` health and verification from
//! outside.
//! Invariant: every run has a folder and an environment of its own, and ends by itself or by a
//! signal of its test.
//! Must never: read the tester's `ODOMETER_…` settings or `odometer.toml`; wait for a while instead
//! of for an event.

mod banner;
mod refusals;
mod settings;
mod signals;
mod stopped;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::client::Protocol;
use crate::support::command::{Ended, ended, odometer};
use crate::support::server::{Builder, TestServer};
use crate::support::workload::{PASSWORD, runtime};
use tempfile::TempDir;

/// Longer than anything here may take; only a command that hangs meets it.
const DEADLINE: Duration = Duration::from_secs(20);

/// A folder to run commands in.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a file can be written");
        path
    }

    fn command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = odometer(words);
        command.current_dir(self.0.path());
        command
    }

    /// Runs a command that ends by itself.
    fn run(&self, words: &[&str]) -> Ended {
        ended(&mut self.command(words))
    }

    fn verify(&self, data_dir: &Path) -> Ended {
        ended(self.command(["verify", "--data-dir"]).arg(data_dir))
    }
}

/// A `serve` that is expected not to become ready.
#[track_caller]
fn refused(builder: Builder) -> Ended {
    let mut server = builder.spawn();
    let Some(status) = server.wait_exit(DEADLINE) else {
        panic!("it serves\n{}", server.transcript())
    };
    let written = server.written();
    Ended { code: status.code(), stdout: written.log.join("\n"), stderr: written.stderr }
}

/// Registers and increments `count` times, each alone, so each in a commit of its own; the key.
fn count_up(server: &TestServer, count: u64) -> String {
    runtime().block_on(async {
        let mut client = server.endpoint().connect(Protocol::Http1).await.expect("a connection");
        let key = client.register("counted", PASSWORD).await.expect("a registration");
        for value in 2..count + 2 {
            assert_eq!(client.increment(&key).await.expect("an increment"), value);
        }
        key
    })
}

fn read(server: &TestServer, key: &str) -> u64 {
    runtime().block_on(async {
        server
            .endpoint()
            .connect(Protocol::Http1)
            .await
            .expect("a connection")
            .read(key)
            .await
            .expect("a value")
    })
}
