//! Backups: the file format, and the directory of automatic backups.
//!
//! Job: write a backup that can be read back, and find the newest usable one.
//! Invariant: a backup has its final name only after its bytes were synced, read and verified.
//! Must never: count a backup that was not verified.

pub mod directory;
pub mod format;
pub mod task;
