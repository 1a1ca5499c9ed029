//! Listeners and worker threads.
//!
//! ```text
//! acceptor (main thread) ── to the worker with the fewest connections ──► worker threads, each
//!                           with a runtime, an App and a store handle of its own
//! ```
//! Job: accept connections and dispatch them, run the workers, drain them.
//! Invariant: one worker serves a connection from begin to end.
//! Must never: let a slow peer delay another one.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipnet::IpNet;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

pub use super::connection::{Endpoint, Protocol};
pub use super::connection_limit::{ConnectionLimiter, ConnectionLimits, ConnectionPermit};
use super::middleware::access_log::{AccessLogSampler, Listener, Observer};
use super::redirect::HttpsPort;
use super::routes::{self, AppContext};
use super::state::{AppState, Shared};
use super::{bridge, connection};
use crate::failpoint::failpoint;
use crate::store::Store;
use crate::store::embedded::EmbeddedStore;

/// Wait after a failed accept. It fails with EMFILE when there are no more file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

type AcceptedConnection = (std::net::TcpStream, SocketAddr, ConnectionPermit);

/// How requests are served.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Worker threads.
    pub workers: usize,
    /// How long connections may take to end when the server stops.
    pub drain_timeout: Duration,
    /// Proxies whose `X-Forwarded-For` is used as the client address.
    pub trusted_proxies: Arc<[IpNet]>,
    /// One in this many successful requests is logged; `None`: none of them.
    pub access_log_sample: Option<u64>,
}

/// Makes the endpoint of each listener: its App with an observer.
#[derive(Clone)]
pub struct EndpointFactory {
    /// The store; each worker gets a handle of its own.
    pub store: Arc<dyn Store>,
    /// The state that all workers share.
    pub shared: Arc<Shared>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Decides which requests are logged.
    pub sampler: Arc<AccessLogSampler>,
}

impl EndpointFactory {
    /// A factory with these options.
    pub fn new(options: &ServerOptions, store: Arc<dyn Store>, shared: Arc<Shared>) -> Self {
        Self {
            store,
            shared,
            trusted_proxies: Arc::clone(&options.trusted_proxies),
            sampler: Arc::new(AccessLogSampler::new(options.access_log_sample)),
        }
    }

    fn observer(&self, listener: Listener) -> Rc<Observer> {
        Rc::new(Observer {
            metrics: self.shared.metrics.clone(),
            routes: if listener == Listener::Admin {
                routes::admin_table()
            } else {
                routes::table()
            },
            listener,
            trusted_proxies: Arc::clone(&self.trusted_proxies),
            sampler: Arc::clone(&self.sampler),
            last_client: RefCell::new((Ipv4Addr::UNSPECIFIED.into(), "0.0.0.0".into())),
        })
    }

    async fn public(&self, tasks: TaskTracker) -> Endpoint {
        let state =
            Rc::new(AppState { store: self.store.for_worker(), shared: Arc::clone(&self.shared) });
        let observer = self.observer(Listener::Public);
        let app = bridge::start(routes::public(&AppContext {
            state,
            observer: Rc::clone(&observer),
            tasks,
        }))
        .await;
        Endpoint { app, observer }
    }

    /// The endpoint of the ops listener, for the calling thread.
    pub async fn ops(&self) -> Endpoint {
        let state =
            Rc::new(AppState { store: Arc::clone(&self.store), shared: Arc::clone(&self.shared) });
        let (observer, tasks) = (self.observer(Listener::Ops), TaskTracker::new());
        let app = bridge::start(routes::ops(&AppContext {
            state,
            observer: Rc::clone(&observer),
            tasks,
        }))
        .await;
        Endpoint { app, observer }
    }

    /// The endpoint of the admin socket, for the calling thread. Changes run as tasks of `tasks`;
    /// `store` makes backups.
    pub async fn admin(&self, store: EmbeddedStore, tasks: TaskTracker) -> Endpoint {
        let state =
            Rc::new(AppState { store: Arc::clone(&self.store), shared: Arc::clone(&self.shared) });
        let observer = self.observer(Listener::Admin);
        let app = bridge::start(routes::admin(
            &AppContext { state, observer: Rc::clone(&observer), tasks },
            store,
        ))
        .await;
        Endpoint { app, observer }
    }

    /// The endpoint that redirects to HTTPS at this port, for the calling thread.
    pub async fn redirect(&self, https_port: u16) -> Endpoint {
        let observer = self.observer(Listener::Redirect);
        let app = bridge::start(routes::redirect(&observer, HttpsPort(https_port))).await;
        Endpoint { app, observer }
    }
}

