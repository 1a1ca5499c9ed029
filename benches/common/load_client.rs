//! The load generator of the benches: prebuilt requests over TLS and the least reading of answers
//! that still notices a wrong one.
//!
//! Invariant: one request is under way per connection, and only answers with status 200 and a value
//! count; anything else ends the bench. It shares the cores with the server, so it must never use
//! an HTTP library, allocate much per request, or record more than one number for each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::support::Random;
use crate::support::client::Endpoint;
use crate::support::raw_client::{RawConnection, find, number};

/// What each connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Reads, over all tenants.
    Read,
    /// Durable increments, over all tenants.
    Spread,
    /// Durable increments of the first tenant.
    Hot,
    /// Durable increments of a named counter, [`NAMED`], over all tenants.
    Named,
    /// Durable increments with an idempotency key, each with its own, over all tenants.
    Once,
}

/// The named counter that every tenant must have for [`Mode::Named`].
pub(crate) const NAMED: &str = "invoices-2026";
/// Stands in a request where its idempotency key goes; as long as one.
const KEY_GOES_HERE: &str = "KKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK";

/// What was measured in one period.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Answered within the period; rates and latencies are of these.
    pub(crate) requests: u64,
    /// Answered at all: each connection's last answer comes after the end, but the server did its
    /// work.
    pub(crate) answered: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Drives `connections` for `period`, on `threads` threads. Connecting is not part of the period.
pub(crate) fn drive(
    endpoint: &Endpoint,
    keys: &[String],
    mode: Mode,
    connections: usize,
    period: Duration,
    threads: usize,
) -> Measured {
    let threads = threads.min(connections);
    let start = Arc::new(Barrier::new(threads));
    let requests: Arc<[Vec<u8>]> = prebuild(keys, mode).into();
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let (endpoint, start, requests) =
                (endpoint.clone(), Arc::clone(&start), Arc::clone(&requests));
            let own = (thread..connections).step_by(threads).collect::<Vec<_>>();
            std::thread::spawn(move || run_thread(&endpoint, &start, &requests, &own, period))
        })
        .collect();
    let mut latencies: Vec<u32> = Vec::new();
    for worker in workers {
        latencies.extend(worker.join().expect("every answer is a 200 with a value"));
    }
    summarize(&mut latencies, connections, period)
}

fn prebuild(keys: &[String], mode: Mode) -> Vec<Vec<u8>> {
    let keys = if mode == Mode::Hot { &keys[..1] } else { keys };
    keys.iter().map(|key| request(key, mode)).collect()
}

/// The request of one tenant, whole.
pub(crate) fn request(key: &str, mode: Mode) -> Vec<u8> {
    let old = "PUT /api/v1/integer/increment HTTP/1.1\r\nContent-Length: 0";
    let line = match mode {
        Mode::Read => "GET /api/v1/integer HTTP/1.1".to_owned(),
        Mode::Spread | Mode::Hot => old.to_owned(),
        Mode::Named => {
            format!("POST /api/v1/counters/{NAMED}/increment HTTP/1.1\r\nContent-Length: 0")
        }
        Mode::Once => format!("{old}\r\nIdempotency-Key: {KEY_GOES_HERE}"),
    };
    format!("{line}\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n").into()
}

fn run_thread(
    endpoint: &Endpoint,
    start: &Barrier,
    requests: &Arc<[Vec<u8>]>,
    own: &[usize],
    period: Duration,
) -> Vec<u32> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async {
        let connector = endpoint.tls(&[b"http/1.1"]);
        let mut connections = Vec::with_capacity(own.len());
        for number in own {
            let connection = RawConnection::over_tls(endpoint, &connector).await;
            connections.push((*number, connection.expect("the server accepts a connection")));
        }
        // Blocks the thread: nothing else runs on it before all threads are connected.
        start.wait();
        let until = Instant::now() + period;
        let mut tasks = JoinSet::new();
        for (number, connection) in connections {
            tasks.spawn(run_connection(connection, Arc::clone(requests), number, until));
        }
        tasks.join_all().await.concat()
    })
}

/// Latencies of one connection in nanoseconds. An answer that comes after the end does not count.
async fn run_connection(
    mut connection: RawConnection<TlsStream<TcpStream>>,
    requests: Arc<[Vec<u8>]>,
    first: usize,
    until: Instant,
) -> Vec<u32> {
    let mut latencies = Vec::with_capacity(16 * 1024);
    connection.read.reserve(16 * 1024);
    let mut sent = Instant::now();
    let mut own = Vec::new();
    // In the same place of each, before what differs.
    let key_at = find(&requests[0], KEY_GOES_HERE.as_bytes());
    for request in requests.iter().cycle().skip(first % requests.len()) {
        let request = match key_at {
            Some(at) => {
                own.clone_from(request);
                write_key(&mut own[at..]);
                &own
            }
            None => request,
        };
        connection.send(request).await.expect("the connection stays open");
        assert_is_value(connection.message().await.expect("the connection stays open"));
        let now = Instant::now();
        if now >= until {
            break;
        }
        latencies.push(u32::try_from((now - sent).as_nanos()).unwrap_or(u32::MAX));
        sent = now;
    }
    latencies
}

/// Begins these bytes with an idempotency key that no other request has.
fn write_key(bytes: &mut [u8]) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static RUN: OnceLock<u64> = OnceLock::new();
    let run = RUN.get_or_init(Random::run_seed);
    let key = format!("{run:016x}{:016x}", COUNT.fetch_add(1, Ordering::Relaxed));
    bytes[..key.len()].copy_from_slice(key.as_bytes());
}

fn assert_is_value(answer: &[u8]) {
    let value =
        find(answer, b"\"value\":").and_then(|at| number(answer[at + 8..].trim_ascii_start()));
    let good = answer.starts_with(b"HTTP/1.1 200 ") && value.is_some_and(|value| value > 0);
    assert!(good, "not a value: {}", String::from_utf8_lossy(answer));
}

fn summarize(latencies: &mut [u32], connections: usize, period: Duration) -> Measured {
    assert!(!latencies.is_empty(), "no request was answered within {period:?}");
    latencies.sort_unstable();
    let at =
        |share: f64| f64::from(latencies[((latencies.len() - 1) as f64 * share) as usize]) / 1e3;
    let requests = latencies.len() as u64;
    let answered = requests + connections as u64;
    Measured {
        requests,
        answered,
        per_second: requests as f64 / period.as_secs_f64(),
        p50_us: at(0.50),
        p99_us: at(0.99),
    }
}
