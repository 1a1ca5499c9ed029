//! Finding and naming the processes that a test started, and collecting what they write.
//!
//! Invariant: a process is addressed through a pidfd opened while it cannot have been reaped.
//! Output is read as it comes, so that a server never blocks on a full pipe, and every line is
//! searched for secrets, kept or not. It must never look at processes outside the given one and
//! those below it for anything but their parent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What to keep of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    All,
    /// Lines up to `ready`, then only warnings and errors: for tests with hundreds of thousands of
    /// requests.
    Problems,
}

/// What a process has written so far.
#[derive(Debug, Default)]
pub(crate) struct Output {
    collected: Mutex<Collected>,
    changed: Condvar,
}

/// Log lines from stdout and all of stderr.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) log: Vec<String>,
    pub(crate) stderr: String,
    /// How many lines came, kept or not.
    pub(crate) lines: u64,
    /// What no line may hold.
    pub(crate) secrets: Vec<String>,
    /// What was told all the same, and the line that holds it.
    pub(crate) told: Vec<(String, String)>,
    log_ended: bool,
}

impl Output {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().expect("no reader panics while it holds the lock")
    }

    /// The lines after the first `seen`, waiting for one if there is none yet.
    pub(crate) fn lines_from(&self, seen: usize, until: Instant) -> Result<Vec<String>, String> {
        let mut collected = self.lock();
        loop {
            if collected.log.len() > seen {
                return Ok(collected.log[seen..].to_vec());
            }
            if collected.log_ended {
                return Err("it closed its stdout".to_owned());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("time is up, and no `ready` line came".to_owned());
            }
            collected = self
                .changed
                .wait_timeout(collected, left)
                .expect("no reader panics while it holds the lock")
                .0;
        }
    }

    pub(crate) fn collect_log(
        self: &Arc<Self>,
        stdout: impl Read + Send + 'static,
        keep: Keep,
    ) -> JoinHandle<()> {
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            let mut ready = false;
            for line in BufReader::new(stdout).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut collected = output.lock();
                collected.lines += 1;
                if let Some(secret) =
                    collected.secrets.iter().find(|secret| line.contains(*secret)).cloned()
                {
                    collected.told.push((secret, line.clone()));
                }
                if keep == Keep::All || !ready || is_problem(&line) {
                    ready |= line.contains("\"ready\"");
                    collected.log.push(line);
                    output.changed.notify_all();
                }
            }
            output.lock().log_ended = true;
            output.changed.notify_all();
        })
    }

    pub(crate) fn collect_stderr(
        self: &Arc<Self>,
        mut stderr: impl Read + Send + 'static,
    ) -> JoinHandle<()> {
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                output.lock().stderr.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        })
    }
}

/// Whether a line, JSON or text, is a warning or an error. A refused request is neither, though it
/// has an `error.code`.
fn is_problem(line: &str) -> bool {
    [r#""log.level":"warn""#, r#""log.level":"error""#, " WARN ", "ERROR "]
        .iter()
        .any(|level| line.contains(level))
}

pub(crate) fn open_pidfd(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// The process that runs `wanted`: `root` itself or one below it.
pub(crate) fn find_process(root: u32, wanted: &Path) -> Option<u32> {
    let runs =
        |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == wanted);
    if runs(root) {
        return Some(root);
    }
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let numbers = std::fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for pid in numbers {
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut open = children.remove(&root).unwrap_or_default();
    while let Some(pid) = open.pop() {
        if runs(pid) {
            return Some(pid);
        }
        open.extend(children.remove(&pid).unwrap_or_default());
    }
    None
}

/// Whether the process, told to stop, can no longer run any code of its own: one thread has
/// stopped, which marks all of them, and the others have too or wait in the kernel for the disk.
/// `Some(true)`: one waits there, a sync as a rule.
pub(crate) fn is_frozen(pid: u32) -> Option<bool> {
    let states: Vec<char> =
        std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.filter_map(thread_state).collect();
    let frozen = states.contains(&'T') && states.iter().all(|state| ['T', 'D'].contains(state));
    frozen.then(|| states.contains(&'D'))
}

fn thread_state(task: std::io::Result<std::fs::DirEntry>) -> Option<char> {
    let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Two ports that were free a moment ago; a stranger could still take them, so port 0 is better
/// wherever it works.
pub(crate) fn free_ports() -> (SocketAddr, SocketAddr) {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    let (first, second) = (bind(), bind());
    let address =
        |listener: &TcpListener| listener.local_addr().expect("a bound listener has an address");
    (address(&first), address(&second))
}
