//! The bugs that are put in on purpose, each into a double or into the driver and none into the store.
//!
//! Invariant: with any of them the simulation fails within a bounded number of seeds, and without it the same seeds pass. A simulation that
//! lets one of them pass proves nothing. Must never: be reachable from a run without a bug.

/// A bug, and where it sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Disk: every second sync of a journal file returns without having synced, so answers come before they are durable.
    SyncLies,
    /// Driver: a reader sees what a commit is about to write.
    UndurableRead,
    /// Driver: a set is answered and never done.
    SetLost,
    /// Driver: a start forgets the last frame, and issues its numbers again.
    IssuedTwice,
    /// Driver: an increment takes one more than it answers.
    ValueSkipped,
    /// Driver: a start forgets which idempotency keys were used, so a request that is sent again happens again.
    KeysForgotten,
    /// Disk: the journal's folder is not synced, so the names of new segments are not durable.
    FolderSyncForgotten,
    /// Driver: a checkpoint is reported when it begins, so segments go that the state does not cover.
    CoveredTooEarly,
    /// State: an older record is returned, and the seals can not tell.
    SealsDeceived,
    /// Disk: the last frame is not written again at a start, so one that a failed sync left in memory only is believed.
    NothingRewritten,
}

impl Bug {
    /// The bugs that any checker of histories must see: they are judged by what clients were told, and by nothing else.
    pub(crate) const SEEN_BY_CLIENTS: [Self; 6] = [
        Self::SyncLies,
        Self::UndurableRead,
        Self::SetLost,
        Self::IssuedTwice,
        Self::ValueSkipped,
        Self::KeysForgotten,
    ];
    /// The bugs of journal and recovery, judged by everything.
    pub(crate) const OF_THE_STORE: [Self; 4] =
        [Self::FolderSyncForgotten, Self::CoveredTooEarly, Self::SealsDeceived, Self::NothingRewritten];
}
