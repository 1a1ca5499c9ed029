//! One system call of the server fails: strace lies to it, from its first instruction on or from
//! the moment of attaching.
//!
//! Job: build the command lines ([`Fault`]), attach to a running server ([`Attached`]), and read
//! what was done to it ([`Trace`]).
//! Invariant: the times come from the trace itself, so a slow test does not count as a slow server.
//! strace counts the calls of each thread by itself, so one fault may hit several threads, each at
//! its own n-th call.
//! Must never: let a call seem to have done more than it did. `retval=0` is a write of no byte; a
//! larger faked number would be a lie that no disk tells.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

/// What is done to which call.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Names as strace takes them, separated by commas; `?` before one that not every machine has.
    pub(crate) calls: &'static str,
    /// `error=EIO`, `error=ENOSPC` or `retval=0`.
    pub(crate) how: &'static str,
    /// Which call of each thread, from 1.
    pub(crate) nth: u64,
    /// Only calls on these files count; with none, all do.
    pub(crate) paths: Vec<PathBuf>,
}

impl Fault {
    /// The words before the server's own command line.
    pub(crate) fn wrapper(&self, trace: &Path) -> Vec<OsString> {
        // With this filter the other calls run at full speed.
        [OsString::from("strace"), "--seccomp-bpf".into()]
            .into_iter()
            .chain(self.options(trace))
            .collect()
    }

    fn options(&self, trace: &Path) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            ["-f", "-ttt", "-s", "16", "-o"].map(OsString::from).to_vec();
        words.push(trace.into());
        words.extend(["-e".into(), format!("trace={}", self.calls).into()]);
        words.extend([
            "-e".into(),
            format!("inject={}:{}:when={}", self.calls, self.how, self.nth).into(),
        ]);
        for path in &self.paths {
            words.extend(["-P".into(), path.into()]);
        }
        words
    }

    /// Attaches to all threads of a running process; returns when they are attached.
    pub(crate) fn attach(&self, pid: u32, trace: &Path) -> Attached {
        let mut command = Command::new("strace");
        command.args(self.options(trace)).arg("-p").arg(pid.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut strace = command.spawn().expect("strace starts");
        let stderr = BufReader::new(strace.stderr.take().expect("it is piped"));
        let mut attached = Attached { strace, stderr };
        let mut said = String::new();
        while !said.contains("attached") {
            let length = attached.stderr.read_line(&mut said).expect("strace writes text");
            assert!(length > 0, "strace did not attach: {said}");
        }
        attached
    }
}

/// The words before a command line whose calls of these names are written to `trace`; what is done
/// to them is named as strace takes it, such as `fdatasync:error=EIO:when=12+`.
pub(crate) fn traced(trace: &Path, calls: &str, injected: Option<&str>) -> Vec<OsString> {
    let mut words: Vec<OsString> =
        ["strace", "-f", "-y", "-s", "24", "-o"].map(OsString::from).to_vec();
    words.extend([trace.into(), "-e".into(), format!("trace={calls}").into()]);
    if let Some(injected) = injected {
        words.extend(["-e".into(), format!("inject={injected}").into()]);
    }
    words
}

/// A strace beside the server; it ends with it.
#[derive(Debug)]
pub(crate) struct Attached {
    strace: Child,
    /// Kept open, or strace would die of its next message.
    stderr: BufReader<ChildStderr>,
}

impl Attached {
    /// Waits for the end of strace, so that the trace is complete. The server must have ended.
    pub(crate) fn finish(mut self) {
        self.strace.wait().expect("strace can be waited for");
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // After `finish` both do nothing; before it a test has failed, and the server goes on
        // alone.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// What a trace tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    /// The lines of the calls that failed by our doing.
    pub(crate) injected: Vec<String>,
    /// Seconds from the last of them to the end of the process.
    pub(crate) seconds_to_end: Option<f64>,
}

impl Trace {
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        let time =
            |line: &str| line.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
        let injected: Vec<String> =
            text.lines().filter(|line| line.contains("(INJECTED)")).map(str::to_owned).collect();
        let last = injected.last().and_then(|line| time(line));
        let end =
            text.lines().filter(|line| line.contains(" +++ ")).filter_map(time).reduce(f64::max);
        Self { injected, seconds_to_end: end.zip(last).map(|(end, last)| end - last) }
    }
}
