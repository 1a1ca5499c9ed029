//! One server for each cause of an alert, each in its own way in trouble, and one that is well.
//!
//! Job: start them, name them, and do to them what happens at one moment: a kill, a failed sync, a
//! disk that fills up.
//! Invariant: what is wrong is real: the server tells it by itself, and no metric is made up. A
//! server that is started again keeps its folder and its ops port, so it stays the same instance.
//! It must never do anything to a process or a file system that it did not start or mount.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::faults::scratch_fs::Mounted;
use crate::faults::strace::Fault;
use crate::support::client::Protocol;
use crate::support::process::Keep;
use crate::support::server::{Builder, TestServer};
use crate::support::workload::{register, runtime};

const ENDED: Duration = Duration::from_secs(10);
/// Above 10 ms and below 25 ms: slow, and within the objectives.
const SLOW_MICROSECONDS: u32 = 12_000;
/// Above 25 ms.
const SLOWER_MICROSECONDS: u32 = 40_000;
/// Long enough for the queue to fill up meanwhile.
const STUCK_MICROSECONDS: u32 = 4_000_000;

/// All servers, by instance.
pub(crate) struct Causes {
    servers: BTreeMap<&'static str, TestServer>,
    /// One tenant's key on each server that has clients.
    keys: BTreeMap<&'static str, String>,
    ops: BTreeMap<&'static str, SocketAddr>,
    // Both go after the servers that use them.
    disk: Option<Mounted>,
    home: TempDir,
}

impl Causes {
    pub(crate) fn start() -> Self {
        let disk = Mounted::can_memory().then(|| Mounted::memory(96));
        let home = TempDir::new().unwrap();
        let (servers, keys, ops) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut causes = Self { servers, keys, ops, disk, home };
        causes.start_healthy();
        causes.start_slow();
        causes.start_limited();
        causes.start_spoilt();
        causes
    }

    fn start_healthy(&mut self) {
        self.begin("healthy", |builder| builder.flag("--backup-interval", "5s"));
        for name in ["stopped", "killed", "poisoned", "guessed"] {
            self.begin(name, |builder| builder);
        }
        for name in ["healthy", "poisoned", "guessed"] {
            self.register(name);
        }
    }

    fn start_slow(&mut self) {
        // The tenant of the one that is stuck is registered before.
        for (name, delay, from) in [
            ("slow", SLOW_MICROSECONDS, 1),
            ("slower", SLOWER_MICROSECONDS, 1),
            ("stuck", STUCK_MICROSECONDS, 8),
        ] {
            let trace = self.home.path().join(format!("{name}.trace"));
            self.begin(name, |builder| builder.wrapper(slow_syncs(delay, from, &trace)));
            self.register(name);
        }
    }

