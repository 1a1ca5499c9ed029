//! When the next automatic backup is due.
//!
//! Job: count down to the next backup, from the policy, the journal's growth and past results.
//! Invariant: after a failure there is no further attempt for `BACKUP_RETRY_INTERVAL`.
//! Must never: read a clock or a file.

use std::time::Duration;

use crate::store::embedded::checkpoint::messages::Now;
use crate::store::embedded::journal::frame::CommitSeq;
use crate::store::embedded::options::BackupPolicy;

/// Delay of the first backup of a store, so that a fresh store can be rebuilt soon.
const FIRST_BACKUP_DELAY: Duration = Duration::from_secs(60);
/// Delay after a failed backup.
const BACKUP_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// A backup in the directory: its last commit and its time, in seconds since 1970.
pub type NewestBackup = (CommitSeq, u64);

/// Whether a backup is to be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// No.
    No,
    /// Yes.
    Yes,
    /// Nothing changed since the newest backup: only if that one is gone.
    IfMissing,
}

/// See the module's text. Times are uptimes.
#[derive(Debug)]
pub struct BackupSchedule {
    policy: BackupPolicy,
    due: Duration,
    not_before: Duration,
    backed_up: CommitSeq,
    sealed_bytes: u64,
}

impl BackupSchedule {
    /// The schedule of a store that was just opened. `journal_is_complete`: the journal still
    /// has its first commit.
    #[must_use]
    pub fn new(
        policy: BackupPolicy,
        newest: Option<NewestBackup>,
        journal_is_complete: bool,
        now: Now,
    ) -> Self {
        let delay = match newest {
            Some((_, created_unix_s)) => policy
                .interval
                .saturating_sub(Duration::from_secs(now.unix_s.saturating_sub(created_unix_s))),
            None if journal_is_complete => policy.interval.min(FIRST_BACKUP_DELAY),
            // Without a backup and without its first commit the state could not be rebuilt.
            None => Duration::ZERO,
        };
        Self {
            policy,
            due: now.uptime + delay,
            not_before: Duration::ZERO,
            backed_up: newest.map_or(CommitSeq(0), |(seq, _)| seq),
            sealed_bytes: 0,
        }
    }

    /// How many backups are kept.
    #[must_use]
    pub fn keep(&self) -> usize {
        self.policy.keep
    }

    /// The last commit of the newest backup.
    #[must_use]
    pub fn backed_up(&self) -> CommitSeq {
        self.backed_up
    }

    /// The time until a backup may be due, unless the journal reaches its cap before.
    #[must_use]
    pub fn timeout(&self, now: Now) -> Duration {
        self.due.saturating_sub(now.uptime)
    }

    /// Notes how many bytes the sealed segments of the journal have.
    pub fn set_sealed_bytes(&mut self, bytes: u64) {
        self.sealed_bytes = bytes;
    }

    /// Decides; `last` is where a backup that starts now would end.
    pub fn check(&mut self, now: Now, last: CommitSeq) -> Due {
        let wanted = now.uptime >= self.due || self.sealed_bytes >= self.policy.journal_cap_bytes;
        if !wanted || now.uptime < self.not_before {
            return Due::No;
        }
        if last > self.backed_up {
            return Due::Yes;
        }
        self.due = now.uptime + self.policy.interval;
        // An empty store has nothing to back up.
        if self.backed_up == CommitSeq(0) { Due::No } else { Due::IfMissing }
    }

    /// The newest backup is gone from the directory.
    pub fn on_missing(&mut self) {
        self.backed_up = CommitSeq(0);
    }

    /// A backup was started.
    pub fn on_start(&mut self, now: Now) {
        self.due = now.uptime + self.policy.interval;
    }

    /// A backup is complete.
    pub fn on_success(&mut self, seq: CommitSeq) {
        self.backed_up = seq;
        // The committer removes what the backup covers, and then reports the rest.
        self.sealed_bytes = 0;
    }

    /// A backup failed.
    pub fn on_failure(&mut self, now: Now) {
        self.due = now.uptime + BACKUP_RETRY_INTERVAL;
        self.not_before = self.due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BackupPolicy =
        BackupPolicy { interval: Duration::from_secs(3600), journal_cap_bytes: 1000, keep: 2 };

    fn at(uptime_s: u64) -> Now {
        Now { uptime: Duration::from_secs(uptime_s), unix_s: 1_000_000 + uptime_s }
    }

    #[test]
    fn the_first_backup_depends_on_what_is_there() {
        let delay = |newest, complete| {
            BackupSchedule::new(POLICY, newest, complete, at(0)).timeout(at(0)).as_secs()
        };
        assert_eq!(delay(None, true), 60);
        assert_eq!(delay(None, false), 0);
        assert_eq!(delay(Some((CommitSeq(5), 1_000_000 - 600)), false), 3000);
        assert_eq!(delay(Some((CommitSeq(5), 0)), true), 0, "long overdue");
        assert_eq!(delay(Some((CommitSeq(5), 2_000_000)), true), 3600, "a clock that went back");
    }

    #[test]
    fn time_and_the_journals_size_make_a_backup_due_and_a_failure_delays_it() {
        let mut schedule =
            BackupSchedule::new(POLICY, Some((CommitSeq(5), 1_000_000)), true, at(0));
        assert_eq!(schedule.check(at(3599), CommitSeq(6)), Due::No);
        assert_eq!(schedule.check(at(3600), CommitSeq(6)), Due::Yes);
        schedule.on_start(at(3600));
        assert_eq!(schedule.check(at(3600), CommitSeq(6)), Due::No);
        schedule.set_sealed_bytes(1000);
        assert_eq!(schedule.check(at(3601), CommitSeq(6)), Due::Yes);
        schedule.on_failure(at(3601));
        assert_eq!(schedule.check(at(3660), CommitSeq(6)), Due::No);
        assert_eq!(schedule.timeout(at(3660)), Duration::from_secs(1));
        assert_eq!(schedule.check(at(3661), CommitSeq(6)), Due::Yes);
        schedule.on_success(CommitSeq(6));
        assert_eq!(
            schedule.check(at(3661), CommitSeq(7)),
            Due::Yes,
            "due by time, as nothing started"
        );
        schedule.on_start(at(3661));
        assert_eq!(schedule.check(at(3662), CommitSeq(7)), Due::No, "the cap counts anew");
    }

    #[test]
    fn without_a_change_only_a_missing_backup_is_made_again() {
        let mut schedule =
            BackupSchedule::new(POLICY, Some((CommitSeq(5), 1_000_000)), true, at(0));
        assert_eq!(schedule.check(at(3600), CommitSeq(5)), Due::IfMissing);
        assert_eq!(schedule.check(at(3601), CommitSeq(5)), Due::No, "an interval later again");
        schedule.on_missing();
        assert_eq!(schedule.check(at(7200), CommitSeq(5)), Due::Yes);
        let mut empty = BackupSchedule::new(POLICY, None, true, at(0));
        assert_eq!(empty.check(at(3600), CommitSeq(0)), Due::No);
    }
}
