//! Which calls fail, how, and when: every call of a start, of a running server and of its stop that
//! the store depends on.
//!
//! Invariant: a fault is one that a kernel can make. A call that only asks or opens fails with EIO;
//! one that may need room with ENOSPC too; and a write may write nothing.
//! Must never: fail calls on what is not the data directory, such as the log or the program's own
//! libraries; hence the list of files wherever a call is not the store's alone.

use std::path::{Path, PathBuf};

use crate::faults::strace::Fault;

/// What the server is doing when the call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It makes its folder.
    FirstStart,
    /// It recovers what a killed server left.
    LaterStart,
    /// It serves, checkpoints and stops.
    Running,
    /// It goes on to the next journal segment, makes spare ones and removes old ones.
    Rolling,
}

const ASKS: &[&str] = &["error=EIO"];
const CHANGES: &[&str] = &["error=EIO", "error=ENOSPC"];
const WRITES: &[&str] = &["error=EIO", "error=ENOSPC", "retval=0"];

/// One row of the campaign.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) phase: Phase,
    pub(crate) calls: &'static str,
    pub(crate) faults: &'static [&'static str],
    files: Files,
    /// About how many of them one thread makes, to draw a sample from.
    pub(crate) typical: u64,
}

/// On which files the call counts.
#[derive(Clone, Copy, Debug)]
enum Files {
    All,
    OfFolder,
    OfRoll,
    /// The one that is made beside the path of a commit.
    OfSpare,
}

const fn target(
    phase: Phase,
    calls: &'static str,
    faults: &'static [&'static str],
    files: Files,
    typical: u64,
) -> Target {
    Target { phase, calls, faults, files, typical }
}

const RENAME: &str = "?rename,?renameat,?renameat2";
const MKDIR: &str = "?mkdir,?mkdirat";
const UNLINK: &str = "?unlink,?unlinkat";
pub(crate) const STAT: &str = "?statx,?newfstatat,?fstat";
const RESIZE: &str = "ftruncate,fallocate";

/// All rows.
pub(crate) const TARGETS: &[Target] = &[
    target(Phase::FirstStart, "openat", CHANGES, Files::OfFolder, 21),
    target(Phase::FirstStart, MKDIR, CHANGES, Files::All, 5),
    target(Phase::FirstStart, "flock", ASKS, Files::All, 2),
    target(Phase::FirstStart, "getdents64", ASKS, Files::OfFolder, 8),
    target(Phase::FirstStart, STAT, ASKS, Files::OfFolder, 6),
    target(Phase::FirstStart, "read", ASKS, Files::OfFolder, 5),
    target(Phase::FirstStart, "write", WRITES, Files::OfFolder, 5),
    target(Phase::FirstStart, "pwrite64", WRITES, Files::All, 17),
    target(Phase::FirstStart, "fsync", CHANGES, Files::All, 6),
    target(Phase::FirstStart, "fdatasync", CHANGES, Files::All, 3),
    target(Phase::FirstStart, RENAME, CHANGES, Files::All, 4),
    target(Phase::LaterStart, "openat", CHANGES, Files::OfFolder, 16),
    target(Phase::LaterStart, MKDIR, CHANGES, Files::All, 2),
    target(Phase::LaterStart, "flock", ASKS, Files::All, 2),
    target(Phase::LaterStart, "getdents64", ASKS, Files::OfFolder, 8),
    target(Phase::LaterStart, STAT, ASKS, Files::OfFolder, 8),
    target(Phase::LaterStart, "read", ASKS, Files::OfFolder, 10),
    target(Phase::LaterStart, "pread64", ASKS, Files::OfFolder, 12),
    target(Phase::LaterStart, "write", WRITES, Files::OfFolder, 2),
    target(Phase::LaterStart, "pwrite64", WRITES, Files::All, 16),
    target(Phase::LaterStart, "fsync", CHANGES, Files::All, 2),
    target(Phase::LaterStart, "fdatasync", CHANGES, Files::All, 4),
    target(Phase::LaterStart, RENAME, CHANGES, Files::All, 2),
    target(Phase::LaterStart, RESIZE, CHANGES, Files::All, 1),
    target(Phase::Running, "fdatasync", CHANGES, Files::All, 60),
    target(Phase::Running, "pwrite64", WRITES, Files::All, 60),
    target(Phase::Running, "sync_file_range", CHANGES, Files::All, 12),
    target(Phase::Running, "fsync", CHANGES, Files::All, 2),
    target(Phase::Running, "openat", CHANGES, Files::OfFolder, 2),
    target(Phase::Running, "pread64", ASKS, Files::OfFolder, 2),
    target(Phase::Running, "?statfs,?fstatfs", ASKS, Files::All, 4),
    target(Phase::Running, RESIZE, CHANGES, Files::All, 1),
    target(Phase::Rolling, "openat", CHANGES, Files::OfRoll, 2),
    target(Phase::Rolling, "pwrite64", WRITES, Files::OfRoll, 16),
    target(Phase::Rolling, "fsync", CHANGES, Files::OfRoll, 2),
    target(Phase::Rolling, "fdatasync", CHANGES, Files::OfRoll, 2),
    target(Phase::Rolling, "openat", CHANGES, Files::OfSpare, 1),
    target(Phase::Rolling, "fsync", CHANGES, Files::OfSpare, 1),
    target(Phase::Rolling, RENAME, CHANGES, Files::All, 2),
    target(Phase::Rolling, UNLINK, ASKS, Files::All, 2),
];

impl Target {
    /// Names a row with a fault, for people and for `ODOMETER_SYSCALL_FAULTS_ONLY`.
    pub(crate) fn name(&self, how: &str) -> String {
        format!("{:?} {} {how}", self.phase, self.short())
    }

    /// The first name of the call.
    pub(crate) fn short(&self) -> &'static str {
        self.calls.split(',').next().unwrap_or_default().trim_start_matches('?')
    }

    /// The fault at the `nth` call of each thread.
    pub(crate) fn fault(&self, how: &'static str, nth: u64, data_dir: &Path) -> Fault {
        let paths = match self.files {
            Files::All => Vec::new(),
            Files::OfFolder => files_of(data_dir),
            Files::OfSpare => vec![data_dir.join("journal/spare")],
            Files::OfRoll => vec![data_dir.join("journal"), data_dir.join("journal/spare")],
        };
        Fault { calls: self.calls, how, nth, paths }
    }
}

/// Every file and folder that a store is made of.
fn files_of(data_dir: &Path) -> Vec<PathBuf> {
    let fixed = [
        "LOCK",
        "FORMAT",
        "FORMAT.new",
        "journal",
        "journal/spare",
        "sled",
        "sled/db",
        "sled/conf",
        "sled/blobs",
        "tls",
        "tls/cert.pem",
        "tls/cert.pem.new",
        "tls/key.pem",
        "tls/key.pem.new",
    ];
    let segments = (1..=12).map(|number| data_dir.join(format!("journal/{number:020}.journal")));
    let fixed = fixed.iter().map(|name| data_dir.join(name));
    [data_dir.to_owned()].into_iter().chain(fixed).chain(segments).collect()
}
