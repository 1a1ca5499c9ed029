//! The one file that knows everything: open, bind, run, drain.
//!
//! Job: [`App::open`] makes the parts from a checked [`Config`]; [`App::run_until`] serves until it is told to stop, then drains in a numbered order.
//! Invariant: nothing is served before the store is recovered, and the folder is given back after the last answer.
//! Must never: read a flag, an environment variable or a signal; these are main's.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::admin::SOCKET;
use crate::auth::password::HashingPool;
use crate::auth::rate_limiter::RateLimiters;
use crate::config::Config;
use crate::http::admin_socket;
use crate::http::listeners::{Addresses, Listeners};
use crate::http::rlimit::raise_nofile_limit;
use crate::http::server::{
    ConnectionLimiter, ConnectionLimits, ConnectionTarget, Endpoint, Protocol, ServerParts, WorkerParts, Workers,
    accept,
};
use crate::http::state::Shared;
use crate::http::tls::{ServerCertificate, TlsSource};
use crate::store::embedded::EmbeddedStore;
use crate::store::embedded::recovery::open::RecoveryReport;
use crate::store::embedded::shutdown_record::PreviousShutdown;
use crate::store::{Health, Store};
use crate::telemetry::{ConnectionMetrics, Metrics};

/// A process whose store failed is to be gone, and started again, within two seconds.
const DRAIN_TIMEOUT_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Connections to the ops listener at once.
const OPS_CONNECTIONS: usize = 64;
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Everything opened and bound, not yet serving.
pub struct App {
    core: Core,
    listeners: Listeners,
    admin: Admin,
}

/// What lives from the start to the end.
struct Core {
    /// For the parts that start with [`App::run_until`].
    config: Config,
    addresses: Addresses,
    tls: Arc<ServerCertificate>,
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    metrics: Metrics,
}

/// The admin socket, and the store that its requests go to.
struct Admin {
    listener: UnixListener,
    store: EmbeddedStore,
}

impl App {
    /// Binds the listeners, opens the store, loads the certificate.
    ///
    /// # Errors
    /// One line: what could not be opened, and why.
    pub fn open(config: Config, metrics: Metrics) -> Result<Self> {
        raise_nofile_limit(config.limits.connections);
        let listeners = Listeners::bind(&config.listen)?;
        let load_tls = || ServerCertificate::load(config.tls.clone());
        // Files that were named are read before the store is opened: a typing mistake must not
        // leave a new data directory behind.
        let from_files = matches!(config.tls, TlsSource::Files { .. }).then(load_tls).transpose()?;
        let data_dir = config.store.data_dir.display();
        let (store, recovery) = EmbeddedStore::open(&config.store, metrics.store())
            .with_context(|| format!("--data-dir {data_dir} cannot be opened"))?;
        log_recovery(&recovery);
        let listener = admin_socket::bind(&config.store.data_dir)
            .with_context(|| format!("the admin socket in {data_dir} cannot be created"))?;
        let admin = Admin { listener, store: store.clone() };
        // A self-signed certificate is created in the data directory, which exists now.
        let tls = from_files.map_or_else(load_tls, Ok)?;
        record_certificate_expiry(&tls, &metrics);
        let shared = Arc::new(Shared {
            throttle: RateLimiters::new(config.rate_limits),
            hashing: HashingPool::start().context("the hashing threads could not be started")?,
            passwords: config.passwords,
            counters_per_tenant: config.counters_per_tenant,
            key_touches_in_flight: papaya::HashSet::new(),
            metrics: metrics.clone(),
            draining: AtomicBool::new(false),
        });
        let addresses = listeners.addresses;
        let core = Core { config, addresses, tls, store: Arc::new(store), shared, metrics };
        Ok(Self { core, listeners, admin })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.core.addresses
    }

    /// The certificate in use.
    pub fn tls(&self) -> &Arc<ServerCertificate> {
        &self.core.tls
    }

    /// Serves until `stop` is ready or the store fails, and drains. `reload` yields whenever the certificate is to be loaded again.
    ///
    /// # Errors
    /// What made the store stop, or a listener unusable.
    pub async fn run_until(self, stop: impl Future<Output = ()>, mut reload: watch::Receiver<u64>) -> Result<()> {
        let Self { core, listeners, admin } = self;
        let store = admin.store.clone();
        let serving = core.serve(listeners, admin).await?;
        store.mark_running().await;
        log_ready(core.addresses);
        tokio::pin!(stop);
        let failure = loop {
            tokio::select! {
                () = &mut stop => break None,
                reason = core.store.wait_poisoned() => {
                    let reason = reason.unwrap_or_else(|error| error.to_string().into());
                    break Some(anyhow!("the store failed: {reason}"));
                }
                Ok(()) = reload.changed() => reload_certificate(&core.tls, &core.metrics),
            }
        };
        core.drain(serving, failure).await
    }
}

