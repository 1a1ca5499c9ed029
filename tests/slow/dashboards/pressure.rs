//! The clients of the servers in trouble, until they are told to stop.
//!
//! Job: increments at a gentle pace and as fast as they are answered, wrong keys, connections that
//! stay and connections that are too many, and more requests than the queue of a writer takes.
//! Invariant: they go on whatever they are answered, and connect again when they are cut off; what
//! it means is judged by the alerts. It must never send more than its pace says: it shares the
//! cores with the servers.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::causes::Causes;
use crate::support::client::{Endpoint, Protocol};
use crate::support::raw_client::connect_from;
use crate::support::workload::runtime;

/// Between two requests of a client that is gentle.
const GENTLY: Duration = Duration::from_millis(20);
/// Between two requests of each of thousands.
const SLOW_INTERVAL: Duration = Duration::from_secs(1);
/// 256 streams each: 8,192 requests in the queue, 2,048 in a commit, and 256 for whom there is no
/// room.
const FLOOD_CONNECTIONS: usize = 41;
const STREAMS: usize = 256;
const INCREMENT: &str = "/api/v1/integer/increment";
/// Has the form of a key, and nobody was ever given it.
const WRONG_KEY: &str = "odo_no_key";

/// All of them. They stop when it is dropped.
pub(crate) struct Pressure {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pressure {
    pub(crate) fn start(causes: &Causes) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let mut pressure = Self { stopped: Arc::clone(&stopped), threads: Vec::new() };
        let of = |name: &str| (causes.server(name).endpoint(), causes.key(name).to_owned());
        let gentle = ["healthy", "full", "unsaved"].map(|name| (of(name), GENTLY));
        let eager = ["slow", "slower", "slower", "slower", "slower"]
            .map(|name| (of(name), Duration::from_micros(1)));
        let guessed = (causes.server("guessed").endpoint(), WRONG_KEY.to_owned());
        let (crowded, besieged) =
            (causes.server("crowded").endpoint(), causes.server("besieged").endpoint());
        pressure.spawn(async move {
            let mut tasks = JoinSet::new();
            for ((endpoint, key), pace) in
                gentle.into_iter().chain(eager).chain([(guessed, GENTLY)])
            {
                tasks.spawn(increment(endpoint, key, pace));
            }
            tasks.spawn(crowd(crowded, Ipv4Addr::LOCALHOST, 6));
            tasks.spawn(crowd(besieged, Ipv4Addr::new(127, 0, 0, 2), 3));
            tasks.join_all().await;
        });
        let (endpoint, key) = of("stuck");
        pressure.spawn(async move {
            let mut tasks = JoinSet::new();
            for _ in 0..FLOOD_CONNECTIONS {
                flood(&mut tasks, &endpoint, &key).await;
            }
            tasks.join_all().await;
        });
        pressure
    }

    /// Runs it on a thread of its own until the end.
    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let stopped = Arc::clone(&self.stopped);
        self.threads.push(std::thread::spawn(move || {
            runtime().block_on(async {
                let mut ticks = interval(GENTLY);
                let watch = async {
                    while !stopped.load(Ordering::Relaxed) {
                        ticks.tick().await;
                    }
                };
                tokio::select! { () = work => {}, () = watch => {} }
            });
        }));
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a client gave up");
        }
    }
}

/// One increment after the other, with this key, right or wrong.
async fn increment(endpoint: Endpoint, key: String, pace: Duration) {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let bearer = format!("Bearer {key}");
    loop {
        ticks.tick().await;
        let Ok(mut client) = endpoint.connect(Protocol::Http1).await else { continue };
        while client.request("PUT", INCREMENT, &[("authorization", &bearer)], "").await.is_ok() {
            ticks.tick().await;
        }
    }
}

/// Holds so many connections, each of which has asked once, and tries for more of them.
async fn crowd(endpoint: Endpoint, source: Ipv4Addr, places: usize) {
    let mut ticks = interval(GENTLY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let connector = endpoint.tls(&[b"h2"]);
    let mut held = Vec::new();
    while held.len() < places {
        ticks.tick().await;
        // At the limit they are cut off.
        let Ok(stream) = connect_from(source, endpoint.address).await else { continue };
        let Ok(stream) = endpoint.shake_hands(&connector, stream).await else { continue };
        let Ok((sender, connection)) =
            http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
                .await
        else {
            continue;
        };
        tokio::spawn(connection);
        let asked = ask(&sender, &endpoint, "GET", "/livez", None).await;
        if asked.is_ok() {
            held.push(sender);
        }
    }
    loop {
        ticks.tick().await;
        let refused: std::io::Result<TcpStream> = connect_from(source, endpoint.address).await;
        drop(refused);
    }
}

/// One connection, each stream of which asks for an increment once a second, or when the one before
/// was answered.
async fn flood(tasks: &mut JoinSet<()>, endpoint: &Endpoint, key: &str) {
    let stream =
        endpoint.open(&endpoint.tls(&[b"h2"])).await.expect("the server accepts a connection");
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    for _ in 0..STREAMS {
        let (sender, endpoint, bearer) =
            (sender.clone(), endpoint.clone(), format!("Bearer {key}"));
        tasks.spawn(async move {
            let mut ticks = interval(SLOW_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if ask(&sender, &endpoint, "PUT", INCREMENT, Some(&bearer)).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn ask(
    sender: &http2::SendRequest<Empty<Bytes>>,
    endpoint: &Endpoint,
    method: &str,
    path: &str,
    bearer: Option<&str>,
) -> hyper::Result<()> {
    let mut sender = sender.clone();
    let mut request = Request::builder().method(method);
    request = request.uri(format!("https://localhost:{}{path}", endpoint.address.port()));
    if let Some(bearer) = bearer {
        request = request.header("authorization", bearer);
    }
    sender.ready().await?;
    let answer = sender.send_request(request.body(Empty::new()).expect("a valid request")).await?;
    answer.into_body().collect().await?;
    Ok(())
}