    fn start_limited(&mut self) {
        self.begin("crowded", |builder| builder.flag("--max-connections", "6"));
        self.begin("besieged", |builder| builder.flag("--max-connections-per-address", "3"));
        self.begin("remembering", |builder| builder.flag("--idempotency-keys", "1000"));
        let endpoint = self.servers["remembering"].endpoint();
        // One tenant may have a quarter of them.
        runtime().block_on(async {
            for key in register(&endpoint, "remembering", 4).await {
                let mut client = endpoint.connect(Protocol::Http1).await.unwrap();
                let bearer = format!("Bearer {key}");
                for number in 0..225 {
                    let headers = [
                        ("authorization", bearer.as_str()),
                        ("idempotency-key", &format!("order-{number}")),
                    ];
                    let answer = client
                        .request("PUT", "/api/v1/integer/increment", &headers, "")
                        .await
                        .unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            }
        });
    }

    fn start_spoilt(&mut self) {
        for name in ["full", "state-rebuilt"] {
            self.begin(name, |builder| builder);
            self.register(name);
            self.end(name).stop();
        }
        // No disk has that.
        self.begin("full", |builder| builder.flag("--min-free-disk", "1000000GiB"));
        fs::remove_dir_all(self.folder("state-rebuilt").join("sled")).unwrap();
        self.begin("state-rebuilt", |builder| builder);
        let (cert, key) = short_lived_certificate(self.home.path());
        self.begin("expiring", |builder| builder.flag("--tls-cert", cert).flag("--tls-key", key));
        let to_nowhere = ["sh", "-c", r#"exec "$0" "$@" > /dev/full"#];
        self.begin("mute", |builder| builder.wrapper(to_nowhere).chosen_ports());
        self.begin("unsaved", |builder| builder.flag("--backup-interval", "1s"));
        self.register("unsaved");
        put_a_file_in_place_of(&self.folder("unsaved").join("backups"));
        if let Some(disk) = &self.disk {
            let folder = disk.point().join("data");
            self.begin("filling", |builder| {
                builder
                    .data_dir(folder)
                    .flag("--min-free-disk", "8MiB")
                    .flag("--journal-segment-size", "1MiB")
            });
        }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Starts a server, the second time at the ops port of the first.
    fn begin(&mut self, name: &'static str, with: impl FnOnce(Builder) -> Builder) {
        let mut builder = TestServer::builder().data_dir(self.folder(name)).keep(Keep::Problems);
        if let Some(address) = self.ops.get(name) {
            builder = builder.flag("--ops-listen", address.to_string());
        }
        let server = with(builder).start();
        self.ops.insert(name, server.ops());
        self.servers.insert(name, server);
    }

    /// Takes a server out, to end it.
    fn end(&mut self, name: &str) -> TestServer {
        self.servers.remove(name).expect("it runs")
    }

    fn register(&mut self, name: &'static str) {
        let key = runtime().block_on(register(&self.servers[name].endpoint(), name, 1)).remove(0);
        self.keys.insert(name, key);
    }

    /// Whether there is such a server: one needs to mount a file system.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.ops.contains_key(name)
    }

    pub(crate) fn server(&self, name: &str) -> &TestServer {
        &self.servers[name]
    }

    pub(crate) fn key(&self, name: &str) -> &str {
        &self.keys[name]
    }

    /// Where Prometheus finds them.
    pub(crate) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.ops.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect()
    }

    pub(crate) fn stop_one(&mut self) {
        self.end("stopped").stop();
    }

    /// A kill, and the start that a supervisor makes.
    pub(crate) fn kill_one(&mut self) {
        self.end("killed").kill();
        self.begin("killed", |builder| builder);
    }

    /// A sync fails; the process gives up, and a supervisor starts it again.
    pub(crate) fn poison_one(&mut self) {
        let mut server = self.end("poisoned");
        let fault = Fault { calls: "fdatasync", how: "error=EIO", nth: 1, paths: Vec::new() };
        let attached = fault.attach(server.pid().unwrap(), &self.folder("poisoned.trace"));
        let key = &self.keys["poisoned"];
        runtime().block_on(async {
            let mut client = server.endpoint().connect(Protocol::Http1).await.unwrap();
            client.increment(key).await.unwrap_err();
        });
        server.wait_exit(ENDED).expect("a poisoned process ends by itself");
        attached.finish();
        self.begin("poisoned", |builder| builder);
    }

    /// Most of what is free is taken at once.
    pub(crate) fn fill_disk(&self) {
        if let Some(disk) = &self.disk {
            disk.fill(32 << 20);
        }
    }
}

/// The words before the server's own, with which every sync of a thread from this one on takes so
/// much longer.
fn slow_syncs(microseconds: u32, from: u32, trace: &Path) -> Vec<String> {
    let inject = format!("inject=fdatasync:delay_enter={microseconds}:when={from}+");
    let trace = trace.display().to_string();
    let words =
        ["strace", "-f", "--seccomp-bpf", "-o", &trace, "-e", "trace=fdatasync", "-e", &inject];
    words.map(str::to_owned).to_vec()
}

/// A certificate of two days and its key.
fn short_lived_certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
    certificate.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(2);
    let paths = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::write(&paths.0, certificate.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&paths.1, key.serialize_pem()).unwrap();
    paths
}

/// The server makes a backup each second, so it may make the folder again meanwhile.
fn put_a_file_in_place_of(folder: &Path) {
    loop {
        match fs::File::create_new(folder) {
            Ok(_) => return,
            Err(_) if folder.is_dir() => {
                // An error means that a backup has just put something there.
                let _ = fs::remove_dir_all(folder);
            }
            Err(error) => panic!("{}: {error}", folder.display()),
        }
    }
}
