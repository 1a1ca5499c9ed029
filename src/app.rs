//! Composition root: wires configuration, store, listeners and telemetry together, and decides the
//! order in which they start and stop.
//!
//! Job: [`App::open`] opens every part with its options from a checked [`Config`];
//! [`App::run_until`] serves until it is told to stop or the store fails, then drains in a numbered
//! order.
//! Invariant: nothing is served before the store is recovered, and the data directory is unlocked
//! after the last response of the API. Only the admin socket's responses and those of the ops
//! listener may follow, see `Core::drain`.
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
use crate::http::server::{ConnectionLimiter, ConnectionLimits, ConnectionTarget, Endpoint};
use crate::http::server::{EndpointFactory, Protocol, WorkerContext, Workers, accept};
use crate::http::state::Shared;
use crate::http::tls::{ServerCertificate, TlsSource};
use crate::store::embedded::EmbeddedStore;
use crate::store::embedded::recovery::open::RecoveryReport;
use crate::store::embedded::shutdown_record::PreviousShutdown;
use crate::store::{Health, Store};
use crate::telemetry::{ConnectionMetrics, Metrics};

/// After the store failed, requests have this long to get their error: a supervisor should be able
/// to start the next process, which recovers, within two seconds.
const DRAIN_TIMEOUT_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Connections to the ops listener at once.
const OPS_CONNECTIONS: usize = 64;
/// How often the samples of the histograms are moved into their buckets, which bounds their memory.
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
        let from_files =
            matches!(config.tls, TlsSource::Files { .. }).then(load_tls).transpose()?;
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
            rate_limiters: RateLimiters::new(config.rate_limits),
            hashing: HashingPool::start().context("the hashing threads could not be started")?,
            passwords: config.passwords,
            counters_per_tenant: config.counters_per_tenant,
            key_touches_in_flight: papaya::HashSet::new(),
            metrics,
            draining: AtomicBool::new(false),
        });
        let addresses = listeners.addresses;
        let core = Core { config, addresses, tls, store: Arc::new(store), shared };
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

    /// Serves until `stop` is ready or the store fails, and drains. The certificate is reloaded
    /// whenever `reload` changes.
    ///
    /// # Errors
    /// The store failed, or the workers or a listener could not be started.
    pub async fn run_until<S>(self, stop: S, mut reload: watch::Receiver<u64>) -> Result<()>
    where
        S: Future<Output = ()>,
    {
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
                Ok(()) = reload.changed() => reload_certificate(&core.tls, &core.shared.metrics),
            }
        };
        core.drain(serving, failure).await
    }
}

/// Everything that runs while the process serves.
struct Serving {
    workers: Arc<Workers>,
    /// Turns true when connections are to end after their last response.
    drain: watch::Sender<bool>,
    acceptors: Vec<JoinHandle<()>>,
    ops: Option<ServingOps>,
    admin: ServingAdmin,
    deletions: JoinHandle<()>,
    upkeep: JoinHandle<()>,
}

/// The ops listener while the process serves.
struct ServingOps {
    acceptor: JoinHandle<()>,
    /// Kept, so that its connections do not drain.
    _drain: watch::Sender<bool>,
}

/// The admin socket while the process serves.
struct ServingAdmin {
    acceptor: JoinHandle<()>,
    /// Turns true when its connections are to end.
    drain: watch::Sender<bool>,
    /// The changes in progress; they outlive a client that disconnects.
    changes: TaskTracker,
}

impl Core {
    /// Starts the workers and accepts connections.
    async fn serve(&self, listeners: Listeners, admin: Admin) -> Result<Serving> {
        let (drain, draining) = watch::channel(false);
        let options = &self.config.server;
        let endpoints =
            EndpointFactory::new(options, Arc::clone(&self.store), Arc::clone(&self.shared));
        let tls = TlsAcceptor::from(self.tls.server_config()?);
        let context = WorkerContext { endpoints: endpoints.clone(), tls, drain: draining.clone() };
        let workers =
            Workers::start(options, &context).context("the workers could not be started")?;
        let workers = Arc::new(workers);
        let limits = self.config.limits;
        let metrics = self.shared.metrics.connections(limits.connections);
        let limiter = ConnectionLimiter::new(limits, metrics);
        let target = ConnectionTarget::Workers(Arc::clone(&workers));
        let mut acceptors = vec![spawn_acceptor(listeners.public, &limiter, target)?];
        if let Some(listener) = listeners.http {
            let endpoint = endpoints.redirect(self.addresses.public_port).await;
            let target = ConnectionTarget::Inline(Protocol::Plain(endpoint), draining);
            acceptors.push(spawn_acceptor(listener, &limiter, target)?);
        }
        let ops = match listeners.ops {
            Some(listener) => Some(spawn_ops_listener(listener, endpoints.ops().await)?),
            None => None,
        };
        let upkeep = tokio::spawn(upkeep(self.shared.metrics.clone()));
        let deletions = tokio::spawn(resume_deletions(admin.store.clone()));
        let admin = spawn_admin_listener(admin, &endpoints).await?;
        Ok(Serving { workers, drain, acceptors, ops, admin, deletions, upkeep })
    }

