//! Options of the embedded store: its data directory, and the limits of journal, cache and backups.
//!
//! Job: carry checked settings from the configuration to the store.
//! Invariant: plain data; the name or the comment of every field gives its unit.
//! Must never: read a setting itself.

use std::path::PathBuf;
use std::time::Duration;

/// Options of the embedded store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Size of a journal segment in bytes.
    pub journal_segment_bytes: u64,
    /// The longest time between two checkpoints while there are changes.
    pub checkpoint_interval: Duration,
    /// Capacity of the record cache, in records.
    pub cache_records: usize,
    /// The largest number of idempotency keys that are stored at the same time.
    pub idempotency_keys: usize,
    /// Minimum free disk space in bytes; below it the store is read-only and makes no backups.
    pub min_free_disk_bytes: u64,
    /// Automatic backups into `backups/`. `None`: none are made, and journal segments are deleted
    /// as soon as sled has their commits.
    pub backups: Option<BackupPolicy>,
}

/// When automatic backups are made, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupPolicy {
    /// The time between two backups, while there are changes.
    pub interval: Duration,
    /// Size of the sealed journal segments in bytes at which a backup is made early.
    pub journal_cap_bytes: u64,
    /// How many backups are kept.
    pub keep: usize,
}
