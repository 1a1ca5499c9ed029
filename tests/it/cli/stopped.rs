//! Looking from outside: is it ready, and is what it left behind complete?
//!
//! Invariant: neither command changes anything.
//! Must never: take the values of a damaged data directory for true, not even the undamaged ones.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::{DEADLINE, Place, count_up, ended, read, refused};
use crate::support::client::Protocol;
use crate::support::server::TestServer;
use crate::support::workload::runtime;

#[test]
fn healthcheck_finds_the_server_by_its_settings() {
    let place = Place::new();
    let check = |server: &TestServer, listen: &str, ops: &str| {
        let mut command =
            place.command(["healthcheck", "--listen", listen, "--ops-listen", ops, "--data-dir"]);
        ended(command.arg(server.data_dir()))
    };
    let server = TestServer::start();
    let (public, ops) = (server.public().to_string(), server.ops().to_string());
    assert_eq!(check(&server, "127.0.0.1:1", &ops).succeeded(), "ready\n");
    assert_eq!(check(&server, &public, "off").succeeded(), "ready\n", "over TLS");
    let stranger = TestServer::start();
    check(&stranger, &public, "off").complained(1, &["certificate"]);
    stranger.stop();
    let data_dir = place.path("nothing-here");
    ended(
        place
            .command(["healthcheck", "--ops-listen", "off", "--listen", &public, "--data-dir"])
            .arg(data_dir),
    )
    .complained(1, &[]);
    server.stop();
    let mut gone = TestServer::builder().flag("--ops-listen", "off").start();
    let public = gone.public().to_string();
    assert_eq!(check(&gone, &public, "off").succeeded(), "ready\n", "without an ops listener");
    gone.signal(Signal::TERM);
    assert!(gone.wait_exit(DEADLINE).is_some_and(|status| status.success()));
    check(&gone, &public, "off").complained(1, &[&public]);
    check(&gone, "127.0.0.1:1", &ops).complained(1, &[&ops]);
    place.run(&["healthcheck", "--ops-listen", "x"]).complained(64, &["ops-listen"]);
    // Somebody who listens and says nothing is not ready.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    check(&gone, "127.0.0.1:1", &address).complained(1, &[]);
}

#[test]
fn verify_tells_clean_from_damaged() {
    let place = Place::new();
    let data_dir = place.path("data");
    let serve = || TestServer::builder().data_dir(&data_dir);
    place.verify(&data_dir).complained(1, &["data"]);
    assert!(!data_dir.exists(), "verify made a folder");
    fs::create_dir(&data_dir).unwrap();
    place.verify(&data_dir).complained(1, &["data"]);

    let server = serve().start();
    let key = count_up(&server, 20);
    server.stop();
    assert!(place.verify(&data_dir).succeeded().starts_with("clean: "));
    let server = serve().start();
    runtime().block_on(async {
        let mut client = server.endpoint().connect(Protocol::Http2).await.unwrap();
        for value in 22..42 {
            assert_eq!(client.increment(&key).await.unwrap(), value);
        }
    });
    server.kill();
    assert!(place.verify(&data_dir).succeeded().starts_with("clean: "), "after SIGKILL");

    let (segment, offset) = early_in_the_newest_journal(&data_dir);
    let flip = || {
        let file = File::options().read(true).write(true).open(&segment).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    };
    flip();
    let damaged = place.verify(&data_dir);
    assert_eq!((damaged.code, damaged.stderr.as_str()), (Some(4), ""), "{damaged:?}");
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        damaged.stdout.starts_with("corrupt: ") && damaged.stdout.contains(&name),
        "{}",
        damaged.stdout
    );
    assert!(damaged.stdout.contains("offset"), "{}", damaged.stdout);
    refused(serve()).complained(1, &[&name, "offset"]);
    assert_eq!(place.verify(&data_dir).code, Some(4), "a start that was refused changed something");
    flip();
    assert_eq!(place.verify(&data_dir).code, Some(0), "the same bytes again");
    let server = serve().start();
    assert_eq!(read(&server, &key), 41);
    server.stop();
}

/// A byte in the first frame of the segment that was written last: its header has 64 bytes, a
/// frame's own 32.
fn early_in_the_newest_journal(data_dir: &Path) -> (PathBuf, u64) {
    let entries = fs::read_dir(data_dir.join("journal")).expect("a journal");
    let segments = entries.map(|entry| entry.expect("an entry").path());
    let newest = segments
        .filter(|path| path.extension() == Some(OsStr::new("journal")))
        .max()
        .expect("a segment");
    let bytes = fs::read(&newest).expect("a readable segment");
    let length = u32::from_be_bytes(bytes[64..68].try_into().expect("four bytes"));
    let (first, next) = (64, 64 + u64::from(length.next_multiple_of(8)));
    assert!(
        length > 40 && bytes[usize::try_from(next).expect("small") + 3] != 0,
        "no two frames in {newest:?}"
    );
    (newest, first + 36)
}
