//! The order of the system calls that make things durable: what is synced before what is named,
//! removed, or relied on.
//!
//! Job: a table of orders, and traces of the real binary that are held to it: a first start, later
//! starts with a checkpoint, a backup and removals, an upgrade, a rebuild, a restore.
//! Invariant: every order of the table is applied by a trace, so none is held by chance.
//! Where steps are of different threads, an order may only be about the first of them, or about what
//! one thread hands to the other.
//! Must never: look at what a file contains other than to tell one write from another. That the
//! syncs are enough is shown by the power cuts of `crash.rs`; that none is missing is shown here.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::faults::steps::{Order, judge, read, traced};
use crate::support::client::Protocol;
use crate::support::command::{ended, odometer};
use crate::support::server::{Builder, TestServer, binary};
use crate::support::workload::{register, runtime};
use crate::support::{has_program, require};

const DEADLINE: Duration = Duration::from_secs(30);

const fn order(since: &'static str, needs: &'static [&'static str], before: &'static str) -> Order {
    Order { since, needs, before }
}

/// A segment: its zeros, its header, its name, its number in CURRENT, and then frames.
const SEGMENTS: [Order; 5] = [
    order("write journal/spare.new", &["sync journal/spare.new"], "rename journal/spare"),
    order("header journal/spare", &["sync journal/spare"], "rename journal/*.journal"),
    order("rename journal/*.journal", &["sync journal"], "write journal/CURRENT"),
    order("write journal/CURRENT", &["sync journal/CURRENT"], "commit journal/*.journal"),
    order("commit journal/*.journal", &["sync journal/*.journal"], "commit journal/*.journal"),
];

/// A checkpoint: the digests without what will change, the records, their position, the digests,
/// and then the frame that says so.
const CHECKPOINTS: [Order; 4] = [
    order(
        "begin sled/odometer.digests.new",
        &["sync sled/odometer.digests.new", "rename sled/odometer.digests", "sync sled"],
        "write sled/db",
    ),
    order(
        "begin sled/odometer.digests.new",
        &["write sled/db", "sync sled/db", "write sled/db", "sync sled/db"],
        "complete sled/odometer.digests.new",
    ),
    order("start", &["begin sled/odometer.digests.new"], "complete sled/odometer.digests.new"),
    order(
        "complete sled/odometer.digests.new",
        &["sync sled/odometer.digests.new", "rename sled/odometer.digests", "sync sled"],
        "end .",
    ),
];

/// What comes after a checkpoint: the next one.
const AFTER_CHECKPOINTS: [Order; 2] = [
    order(
        "complete sled/odometer.digests.new",
        &["begin sled/odometer.digests.new"],
        "complete sled/odometer.digests.new",
    ),
    order(
        "complete sled/odometer.digests.new",
        &["sync sled/odometer.digests.new", "rename sled/odometer.digests", "sync sled"],
        "begin sled/odometer.digests.new",
    ),
];

/// A backup, and what only a backup permits.
const BACKUPS: [Order; 5] = [
    order("mkdir backups", &["sync ."], "rename backups/*.backup"),
    order("write backups/*.partial", &["sync backups/*.partial"], "rename backups/*.backup"),
    order("rename backups/*.backup", &["sync backups"], "remove journal/*.journal"),
    order("remove journal/*.journal", &["sync journal"], "remove journal/*.journal"),
    order("remove journal/*.journal", &["sync journal"], "end ."),
];

const FIRST_START: [Order; 6] = [
    // Another thread writes the frame, perhaps while the next checkpoint is under way; so only the
    // first can be told.
    order(
        "start",
        &[
            "complete sled/odometer.digests.new",
            "sync sled/odometer.digests.new",
            "rename sled/odometer.digests",
            "sync sled",
        ],
        "checkpoint journal/*.journal",
    ),
    order("mkdir sled", &["sync ."], "rename FORMAT"),
    order("mkdir journal", &["sync ."], "rename journal/*.journal"),
    order(
        "start",
        &["rename journal/*.journal", "sync journal", "sync journal/CURRENT"],
        "rename FORMAT",
    ),
    order("write FORMAT.new", &["sync FORMAT.new"], "rename FORMAT"),
    order("rename FORMAT", &["sync .", "sync .."], "commit journal/*.journal"),
];

/// What an earlier process wrote may be in the page cache only.
const LATER_START: [Order; 2] = [
    order(
        "start",
        &["header journal/*.journal", "sync journal/*.journal"],
        "rename journal/*.journal",
    ),
    order("start", &["sync sled/db", "advise sled/db"], "rename journal/*.journal"),
];

/// An older build must refuse the directory before a file has another name.
const UPGRADE: [Order; 3] = [
    order("start", &["sync FORMAT.new", "rename FORMAT", "sync ."], "rename journal/CURRENT"),
    order("rename journal/CURRENT", &["sync journal"], "rename sled/odometer.digests"),
    order("rename sled/odometer.digests", &["sync sled"], "rename journal/*.journal"),
];

const REBUILD: [Order; 6] = [
    // The new state covers the last frame, which may be in the page cache only.
    order(
        "start",
        &["header journal/*.journal", "sync journal/*.journal"],
        "begin sled.rebuilding/odometer.digests.new",
    ),
    order("write sled.rebuilding/db", &["sync sled.rebuilding/db"], "rename quarantine-*/sled"),
    order(
        "complete sled.rebuilding/odometer.digests.new",
        &["sync sled.rebuilding/odometer.digests.new", "sync sled.rebuilding"],
        "rename quarantine-*/sled",
    ),
    order("rename quarantine-*/sled", &["sync quarantine-*"], "rename sled"),
    order("rename quarantine-*/sled", &["sync ."], "rename sled"),
    order("rename sled", &["sync ."], "rename journal/*.journal"),
];

const RESTORE: [Order; 8] = [
    order("mkdir journal", &["sync ."], "rename FORMAT"),
    order("mkdir sled", &["sync ."], "rename FORMAT"),
    order("write RESTORING", &["sync ."], "mkdir journal"),
    order("write sled/db", &["sync sled/db"], "rename FORMAT"),
    order(
        "complete sled/odometer.digests.new",
        &["sync sled/odometer.digests.new", "rename sled/odometer.digests", "sync sled"],
        "rename FORMAT",
    ),
    order(
        "start",
        &["rename journal/*.journal", "sync journal", "sync journal/CURRENT"],
        "rename FORMAT",
    ),
    order("rename FORMAT", &["sync .", "sync .."], "remove RESTORING"),
    order("remove RESTORING", &["sync ."], "end ."),
];

/// A data directory, and the trace of one process on it.
struct Place {
    temp: TempDir,
}

impl Place {
    /// A place, where strace is there; says so if not.
    fn new() -> Option<Self> {
        require("strace", has_program("strace")).then(|| Self { temp: TempDir::new().unwrap() })
    }

    fn data_dir(&self) -> PathBuf {
        self.temp.path().join("data")
    }

    fn trace(&self) -> PathBuf {
        self.temp.path().join("trace")
    }

    fn serve(&self) -> Builder {
        let server = TestServer::builder().data_dir(self.data_dir());
        server.flag("--journal-segment-size", "1MiB").flag("--checkpoint-interval", "100ms")
    }

    fn serve_traced(&self) -> Builder {
        self.serve().wrapper(traced(&self.trace()))
    }

    /// A stopped store with something in its state.
    fn fill(&self) {
        let server = self.serve().start();
        let key = runtime().block_on(register(&server.endpoint(), "t", 1)).remove(0);
        increment(&server, &key);
        server.stop();
    }

    /// Holds the trace of the process that ended last to the orders, each of which must apply.
    /// Returns its steps.
    #[track_caller]
    fn assert_orders(&self, what: &str, orders: &[&[Order]]) -> Vec<String> {
        let (steps, orders) = (read(&self.trace(), &self.data_dir()), orders.concat());
        let (applied, mut wrong) = judge(&steps, &orders);
        let idle = orders.iter().zip(applied).filter(|(_, count)| *count == 0);
        wrong.extend(idle.map(|(order, _)| format!("never applied: {order:?}")));
        assert!(wrong.is_empty(), "{what}:\n{}\n\n{}", wrong.join("\n"), steps.join("\n"));
        steps
    }
}

fn increment(server: &TestServer, key: &str) {
    runtime().block_on(async {
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        for _ in 0..3 {
            client.increment(key).await.unwrap();
        }
    });
}

#[test]
fn a_store_syncs_before_it_names_removes_or_relies() {
    let Some(place) = Place::new() else { return };
    let server = place.serve_traced().start();
    let key = runtime().block_on(register(&server.endpoint(), "t", 1)).remove(0);
    increment(&server, &key);
    server.stop();
    place.assert_orders("a first start", &[&SEGMENTS, &FIRST_START, &CHECKPOINTS]);

    let server = place.serve().start();
    increment(&server, &key);
    server.stop();

    // Two segments are sealed now, and a backup lets both go. The start makes its folder.
    fs::remove_dir_all(place.data_dir().join("backups")).unwrap();
    let server = place.serve_traced().flag("--backup-interval", "1s").start();
    let segment = |number: u64| format!("journal/{number:020}.journal");
    let until = Instant::now() + DEADLINE;
    while place.data_dir().join(segment(2)).exists() {
        increment(&server, &key);
        assert!(Instant::now() < until, "the second segment stays");
    }
    server.stop();
    let steps = place.assert_orders(
        "a later start",
        &[&SEGMENTS, &LATER_START, &CHECKPOINTS, &AFTER_CHECKPOINTS, &BACKUPS],
    );
    let removed: Vec<&str> = steps.iter().filter_map(|step| step.strip_prefix("remove ")).collect();
    let removed: Vec<&str> =
        removed.into_iter().filter(|path| path.ends_with(".journal")).collect();
    assert_eq!(removed, [segment(1), segment(2)], "not oldest first");
}

#[test]
fn an_upgrade_names_the_format_first() {
    let Some(place) = Place::new() else { return };
    place.fill();
    let data_dir = place.data_dir();
    let format = fs::read_to_string(data_dir.join("FORMAT")).unwrap();
    let (_, store) = format.split_once(" store ").expect("FORMAT names the store");
    fs::write(data_dir.join("FORMAT"), format!("odometer data format 3 store {store}")).unwrap();
    for (old, new) in
        [("journal/newest", "journal/CURRENT"), ("sled/odometer.seals", "sled/odometer.digests")]
    {
        fs::rename(data_dir.join(new), data_dir.join(old)).unwrap();
    }
    place.serve_traced().start().stop();
    place.assert_orders("an upgrade", &[&UPGRADE, &LATER_START]);
}

#[test]
fn a_rebuild_replaces_the_state_durably() {
    let Some(place) = Place::new() else { return };
    place.fill();
    fs::write(place.data_dir().join("sled/odometer.corrupt"), "the test says so").unwrap();
    let written = place.serve_traced().start().stop();
    assert_eq!(written.actions("state-rebuilt").len(), 1, "nothing was rebuilt");
    place.assert_orders("a rebuild", &[&REBUILD]);
}

#[test]
fn a_restore_is_a_store_only_at_its_end() {
    let Some(place) = Place::new() else { return };
    place.fill();
    let backup = place.temp.path().join("file");
    ended(odometer(["backup", "--data-dir"]).arg(place.data_dir()).arg("--to").arg(&backup))
        .succeeded();
    fs::remove_dir_all(place.data_dir()).unwrap();
    restore(&place, &backup);
    place.assert_orders("a restore", &[&RESTORE]);
}

fn restore(place: &Place, backup: &Path) {
    let words = traced(&place.trace());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(binary().canonicalize().unwrap());
    command.args(["restore", "--from"]).arg(backup).arg("--data-dir").arg(place.data_dir());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
