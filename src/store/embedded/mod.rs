//! The embedded store: a write-ahead log with group commit, a record cache, and sled as
//! checkpointed state.
//!
//! ```text
//! mod.rs        EmbeddedStore: open, back up, close
//!  ├ handle      impl Store: submit a command, await the reply, read without a lock
//!  ├ runtime     the threads; the only place with spawn, clocks and channels
//!  ├ recovery    open, verify, rebuild, restore
//!  ├ checkpoint  when to checkpoint and when to back up
//!  ├ commit      commands in, group commit, replies back; records in memory
//!  ├ state       memtable and bucket digests in front of sled
//!  ├ backup      backup files: format, directory, the task that writes one
//!  ├ journal     segments and frames; one fdatasync per commit
//!  ├ codec       keys, records and pages as bytes
//!  └ data_dir, shutdown_record, upgrade, layout, options, fs   the data directory
//! ```
//!
//! Imports point down only.
//! Job: the trait [`Store`](super::Store): reads of cached records take no lock, everything else
//! goes through the commit queue.
//! Invariant: a reply is sent only when the change is durable.
//! Must never: touch sled or the journal from a caller's thread.

pub mod backup;
pub mod checkpoint;
pub mod codec;
pub mod commit;
pub mod data_dir;
pub mod fs;
mod handle;
pub mod journal;
pub mod layout;
mod options;
pub mod recovery;
pub mod runtime;
pub mod shutdown_record;
pub mod state;
mod upgrade;

use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};

use self::backup::format::Summary;
use self::checkpoint::messages::{CheckpointMessage, Now};
use self::commit::queue::{Queue, ReplyChannel};
use self::data_dir::DataDir;
use self::fs::{OsDirectory, OsFile};
use self::journal::frame::StoreId;
pub use self::options::{BackupPolicy, Options};
use self::recovery::open::RecoveryReport;
use self::recovery::os_files::OpenError;
use self::recovery::start::{StartedStore, recover_store};
use self::runtime::messages::CommitterMessage;
use self::runtime::shared::StoreInner;
use self::runtime::spawn_threads;
use self::state::sled::SledState;
use super::{Health, now_unix_s};
use crate::telemetry::StoreMetrics;

/// Requests that may wait for the committer; when the queue is full, more are refused at once.
const QUEUE_CAPACITY: usize = 8192;

/// See the module's text. A clone is another handle to the same store.
#[derive(Clone, Debug)]
pub struct EmbeddedStore {
    shared: Arc<StoreInner>,
    replies: Option<Arc<ReplyChannel>>,
    committer: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
    checkpoint_tx: mpsc::Sender<CheckpointMessage<OsFile>>,
}

impl EmbeddedStore {
    /// Locks the data directory, recovers what it holds and starts the threads.
    ///
    /// # Errors
    /// [`OpenError`]: the directory, the journal or sled cannot be used; it says which and why.
    pub fn open(
        options: &Options,
        metrics: StoreMetrics,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let mut data_dir = DataDir::lock(&options.data_dir)?;
        data_dir.upgrade()?;
        let fresh = random_id()?;
        let now = Now { uptime: Duration::ZERO, unix_s: now_unix_s() };
        let recovered =
            recover_store(&mut data_dir, fresh, options.journal_segment_bytes, now.unix_s)
                .map_err(|error| OpenError::new(error, &data_dir))?;
        let newest_backup = recovered.newest_backup;
        let mut started = recovered
            .start(&mut data_dir, options, now)
            .map_err(|error| OpenError::new(error, &data_dir))?;
        started.report.previous_shutdown = data_dir.previous_shutdown().clone();
        let report = started.report.clone();
        let shared = Arc::new(StoreInner {
            queue: Queue::new(QUEUE_CAPACITY),
            read_view: Arc::clone(&started.read_view),
            metrics,
            health: ArcSwap::from_pointee(Health::Ready),
            poisoned: watch::Sender::new(None),
            closed: AtomicBool::new(false),
        });
        record_limits(options, &shared.metrics);
        record_start(options, &shared, &started);
        if let Some((_, created_unix_s)) = newest_backup {
            shared.metrics.set_last_backup(created_unix_s);
        }
        let (checkpoint_tx, inbox) = mpsc::channel();
        let handle =
            spawn_threads(options, &shared, started, (checkpoint_tx.clone(), inbox), data_dir)?;
        let committer = Arc::new(Mutex::new(Some(handle)));
        Ok((Self { shared, replies: None, committer, checkpoint_tx }, report))
    }

    /// Marks the data directory as in use. If the next process finds this mark still set, this
    /// one did not shut down cleanly. A process that fails before this call leaves no mark.
    pub async fn mark_running(&self) {
        let (done_tx, done) = oneshot::channel();
        self.shared.queue.send_control(CommitterMessage::MarkRunning(done_tx));
        let _ = done.await;
    }

    /// Makes a backup while the store goes on, and returns it as an open file without a name.
    ///
    /// # Errors
    /// One sentence: the disk is almost full, a write failed, or the store is closing.
    pub async fn backup(&self) -> Result<(File, Summary), String> {
        let (reply_to, reply) = oneshot::channel();
        let closing = || "the server is stopping".to_owned();
        self.checkpoint_tx.send(CheckpointMessage::Backup(reply_to)).map_err(|_| closing())?;
        let (file, summary) = reply.await.unwrap_or_else(|_| Err(closing()))?;
        Ok((file.into(), summary))
    }
}

fn record_limits(options: &Options, metrics: &StoreMetrics) {
    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    let [queue, keys, reserve] = [
        QUEUE_CAPACITY as f64,
        options.idempotency_keys as f64,
        options.min_free_disk_bytes as f64,
    ];
    metrics.queue_limit.set(queue);
    metrics.idempotency_keys_limit.set(keys);
    metrics.disk_reserve.set(reserve);
    if let Some(policy) = options.backups {
        metrics.set_backup_interval(policy.interval);
    }
}

/// Sets health and metrics to what the start found.
fn record_start(
    options: &Options,
    shared: &StoreInner,
    started: &StartedStore<SledState, OsDirectory>,
) {
    shared.metrics.set_previous_shutdown(started.report.previous_shutdown.as_str());
    if started.report.rebuilt.is_some() {
        shared.metrics.state_rebuilds.increment(1);
    }
    let reserve = options.min_free_disk_bytes;
    shared.set_disk_low(shared.record_disk_free(started.available_bytes, reserve));
}

/// Generates a random store id.
///
/// # Errors
/// [`OpenError::StateIo`] if the system gave no random bytes.
pub fn random_id() -> Result<StoreId, OpenError> {
    let mut id = [0; 16];
    let no_bytes = |_| OpenError::StateIo("the system gave no random bytes".into());
    aws_lc_rs::rand::fill(&mut id).map_err(no_bytes)?;
    Ok(id)
}
