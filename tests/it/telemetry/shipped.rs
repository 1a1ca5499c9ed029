//! A real shipper follows the log files and posts them to a receiver: every line once, unchanged,
//! in order.
//!
//! The shipper is syslog-ng with the configuration that dashboards/logs has for it.
//! Invariant: what the receiver got is, byte for byte, what the files hold.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::client::Protocol;
use crate::support::server::TestServer;
use crate::support::workload::{register, runtime};
use crate::support::{has_program, require};

const INCREMENTS: u64 = 2000;
const DEADLINE: Duration = Duration::from_secs(60);

/// Bodies of POSTs, in the order in which they came. The first is refused with 503, as by a
/// receiver that is not up yet.
fn receive(listener: TcpListener) -> Receiver<Vec<u8>> {
    let (bodies, received) = channel();
    std::thread::spawn(move || {
        let mut refuse_one = true;
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let mut reader = BufReader::new(stream);
            while let Some(body) = read_post(&mut reader) {
                let status = if refuse_one { "503 Service Unavailable" } else { "200 OK" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                if !refuse_one && bodies.send(body).is_err() {
                    return;
                }
                refuse_one = false;
                if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    received
}

fn read_post(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().ok()?
            }
            Some((name, _)) if name.eq_ignore_ascii_case("expect") => {
                reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
            }
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

struct Shipper(Child);

impl Shipper {
    fn start(logs: &Path, state: &Path, url: &str) -> Self {
        let configuration =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/logs/syslog-ng.conf");
        let mut command = Command::new("syslog-ng");
        command.args(["-F", "--no-caps", "-f"]).arg(configuration);
        for (flag, file) in [("-R", "positions"), ("-p", "pid"), ("-c", "control")] {
            command.arg(flag).arg(state.join(file));
        }
        command
            .env("LOG_DIR", logs)
            .env("HTTP_URL", url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_shipper_forwards_the_files_unchanged() {
    if !require("syslog-ng with its HTTP destination", has_program("syslog-ng")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (logs, state) = (folder.path().join("logs"), folder.path().join("state"));
    std::fs::create_dir(&state).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let received = receive(listener);
    let server = TestServer::builder().flag("--log-dir", &logs).chosen_ports().start();
    let shipper = Shipper::start(&logs, &state, &url);
    runtime().block_on(async {
        let key = register(&server.endpoint(), "shipped", 1).await.remove(0);
        let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
        for value in 2..=INCREMENTS {
            assert_eq!(client.increment(&key).await.unwrap(), value);
        }
    });
    server.stop();
    let files: Vec<_> =
        std::fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().path()).collect();
    // Two, if the day ended meanwhile; then their order among each other is nobody's promise.
    assert!(files.len() <= 2, "{files:?}");
    let mut expected: Vec<String> =
        files.iter().flat_map(|file| lines(&std::fs::read(file).unwrap())).collect();
    assert!(expected.len() as u64 > INCREMENTS);
    let until = Instant::now() + DEADLINE;
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let left = until.saturating_duration_since(Instant::now());
        let body = received
            .recv_timeout(left)
            .unwrap_or_else(|_| panic!("{} of {} lines came", got.len(), expected.len()));
        got.extend(lines(&body));
    }
    drop(shipper);
    if files.len() == 2 {
        got.sort();
        expected.sort();
    }
    assert!(got == expected, "the lines that came are not those of the files");
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8(bytes.to_vec()).unwrap().split_inclusive('\n').map(str::to_owned).collect()
}
