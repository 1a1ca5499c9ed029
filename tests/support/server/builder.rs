//! How a test's server is started: its flags, environment, folder and wrapper.
//!
//! Job: [`Builder`]. Invariant: a server has a folder and ports of its own unless the test names
//! them, and no setting of the test run reaches it. Must never: wait, other than for `ready` when
//! asked to.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::process::{Output, free_ports, open_pidfd};
use super::{Keep, TestServer, binary};

const READY_DEADLINE: Duration = Duration::from_secs(30);

/// How to start a server.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    flags: Vec<(String, Option<OsString>)>,
    env: Vec<(OsString, OsString)>,
    data_dir: Option<PathBuf>,
    wrapper: Vec<OsString>,
    keep: Keep,
    chosen_ports: bool,
    ready_deadline: Duration,
}

impl Builder {
    pub(super) fn new() -> Self {
        let builder = Self {
            flags: Vec::new(),
            env: Vec::new(),
            data_dir: None,
            wrapper: Vec::new(),
            keep: Keep::All,
            chosen_ports: false,
            ready_deadline: READY_DEADLINE,
        };
        let builder = builder.flag("--listen", "127.0.0.1:0").flag("--http-listen", "off");
        let builder = builder.flag("--ops-listen", "127.0.0.1:0").flag("--log-format", "json");
        builder.flag("--tenant-rate-limit", "off").flag("--client-rate-limit", "off")
    }

    /// Adds a flag with a value, in place of an earlier one of the same name.
    pub(crate) fn flag(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.flags.retain(|(known, _)| known != name);
        self.flags.push((name.to_owned(), Some(value.into())));
        self
    }

    pub(crate) fn switch(mut self, name: &str) -> Self {
        self.flags.push((name.to_owned(), None));
        self
    }

    /// Removes a flag that is given by default, for tests of defaults and of precedence.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.flags.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Uses this folder, which outlives the server; otherwise it gets one of its own.
    pub(crate) fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Starts the server through another command, for example `["strace", "-f", "-o", …]`.
    pub(crate) fn wrapper<S: Into<OsString>>(
        mut self,
        command: impl IntoIterator<Item = S>,
    ) -> Self {
        self.wrapper = command.into_iter().map(Into::into).collect();
        self
    }

    pub(crate) fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Names free ports instead of reading them from the log, and asks `/readyz`: only for log
    /// settings that hide `ready`.
    pub(crate) fn chosen_ports(mut self) -> Self {
        self.chosen_ports = true;
        self
    }

    pub(crate) fn ready_deadline(mut self, deadline: Duration) -> Self {
        self.ready_deadline = deadline;
        self
    }

    /// Starts the server and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(self) -> TestServer {
        let deadline = self.ready_deadline;
        let mut server = self.spawn();
        if let Err(reason) = server.wait_ready(deadline) {
            panic!("the server did not become ready: {reason}\n{}", server.transcript());
        }
        server
    }

    /// Starts the process only; `wait_ready` or `wait_exit` follow.
    #[track_caller]
    pub(crate) fn spawn(mut self) -> TestServer {
        let own_dir = self.data_dir.is_none().then(|| TempDir::new().expect("a temporary folder"));
        let fallback =
            || own_dir.as_ref().expect("made when no folder was given").path().join("data");
        let data_dir = self.data_dir.clone().unwrap_or_else(fallback);
        let ports = self.chosen_ports.then(free_ports);
        if let Some((public, ops)) = ports {
            self = self.flag("--listen", public.to_string()).flag("--ops-listen", ops.to_string());
        }
        let started = Instant::now();
        let mut child = self.command(&data_dir).spawn().expect("the server binary starts");
        let pidfd = open_pidfd(child.id()).expect("a child that was not waited for has a pidfd");
        let output = Arc::new(Output::default());
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let readers = [output.collect_log(stdout, self.keep), output.collect_stderr(stderr)];
        TestServer {
            child,
            pidfd,
            output,
            readers: readers.into(),
            status: None,
            started,
            ready_after: Duration::ZERO,
            public: ports.map(|ports| ports.0),
            http: None,
            ops: ports.map(|ports| ports.1),
            chosen_ports: self.chosen_ports,
            logs_json: self.flags.iter().any(|(name, value)| {
                name == "--log-format" && value.as_deref() == Some("json".as_ref())
            }),
            data_dir,
            _own_dir: own_dir,
        }
    }

    fn command(&self, data_dir: &Path) -> Command {
        let binary = binary();
        let mut words = self.wrapper.iter().map(OsString::as_os_str).chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().expect("the binary is always there"));
        command.args(words).arg("serve").arg("--data-dir").arg(data_dir);
        for (name, value) in &self.flags {
            command.arg(name).args(value);
        }
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"ODOMETER_") {
                command.env_remove(name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}
