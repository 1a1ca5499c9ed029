//! The keeper's part of a process: what `Keeping` in `keeping.rs` does with its messages and steps, with dice for a clock.
//!
//! Job: loads, checkpoints and backups, a message and a step at a time. Invariant: one backup at a time; its checkpoint goes on when it fails.
//! Must never: step a keeper that ended, or tell the committer of a backup before the scribe did.

use std::time::Duration;

use odometer::store::StoreError;
use odometer::store::embedded::backup::format::{BackupEncoder, Header};
use odometer::store::embedded::commit::command::Reply;
use odometer::store::embedded::commit::committer::{BackgroundTask, CommitterEvent};
use odometer::store::embedded::commit::queue::send_replies;
use odometer::store::embedded::state::checkpointer::{CheckpointError, Step};

use super::{Message, Process};
use crate::bugs::Bug;
use crate::scribe::{Chunk, Ended, Scribe};
use crate::support::Random;

/// More segments behind than this, and a checkpoint is due, as in the store.
const CHECKPOINT_SEGMENTS: usize = 4;

impl Process {
    /// One message and one step of the keeper.
    pub(crate) fn keeper_step(&mut self, random: &mut Random) {
        if self.keeper_is_done {
            return;
        }
        match self.to_keeper.pop_front() {
            Some(Message::Do(BackgroundTask::Load(key))) => {
                let record = self.keeper.load(&key);
                if let Err(problem) = &record {
                    self.state_is_damaged(problem.clone());
                }
                self.power.tally("loads", "", "");
                self.tell(CommitterEvent::Loaded(key, record));
                return;
            }
            Some(Message::Do(BackgroundTask::List(listing, ticket))) => {
                let listed = self.keeper.list(&listing);
                if let Err(problem) = &listed {
                    self.state_is_damaged(problem.clone());
                }
                self.power.tally("lists", "", "");
                if !self.power.is_dead() {
                    let outcome = listed.map(Reply::Listed).map_err(|problem| StoreError::Corrupt(problem.into()));
                    send_replies(vec![(ticket, outcome)]);
                }
                return;
            }
            Some(Message::Do(BackgroundTask::Flush(changes, up_to))) => self.keeper.stage(changes, up_to),
            Some(Message::Do(_)) | None => {}
            Some(Message::Journal(behind, older)) => {
                self.keeping.segments_behind = behind;
                self.keeping.older_bytes = older;
            }
            Some(Message::BackupEnded(result)) => self.backup_ended(result),
        }
        if self.keeping.closing.is_some() && self.keeping.job.take().is_some() {
            self.keeper.abandon_backup();
        }
        let rested = !self.keeper.has_unflushed() && !self.keeper.in_progress();
        if self.keeping.closing == Some(false) || (self.keeping.closing.is_some() && rested) {
            self.keeper_is_done = true;
            return;
        }
        self.begin_what_is_due(random);
        self.keeper_is_done = !self.work();
    }

    fn begin_what_is_due(&mut self, random: &mut Random) {
        if self.keeper.in_progress() {
            return;
        }
        let closing = self.keeping.closing.is_some();
        if !closing && self.keeping.job.is_none() {
            let asked = random.between(0, 999) < self.plan.asked_rate;
            let cap = 6 * self.plan.segment_bytes;
            let wanted = random.between(0, 999) < self.plan.backup_rate || self.keeping.older_bytes >= cap;
            let due = self.plan.backups.is_some() && wanted && self.keeper.last_position().seq > self.keeping.backed_up;
            if asked || due {
                self.begin_backup(asked);
                return;
            }
        }
        let due = closing
            || random.between(0, 999) < self.plan.checkpoint_rate
            || self.keeping.segments_behind >= CHECKPOINT_SEGMENTS;
        if due && self.keeper.has_unflushed() {
            self.keeping.segments_behind = 1;
            self.keeper.start_checkpoint();
            if self.plan.bug == Some(Bug::CoveredTooEarly) {
                self.tell(CommitterEvent::Checkpointed(self.keeper.last_position().seq, Duration::ZERO));
            }
        }
    }

    fn begin_backup(&mut self, asked: bool) {
        self.keeping.segments_behind = 1;
        let header = Header { store: self.store, position: self.keeper.last_position(), created_unix_s: 7 };
        let keep = if asked { None } else { self.plan.backups };
        self.scribe = Some(Scribe::new(self.backups.clone(), header.position, keep));
        self.keeping.job = Some(asked);
        self.keeping.in_hand = None;
        self.keeping.ended = false;
        self.keeper.start_backup(BackupEncoder::new(&header));
    }

    /// One step of what is under way; false when the keeper must stop.
    fn work(&mut self) -> bool {
        if self.keeping.job.is_some()
            && let Some(chunk) = self.keeping.in_hand.take()
        {
            let ended = chunk.last;
            let taken = match &mut self.scribe {
                Some(scribe) if !self.keeping.ended => scribe.offer(chunk),
                _ => Err(None),
            };
            match taken {
                Ok(()) => self.keeping.ended |= ended,
                Err(Some(chunk)) => {
                    self.keeping.in_hand = Some(chunk);
                    return true;
                }
                Err(None) => self.keeper.abandon_backup(),
            }
        }
        match self.keeper.step() {
            Ok(Step::Idle | Step::More) => {}
            Ok(Step::Chunk { bytes, last }) => {
                if self.keeping.job.is_some() {
                    self.keeping.in_hand = Some(Chunk { bytes, last });
                }
            }
            Ok(Step::Finished(mark)) => self.tell(CommitterEvent::Checkpointed(mark.seq, Duration::ZERO)),
            Err(CheckpointError::Corrupt(problem)) => {
                self.state_is_damaged(problem);
                return false;
            }
            Err(CheckpointError::Io(problem)) => {
                self.tell(CommitterEvent::Failed(format!("a checkpoint failed: {problem}")));
                return false;
            }
        }
        true
    }

    fn backup_ended(&mut self, result: Ended) {
        let Some(asked) = self.keeping.job.take() else { return };
        self.keeping.in_hand = None;
        self.keeper.abandon_backup();
        match result {
            Ok(mark) if !asked => {
                self.keeping.backed_up = mark.seq;
                self.tell(CommitterEvent::BackedUp(mark.seq));
                self.power.tally("backups", "", "");
            }
            Ok(_) => self.power.tally("asked backups", "", ""),
            Err(_) => self.power.tally("failed backups", "", ""),
        }
    }

    fn state_is_damaged(&mut self, problem: String) {
        if self.power.is_dead() {
            return;
        }
        let _ = self.keeper.mark_corrupt(&problem);
        self.tell(CommitterEvent::Failed(format!("the state is damaged: {problem}")));
        self.damaged.get_or_insert(problem);
    }
}
