//! The edge: sockets in, requests to the API, and nothing that the API should know of sockets.
//!
//! ```text
//! acceptor (main thread) ── the worker with the fewest connections ──► worker threads, one runtime each
//!   mod.rs listeners, limits, workers, drain     connection.rs one connection     guard.rs deadlines of HTTP/1.1
//!   activity.rs idle HTTP/2   tls.rs certificate   observe.rs, ids.rs the one middleware   plain.rs the HTTP port
//!   descriptors.rs how many files and sockets may be open
//! ```
//! Job: bound what a peer may use: connections in all and by address, time, bytes. Invariant: a connection is counted from its accept to its end.
//! Must never: wait for a slow peer at the cost of another.

mod activity;
mod connection;
pub mod descriptors;
mod guard;
mod ids;
mod observe;
mod plain;
pub mod tls;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

pub use self::connection::Protocol;
pub use self::observe::{Observer, Telling};
use crate::api::route::Listener;
use crate::api::{Api, Shared};
use crate::store::Store;
use crate::telemetry::{ConnectionMetrics, Metrics, Seldom};

/// How long the acceptor rests when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What peers may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address.
    pub connections_per_address: usize,
}

/// Counts connections, in all and by address.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    metrics: ConnectionMetrics,
    /// In all, and of one address.
    refused: [Seldom; 2],
    open: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// A connection's place; leaving it gives it back.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    /// A gate with nobody inside.
    #[must_use]
    pub fn new(limits: Limits, metrics: ConnectionMetrics) -> Arc<Self> {
        Arc::new(Self { limits, metrics, refused: [const { Seldom::new() }; 2], open: Mutex::default() })
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_address) = &mut *open;
        let own = by_address.get(&address).copied().unwrap_or(0);
        let is_full = *all >= self.limits.connections;
        if is_full || own >= self.limits.connections_per_address {
            drop(open);
            self.tell_refused(is_full, address);
            return None;
        }
        by_address.insert(address, own + 1);
        *all += 1;
        self.metrics.tell_open(*all);
        drop(open);
        Some(Place { gate: Arc::clone(self), address })
    }

    fn tell_refused(&self, is_full: bool, address: IpAddr) {
        let metrics = &self.metrics;
        if is_full { &metrics.refused_total } else { &metrics.refused_address }.increment(1);
        let Some(kept_back) = self.refused[usize::from(!is_full)].pass() else { return };
        tracing::warn!(
            event.action = "connection-refused",
            event.outcome = "failure",
            event.reason = if is_full { "max-connections" } else { "max-connections-per-address" },
            client.ip = %address,
            odometer.kept_back = kept_back,
            "a connection was closed unanswered: too many are open"
        );
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.0 -= 1;
        self.gate.metrics.tell_open(open.0);
        if let Some(own) = open.1.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                open.1.remove(&self.address);
            }
        }
    }
}

type Arrival = (std::net::TcpStream, SocketAddr, Place);

/// A worker thread, as the acceptor sees it.
#[derive(Debug)]
struct Worker {
    arrivals: mpsc::UnboundedSender<Arrival>,
    connections: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// The worker threads.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
}

/// What a worker needs to serve.
#[derive(Clone)]
pub struct WorkerParts {
    /// The store; each worker takes its own handle.
    pub store: Arc<dyn Store>,
    /// What the API shares.
    pub shared: Arc<Shared>,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// TLS.
    pub tls: TlsAcceptor,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// What is told of requests.
    pub telling: Arc<Telling>,
    /// Turns true when connections are to end.
    pub drain: watch::Receiver<bool>,
    /// How long they may take to.
    pub drain_timeout: Duration,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn start(count: usize, parts: &WorkerParts) -> io::Result<Self> {
        let mut workers = Vec::with_capacity(count);
        for number in 0..count {
            let (arrivals, inbox) = mpsc::unbounded_channel();
            let connections = Arc::new(AtomicUsize::new(0));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (parts, counted) = (parts.clone(), Arc::clone(&connections));
            let thread = thread::Builder::new()
                .name(format!("odometer-worker-{number}"))
                .spawn(move || runtime.block_on(work(inbox, parts, counted)))?;
            workers.push(Worker { arrivals, connections, thread });
        }
        Ok(Self { workers })
    }

