//! The end of a process while a change is on its way to the disk.
//!
//! Job: a client asks for a change of its credentials and leaves, and SIGTERM comes before the
//! change is durable.
//! Invariant: strace holds the commit back, so nothing here is a matter of luck: the client has
//! left, and the server drains, while the disk still syncs.
//! Must never: hold back a process that the test did not start.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::faults::strace::Fault;
use crate::support::client::Protocol;
use crate::support::raw_client::RawConnection;
use crate::support::server::{STOP_DEADLINE, TestServer};
use crate::support::workload::{register, runtime};
use crate::support::{has_program, is_root, require};

const DEADLINE: Duration = Duration::from_secs(20);
/// Microseconds that the next sync takes: much longer than a drain that waits for nothing.
const SYNC_TAKES: &str = "delay_enter=1500000";

#[test]
fn a_change_whose_client_left_is_in_the_audit_log() {
    if !require("strace", has_program("strace")) || !require("root, to attach strace", is_root()) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("data");
    let mut server = TestServer::builder().data_dir(&folder).start();
    let key = runtime().block_on(register(&server.endpoint(), "left", 1)).remove(0);
    let id = &key[4..20];
    let slow = Fault { calls: "fdatasync", how: SYNC_TAKES, nth: 1, paths: Vec::new() };
    let attached = slow.attach(server.pid().unwrap(), &temp.path().join("trace"));
    runtime().block_on(async {
        let endpoint = server.endpoint();
        let connection = RawConnection::over_tls(&endpoint, &endpoint.tls(&[])).await;
        let head = format!(
            "DELETE /api/v1/keys/{id} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: left\r\n\
             Authorization: Bearer {key}\r\nExpect: 100-continue\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        );
        let mut connection = connection.unwrap();
        connection.send(head.as_bytes()).await.unwrap();
        // The request is being handled: a client that leaves before that has changed nothing.
        let interim = connection.message().await.unwrap();
        assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        connection.send(b"{}").await.unwrap();
        connection.stream.shutdown().await.unwrap();
        // The server ends the connection when it sees that the client has left.
        let reply = connection.read_until(Instant::now() + DEADLINE).await;
        assert!(reply.closed && reply.bytes.is_empty(), "{}", reply.text());
    });
    server.signal(Signal::TERM);
    let status = server.wait_exit(STOP_DEADLINE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.transcript());
    attached.finish();
    let told = server.written().actions("key-revoked");
    let again = TestServer::builder().data_dir(&folder).start();
    let refused = runtime().block_on(async {
        again.endpoint().connect(Protocol::Http1).await.unwrap().read(&key).await
    });
    assert!(refused.is_err(), "the key was not revoked: {refused:?}");
    again.stop();
    assert_eq!(told.len(), 1, "the change was made, and is not in the audit log: {told:?}");
    assert_eq!(
        (&told[0]["odometer.key_id"], &told[0]["http.request.id"]),
        (&id.into(), &"left".into())
    );
}
