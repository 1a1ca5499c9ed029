//! Threads: the only place of the store with `spawn`, clocks and channels.
//!
//! ```text
//! workers ── commands ──► committer ── changes, loads ──► checkpoint ── chunks ──► backup
//!                            ▲   └──── spare? remove ───► allocator
//!                            └── loaded, checkpointed, spare, disk low ──┘
//! ```
//!
//! Job: run the parts that know no thread, and stop them in order.
//! Invariant: a panic or error in any thread poisons the store, so it never runs with a thread
//! missing.
//! Must never: decide anything about a counter, or let a request wait for a thread that is gone.

pub mod allocator_thread;
pub mod checkpoint_thread;
pub mod committer_cycle;
pub mod committer_thread;
pub mod messages;
pub mod segment_allocator;
pub mod shared;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use self::allocator_thread::run_segment_allocator;
use self::checkpoint_thread::CheckpointThread;
use self::committer_thread::{CommitterThread, Helpers, run_or_poison};
use self::shared::StoreInner;
use crate::store::embedded::checkpoint::messages::CheckpointMessage;
use crate::store::embedded::data_dir::DataDir;
use crate::store::embedded::fs::{OsDirectory, OsFile};
use crate::store::embedded::options::Options;
use crate::store::embedded::recovery::start::StartedStore;
use crate::store::embedded::state::sled::SledState;

/// Starts the three threads of a store and returns the committer's, which ends last and waits for
/// the others.
pub(crate) fn spawn_threads(
    options: &Options,
    shared: &Arc<StoreInner>,
    started: StartedStore<SledState, OsDirectory>,
    checkpoint: (Sender<CheckpointMessage<OsFile>>, Receiver<CheckpointMessage<OsFile>>),
    data_dir: DataDir,
) -> std::io::Result<JoinHandle<()>> {
    let named = |name: &str| Builder::new().name(format!("odometer-{name}"));
    let (checkpoint_tx, inbox) = checkpoint;
    let for_checkpoint = Arc::clone(shared);
    let thread =
        CheckpointThread::new(Arc::clone(shared), started.scheduler, inbox, checkpoint_tx.clone());
    let checkpoint = named("checkpoint")
        .spawn(move || run_or_poison(&for_checkpoint, "checkpoint", || thread.run()))?;
    let (allocator_tx, tasks) = channel();
    let for_allocator = Arc::clone(shared);
    let dir = Arc::new(OsDirectory::new(data_dir.journal()));
    let (segment_bytes, min_free) = (options.journal_segment_bytes, options.min_free_disk_bytes);
    let allocator = named("allocator").spawn(move || {
        run_or_poison(&for_allocator, "allocator", || {
            run_segment_allocator(&for_allocator, &dir, &tasks, segment_bytes, min_free);
        });
    })?;
    let helpers = Helpers { checkpoint_tx, checkpoint: Some(checkpoint), allocator_tx, allocator };
    let thread = CommitterThread::new(Arc::clone(shared), started.committer, helpers, data_dir);
    named("committer").spawn(move || thread.run())
}