    fn hand(&self, arrival: Arrival) {
        let idlest = self.workers.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed));
        if let Some(worker) = idlest {
            worker.connections.fetch_add(1, Ordering::Relaxed);
            // A worker that is gone drops the connection, which closes it.
            let _ = worker.arrivals.send(arrival);
        }
    }

    /// Waits until every connection has ended; they were told by `drain`, and have its timeout.
    pub fn join(self) {
        // All of them first lose their senders, so that their time-outs run side by side.
        let threads: Vec<_> = self.workers.into_iter().map(|worker| worker.thread).collect();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

async fn work(mut inbox: mpsc::UnboundedReceiver<Arrival>, parts: WorkerParts, counted: Arc<AtomicUsize>) {
    // Each connection and each answer holds a sender; when the last is gone, so are they.
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    let observer = Observer {
        api: Api::new(parts.store.for_worker(), Arc::clone(&parts.shared)),
        metrics: parts.metrics.clone(),
        listener: Listener::Public,
        trusted_proxies: Arc::clone(&parts.trusted_proxies),
        telling: Arc::clone(&parts.telling),
        alive: Some(alive),
    };
    let protocol = Protocol::Tls(parts.tls.clone(), observer);
    while let Some((stream, peer, place)) = inbox.recv().await {
        let (protocol, drain) = (protocol.clone(), parts.drain.clone());
        let counted = Arc::clone(&counted);
        tokio::spawn(async move {
            if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
                connection::serve(stream, peer, protocol, drain).await;
            }
            counted.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
    drop(protocol);
    let _ = tokio::time::timeout(parts.drain_timeout, all_gone.recv()).await;
}

/// Where accepted connections go.
pub enum Destination {
    /// To the workers.
    Workers(Arc<Workers>),
    /// Served on the accepting thread, which has little else to do.
    Here(Protocol, watch::Receiver<bool>),
}

/// Binds a listener.
///
/// # Errors
/// Any error of the system, a port in use among them.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts connections until the task is aborted.
pub async fn accept(listener: tokio::net::TcpListener, gate: Arc<Gate>, destination: Destination) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
                continue;
            }
            Err(error) => {
                tracing::warn!(event.action = "accept-failed", error.message = %error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Over the limit: dropping the stream closes it.
        let Some(place) = gate.enter(peer.ip()) else { continue };
        match &destination {
            Destination::Workers(workers) => {
                if let Ok(stream) = stream.into_std() {
                    workers.hand((stream, peer, place));
                }
            }
            Destination::Here(protocol, drain) => {
                let (protocol, drain) = (protocol.clone(), drain.clone());
                tokio::spawn(async move {
                    connection::serve(stream, peer, protocol, drain).await;
                    drop(place);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back() {
        let limits = Limits { connections: 3, connections_per_address: 2 };
        let metrics = Metrics::new("", "", &[]);
        let gate = Gate::new(limits, metrics.connections(3));
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = gate.enter(a).unwrap();
        let _second = gate.enter(a).unwrap();
        assert!(gate.enter(a).is_none());
        let _third = gate.enter(b).unwrap();
        assert!(gate.enter(b).is_none());
        let page = metrics.render();
        for line in ["connections 3", "connections_limit 3", "connections_refused_total{limit=\"address\"} 1"] {
            assert!(page.contains(&format!("odometer_{line}\n")), "{line}\n{page}");
        }
        assert!(page.contains("odometer_connections_refused_total{limit=\"total\"} 1\n"), "{page}");
        drop(first);
        assert!(gate.enter(b).is_some());
    }
}
