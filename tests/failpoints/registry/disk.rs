//! Faults of durability: syncs left out, orders exchanged, in journal, checkpoint and backup.

use super::Failpoint;

pub(super) const FAILPOINTS: &[Failpoint] = &[
    Failpoint::new(
        "backup-pruned-early",
        "One automatic backup fewer than configured is kept.",
        ("it", "backup::automatic_backups_come"),
    ),
    Failpoint::new(
        "journal-frame-not-synced",
        "A frame is acknowledged before fdatasync.",
        ("slow", "syscall_faults::syncs::one_sync"),
    ),
];
