//! Faults of durability: syncs left out, orders exchanged, in journal, checkpoint and backup.

use super::Failpoint;

pub(super) const FAILPOINTS: &[Failpoint] = &[Failpoint::new(
    "journal-frame-not-synced",
    "A frame is acknowledged before fdatasync.",
    ("slow", "syscall_faults::syncs::one_sync"),
)];
