//! When the journal is synced: once for each commit, before its answers, and never again after a
//! failure.
//!
//! Job: two cases by name beside the campaign, which draws its faults. The first reads the order of
//! writes and syncs from a trace; the second lets every sync from the twelfth on fail.
//! Invariant: no client is told an integer that is not on the disk.
//! Must never: fail a call of any process but the server that it started.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::time::Duration;

use crate::faults::strace::{Trace, traced};
use crate::support::client::Protocol;
use crate::support::server::TestServer;
use crate::support::workload::{register, runtime};
use crate::support::{has_program, require};

const CALLS: &str = "fdatasync,pwrite64,write,writev,sendto";
/// More syncs than come before the one that fails, by far.
const MOST_INCREMENTS: u64 = 200;

#[test]
fn one_sync_of_the_journal_for_each_commit_and_before_its_answers() {
    if !require("strace", has_program("strace")) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let trace = temp.path().join("trace");
    let server = TestServer::builder().wrapper(traced(&trace, CALLS, None)).start();
    let increments = runtime().block_on(async {
        let keys = register(&server.endpoint(), "t", 4).await;
        let mut clients = Vec::new();
        for number in 0..64 {
            let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
            let key = keys[number % keys.len()].clone();
            clients.push(tokio::spawn(async move {
                for _ in 0..20 {
                    client.increment(&key).await.unwrap();
                }
            }));
        }
        let count = clients.len() * 20;
        for client in clients {
            client.await.unwrap();
        }
        count as f64
    });
    let commits = server.metric("odometer_commits_total").unwrap();
    assert_eq!(server.metric("odometer_increments_total").unwrap(), increments);
    server.stop();
    // How many share one is a matter of the machine and of strace; that they do is not.
    assert!(
        commits < 0.9 * increments,
        "{commits} commits for {increments} increments: they do not share syncs"
    );
    check_order(&std::fs::read_to_string(&trace).unwrap(), commits);
}

/// In the committer's own calls a write of the journal and a sync of it must alternate; there is
/// one pair for each commit, and one more for each checkpoint frame or segment.
fn check_order(trace: &str, commits: f64) {
    let journal: Vec<(&str, &str)> = trace
        .lines()
        .filter(|line| line.contains(".journal>") && !line.contains("resumed>"))
        .filter_map(|line| line.split_once(char::is_whitespace))
        .collect();
    let syncs =
        journal.iter().filter(|(_, call)| call.trim_start().starts_with("fdatasync")).count();
    let writes =
        journal.iter().filter(|(_, call)| call.trim_start().starts_with("pwrite64")).count();
    assert_eq!(syncs, writes, "each frame is written once and synced once");
    let extra = syncs as f64 - commits;
    assert!((0.0..12.0).contains(&extra), "{syncs} syncs of the journal for {commits} commits");
    let mut written = false;
    for (_, call) in &journal {
        let is_write = call.trim_start().starts_with("pwrite64");
        assert_ne!(
            is_write, written,
            "a frame was written before the one before it was durable: {call}"
        );
        written = is_write;
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_the_process_ends() {
    if !require("strace", has_program("strace")) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (trace, folder) = (temp.path().join("trace"), temp.path().join("data"));
    let inject = Some("fdatasync:error=EIO:when=12+");
    let mut server =
        TestServer::builder().data_dir(&folder).wrapper(traced(&trace, CALLS, inject)).start();
    let (acknowledged, key) = runtime().block_on(async {
        let keys = register(&server.endpoint(), "t", 1).await;
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        let mut last = 1;
        while let Ok(value) = client.increment(&keys[0]).await {
            assert_eq!(value, last + 1);
            assert!(value < MOST_INCREMENTS, "every increment is acknowledged: no sync failed");
            last = value;
        }
        (last, keys[0].clone())
    });
    let status =
        server.wait_exit(Duration::from_secs(10)).expect("a poisoned process ends by itself");
    assert_eq!(status.code(), Some(1));
    assert!(server.written().actions("poison").len() == 1, "the log says why");
    let injected = Trace::read(&trace).injected;
    assert!(injected.iter().any(|call| call.contains("fdatasync")), "no sync was made to fail");
    let server = TestServer::builder().data_dir(&folder).start();
    runtime().block_on(async {
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        let value = client.read(&key).await.unwrap();
        // The increment that failed may have reached the disk; none that was acknowledged may be
        // missing.
        assert!((acknowledged..=acknowledged + 1).contains(&value), "{value} after {acknowledged}");
    });
    assert!(
        server
            .ops_get("/metrics")
            .1
            .contains("odometer_previous_shutdown_info{how=\"poisoned\"} 1\n")
    );
    let told = server.stop().actions("previous-run-poisoned");
    assert!(
        told.len() == 1 && told[0]["error.message"].as_str().unwrap().contains("journal"),
        "{told:?}"
    );
}
