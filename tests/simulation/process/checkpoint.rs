//! Drives the store's own checkpoint scheduler and backup task, as `checkpoint_thread.rs` does.
//!
//! Job: hand over one message, take one step, carry out the effects; dice decide how time passes.
//! Invariant: every effect is carried out, in order, unless the machine is dead.
//! Must never: decide when something is due, or what a backup needs.

use std::collections::VecDeque;
use std::time::Duration;

use odometer::store::embedded::backup::task::{
    BackupTask, Chunk, FinishedBackup, MAX_QUEUED_CHUNKS, NextChunk,
};
use odometer::store::embedded::checkpoint::messages::{
    CheckpointMessage, ChunkOutcome, Effect, Now,
};
use odometer::store::embedded::commit::committer::CommitterEvent;
use odometer::store::embedded::commit::queue::send_replies;
use tokio::sync::oneshot;

use super::Process;
use crate::bugs::Bug;
use crate::disk::SimDisk;
use crate::plan::{BACKUP_INTERVAL, CHECKPOINT_INTERVAL, WALL_CLOCK_S};
use crate::support::Random;

/// A backup disk may hang for this many steps of the checkpoint thread, each of which then takes
/// this long. The scheduler gives up after a minute in which it takes nothing.
const HANG_STEPS: u32 = 30;
const HANG_STEP: Duration = Duration::from_secs(5);

/// The backup thread without its thread: the task and the chunks in its channel.
pub(super) struct BackupThread {
    task: BackupTask<SimDisk>,
    chunks: VecDeque<Chunk>,
    sender_is_gone: bool,
    /// Steps for which its disk hangs.
    hangs: u32,
}

impl Process {
    fn now(&self) -> Now {
        Now { uptime: self.uptime, unix_s: WALL_CLOCK_S + self.uptime.as_secs() }
    }

    /// One message and one step of the checkpoint thread.
    pub(crate) fn checkpoint_step(&mut self, random: &mut Random) {
        if self.scheduler.is_finished() {
            return;
        }
        self.pass_time(random);
        if let Some(message) = self.to_checkpoint.pop_front() {
            let effects = self.scheduler.on_message(self.now(), message);
            self.carry_out(effects);
        }
        let was_idle = !self.scheduler.in_progress();
        let effects = self.scheduler.run_step(self.now());
        self.carry_out(effects);
        let began = was_idle && self.scheduler.in_progress();
        if began && self.plan.bug == Some(Bug::CheckpointTooEarly) {
            let seq = self.scheduler.last_position().seq;
            self.send_event(CommitterEvent::Checkpointed(seq, Duration::ZERO));
        }
    }

    /// Time passes: a little, or until a checkpoint or a backup is due. An operator may ask for a
    /// backup, and the disk of a backup may hang.
    fn pass_time(&mut self, random: &mut Random) {
        let mut happens = |rate| random.between(0, 999) < rate;
        self.uptime += Duration::from_millis(10);
        if self.stopping {
            return;
        }
        if let Some(backup) = &mut self.backup {
            if backup.hangs > 0 {
                backup.hangs -= 1;
                self.uptime += HANG_STEP;
            } else if happens(1) {
                backup.hangs = HANG_STEPS;
            }
        }
        if self.scheduler.in_progress() {
            return;
        }
        if happens(self.plan.asked_rate) {
            let (reply_to, reply) = oneshot::channel();
            self.backup_replies.push(reply);
            self.to_checkpoint.push_back(CheckpointMessage::Backup(reply_to));
        }
        if happens(self.plan.backup_rate) && self.plan.backups.is_some() {
            self.uptime += BACKUP_INTERVAL;
        }
        if happens(self.plan.checkpoint_rate) {
            self.uptime += CHECKPOINT_INTERVAL;
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect<SimDisk>>) {
        for effect in effects {
            if self.power.is_dead() {
                return;
            }
            match effect {
                Effect::Event(event) => {
                    match &event {
                        CommitterEvent::Loaded(..) => self.power.tally("loads", "", ""),
                        CommitterEvent::BackedUp(_) => self.power.tally("backups", "", ""),
                        _ => {}
                    }
                    self.send_event(event);
                }
                Effect::Checkpointed { seq, .. } => {
                    self.send_event(CommitterEvent::Checkpointed(seq, Duration::ZERO));
                }
                Effect::Reply(responder, result) => {
                    self.power.tally("lists", "", "");
                    send_replies(vec![(responder, result)]);
                }
                Effect::StartBackup(task) => {
                    assert!(self.backup.is_none(), "two backups at once");
                    let chunks = VecDeque::new();
                    self.backup =
                        Some(BackupThread { task, chunks, sender_is_gone: false, hangs: 0 });
                }
                Effect::OfferChunk(chunk) => self.offer(chunk),
                Effect::StopBackup => {
                    let what = if self.stopping { "unfinished backups" } else { "stalled backups" };
                    self.power.tally(what, "", "");
                    self.backup.iter_mut().for_each(|backup| backup.sender_is_gone = true);
                }
                Effect::BackupReply(reply_to, result) => {
                    let what = if result.is_ok() { "asked backups" } else { "failed backups" };
                    self.power.tally(what, "", "");
                    let _ = reply_to.send(result);
                }
                Effect::BackupCompleted(..) => {}
                Effect::BackupCurrent => self.power.tally("current backups", "", ""),
                Effect::BackupFailed(_) => self.power.tally("failed backups", "", ""),
                Effect::StateCorrupt { problem, .. } => drop(self.damaged.get_or_insert(problem)),
            }
        }
    }

    fn offer(&mut self, chunk: Chunk) {
        let outcome = match &mut self.backup {
            Some(backup) if backup.chunks.len() < MAX_QUEUED_CHUNKS => {
                backup.chunks.push_back(chunk);
                ChunkOutcome::Accepted
            }
            Some(_) => ChunkOutcome::Full(chunk),
            None => ChunkOutcome::TaskEnded,
        };
        let effects = self.scheduler.on_chunk(self.now(), outcome);
        self.carry_out(effects);
    }

    /// One step of the backup thread.
    pub(crate) fn backup_step(&mut self) {
        let Some(BackupThread { task, chunks, sender_is_gone, hangs }) = &mut self.backup else {
            return;
        };
        if *hangs > 0 && !self.stopping {
            return;
        }
        let none = if *sender_is_gone { NextChunk::Abandoned } else { NextChunk::NotYet };
        let result = task.step(|| chunks.pop_front().map_or(none, NextChunk::Chunk));
        if let Some(result) = result.transpose() {
            self.backup = None;
            if let Ok(FinishedBackup { file: None, summary }) = &result {
                self.finished.push(summary.header.position);
            }
            self.to_checkpoint.push_back(CheckpointMessage::BackupEnded(result));
        }
    }
}
