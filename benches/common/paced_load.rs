//! Load on a schedule: tenants who ask a few times in a second whatever happens, and one who asks
//! far too often.
//!
//! Invariant: a quiet tenant's time is counted from when the request was due, if an earlier answer
//! was late, and otherwise from when it was sent; so a server that stalls cannot hide the requests
//! that it kept from being sent, and the generator's own lateness is not the server's. Only 200 and
//! 429 are answers; anything else ends the bench. It must never put the quiet and the noisy tenants
//! on one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::client::TlsStream;

use super::load_client::{Mode, request};
use crate::support::client::Endpoint;
use crate::support::raw_client::RawConnection;
use crate::support::workload::runtime;

const LEAD_DEADLINE: Duration = Duration::from_secs(30);

/// One connection that increments one tenant's counter.
struct Asker {
    connection: RawConnection<TlsStream<TcpStream>>,
    request: Vec<u8>,
}

impl Asker {
    async fn connect(endpoint: &Endpoint, key: &str) -> Self {
        let connection = RawConnection::over_tls(endpoint, &endpoint.tls(&[b"http/1.1"])).await;
        Self {
            connection: connection.expect("the server accepts a connection"),
            request: request(key, Mode::Hot),
        }
    }

    /// Sends so many requests at once; how many were accepted. The others were refused for being
    /// too many.
    async fn ask(&mut self, at_once: usize) -> usize {
        self.connection
            .send(&self.request.repeat(at_once))
            .await
            .expect("the connection stays open");
        let mut accepted = 0;
        for _ in 0..at_once {
            let answer = self.connection.message().await.expect("the connection stays open");
            accepted += usize::from(is_accepted(answer));
        }
        accepted
    }
}

fn is_accepted(answer: &[u8]) -> bool {
    let is_accepted = answer.starts_with(b"HTTP/1.1 200 ");
    let is_known = is_accepted || answer.starts_with(b"HTTP/1.1 429 ");
    assert!(is_known, "neither accepted nor refused: {}", String::from_utf8_lossy(answer));
    is_accepted
}

/// Latencies in µs, in order, of tenants who each ask `per_second` times, for `period`. None of
/// them may be refused.
pub(crate) fn quiet(
    endpoint: &Endpoint,
    keys: &[String],
    per_second: f64,
    period: Duration,
) -> Vec<f64> {
    let every = Duration::from_secs_f64(1.0 / per_second);
    let run = async {
        let mut askers = Vec::new();
        for key in keys {
            askers.push(Asker::connect(endpoint, key).await);
        }
        let (start, count) = (Instant::now(), u32::try_from(keys.len()).expect("a small number"));
        let mut tasks = JoinSet::new();
        for (number, asker) in (0..).zip(askers) {
            // Spread over the interval, so that they do not ask in step.
            tasks.spawn(ask_now_and_then(
                asker,
                start + every * number / count,
                every,
                start + period,
            ));
        }
        tasks.join_all().await.concat()
    };
    let mut latencies = runtime().block_on(run);
    latencies.sort_unstable_by(f64::total_cmp);
    latencies
}

async fn ask_now_and_then(
    mut asker: Asker,
    first: Instant,
    every: Duration,
    until: Instant,
) -> Vec<f64> {
    let (mut latencies, mut due, mut is_free) = (Vec::new(), first, first);
    while due < until {
        sleep_until(due).await;
        let begun = if is_free > due { due } else { Instant::now() };
        assert_eq!(asker.ask(1).await, 1, "a quiet tenant was refused");
        is_free = Instant::now();
        latencies.push((is_free - begun).as_secs_f64() * 1e6);
        due += every;
    }
    latencies
}

/// A tenant who floods, on a thread of its own, until it is told to stop.
pub(crate) struct Noise {
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    accepted: AtomicU64,
    refused: AtomicU64,
    stopped: AtomicBool,
}

/// How a tenant floods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) connections: u32,
    /// Requests in all, each second; as many as answers allow if there is no such number.
    pub(crate) per_second: Option<f64>,
    /// Requests that each connection sends before it reads their answers.
    pub(crate) at_once: usize,
}

impl Noise {
    /// Begins to flood, and returns once the burst of the tenant's limit is used up and the first
    /// request was refused. Only from there on it is paced.
    pub(crate) fn start(endpoint: &Endpoint, key: &str, manner: Manner) -> Self {
        let shared = Arc::new(Shared::default());
        let (tell, told) = channel();
        let (endpoint, key, own) = (endpoint.clone(), key.to_owned(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut tasks = JoinSet::new();
                for _ in 0..manner.connections {
                    let asker = Asker::connect(&endpoint, &key).await;
                    tasks.spawn(flood(asker, Arc::clone(&own), manner, tell.clone()));
                }
                tasks.join_all().await;
            });
        });
        told.recv_timeout(LEAD_DEADLINE).expect("a flood meets its limit");
        Self { thread, shared }
    }

    /// Accepted and refused requests so far.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.shared.accepted.load(Ordering::Relaxed), self.shared.refused.load(Ordering::Relaxed))
    }

    pub(crate) fn stop(self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.thread.join().expect("the server answers a flood");
    }
}

async fn flood(mut asker: Asker, shared: Arc<Shared>, manner: Manner, tell: Sender<()>) {
    let share = f64::from(manner.connections) * manner.at_once as f64;
    let every = manner.per_second.map(|rate| Duration::from_secs_f64(share / rate));
    let mut due = None;
    while !shared.stopped.load(Ordering::Relaxed) {
        if let Some(due) = due {
            sleep_until(due).await;
        }
        let accepted = asker.ask(manner.at_once).await;
        let refused = manner.at_once - accepted;
        shared.accepted.fetch_add(accepted as u64, Ordering::Relaxed);
        if shared.refused.fetch_add(refused as u64, Ordering::Relaxed) == 0 && refused > 0 {
            // Nobody hears it who has gone on already.
            let _ = tell.send(());
        }
        if let Some(every) = every
            && shared.refused.load(Ordering::Relaxed) > 0
        {
            due = Some(due.unwrap_or_else(Instant::now) + every);
        }
    }
}