/// Everything that runs while the process serves.
struct Serving {
    workers: Arc<Workers>,
    /// Tells the connections that they are to end.
    drain: watch::Sender<bool>,
    acceptors: Vec<JoinHandle<()>>,
    /// The operators' acceptor, and what keeps its connections from draining.
    ops: Option<(JoinHandle<()>, watch::Sender<bool>)>,
    admin: ServingAdmin,
    deletions: JoinHandle<()>,
    upkeep: JoinHandle<()>,
}

/// The admin socket's acceptor, what ends its connections, and the changes that are being made.
struct ServingAdmin {
    acceptor: JoinHandle<()>,
    drain: watch::Sender<bool>,
    changes: TaskTracker,
}

impl Core {
    /// Starts the workers and accepts connections.
    async fn serve(&self, listeners: Listeners, admin: Admin) -> Result<Serving> {
        let (drain, draining) = watch::channel(false);
        let options = &self.config.server;
        let server = ServerParts::new(options, Arc::clone(&self.store), Arc::clone(&self.shared));
        let tls = TlsAcceptor::from(self.tls.server_config()?);
        let parts = WorkerParts { server: server.clone(), tls, drain: draining.clone() };
        let workers = Arc::new(Workers::start(options, &parts).context("the workers could not be started")?);
        let limits = self.config.limits;
        let metrics = self.metrics.connections(limits.connections);
        let limiter = ConnectionLimiter::new(limits, metrics);
        let target = ConnectionTarget::Workers(Arc::clone(&workers));
        let mut acceptors = vec![spawn_acceptor(listeners.public, &limiter, target)?];
        if let Some(listener) = listeners.http {
            let endpoint = server.redirect(self.addresses.public_port).await;
            let target = ConnectionTarget::Inline(Protocol::Plain(endpoint), draining);
            acceptors.push(spawn_acceptor(listener, &limiter, target)?);
        }
        let ops = match listeners.ops {
            Some(listener) => Some(spawn_ops_listener(listener, Protocol::Plain(server.ops().await))?),
            None => None,
        };
        let upkeep = tokio::spawn(upkeep(self.metrics.clone()));
        let deletions = tokio::spawn(resume_deletions(admin.store.clone()));
        let changes = TaskTracker::new();
        let endpoint = server.admin(admin.store, changes.clone()).await;
        let admin = spawn_admin_listener(admin.listener, endpoint, changes)?;
        Ok(Serving { workers, drain, acceptors, ops, admin, deletions, upkeep })
    }

    /// Ends everything, in order.
    async fn drain(&self, serving: Serving, mut failure: Option<anyhow::Error>) -> Result<()> {
        let Serving { workers, drain, acceptors, ops, admin, deletions, upkeep } = serving;
        // 1. Unready: load balancers stop sending.
        self.shared.draining.store(true, Ordering::Relaxed);
        tracing::info!(event.action = "stopping", "stopping: finishing what was accepted");
        // 2. Stop accepting.
        acceptors.iter().for_each(JoinHandle::abort);
        for acceptor in acceptors {
            let _ = acceptor.await;
        }
        // 3. Finish requests; after a failure only as long as it takes to say so.
        let _ = drain.send(true);
        if let Some(workers) = Arc::into_inner(workers) {
            let limit = if failure.is_some() { DRAIN_TIMEOUT_AFTER_FAILURE } else { Duration::MAX };
            let _ = tokio::time::timeout(limit, tokio::task::spawn_blocking(move || workers.join())).await;
        }
        // 4. The committer empties its queue, the keeper checkpoints, the folder is given back.
        // The socket goes first: once the folder is given back, another process may have made its own.
        admin.acceptor.abort();
        let _ = admin.drain.send(true);
        deletions.abort();
        let _ = std::fs::remove_file(self.config.store.data_dir.join(SOCKET));
        if failure.is_none() {
            let _ = self.store.close().await;
            if self.store.health() == Health::Poisoned {
                failure = Some(anyhow!("the store failed while it was closed; see the log"));
            }
            // What operators asked for has ended with the store; it is to be told, too.
            admin.changes.close();
            let _ = tokio::time::timeout(DRAIN_TIMEOUT_AFTER_FAILURE, admin.changes.wait()).await;
        }
        // 5. Last of all the ops listener, whose readiness load balancers ask meanwhile; main flushes the logs.
        drop(ops.inspect(|(acceptor, _)| acceptor.abort()));
        upkeep.abort();
        match failure {
            Some(error) => Err(error),
            None => {
                tracing::info!(event.action = "stopped", "stopped: everything that was answered is on disk");
                Ok(())
            }
        }
    }
}

