//! Faults of durability: syncs left out, orders exchanged, in journal, checkpoint and backup.

use super::Failpoint;

/// The tests of `tests/slow/syscall_faults/orders.rs`.
const STORE: (&str, &str) = ("slow", "orders::a_store_syncs_before");
const UPGRADE: (&str, &str) = ("slow", "orders::an_upgrade_names");
const REBUILD: (&str, &str) = ("slow", "orders::a_rebuild_replaces");
const RESTORE: (&str, &str) = ("slow", "orders::a_restore_is_a_store");

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
    Failpoint::new(
        "directory-never-synced",
        "The real directory takes a sync of its names for nothing.",
        STORE,
    ),
    Failpoint::new("spare-not-synced", "A spare is named before its zeros are durable.", STORE),
    Failpoint::new(
        "segment-header-not-synced",
        "A segment is named before its header is durable.",
        STORE,
    ),
    Failpoint::new(
        "segment-name-not-synced",
        "Frames go into a segment whose name is not durable.",
        STORE,
    ),
    Failpoint::new(
        "current-not-synced",
        "Frames go into a segment that CURRENT does not durably name.",
        STORE,
    ),
    Failpoint::new(
        "segment-removal-not-synced",
        "The next segment is removed before the removal of an older one is durable.",
        STORE,
    ),
    Failpoint::new(
        "segments-removed-newest-first",
        "Retired segments are removed in the wrong order.",
        STORE,
    ),
    Failpoint::new(
        "backup-not-synced",
        "A backup is verified and named before it is synced.",
        STORE,
    ),
    Failpoint::new(
        "backup-name-not-synced",
        "A backup is reported before its name is durable.",
        STORE,
    ),
    Failpoint::new(
        "replaced-file-not-synced",
        "FORMAT, the digests or a mark get their name before their bytes are durable.",
        STORE,
    ),
    Failpoint::new(
        "replaced-name-not-synced",
        "FORMAT, the digests or a mark are relied on before their name is durable.",
        STORE,
    ),
    Failpoint::new(
        "subdirectories-not-synced",
        "The name of a directory that a start makes is not durable before it is used.",
        STORE,
    ),
    Failpoint::new(
        "data-directory-not-synced",
        "The name of a new data directory is not durable.",
        STORE,
    ),
    Failpoint::new(
        "sled-not-synced",
        "sled is flushed, and its file never synced with fdatasync.",
        STORE,
    ),
    Failpoint::new(
        "sled-not-synced-at-a-start",
        "sled is read from pages that may never have reached the device.",
        STORE,
    ),
    Failpoint::new(
        "position-with-its-records",
        "sled's position is written together with its records, not after they are durable.",
        STORE,
    ),
    Failpoint::new(
        "digests-saved-before-records",
        "The digests of a whole checkpoint are saved before its records are durable.",
        STORE,
    ),
    Failpoint::new(
        "digests-not-saved-before-writes",
        "Records are replaced while the digests still count the old ones.",
        STORE,
    ),
    Failpoint::new(
        "tail-not-resynced",
        "A start relies on a last frame that may be in the page cache only.",
        STORE,
    ),
    Failpoint::new(
        "upgrade-renames-before-format",
        "An upgrade renames files before FORMAT keeps older builds out.",
        UPGRADE,
    ),
    Failpoint::new("upgrade-not-synced", "The new names of an upgrade are not durable.", UPGRADE),
    Failpoint::new(
        "tail-not-resynced-for-a-rebuild",
        "A rebuilt state covers a last frame that may be in the page cache only.",
        REBUILD,
    ),
    Failpoint::new(
        "quarantine-not-synced",
        "The new state is named before the old one is durably in quarantine.",
        REBUILD,
    ),
    Failpoint::new(
        "quarantined-state-not-synced",
        "The new state is named before the old one's name is durably free.",
        REBUILD,
    ),
    Failpoint::new(
        "rebuilt-state-not-synced",
        "A rebuilt state is served before its name is durable.",
        REBUILD,
    ),
    Failpoint::new(
        "emptied-directory-not-synced",
        "FORMAT may be durable before the directories of the state and the journal are.",
        RESTORE,
    ),
    Failpoint::new(
        "restore-marker-not-synced",
        "A restore fills a folder before RESTORING durably marks it.",
        RESTORE,
    ),
    Failpoint::new(
        "restore-end-not-synced",
        "A restore ends before the removal of RESTORING is durable.",
        RESTORE,
    ),
    Failpoint::new(
        "segment-removed-without-a-backup",
        "A segment is removed when the state has it, whether a backup has it or not.",
        ("store", "recovery::journal::a_segment_stays"),
    ),
    Failpoint::new(
        "segment-removed-without-a-checkpoint",
        "A segment is removed when a backup has it, whether the state has it or not.",
        ("store", "recovery::retention::neither_a_checkpoint"),
    ),
    Failpoint::new(
        "disk-reserve-ignored",
        "A running store uses the disk space that is held in reserve.",
        ("slow", "disk::a_disk_that_is_almost_full"),
    ),
    Failpoint::new(
        "reserve-used-by-backups",
        "A backup uses the disk space that is held in reserve.",
        ("store", "recovery::journal::the_reserve"),
    ),
    Failpoint::new(
        "frame-checksum-covers-its-first-sector-only",
        "What a frame has behind its first 512 bytes may be changed or missing.",
        ("store", "frame::"),
    ),
    Failpoint::new(
        "journal-written-after-a-failed-write",
        "A frame is written behind one that may not be durable.",
        ("simulation", "turns::after_a_failed_write"),
    ),
    Failpoint::new(
        "checkpoint-recorded-by-a-poisoned-store",
        "A poisoned store goes on to record checkpoints and to remove segments.",
        ("simulation", "turns::a_poisoned_store"),
    ),
];
