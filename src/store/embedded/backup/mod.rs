//! Backups: the file format, and the directory of automatic backups.
//!
//! Job: write a backup that can be read back, and find the newest usable one.
//!
//! A backup contains every record as of one commit, its header's position, and nothing of a later
//! one. What goes into it is decided in state/checkpointer/steps.rs: a backup runs in front of a
//! checkpoint, so the set of records does not change while it is read. `start_backup` freezes the
//! memtable, and `snapshot_step` encodes bucket after bucket what `merged_bucket` returns: the
//! verified records of the state, overlaid by the frozen changes. Only then does the checkpoint
//! write its first record; commits meanwhile go into a new memtable. When to make one is decided in
//! checkpoint/backup_schedule.rs.
//!
//! Invariant: a backup has its final name only after its bytes were synced, read and verified.
//! Must never: count a backup that was not verified.

pub mod directory;
pub mod format;
pub mod task;
