//! What an idle connection costs: resident memory of the server for each one, after different
//! traffic.
//!
//! Job: open TLS connections to the release binary, let all of them do the same, leave them idle,
//! and divide what the server's resident memory grew by; the reference is the limit of 32 KiB,
//! shown beside every figure.
//! Invariant: each kind of traffic has a process of its own, so that no kind inherits another's
//! memory; it has hashed no password, since what that took is given back at any time. What the
//! first requests take once is taken before the first look; what is under way at once later counts,
//! so the figures are rather too high. Each connection gets an answer to every request, so nothing
//! is under way at the second look. It must never compare figures from different machines, or count
//! the memory of the clients.
//!
//! `cargo bench --bench connections`. Settings: `ODOMETER_BENCH_CONNECTIONS` (1000),
//! `ODOMETER_BENCH_REQUESTS` (400 on each connection), `ODOMETER_BENCH_DIR` (where the data goes;
//! default cargo's target/tmp), and `ODOMETER_BENCH_LIMIT_KIB` (none): a number there makes the
//! bench fail when a connection that did these requests takes more. Without `--bench`
//! (`cargo test --benches`) or with `--test` it opens 50 connections and sends 20 requests on each.

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::load_client::{Mode, request};
use common::machine::{bench_folder, is_short, show, show_surroundings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::client::Endpoint;
use support::number_setting;
use support::raw_client::RawConnection;
use support::server::{Keep, TestServer};
use support::workload::{register, runtime};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

/// What an idle connection may take.
const LIMIT_KIB: f64 = 32.0;
/// Close to the largest head behind which an HTTP/1.1 connection goes on, 8 KiB.
const LARGE_HEAD_BYTES: usize = 7 << 10;
/// How many requests are sent before the first answer is read.
const PIPELINED: usize = 16;
/// As many connections are busy at once: so many that the server batches, and far from all of them,
/// since what is under way at once is not what this bench is about.
const AT_ONCE: usize = 32;
/// Connections before the first look: each worker has some of them.
const WARM: usize = 16;
/// Descriptors that the bench and the server need besides those of connections.
const OTHER_DESCRIPTORS: u64 = 200;
/// The allocator returns pages when it comes by: the figure is taken when it has not shrunk for a
/// while.
const SETTLED: Duration = Duration::from_millis(500);
/// Less than a connection has for its first request, 8 s, with the handshakes before.
const SETTLE_DEADLINE: Duration = Duration::from_secs(3);

type Stream = TlsStream<TcpStream>;

/// What each connection does before it is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    Nothing,
    Small,
    LargeHead,
    LargeAnswer,
    Pipelined,
    All,
}

const ALL: [Traffic; 6] = [
    Traffic::Nothing,
    Traffic::Small,
    Traffic::LargeHead,
    Traffic::LargeAnswer,
    Traffic::Pipelined,
    Traffic::All,
];

impl Traffic {
    fn name(self, requests: usize) -> String {
        match self {
            Self::Nothing => "the handshake only".to_owned(),
            Self::Small => format!("{requests} small requests"),
            Self::LargeHead => "a head of 7 KiB".to_owned(),
            Self::LargeAnswer => "GET /openapi.json".to_owned(),
            Self::Pipelined => format!("{requests} requests, {PIPELINED} at once"),
            Self::All => "all of these, then one request".to_owned(),
        }
    }

    /// What is sent on one connection: each is one write, and so many answers follow it.
    fn writes(self, key: &str, requests: usize) -> Vec<(Vec<u8>, usize)> {
        let (read, increment) = (request(key, Mode::Read), request(key, Mode::Spread));
        match self {
            Self::Nothing => Vec::new(),
            Self::Small => [read, increment]
                .iter()
                .cycle()
                .take(requests)
                .map(|one| (one.clone(), 1))
                .collect(),
            Self::LargeHead => vec![(with_large_head(&read), 1)],
            Self::LargeAnswer => {
                vec![(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 1)]
            }
            Self::Pipelined => {
                vec![(read.repeat(PIPELINED), PIPELINED); requests.div_ceil(PIPELINED)]
            }
            Self::All => {
                let each = [Self::Small, Self::LargeHead, Self::LargeAnswer, Self::Pipelined];
                let mut all: Vec<_> =
                    each.iter().flat_map(|one| one.writes(key, requests)).collect();
                all.push((increment, 1));
                all
            }
        }
    }
}

/// The same request with many headers that nobody knows.
fn with_large_head(request: &[u8]) -> Vec<u8> {
    const HEADERS: usize = 30;
    let head =
        request.strip_suffix(b"\r\n").expect("a request without a body ends with a blank line");
    let value = "v".repeat(LARGE_HEAD_BYTES / HEADERS - "X-Large-00: \r\n".len());
    let headers: String =
        (0..HEADERS).map(|number| format!("X-Large-{number:02}: {value}\r\n")).collect();
    [head, headers.as_bytes(), b"\r\n"].concat()
}

