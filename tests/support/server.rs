//! The real binary, started with its own folder and ports that the kernel chose, and ended with the
//! test.
//!
//! Invariant: `start` returns when the server has logged `ready`, by reading its output, or fails
//! with everything that it wrote; signals go through a pidfd of a process that this file started,
//! so never to a stranger that reuses the number. It must never let `ODOMETER_…` settings of the
//! test run reach the server.

mod builder;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use self::builder::Builder;
use super::client::Endpoint;
pub(crate) use super::process::Keep;
use super::process::{Output, find_process, is_frozen, open_pidfd};

/// How long a drain may take [fixed].
pub(crate) const STOP_DEADLINE: Duration = Duration::from_secs(8);
/// The kernel counts CPU time for /proc in units of 10 ms, on every Linux that we support.
const TICKS_PER_SECOND: f64 = 100.0;
const OPS_DEADLINE: Duration = Duration::from_secs(5);

/// The binary under test: the one that cargo built, or `ODOMETER_TEST_BINARY`.
pub(crate) fn binary() -> PathBuf {
    super::setting("ODOMETER_TEST_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_odometer")), PathBuf::from)
}

/// A running server. Dropping it kills what still runs.
#[derive(Debug)]
pub(crate) struct TestServer {
    child: Child,
    /// Of `child`, which is the wrapper when there is one.
    pidfd: OwnedFd,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
    started: Instant,
    ready_after: Duration,
    public: Option<SocketAddr>,
    http: Option<SocketAddr>,
    ops: Option<SocketAddr>,
    chosen_ports: bool,
    logs_json: bool,
    data_dir: PathBuf,
    _own_dir: Option<TempDir>,
}

/// What an ended server wrote.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) log: Vec<String>,
    pub(crate) stderr: String,
    /// How many log lines there were, kept or not.
    pub(crate) lines: u64,
    /// Secrets, and the lines that hold them, kept or not.
    pub(crate) told: Vec<(String, String)>,
}

impl Written {
    /// The log lines that are JSON objects.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The events with this `event.action`.
    pub(crate) fn actions(&self, action: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event.action"] == action).collect()
    }
}

impl TestServer {
    pub(crate) fn builder() -> Builder {
        Builder::new()
    }

