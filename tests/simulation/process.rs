//! A process of the store without its threads: committer, checkpoint thread, backup thread and
//! segment allocator each take a step when the harness says so.
//!
//! Job: pass messages between the store's own parts through queues that keep their order, as the
//! channels of `src/store/embedded/runtime` do.
//! Invariant: once the machine is dead, no reply and no event is sent any more.
//! Must never: decide anything that the store decides.

mod checkpoint;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use odometer::store::embedded::backup::format::Summary;
use odometer::store::embedded::checkpoint::messages::CheckpointMessage;
use odometer::store::embedded::checkpoint::scheduler::CheckpointScheduler;
use odometer::store::embedded::commit::cache::ReadView;
use odometer::store::embedded::commit::command::CommandResult;
use odometer::store::embedded::commit::committer::{
    BackgroundTask, CommitResult, Committer, CommitterEvent, EventEffect,
};
use odometer::store::embedded::commit::queue::{Queue, Responder, send_replies};
use odometer::store::embedded::fs::Directory;
use odometer::store::embedded::journal::frame::LogPosition;
use odometer::store::embedded::recovery::start::StartedStore;
use odometer::store::embedded::runtime::committer_cycle::{CommitterCycle, Surroundings};
use odometer::store::embedded::runtime::segment_allocator::SegmentAllocator;
use odometer::store::{StoreError, Unavailable};
use tokio::sync::oneshot;

use self::checkpoint::BackupThread;
use crate::disk::{SimDisk, SimFile};
use crate::machine::Power;
use crate::plan::Plan;
use crate::state::SimState;
use crate::support::Random;

const QUEUE_CAPACITY: usize = 4;

/// See the module's text.
pub(crate) struct Process {
    power: Power,
    plan: Arc<Plan>,
    journal: SimDisk,
    cycle: CommitterCycle<SimDisk>,
    scheduler: CheckpointScheduler<SimState, SimDisk>,
    allocator: SegmentAllocator<SimDisk>,
    backup: Option<BackupThread>,
    pub(crate) read_view: ReadView,
    pub(crate) queue: Queue<CommitterEvent<SimFile>>,
    to_checkpoint: VecDeque<CheckpointMessage<SimFile>>,
    to_allocator: VecDeque<BackgroundTask>,
    /// Requests were decided, and the batch is not committed yet.
    deciding: bool,
    taken: usize,
    idle: bool,
    /// The clock of the checkpoint scheduler.
    uptime: Duration,
    /// Operators who wait for a backup.
    pub(crate) backup_replies: Vec<oneshot::Receiver<Result<(SimFile, Summary), String>>>,
    /// Why it takes no change any more.
    pub(crate) poisoned: Option<String>,
    /// The state was found to be damaged, as it says here.
    pub(crate) damaged: Option<String>,
    /// How long it has run, in seconds, by the clock of the committer.
    pub(crate) running_s: u64,
    /// The last commits of automatic backups that were finished since this was taken last.
    pub(crate) finished: Vec<LogPosition>,
    /// Increments and integers that were committed since this was taken last, as it counts them.
    pub(crate) counted: (u64, u64),
    stopping: bool,
}

impl Process {
    pub(crate) fn new(
        plan: Arc<Plan>,
        power: Power,
        journal: SimDisk,
        parts: StartedStore<SimState, SimDisk>,
    ) -> Self {
        Self {
            allocator: SegmentAllocator::new(Arc::new(journal.clone()), plan.segment_bytes),
            power,
            plan,
            journal,
            cycle: CommitterCycle::new(parts.committer),
            scheduler: parts.scheduler,
            backup: None,
            read_view: parts.read_view,
            queue: Queue::new(QUEUE_CAPACITY),
            to_checkpoint: VecDeque::new(),
            to_allocator: VecDeque::new(),
            deciding: false,
            taken: 0,
            idle: true,
            uptime: Duration::ZERO,
            backup_replies: Vec::new(),
            poisoned: None,
            damaged: None,
            running_s: 0,
            finished: Vec::new(),
            counted: (0, 0),
            stopping: false,
        }
    }

    /// The last durable frame.
    pub(crate) fn last(&self) -> LogPosition {
        self.cycle.committer().journal().last()
    }

    /// One half of a committer's cycle: receive and decide, or commit and reply. Between the halves
    /// the others go on, as they do while the real committer waits for the disk.
    pub(crate) fn committer_step(&mut self, random: &mut Random) {
        if self.deciding {
            self.commit();
        } else {
            self.decide(random.between(1, QUEUE_CAPACITY as u64) as usize);
        }
    }

    /// The first half: receives what the others sent, and decides at most `max` requests.
    pub(crate) fn decide(&mut self, max: usize) {
        self.receive_events();
        self.cycle.execute(&self.queue, max);
        self.deciding = true;
    }

    fn receive_events(&mut self) {
        self.idle = true;
        self.cycle.begin(self.running_s);
        while let Some(event) = self.queue.pop_control() {
            self.with_cycle(|cycle, around| cycle.on_event(event, around));
            self.idle = false;
        }
    }

