//! Logs in files: a day's file, so many of them, and what happens where nothing can be written.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::client::Protocol;
use crate::support::ecs;
use crate::support::server::TestServer;
use crate::support::workload::{register, runtime};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn so_many_daily_files_are_kept_and_each_line_is_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).unwrap();
    for day in 1..=5 {
        fs::write(logs.join(format!("odometer.2026-01-0{day}.log")), "{}\n").unwrap();
    }
    let server = TestServer::builder()
        .flag("--log-dir", &logs)
        .flag("--log-keep", "3")
        .chosen_ports()
        .start();
    runtime().block_on(register(&server.endpoint(), "filed", 2));
    let written = server.stop();
    assert!(written.log.is_empty(), "what goes to a file does not go to stdout too");
    let kept = names(&logs);
    assert_eq!(kept.len(), 3, "{kept:?}");
    // Which of the old ones go is a matter of when they were made, the same moment here.
    let today =
        kept.iter().find(|name| !name.starts_with("odometer.2026-01-0")).expect("today's file");
    let text = fs::read_to_string(logs.join(today)).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        text.ends_with('\n') && lines.iter().any(|line| line.contains("\"stopped\"")),
        "{text}"
    );
    for line in lines {
        assert_eq!(ecs::problem(line), None, "{line}");
    }
}

#[test]
fn lines_that_can_not_be_written_are_counted_and_nobody_waits_for_them() {
    let full = ["sh", "-c", "exec \"$0\" \"$@\" > /dev/full"];
    let server = TestServer::builder().wrapper(full).chosen_ports().start();
    runtime().block_on(async {
        let key = register(&server.endpoint(), "lost", 1).await.remove(0);
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        for value in 2..=50 {
            assert_eq!(client.increment(&key).await.unwrap(), value);
        }
    });
    // A line for each request, and those of the start; the newest may be on their way.
    let until = Instant::now() + Duration::from_secs(10);
    while server.metric("odometer_log_lines_dropped_total").unwrap() < 50.0 {
        assert!(Instant::now() < until);
    }
    server.stop();
}

#[test]
fn daily_files_leave_the_last_of_the_disk_to_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    let builder =
        TestServer::builder().flag("--log-dir", &logs).flag("--min-free-disk", "1000000GiB");
    // The store takes no changes either, so it is not ready.
    let mut server = builder.chosen_ports().spawn();
    let until = Instant::now() + Duration::from_secs(30);
    while server.try_ops("/metrics").is_none() {
        assert!(Instant::now() < until && server.wait_exit(Duration::from_millis(5)).is_none());
    }
    while server.metric("odometer_log_lines_dropped_total").unwrap() < 3.0 {
        assert!(Instant::now() < until);
    }
    server.stop();
    let bytes: u64 =
        fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(bytes, 0, "lines were written to a disk that has no room for them");
}
