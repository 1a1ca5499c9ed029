//! The limit of open file descriptors (`RLIMIT_NOFILE`).
//!
//! Job: [`raise_nofile_limit`] raises the soft limit, which is often 1024, to the hard limit: every
//! connection takes a descriptor.
//! Invariant: if the limit is still too low for `--max-connections`, a warning at start says so,
//! instead of `EMFILE` under load.
//! Must never: fail a start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors besides the connections': store, listeners, logs, runtimes.
const RESERVED_FDS: u64 = 200;

/// Raises the soft limit to the hard limit, and warns if that is too low for `connections`.
pub fn raise_nofile_limit(connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    // `None` is no limit.
    let limit = if raised { maximum } else { current }.unwrap_or(u64::MAX);
    if limit < connections as u64 + RESERVED_FDS {
        tracing::warn!(
            event.action = "fd-limit-low",
            odometer.descriptors = limit,
            odometer.max_connections = connections,
            "the limit of open files is too low for --max-connections: raise it \
             (ulimit -n, LimitNOFILE, --ulimit nofile), or lower --max-connections"
        );
    }
}