    /// A server with the defaults for tests, ready.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Builder::new().start()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn public(&self) -> SocketAddr {
        self.public.expect("the public listener is known once the server is ready")
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.http.expect("the server was started with --http-listen 127.0.0.1:0")
    }

    pub(crate) fn ops(&self) -> SocketAddr {
        self.ops.expect("the server was started with an ops listener")
    }

    /// From the start of the process to `ready`.
    pub(crate) fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Where and how clients connect: the address, and trust in exactly the server's own
    /// certificate.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::trusting(self.public(), &self.data_dir.join("tls/cert.pem"))
    }

    /// Waits for the `ready` line; the error says what happened instead.
    pub(crate) fn wait_ready(&mut self, deadline: Duration) -> Result<(), String> {
        let until = self.started + deadline;
        if self.chosen_ports {
            self.poll_readyz(until)?
        } else {
            self.read_until_ready(until)?
        }
        self.ready_after = self.started.elapsed();
        Ok(())
    }

    fn read_until_ready(&mut self, until: Instant) -> Result<(), String> {
        let mut seen = 0;
        loop {
            let lines = self.output.lines_from(seen, until)?;
            seen += lines.len();
            for event in lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
                match event["event.action"].as_str() {
                    Some("listening") => self.note_listener(&event),
                    Some("ready") => return Ok(()),
                    _ => {}
                }
            }
        }
    }

    fn poll_readyz(&mut self, until: Instant) -> Result<(), String> {
        while self.try_ops("/readyz").is_none_or(|(status, _)| status != 200) {
            if Instant::now() > until {
                return Err("time is up, and /readyz does not answer 200".to_owned());
            }
            if self.wait_exit(Duration::from_millis(5)).is_some() {
                return Err("it ended".to_owned());
            }
        }
        Ok(())
    }

    fn note_listener(&mut self, event: &Value) {
        let ip = event["server.ip"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
        let port = event["server.port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let address = ip.zip(port).map(SocketAddr::from);
        assert!(address.is_some(), "a listener without server.ip and server.port: {event}");
        match event["odometer.listener"].as_str() {
            Some("public") => self.public = address,
            Some("http") => self.http = address,
            Some("ops") => self.ops = address,
            other => panic!("a listener named {other:?}: {event}"),
        }
    }

    /// One request to the ops listener: status and body.
    #[track_caller]
    pub(crate) fn ops_get(&self, path: &str) -> (u16, String) {
        self.try_ops(path).unwrap_or_else(|| {
            panic!("the ops listener does not answer {path}\n{}", self.transcript())
        })
    }

    /// The same, or nothing when nobody answers.
    pub(crate) fn try_ops(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.ops(), OPS_DEADLINE).ok()?;
        stream.set_read_timeout(Some(OPS_DEADLINE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// The sum of a metric over its labels; nothing when it is absent.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let (status, text) = self.ops_get("/metrics");
        assert_eq!(status, 200, "/metrics: {text}");
        let of_name =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = text
            .lines()
            .filter(of_name)
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.reduce(|sum, value| sum + value)
    }

    /// The log lines kept so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.output.lock().log.clone()
    }

    /// From now on every log line is searched for these, also those that are not kept; see
    /// `Written::told`.
    pub(crate) fn keep_secret(&self, secrets: impl IntoIterator<Item = String>) {
        self.output.lock().secrets.extend(secrets);
    }

    /// The newest of them.
    pub(crate) fn last_log(&self) -> Option<String> {
        self.output.lock().log.last().cloned()
    }

    /// The process number of the server itself, below a wrapper too.
    pub(crate) fn pid(&self) -> Option<u32> {
        let wanted = binary().canonicalize().expect("the binary exists");
        find_process(self.child.id(), &wanted)
    }

    /// CPU time of the server so far, user and kernel.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let pid = self.pid().expect("the server runs");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
        let after_name = stat.rsplit_once(") ").expect("the name is in brackets").1;
        let ticks = after_name
            .split(' ')
            .skip(11)
            .take(2)
            .map(|field| field.parse::<f64>().expect("a number"));
        ticks.sum::<f64>() / TICKS_PER_SECOND
    }

    /// Sends a signal to the server process; nothing when it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.status.is_some() {
            return;
        }
        // A child of a wrapper could end between the look-up and the pidfd; its number is not
        // reused that fast.
        let below = self.pid().filter(|pid| *pid != self.child.id()).and_then(open_pidfd);
        // An error means that it has just ended, which the caller sees when it waits.
        let _ = pidfd_send_signal(below.as_ref().unwrap_or(&self.pidfd), signal);
    }

    /// SIGSTOP, and wait until no thread can run on. Tells whether one of them was waiting for the
    /// disk.
    #[track_caller]
    pub(crate) fn freeze(&self) -> bool {
        const FREEZE_DEADLINE: Duration = Duration::from_secs(10);
        let pid = self.pid().expect("the server runs");
        let until = Instant::now() + FREEZE_DEADLINE;
        self.signal(Signal::STOP);
        loop {
            if let Some(in_sync) = is_frozen(pid) {
                return in_sync;
            }
            assert!(Instant::now() < until, "the server did not stop within {FREEZE_DEADLINE:?}");
            std::thread::yield_now();
        }
    }

    /// The exit status once the process has ended, or nothing when the time is up.
    pub(crate) fn wait_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let timeout = Timespec::try_from(timeout).expect("a sensible time-out");
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        if self.status.is_none() && poll(&mut ended, Some(&timeout)).is_ok_and(|count| count == 1) {
            self.status = Some(self.child.wait().expect("the child can be waited for"));
        }
        self.status
    }

    /// SIGTERM; the server must end with 0 within 8 s.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Written {
        self.signal(Signal::TERM);
        let status = self.wait_exit(STOP_DEADLINE);
        let ended_well = status.is_some_and(|status| status.success());
        assert!(
            ended_well,
            "after SIGTERM: {status:?} within {STOP_DEADLINE:?}\n{}",
            self.transcript()
        );
        self.written()
    }

    /// SIGKILL, and wait until it is gone.
    pub(crate) fn kill(mut self) -> Written {
        self.kill_now();
        self.written()
    }

    fn kill_now(&mut self) {
        self.signal(Signal::KILL);
        if self.wait_exit(Duration::from_secs(2)).is_none() {
            // A wrapper that survived its child, or a process stuck in the kernel.
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
            self.wait_exit(Duration::from_secs(30));
        }
    }

    /// Everything that an ended server wrote.
    pub(crate) fn written(&mut self) -> Written {
        assert!(self.status.is_some(), "the output is complete only when the server has ended");
        for reader in self.readers.drain(..) {
            reader.join().expect("the reader of the output does not panic");
        }
        let output = self.output.lock();
        if self.logs_json {
            self.check_log(&output.log);
        }
        let (lines, told) = (output.lines, output.told.clone());
        Written { log: output.log.clone(), stderr: output.stderr.clone(), lines, told }
    }

    /// Every line of every server that any test starts is an event of the schema.
    #[track_caller]
    fn check_log(&self, log: &[String]) {
        // A process that was killed may have left half a line.
        let torn = usize::from(!self.status.is_some_and(|status| status.success()));
        for line in &log[..log.len().saturating_sub(torn)] {
            if let Some(problem) = super::ecs::problem(line) {
                panic!("a log line is not as the schema wants it: {problem}\n{line}");
            }
        }
    }

    /// What there is to show when something goes wrong.
    pub(crate) fn transcript(&self) -> String {
        const SHOWN_LINES: usize = 50;
        let output = self.output.lock();
        let from = output.log.len().saturating_sub(SHOWN_LINES);
        format!(
            "--- stdout, last lines\n{}\n--- stderr\n{}",
            output.log[from..].join("\n"),
            output.stderr
        )
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.kill_now();
        }
    }
}
