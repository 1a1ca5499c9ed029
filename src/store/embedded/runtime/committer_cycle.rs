//! The committer's cycle without its thread: what is done with a batch, and in which order.
//!
//! ```text
//! thread, simulation   events ──► on_event    commands ──► execute
//! commit               frame, sync ──► metrics, replies ──► poison ──► journal size, tasks
//! ```
//! Job: [`CommitterCycle`] drives a [`Committer`] and hands everything that leaves it to its
//! [`Surroundings`], which are threads and channels, or the simulation's queues.
//! Invariant: replies are handed over after the commit, and tasks in the order in which the
//! committer made them.
//! Must never: wait, read a clock or log.

use crate::store::embedded::checkpoint::messages::CheckpointMessage;
use crate::store::embedded::commit::command::CommandResult;
use crate::store::embedded::commit::committer::{
    BackgroundTask, CommitResult, Committer, CommitterEvent, EventEffect,
};
use crate::store::embedded::commit::queue::{Queue, Responder};
use crate::store::embedded::fs::Directory;

/// Where everything goes that leaves the committer.
pub trait Surroundings<D: Directory> {
    /// A batch was committed, or failed; its replies were not sent yet.
    fn on_batch(&mut self, committer: &Committer<D>, batch: &CommitResult);
    /// To be sent now.
    fn send_replies(&mut self, replies: Vec<(Responder, CommandResult)>);
    /// To be logged and measured.
    fn report(&mut self, effect: EventEffect);
    /// For the checkpoint scheduler.
    fn to_checkpointer(&mut self, message: CheckpointMessage<D::File>);
    /// For the segment allocator.
    fn to_allocator(&mut self, task: BackgroundTask);
}

/// See the module's text.
pub struct CommitterCycle<D: Directory> {
    committer: Committer<D>,
    /// Journal size last reported to the checkpoint scheduler: uncheckpointed segments, sealed
    /// bytes.
    last_reported: (usize, u64),
    /// Commands of the batch that is being decided.
    taken: usize,
}

impl<D: Directory> CommitterCycle<D> {
    /// The cycle of a committer that has done nothing yet.
    pub fn new(committer: Committer<D>) -> Self {
        Self { committer, last_reported: (1, 0), taken: 0 }
    }

    /// The committer, read-only.
    pub fn committer(&self) -> &Committer<D> {
        &self.committer
    }

    /// Begins a batch; `running_s` is how long the process has run, in seconds.
    pub fn begin(&mut self, running_s: u64) {
        self.committer.set_uptime(running_s);
        self.taken = 0;
    }

    /// Applies an event from a background thread.
    pub fn on_event(&mut self, event: CommitterEvent<D::File>, around: &mut impl Surroundings<D>) {
        let effect = self.committer.on_event(event);
        around.report(effect);
    }

    /// Executes the queued commands, at most `max`.
    pub fn execute<C>(&mut self, queue: &Queue<C>, max: usize) {
        while self.taken < max
            && let Some(queued) = queue.pop()
        {
            self.committer.execute(queued);
            self.taken += 1;
        }
    }

    /// Commits what was executed, and hands over the replies and what follows from the commit.
    /// Returns the number of commands that were taken.
    pub fn commit(&mut self, around: &mut impl Surroundings<D>) -> usize {
        let (mut batch, result) = self.committer.commit_batch();
        around.on_batch(&self.committer, &batch);
        around.send_replies(std::mem::take(&mut batch.replies));
        if let Err(error) = result {
            self.poison(format!("the journal could not be written: {error}"), around);
        }
        self.report_journal_size(around);
        self.dispatch_tasks(around);
        self.taken
    }

    /// Poisons the store.
    pub fn poison(&mut self, problem: String, around: &mut impl Surroundings<D>) {
        let effect = self.committer.poison(problem);
        around.report(effect);
    }

    /// Gives every durable change to the checkpointer: nothing else is to be done.
    pub fn stage(&mut self, around: &mut impl Surroundings<D>) {
        self.committer.stage();
        self.dispatch_tasks(around);
    }

    fn report_journal_size(&mut self, around: &mut impl Surroundings<D>) {
        let sealed_bytes = self.committer.journal().sealed_bytes();
        let uncheckpointed_segments = self.committer.uncheckpointed_segments();
        let now = (uncheckpointed_segments, sealed_bytes);
        if now != self.last_reported {
            self.last_reported = now;
            let message = CheckpointMessage::Journal { uncheckpointed_segments, sealed_bytes };
            around.to_checkpointer(message);
        }
    }

    /// Passes the committer's tasks on.
    pub fn dispatch_tasks(&mut self, around: &mut impl Surroundings<D>) {
        for task in self.committer.pending_tasks() {
            match task {
                BackgroundTask::Stage(..) | BackgroundTask::Load(_) | BackgroundTask::List(..) => {
                    around.to_checkpointer(CheckpointMessage::Task(task));
                }
                BackgroundTask::MakeSpare | BackgroundTask::Remove(_) => around.to_allocator(task),
            }
        }
    }
}
