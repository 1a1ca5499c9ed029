//! How an embedded store is run: its data directory, and the limits of journal, cache and backups.
//!
//! Job: carry checked settings from the configuration to the store.
//! Invariant: plain data; every field has its unit in its name or its text.
//! Must never: read a setting by itself.

use std::path::PathBuf;
use std::time::Duration;

/// How an embedded store is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data folder.
    pub data_dir: PathBuf,
    /// Bytes of a journal segment.
    pub journal_segment_bytes: u64,
    /// The longest time between two checkpoints while there is something to write.
    pub checkpoint_interval: Duration,
    /// Records kept in memory.
    pub cache_records: usize,
    /// Idempotency keys that are remembered at most.
    pub idempotency_keys: usize,
    /// With fewer bytes free than this, changes are refused, and no backup is made.
    pub min_free_disk_bytes: u64,
    /// Automatic backups into `backups`; `None` for none, and then the journal is kept only until sled has it.
    pub backups: Option<BackupPolicy>,
}

/// When automatic backups are made, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupPolicy {
    /// The time between two of them, while there is something new.
    pub interval: Duration,
    /// One is made earlier when the journal has grown to so many bytes.
    pub journal_cap_bytes: u64,
    /// How many of them are kept.
    pub keep: usize,
}