fn spawn_acceptor(
    listener: TcpListener,
    limiter: &Arc<ConnectionLimiter>,
    target: ConnectionTarget,
) -> Result<JoinHandle<()>> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(spawn_local(accept(listener, Arc::clone(limiter), target)))
}

/// The ops listener has places of its own: whoever looks after the server must get in when everybody else does not.
fn spawn_ops_listener(listener: TcpListener, protocol: Protocol) -> Result<(JoinHandle<()>, watch::Sender<bool>)> {
    let limits = ConnectionLimits { connections: OPS_CONNECTIONS, connections_per_address: OPS_CONNECTIONS };
    let limiter = ConnectionLimiter::new(limits, ConnectionMetrics::noop());
    let (never, not_draining) = watch::channel(false);
    Ok((spawn_acceptor(listener, &limiter, ConnectionTarget::Inline(protocol, not_draining))?, never))
}

fn spawn_admin_listener(listener: UnixListener, endpoint: Endpoint, changes: TaskTracker) -> Result<ServingAdmin> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let (drain, draining) = watch::channel(false);
    let acceptor = spawn_local(admin_socket::accept(listener, endpoint, draining));
    Ok(ServingAdmin { acceptor, drain, changes })
}

async fn upkeep(metrics: Metrics) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

/// Goes on with deletions of tenants that an earlier process began; nobody waits for it.
async fn resume_deletions(store: EmbeddedStore) {
    if let Err(error) = store.resume_deletions().await {
        tracing::warn!(event.action = "purge-incomplete", error.message = %error,
            "what deleted tenants had is still on the disk; the next start goes on with it");
    }
}

fn reload_certificate(tls: &ServerCertificate, metrics: &Metrics) {
    match tls.reload() {
        Ok(()) => {
            record_certificate_expiry(tls, metrics);
            tracing::info!(
                event.action = "certificate-reload",
                event.outcome = "success",
                tls.server.hash.sha256 = tls.fingerprint(),
                "the certificate was loaded again"
            );
        }
        Err(error) => tracing::error!(event.action = "certificate-reload", event.outcome = "failure",
            error.message = %format!("{error:#}"), "the certificate could not be loaded again; the old one stays in use"),
    }
}

fn record_certificate_expiry(tls: &ServerCertificate, metrics: &Metrics) {
    if let Some(seconds) = tls.expires_unix_s() {
        #[expect(clippy::cast_precision_loss, reason = "seconds of this millennium are exact")]
        metrics.certificate_expiry(seconds as f64);
    }
}

fn log_recovery(recovery: &RecoveryReport) {
    if let Some(healed) = &recovery.rebuilt {
        tracing::error!(
            event.action = "state-rebuilt",
            error.message = %healed.problem,
            odometer.commit_seq = recovery.last.0,
            file.directory = %healed.quarantine,
            "the state was damaged and was rebuilt from {}; nothing is lost; the damaged files are in {}, see to the disk",
            healed.rebuild_source,
            healed.quarantine
        );
    }
    if let PreviousShutdown::Poisoned(why) = &recovery.previous_shutdown {
        tracing::warn!(
            event.action = "previous-run-poisoned",
            error.message = %why,
            "the process before this one gave up because a write failed; everything that it answered is there, see to the disk"
        );
    }
    tracing::info!(
        event.action = "recovered",
        odometer.commit_seq = recovery.last.0,
        odometer.last_stop = recovery.previous_shutdown.as_str(),
        "the store was recovered: {recovery}"
    );
}

fn log_ready(addresses: Addresses) {
    let listeners = [("public", Some(addresses.public)), ("http", addresses.http), ("ops", addresses.ops)];
    for (name, address) in listeners {
        if let Some(address) = address {
            tracing::info!(event.action = "listening", odometer.listener = name, server.ip = %address.ip(),
                server.port = address.port(), "listening");
        }
    }
    tracing::info!(event.action = "ready", "ready");
}
