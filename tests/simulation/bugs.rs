//! Bugs that are seeded on purpose, each in a double or in the driver and none in the store.
//!
//! Job: name them. Invariant: with any of them the simulation fails within a bounded number of
//! seeds, and without it the same seeds pass. A simulation that misses one of them proves nothing.
//! Must never: be reachable from a run without a bug.

/// A bug, and where it sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Disk: every second sync of a journal file returns without having synced, so replies come
    /// before the commit is durable.
    SyncLies,
    /// Driver: a reader sees what a commit is about to write.
    UndurableRead,
    /// Driver: a set gets its reply and never happens.
    SetLost,
    /// Driver: a start forgets the last frame, and issues its numbers again.
    IssuedTwice,
    /// Driver: an increment takes one more than its reply says.
    ValueSkipped,
    /// Driver: a start forgets which idempotency keys were used, so a request that is sent again
    /// happens again.
    KeysForgotten,
    /// Disk: the journal's directory is not synced, so the names of new segments are not durable.
    DirSyncForgotten,
    /// Driver: a checkpoint is reported when it begins, so segments are removed that the state
    /// does not hold.
    CheckpointTooEarly,
    /// State: an older record is returned, and the digests do not show it.
    DigestsDeceived,
    /// Disk: the last frame is not written again at a start, so a frame that a failed sync left in
    /// the page cache only is believed.
    NothingRewritten,
}

impl Bug {
    /// The bugs that any checker of histories must see: they are judged by the replies alone.
    pub(crate) const SEEN_BY_CLIENTS: [Self; 6] = [
        Self::SyncLies,
        Self::UndurableRead,
        Self::SetLost,
        Self::IssuedTwice,
        Self::ValueSkipped,
        Self::KeysForgotten,
    ];
    /// The bugs of journal and recovery, judged by everything.
    pub(crate) const OF_THE_STORE: [Self; 4] = [
        Self::DirSyncForgotten,
        Self::CheckpointTooEarly,
        Self::DigestsDeceived,
        Self::NothingRewritten,
    ];
}
