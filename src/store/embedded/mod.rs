//! The embedded store: a journal that acknowledges, sled that remembers, one committer that decides.
//!
//! ```text
//! mod.rs          EmbeddedStore: the trait Store, open and close
//!  ├ verbs.rs      the verbs of the trait            ├ recovery.rs   is a folder complete? start and verify
//!  ├ threads.rs, keeping.rs  the threads             ├ heal.rs, restore.rs    rebuilding from a backup
//!  ├ ask.rs, queue.rs  requests in, answers back     ├ grounds.rs    spare segments, and room on the disk
//!  ├ committer.rs  turns: append, publish, answer    ├ archive.rs, backup.rs  backup files and their bytes
//!  ├ decide.rs, tenants.rs  what a request changes   ├ checkpoint.rs, seals.rs  the keeper: changes on their way to sled, proved
//!  ├ desk.rs, resident.rs   records in memory        ├ replay.rs, segments.rs the journal read back, and its files
//!  ├ remembered.rs, answers.rs  idempotency keys     ├ folder.rs, last_stop.rs  lock and FORMAT, and how it was left
//!  ├ journal.rs    one frame, one fdatasync          ├ state.rs      sled
//!  └ frame.rs, key.rs, record.rs  bytes              └ disk.rs       what a disk owes
//! ```
//! Job: answer the verbs of [`Store`](super::Store), warm reads without a lock, everything else through the queue.
//! Invariant: an answer is durable. Must never: touch sled or the journal from a caller's thread.

pub mod backup;
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
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};

use self::backup::directory;
use self::backup::format::Summary;
use self::commit::cache::{ReadView, RecordCache};
use self::commit::committer::{Committer, RetentionWatermarks};
use self::commit::idempotency::IdempotencyTable;
use self::commit::queue::{Queue, ReplyChannel};
use self::commit::working_set::WorkingSet;
use self::data_dir::DataDir;
use self::fs::OsDirectory;
use self::journal::frame::{CommitSeq, StoreId};
use self::journal::segment::JournalDir;
use self::journal::writer::Journal;
pub use self::options::{BackupPolicy, Options};
use self::recovery::open::{OpenError, RecoveryReport, read_or_create_store_id, recover};
use self::runtime::allocator_thread;
use self::runtime::checkpoint_thread::CheckpointThread;
use self::runtime::committer_thread::{self, CommitterThread};
use self::runtime::messages::{CheckpointMessage, CommitterMessage};
use self::runtime::shared::StoreInner;
use super::{Health, Unavailable, now_unix_s};
use crate::telemetry::StoreMetrics;

/// Requests that may wait for the committer; more are refused at once.
const QUEUE_CAPACITY: usize = 8192;

/// See the module's text. A clone is another handle to the same store.
#[derive(Clone, Debug)]
pub struct EmbeddedStore {
    shared: Arc<StoreInner>,
    replies: Option<Arc<ReplyChannel>>,
    committer: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
    checkpoint_tx: mpsc::Sender<CheckpointMessage>,
}

impl EmbeddedStore {
    /// Opens the folder, recovers what it holds and starts the threads.
    ///
    /// # Errors
    /// [`OpenError`]: the folder, the journal or sled can not be used; it says which and why.
    pub fn open(options: &Options, metrics: StoreMetrics) -> Result<(Self, RecoveryReport), OpenError> {
        let data_dir = DataDir::lock(&options.data_dir)?;
        let dir = Arc::new(OsDirectory::new(data_dir.journal()));
        let (store, is_new) = read_or_create_store_id(&data_dir, &dir, random_id()?)?;
        let files = JournalDir { dir: Arc::clone(&dir), store, segment_bytes: options.journal_segment_bytes };
        let recovered = recover(&data_dir, &files, is_new, now_unix_s())?;
        let backups = OsDirectory::new(data_dir.backups());
        // Only what was never finished goes; a folder that can not be listed has no backup to count on.
        let _ = directory::remove_partial(&backups);
        let newest_backup = directory::newest(&backups, store, recovered.tail.last().seq);
        let journal_is_complete = recovered.tail.base.seq == CommitSeq(0);
        let journal = Journal::start(files, recovered.tail).map_err(|error| OpenError::Journal {
            cause: error,
            repair_hint: "see whether the disk is full or failing; nothing was lost".into(),
        })?;
        if is_new {
            data_dir.write_format(store)?;
        }
        let read_view = ReadView::default();
        let shared = Arc::new(StoreInner {
            queue: Queue::new(QUEUE_CAPACITY),
            read_view: Arc::clone(&read_view),
            metrics,
            health: ArcSwap::from_pointee(Health::Ready),
            poisoned: watch::Sender::new(None),
            closed: AtomicBool::new(false),
        });
        record_limits(options, &shared.metrics);
        shared.metrics.set_previous_shutdown(recovered.report.previous_shutdown.as_str());
        if recovered.report.rebuilt.is_some() {
            shared.metrics.state_rebuilds.increment(1);
        }
        if let Some((_, created_unix_s)) = newest_backup {
            shared.metrics.set_last_backup(created_unix_s);
        }
        let backed_up = match options.backups {
            Some(_) => newest_backup.map_or(CommitSeq(0), |(seq, _)| seq),
            None => CommitSeq(u64::MAX),
        };
        let cache = RecordCache::new(read_view, options.cache_records);
        let working_set =
            WorkingSet::new(cache, IdempotencyTable::new(options.idempotency_keys, recovered.idempotency_pages));
        let watermarks = RetentionWatermarks { checkpointed: recovered.report.checkpointed, backed_up: backed_up };
        let mut committer = Committer::new(journal, working_set, watermarks);
        if allocator_thread::below_reserve(&shared, &dir, options.min_free_disk_bytes) {
            committer.set_read_only(Some(Unavailable::DiskLow.into()));
            shared.set_health(Health::Unavailable(Unavailable::DiskLow));
        } else {
            shared.set_health(Health::Ready);
        }
        let (checkpoint_tx, inbox) = mpsc::channel();
        let checkpoint_thread = CheckpointThread {
            shared: Arc::clone(&shared),
            checkpointer: recovered.checkpointer,
            inbox,
            self_tx: checkpoint_tx.clone(),
            interval: options.checkpoint_interval,
            policy: options.backups,
            dir: data_dir.backups(),
            store,
            min_free_bytes: options.min_free_disk_bytes,
            journal_is_complete,
            newest_backup,
        };
        let handle = spawn_threads(options, &shared, committer, checkpoint_thread, dir, data_dir)?;
        let store = Self { shared, replies: None, committer: Arc::new(Mutex::new(Some(handle))), checkpoint_tx };
        Ok((store, recovered.report))
    }

