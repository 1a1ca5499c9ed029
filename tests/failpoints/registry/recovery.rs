//! Faults of a start: what recovery, rebuild, restore and verify compare and keep.

use super::Failpoint;

/// Unit tests of the bytes of frames.
const OTHER_POSITION: (&str, &str) = ("lib", "frame::tests::a_frame_of_another_position");
/// The folders of `tests/store/recovery`.
const FORMAT_LOST: (&str, &str) = ("store", "recovery::journal::a_folder_in_use");
const REBUILD_SOURCE: (&str, &str) = ("store", "recovery::state::a_state_is_rebuilt_from");
const WRONG_RECORD: (&str, &str) = ("store", "recovery::state::a_record_that_is_not");

pub(super) const FAILPOINTS: &[Failpoint] = &[
    Failpoint::new(
        "frame-checksum-not-compared",
        "A frame with a flipped bit is replayed.",
        ("lib", "frame::tests::every_flipped_bit"),
    ),
    Failpoint::new(
        "frame-chain-not-compared",
        "A frame that does not follow the one before it is replayed.",
        OTHER_POSITION,
    ),
    Failpoint::new(
        "frame-epoch-not-compared",
        "A frame that an earlier process left in a reused place is replayed.",
        OTHER_POSITION,
    ),
    Failpoint::new("frame-gap-accepted", "A missing frame is not noticed.", OTHER_POSITION),
    Failpoint::new(
        "zeros-end-the-journal",
        "Zeros where an acknowledged frame was are the end, whatever follows.",
        ("store", "recovery::journal::zeros_in_front"),
    ),
    Failpoint::new(
        "current-not-compared",
        "The loss of the newest segment is not noticed.",
        ("store", "recovery::journal::the_newest_segment"),
    ),
    Failpoint::new(
        "segment-chain-not-compared",
        "The loss of a segment between two others is not noticed.",
        ("store", "recovery::journal::a_segment_in_the_middle"),
    ),
    Failpoint::new(
        "truncated-segment-accepted",
        "A segment that was cut off is taken for the end of the journal.",
        ("store", "recovery::journal::a_segment_that_is_cut_off"),
    ),
    Failpoint::new(
        "segment-of-another-store",
        "A segment of another store is replayed.",
        ("store", "recovery::journal::a_segment_of_another_store"),
    ),
    Failpoint::new(
        "journal-ends-before-the-state",
        "Commits that the state has and the journal lost are given out again.",
        ("store", "recovery::journal::a_journal_that_ends"),
    ),
    Failpoint::new(
        "format-lost-beside-a-state",
        "A folder with a state and no FORMAT is cleared as a new one.",
        FORMAT_LOST,
    ),
    Failpoint::new(
        "format-lost-beside-a-journal",
        "A folder with a journal and no FORMAT is cleared as a new one.",
        FORMAT_LOST,
    ),
    Failpoint::new(
        "format-lost-beside-backups",
        "A folder with backups and no FORMAT is cleared as a new one.",
        FORMAT_LOST,
    ),
    Failpoint::new(
        "lock-not-taken",
        "Two processes open one folder.",
        ("it", "cli::refusals::a_place_that_is_taken"),
    ),
    Failpoint::new(
        "state-rolled-back",
        "A state older than the journal's last checkpoint is believed.",
        ("store", "recovery::state::a_state_that_was_rolled_back"),
    ),
    Failpoint::new(
        "state-not-compared-with-digests",
        "A state of one checkpoint is opened with the digests of another.",
        ("store", "recovery::state::a_state_and_digests"),
    ),
    Failpoint::new(
        "state-of-another-history",
        "A state whose last commit is not the journal's is believed.",
        ("store", "recovery::state::a_state_of_another_history"),
    ),
    Failpoint::new(
        "gap-before-the-journal",
        "Commits between the state's end and the journal's begin are not missed.",
        ("store", "recovery::state::a_state_that_ends_before"),
    ),
    Failpoint::new(
        "corrupt-mark-ignored",
        "A state that was found corrupt is opened again.",
        ("store", "recovery::state::a_state_that_is_marked"),
    ),
    Failpoint::new(
        "corrupt-state-not-marked",
        "A state that was found corrupt is not marked so.",
        WRONG_RECORD,
    ),
    Failpoint::new(
        "bucket-digest-not-compared",
        "sled is believed, whatever it returns.",
        WRONG_RECORD,
    ),
    Failpoint::new(
        "digest-of-part-of-a-record",
        "The digest covers the first bytes of a record only.",
        ("lib", "digests::tests::a_digest_covers"),
    ),
    Failpoint::new(
        "verify-says-clean",
        "verify finds a corrupt state and reports a clean one.",
        ("store", "recovery::state::a_look_finds_it"),
    ),
    Failpoint::new(
        "backup-of-unverified-records",
        "A backup is made of a corrupt state.",
        ("store", "recovery::state::no_backup_is_made"),
    ),
    Failpoint::new(
        "backup-of-another-store",
        "A state is rebuilt from a backup of another store.",
        REBUILD_SOURCE,
    ),
    Failpoint::new(
        "backup-of-another-history",
        "A state is rebuilt from a backup that the journal does not continue.",
        REBUILD_SOURCE,
    ),
    Failpoint::new(
        "backup-not-verified-for-a-rebuild",
        "A rebuild begins with a backup that is not whole.",
        REBUILD_SOURCE,
    ),
    Failpoint::new(
        "backup-digest-not-compared",
        "A backup with a flipped bit is restored.",
        ("lib", "format::tests::every_flipped_bit"),
    ),
    Failpoint::new(
        "backup-with-more-accepted",
        "A backup with bytes after its end is restored.",
        ("lib", "format::tests::every_flipped_bit"),
    ),
    Failpoint::new(
        "restore-keeps-the-store-id",
        "A restored store has the id of the store that was backed up.",
        ("it", "backup::a_backup_without_a_server"),
    ),
    Failpoint::new(
        "clean-shutdown-recorded-after-a-poison",
        "The shutdown record says clean after a write failed.",
        WRONG_RECORD,
    ),
];