/// What each worker gets.
#[derive(Clone)]
pub struct WorkerContext {
    /// Makes the worker's endpoint.
    pub endpoints: EndpointFactory,
    /// The TLS configuration.
    pub tls: TlsAcceptor,
    /// Turns true when the server shuts down.
    pub drain: watch::Receiver<bool>,
}

/// The acceptor's handle to a worker thread.
#[derive(Debug)]
struct Worker {
    accepted: mpsc::UnboundedSender<AcceptedConnection>,
    connections: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// The worker threads.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
}

impl Workers {
    /// Starts the worker threads.
    ///
    /// # Errors
    /// A thread or its runtime could not be started.
    pub fn start(options: &ServerOptions, context: &WorkerContext) -> io::Result<Self> {
        let drain_timeout = options.drain_timeout;
        let mut workers = Vec::with_capacity(options.workers);
        for number in 0..options.workers {
            let (accepted, inbox) = mpsc::unbounded_channel();
            let connections = Arc::new(AtomicUsize::new(0));
            let (context, counted) = (context.clone(), Arc::clone(&connections));
            let (started, has_started) = std::sync::mpsc::channel();
            let thread = thread::Builder::new().name(format!("odometer-worker-{number}")).spawn(
                move || {
                    // A local runtime must be built on the thread that runs it.
                    match Builder::new_current_thread()
                        .enable_all()
                        .build_local(LocalOptions::default())
                    {
                        Ok(runtime) => {
                            let _ = started.send(Ok(()));
                            runtime.block_on(run_worker(inbox, context, counted, drain_timeout));
                        }
                        Err(error) => drop(started.send(Err(error))),
                    }
                },
            )?;
            has_started.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
            workers.push(Worker { accepted, connections, thread });
        }
        Ok(Self { workers })
    }

    fn dispatch(&self, connection: AcceptedConnection) {
        let least_loaded =
            self.workers.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed));
        if let Some(worker) = least_loaded {
            worker.connections.fetch_add(1, Ordering::Relaxed);
            // If the worker has ended, the connection is dropped, which closes it.
            let _ = worker.accepted.send(connection);
        }
    }

    /// Waits until all workers have ended: `drain` must be true, and their connections have
    /// `drain_timeout`.
    pub fn join(self) {
        // The senders of all workers are dropped first, so that their timeouts run in parallel.
        let threads: Vec<_> = self.workers.into_iter().map(|worker| worker.thread).collect();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

async fn run_worker(
    mut inbox: mpsc::UnboundedReceiver<AcceptedConnection>,
    context: WorkerContext,
    counted: Arc<AtomicUsize>,
    drain_timeout: Duration,
) {
    // Connections, and audited requests that outlive their connection.
    let tasks = TaskTracker::new();
    let endpoint = context.endpoints.public(tasks.clone()).await;
    let protocol = Protocol::Tls(context.tls.clone(), endpoint);
    while let Some((stream, peer, permit)) = inbox.recv().await {
        let (protocol, drain) = (protocol.clone(), context.drain.clone());
        let counted = Arc::clone(&counted);
        tasks.spawn_local(async move {
            if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
                connection::serve(stream, peer, protocol, drain).await;
            }
            counted.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        });
    }
    tasks.close();
    if !failpoint!("drain-waits-for-no-connection") {
        let _ = tokio::time::timeout(drain_timeout, tasks.wait()).await;
    }
}

/// The target of accepted connections.
pub enum ConnectionTarget {
    /// The workers.
    Workers(Arc<Workers>),
    /// The accepting thread serves them itself.
    Inline(Protocol, watch::Receiver<bool>),
}

/// Accepts connections until the task is aborted.
pub async fn accept(
    listener: tokio::net::TcpListener,
    limiter: Arc<ConnectionLimiter>,
    target: ConnectionTarget,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) =>
            {
                continue;
            }
            Err(error) => {
                tracing::warn!(
                    event.action = "accept-failed",
                    error.message = %error,
                    "connection could not be accepted"
                );
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        // At the limit, dropping the stream closes the connection.
        let Some(permit) = limiter.try_acquire(peer.ip()) else { continue };
        match &target {
            ConnectionTarget::Workers(workers) => {
                if let Ok(stream) = stream.into_std() {
                    workers.dispatch((stream, peer, permit));
                }
            }
            ConnectionTarget::Inline(protocol, drain) => {
                let (protocol, drain) = (protocol.clone(), drain.clone());
                spawn_local(async move {
                    connection::serve(stream, peer, protocol, drain).await;
                    drop(permit);
                });
            }
        }
    }
}