    /// Stops everything, in order. `failure` is why, if the store failed: then the store is not
    /// closed, and the end of the process releases the lock of the data directory.
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
        // 3. Finish requests; after a failure there is nothing to finish, only errors to send.
        let _ = drain.send(true);
        if let Some(workers) = Arc::into_inner(workers) {
            let timeout = failure.as_ref().map_or(Duration::MAX, |_| DRAIN_TIMEOUT_AFTER_FAILURE);
            let joined = tokio::task::spawn_blocking(move || workers.join());
            let _ = tokio::time::timeout(timeout, joined).await;
        }
        // 4. Close the store: the committer empties its queue, the checkpointer writes a last
        // checkpoint, the data directory is unlocked. The socket is removed before that, since
        // afterwards it may be another process's. The tenant API has sent its last response by now;
        // admin changes in progress get theirs after the unlock, since they end with the store.
        admin.acceptor.abort();
        let _ = admin.drain.send(true);
        deletions.abort();
        let _ = std::fs::remove_file(self.config.store.data_dir.join(SOCKET));
        if failure.is_none() {
            let _ = self.store.close().await;
            if self.store.health() == Health::Poisoned {
                failure = Some(anyhow!("the store failed while it was closed; see the log"));
            }
            // The store has finished the operators' changes; their responses are still to be sent.
            admin.changes.close();
            let _ = tokio::time::timeout(DRAIN_TIMEOUT_AFTER_FAILURE, admin.changes.wait()).await;
        }
        // 5. The ops listener is last, because load balancers poll its readiness meanwhile. Main
        // flushes the logs.
        drop(ops.inspect(|ops| ops.acceptor.abort()));
        upkeep.abort();
        if let Some(error) = failure {
            return Err(error);
        }
        tracing::info!(event.action = "stopped", "stopped: all acknowledged commits are on disk");
        Ok(())
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

/// The ops listener has connection limits of its own, outside `--max-connections`, so that
/// operators can connect to a saturated server.
fn spawn_ops_listener(listener: TcpListener, endpoint: Endpoint) -> Result<ServingOps> {
    let connections = OPS_CONNECTIONS;
    let limits = ConnectionLimits { connections, connections_per_address: connections };
    let limiter = ConnectionLimiter::new(limits, ConnectionMetrics::noop());
    let (drain, draining) = watch::channel(false);
    let target = ConnectionTarget::Inline(Protocol::Plain(endpoint), draining);
    Ok(ServingOps { acceptor: spawn_acceptor(listener, &limiter, target)?, _drain: drain })
}

async fn spawn_admin_listener(admin: Admin, endpoints: &EndpointFactory) -> Result<ServingAdmin> {
    let listener = tokio::net::UnixListener::from_std(admin.listener)?;
    let changes = TaskTracker::new();
    let endpoint = endpoints.admin(admin.store, changes.clone()).await;
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

/// Purges the data of tenants whose deletion an earlier process did not finish; runs in the
/// background.
async fn resume_deletions(store: EmbeddedStore) {
    if let Err(error) = store.resume_deletions().await {
        tracing::warn!(
            event.action = "purge-incomplete",
            error.message = %error,
            "the data of deleted tenants is still on the disk; the next start resumes the purge"
        );
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
                "the certificate was reloaded"
            );
        }
        Err(error) => tracing::error!(
            event.action = "certificate-reload",
            event.outcome = "failure",
            error.message = %format!("{error:#}"),
            "the certificate could not be reloaded; the old one stays in use"
        ),
    }
}

fn record_certificate_expiry(tls: &ServerCertificate, metrics: &Metrics) {
    if let Some(seconds) = tls.expires_unix_s() {
        #[expect(clippy::cast_precision_loss, reason = "seconds of this millennium are exact")]
        metrics.set_certificate_expiry(seconds as f64);
    }
}

fn log_recovery(recovery: &RecoveryReport) {
    if let Some(rebuilt) = &recovery.rebuilt {
        tracing::error!(
            event.action = "state-rebuilt",
            error.message = %rebuilt.problem,
            odometer.commit_seq = recovery.last.0,
            file.directory = %rebuilt.quarantine,
            "the corrupt state was rebuilt from {}; nothing is lost; the corrupt files are in {}; \
             check the disk",
            rebuilt.rebuild_source,
            rebuilt.quarantine
        );
    }
    if let PreviousShutdown::Poisoned(why) = &recovery.previous_shutdown {
        tracing::warn!(
            event.action = "previous-run-poisoned",
            error.message = %why,
            "previous process stopped after a failed write; all acknowledged commits are present; \
             check the disk"
        );
    }
    tracing::info!(
        event.action = "recovered",
        odometer.commit_seq = recovery.last.0,
        odometer.previous_shutdown = recovery.previous_shutdown.as_str(),
        "the store was recovered: {recovery}"
    );
}

fn log_ready(addresses: Addresses) {
    let public = Some(addresses.public);
    let listeners = [("public", public), ("http", addresses.http), ("ops", addresses.ops)];
    for (name, address) in listeners {
        let Some(address) = address else { continue };
        tracing::info!(
            event.action = "listening",
            odometer.listener = name,
            server.ip = %address.ip(),
            server.port = address.port(),
            "listening"
        );
    }
    tracing::info!(event.action = "ready", "ready");
}