    /// Says that the process begins to serve: from here on one that does not say how it ended was killed. A start that fails before is none.
    pub async fn mark_running(&self) {
        let (told, noted) = oneshot::channel();
        self.shared.queue.send_control(CommitterMessage::MarkRunning(told));
        let _ = noted.await;
    }

    /// Makes a backup while the store goes on, and returns it as an open file without a name.
    ///
    /// # Errors
    /// One sentence: the disk is low, a write failed, or the store is closing.
    pub async fn backup(&self) -> Result<(File, Summary), String> {
        let (asked, answer) = oneshot::channel();
        let closing = || "the server is stopping".to_owned();
        self.checkpoint_tx.send(CheckpointMessage::Backup(asked)).map_err(|_| closing())?;
        answer.await.unwrap_or_else(|_| Err(closing()))
    }
}

fn record_limits(options: &Options, metrics: &StoreMetrics) {
    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    let [queue, keys, reserve] =
        [QUEUE_CAPACITY as f64, options.idempotency_keys as f64, options.min_free_disk_bytes as f64];
    metrics.queue_limit.set(queue);
    metrics.idempotency_keys_limit.set(keys);
    metrics.disk_reserve.set(reserve);
    if let Some(policy) = options.backups {
        metrics.set_backup_interval(policy.interval);
    }
}

fn spawn_threads(
    options: &Options,
    shared: &Arc<StoreInner>,
    committer: Committer<OsDirectory>,
    checkpoint_thread: CheckpointThread,
    dir: Arc<OsDirectory>,
    data_dir: DataDir,
) -> Result<thread::JoinHandle<()>, OpenError> {
    let checkpoint_tx = checkpoint_thread.self_tx.clone();
    let (allocator_tx, allocator_inbox) = mpsc::channel();
    let named = |name: &str| thread::Builder::new().name(format!("odometer-{name}"));
    let for_checkpointer = Arc::clone(shared);
    let checkpointer = named("keeper")
        .spawn(move || committer_thread::run_or_poison(&for_checkpointer, "keeper", || checkpoint_thread.run()))?;
    let for_allocator = Arc::clone(shared);
    let (segment_bytes, min_free) = (options.journal_segment_bytes, options.min_free_disk_bytes);
    let allocator = named("grounds").spawn(move || {
        committer_thread::run_or_poison(&for_allocator, "grounds", || {
            allocator_thread::run_segment_allocator(&for_allocator, &dir, &allocator_inbox, segment_bytes, min_free);
        });
    })?;
    let thread = CommitterThread {
        shared: Arc::clone(shared),
        committer,
        checkpoint_tx,
        allocator_tx: Some(allocator_tx),
        checkpointer: Some(checkpointer),
        allocator: Some(allocator),
        data_dir,
        last_reported: (1, 0),
        closing: false,
        started: Instant::now(),
    };
    Ok(named("committer").spawn(move || thread.run())?)
}

/// An id for a store that never was.
///
/// # Errors
/// [`OpenError::State`] if the system gave no random bytes.
pub fn random_id() -> Result<StoreId, OpenError> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| OpenError::State("the system gave no random bytes".into()))?;
    Ok(id)
}