    /// The second half: commits what was decided, and replies.
    pub(crate) fn commit(&mut self) {
        self.deciding = false;
        self.taken = self.with_cycle(|cycle, around| cycle.commit(around));
        if self.taken == 0 && self.idle && !self.stopping {
            self.with_cycle(|cycle, around| cycle.stage(around));
        }
    }

    fn with_cycle<R>(
        &mut self,
        run: impl FnOnce(&mut CommitterCycle<SimDisk>, &mut Around<'_>) -> R,
    ) -> R {
        let mut around = Around {
            power: &self.power,
            to_checkpoint: &mut self.to_checkpoint,
            to_allocator: &mut self.to_allocator,
            poisoned: &mut self.poisoned,
            counted: &mut self.counted,
        };
        run(&mut self.cycle, &mut around)
    }

    fn send_event(&self, event: CommitterEvent<SimFile>) {
        if !self.power.is_dead() {
            self.queue.send_control(event);
        }
    }

    /// One task of the segment allocator, and a check of the free disk space.
    pub(crate) fn allocator_step(&mut self) {
        if let Some(task) = self.to_allocator.pop_front() {
            self.allocator.enqueue(task);
        }
        if self.allocator.remove_retired().is_err() && !self.power.is_dead() {
            self.power.tally("segments not removed", "", "");
        }
        let poll = self.allocator.poll(self.journal.available_bytes().unwrap_or(0) == 0);
        if poll.failed.is_some() {
            self.power.tally("no spare", "", "");
        }
        poll.events.into_iter().for_each(|event| self.send_event(event));
    }

    /// Stops as a process that was asked to. Every accepted request is answered before.
    pub(crate) fn close(&mut self, random: &mut Random) {
        self.power.set_phase("close");
        self.stopping = true;
        loop {
            if !self.deciding {
                self.receive_events();
                self.cycle.execute(&self.queue, usize::MAX);
            }
            self.commit();
            if self.power.is_dead() {
                return;
            }
            if self.taken == 0 && self.idle {
                break;
            }
        }
        let checkpoint = self.poisoned.is_none();
        if checkpoint {
            self.with_cycle(|cycle, around| cycle.stage(around));
        }
        while let Some(queued) = self.queue.pop() {
            let closing = Err(StoreError::Unavailable(Unavailable::Closing));
            send_replies(vec![(queued.responder, closing)]);
        }
        self.to_checkpoint.push_back(CheckpointMessage::Close { checkpoint });
        while !self.scheduler.is_finished() && !self.power.is_dead() {
            self.checkpoint_step(random);
        }
        self.backup = None;
        while let Some(event) = self.queue.pop_control() {
            if let CommitterEvent::Checkpointed(..) | CommitterEvent::Failed(_) = event {
                self.with_cycle(|cycle, around| cycle.on_event(event, around));
            }
        }
        self.with_cycle(|cycle, around| cycle.dispatch_tasks(around));
        while !self.to_allocator.is_empty() && !self.power.is_dead() {
            self.allocator_step();
        }
    }

    /// Whether a backup is under way.
    pub(crate) fn is_backing_up(&self) -> bool {
        self.backup.is_some()
    }

    /// Whether no part has anything left to do.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.deciding
            && self.queue.depth() == 0
            && self.to_checkpoint.is_empty()
            && self.to_allocator.is_empty()
            && self.backup.is_none()
            && (self.scheduler.is_finished() || !self.scheduler.in_progress())
    }
}

/// What is around the committer: the queues to the other parts, and the tally. A process that is
/// gone sends nothing.
struct Around<'a> {
    power: &'a Power,
    to_checkpoint: &'a mut VecDeque<CheckpointMessage<SimFile>>,
    to_allocator: &'a mut VecDeque<BackgroundTask>,
    poisoned: &'a mut Option<String>,
    counted: &'a mut (u64, u64),
}

impl Surroundings<SimDisk> for Around<'_> {
    fn on_batch(&mut self, _: &Committer<SimDisk>, batch: &CommitResult) {
        *self.counted = (self.counted.0 + batch.increments, self.counted.1 + batch.integers);
    }

    fn send_replies(&mut self, replies: Vec<(Responder, CommandResult)>) {
        if !self.power.is_dead() {
            send_replies(replies);
        }
    }

    fn report(&mut self, effect: EventEffect) {
        if self.power.is_dead() {
            return;
        }
        match effect {
            EventEffect::Poisoned(problem) => {
                self.power.tally("poisoned", "", "");
                self.poisoned.get_or_insert(problem);
            }
            EventEffect::Checkpointed(_, _, removed) => {
                let mut machine = self.power.lock();
                machine.tally.add("checkpoints", "", "");
                machine.tally.count("segments released", "", "", removed as u64);
            }
            EventEffect::DiskLow(true) => self.power.tally("disk low", "", ""),
            EventEffect::DiskLow(false) | EventEffect::Nothing => {}
        }
    }

    fn to_checkpointer(&mut self, message: CheckpointMessage<SimFile>) {
        self.to_checkpoint.push_back(message);
    }

    fn to_allocator(&mut self, task: BackgroundTask) {
        self.to_allocator.push_back(task);
    }
}