fn main() -> ExitCode {
    let (connections, requests) = if is_short() { (50, 20) } else { (1000, 400) };
    let count = |name, default| {
        usize::try_from(number_setting(name, default)).expect("a small number").max(1)
    };
    let connections = count("ODOMETER_BENCH_CONNECTIONS", connections);
    let requests = count("ODOMETER_BENCH_REQUESTS", requests);
    let limit = support::setting("ODOMETER_BENCH_LIMIT_KIB")
        .map(|_| number_setting("ODOMETER_BENCH_LIMIT_KIB", 0));
    let folder = bench_folder(env!("CARGO_TARGET_TMPDIR"));
    show_surroundings(folder.path());
    show(&format!("run: {connections} connections over TLS, each idle after its traffic"));
    allow_descriptors(connections);
    show("\ntraffic of each connection         KiB of RSS each   of 32 KiB");
    let key = register_one(folder.path());
    let mut is_good = true;
    for traffic in ALL {
        let kib = measure(&traffic.writes(&key, requests), connections, folder.path());
        show(&format!("{:<35}{kib:>15.1}{:>12.2}", traffic.name(requests), kib / LIMIT_KIB));
        is_good &= traffic != Traffic::Small || limit.is_none_or(|limit| kib <= limit as f64);
    }
    if is_good {
        return ExitCode::SUCCESS;
    }
    show(&format!(
        "\na connection takes more than ODOMETER_BENCH_LIMIT_KIB={} after small requests",
        limit.unwrap_or(0)
    ));
    ExitCode::FAILURE
}

/// The servers inherit what this process may open.
fn allow_descriptors(connections: usize) {
    let needed = connections as u64 + OTHER_DESCRIPTORS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return;
    }
    let raised =
        Rlimit { current: Some(needed), maximum: maximum.map(|maximum| maximum.max(needed)) };
    let result = setrlimit(Resource::Nofile, raised);
    assert!(result.is_ok(), "{connections} connections need {needed} descriptors: raise ulimit -n");
}

fn start(folder: &Path, connections: usize) -> TestServer {
    let places = (connections + WARM).to_string();
    TestServer::builder()
        .data_dir(folder.join("data"))
        .keep(Keep::Problems)
        // What the allocator keeps for later would hide what a connection takes.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .flag("--log-level", "warn")
        .flag("--max-connections", &places)
        .flag("--max-connections-per-address", &places)
        .chosen_ports()
        .start()
}

fn register_one(folder: &Path) -> String {
    let server = start(folder, 1);
    let mut keys = runtime().block_on(register(&server.endpoint(), "bench", 1));
    server.stop();
    keys.remove(0)
}

fn measure(writes: &[(Vec<u8>, usize)], connections: usize, folder: &Path) -> f64 {
    let server = start(folder, connections);
    let endpoint = server.endpoint();
    let grown_kib = runtime().block_on(async {
        let warm = open(&endpoint, WARM, writes).await;
        let before = settled_rss_kib(&server).await;
        let streams = open(&endpoint, connections, writes).await;
        let after = settled_rss_kib(&server).await;
        let open = server.metric("odometer_connections").unwrap_or(0.0);
        assert!(open >= connections as f64, "only {open} connections are open");
        drop((warm, streams));
        after - before
    });
    server.stop();
    grown_kib / connections as f64
}

/// Opens connections, does the same on each of them, a few at a time, and leaves them open.
async fn open(endpoint: &Endpoint, count: usize, writes: &[(Vec<u8>, usize)]) -> Vec<Stream> {
    let connector = endpoint.tls(&[b"http/1.1"]);
    let mut streams = Vec::with_capacity(count);
    let mut busy = JoinSet::new();
    for _ in 0..count {
        // A connection that is open has little time to begin, so it is opened when its turn comes.
        let stream = endpoint.open(&connector).await.expect("the server accepts a connection");
        if busy.len() == AT_ONCE {
            streams.extend(busy.join_next().await);
        }
        busy.spawn(talk(stream, writes.to_vec()));
    }
    streams.extend(busy.join_all().await.into_iter().map(Ok));
    streams.into_iter().collect::<Result<_, _>>().expect("every request is answered with 200")
}

async fn talk(stream: Stream, writes: Vec<(Vec<u8>, usize)>) -> Stream {
    let mut connection = RawConnection::new(stream);
    for (bytes, answers) in writes {
        connection.send(&bytes).await.expect("the connection stays open");
        for _ in 0..answers {
            let answer = connection.message().await.expect("the connection stays open");
            let status = &answer[..answer.len().min(64)];
            assert!(
                status.starts_with(b"HTTP/1.1 200 "),
                "not a 200: {}",
                String::from_utf8_lossy(status)
            );
        }
    }
    connection.stream
}

/// Resident memory of the server, once it does not shrink any more.
async fn settled_rss_kib(server: &TestServer) -> f64 {
    let until = Instant::now() + SETTLE_DEADLINE;
    let mut least = rss_kib(server);
    let mut since = Instant::now();
    while since.elapsed() < SETTLED && Instant::now() < until {
        tokio::time::sleep(SETTLED / 10).await;
        let now = rss_kib(server);
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
    least
}

fn rss_kib(server: &TestServer) -> f64 {
    let pid = server.pid().expect("the server runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a process that runs has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}
