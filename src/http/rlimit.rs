//! File descriptors: a connection is one, and the system gives a process fewer by default than it would give if asked.
//!
//! Job: [`raise_nofile_limit`] asks. Invariant: where they are still too few for the connections that are allowed, that is said at the start, and not found out under load.
//! Must never: fail a start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the process has open besides connections: store, listeners, logs, threads' runtimes.
const RESERVED_FDS: u64 = 200;

/// Raises the limit to what the system allows, and warns if that is too few for so many connections.
pub fn raise_nofile_limit(connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    // None is no limit.
    let limit = if raised { maximum } else { current }.unwrap_or(u64::MAX);
    if limit < connections as u64 + RESERVED_FDS {
        tracing::warn!(
            event.action = "fd-limit-low",
            odometer.descriptors = limit,
            odometer.max_connections = connections,
            "the system allows fewer open files than --max-connections needs: raise its limit (ulimit -n, LimitNOFILE, --ulimit nofile), or lower the setting"
        );
    }
}
