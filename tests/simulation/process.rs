//! A process of the store without its threads: the committer, the keeper and the grounds, each taking a step when the scheduler says so.
//!
//! Job: pass orders and tidings between the real parts through queues that keep their order, as `threads.rs` and `keeping.rs` do through
//! channels. The scribe, who writes backups, is in `scribe.rs`.
//! Invariant: once the machine is dead nothing is handed out any more. Must never: decide anything that the store decides.

mod keeping;

use std::collections::VecDeque;
use std::sync::Arc;

use odometer::store::embedded::commit::cache::ReadView;
use odometer::store::embedded::commit::committer::{BackgroundTask, Committer, CommitterEvent, EventEffect};
use odometer::store::embedded::commit::queue::{Queue, send_replies};
use odometer::store::embedded::fs::Directory;
use odometer::store::embedded::journal::frame::{CommitSeq, LogPosition, StoreId};
use odometer::store::embedded::runtime::segment_allocator::SegmentAllocator;
use odometer::store::embedded::state::checkpointer::Checkpointer;
use odometer::store::{StoreError, Unavailable};

use crate::disk::{SimDisk, SimFile};
use crate::machine::Power;
use crate::plan::Plan;
use crate::scribe::{Chunk, Ended, Scribe};
use crate::state::SimState;
use crate::support::Random;

const QUEUE_CAPACITY: usize = 4;

/// What the keeper is told.
enum Message {
    Do(BackgroundTask),
    Journal(usize, u64),
    BackupEnded(Ended),
}

/// What the keeper does beside its steps.
#[derive(Default)]
struct Keeping {
    segments_behind: usize,
    older_bytes: u64,
    closing: Option<bool>,
    backed_up: CommitSeq,
    /// A backup is under way; whether somebody asked for it.
    job: Option<bool>,
    in_hand: Option<Chunk>,
    ended: bool,
}

/// What the process was started with.
pub(crate) struct Parts {
    pub(crate) committer: Committer<SimDisk>,
    pub(crate) keeper: Checkpointer<SimState>,
    pub(crate) window: ReadView,
    pub(crate) backed_up: CommitSeq,
}

/// See the module's text.
pub(crate) struct Process {
    power: Power,
    plan: Arc<Plan>,
    journal: SimDisk,
    backups: SimDisk,
    store: StoreId,
    committer: Committer<SimDisk>,
    keeper: Checkpointer<SimState>,
    pub(crate) window: ReadView,
    pub(crate) queue: Queue<CommitterEvent<SimFile>>,
    to_keeper: VecDeque<Message>,
    to_grounds: VecDeque<BackgroundTask>,
    told: (usize, u64),
    /// Requests were decided, and the turn is not finished.
    deciding: bool,
    taken: usize,
    idle: bool,
    keeping: Keeping,
    scribe: Option<Scribe>,
    grounds: SegmentAllocator<SimDisk>,
    /// Why it takes no change any more.
    pub(crate) poisoned: Option<String>,
    /// The state was found to be damaged, as it says here.
    pub(crate) damaged: Option<String>,
    /// How long it has run, in seconds.
    pub(crate) running_s: u64,
    /// Whether the last turn committed something.
    pub(crate) committed: bool,
    /// Backups that were finished since anybody looked: their names, or partial names, and marks.
    pub(crate) finished: Vec<(String, LogPosition)>,
    keeper_is_done: bool,
    stopping: bool,
}

impl Process {
    pub(crate) fn new(plan: Arc<Plan>, power: Power, disks: (SimDisk, SimDisk), store: StoreId, parts: Parts) -> Self {
        let grounds = SegmentAllocator::new(Arc::new(disks.0.clone()), plan.segment_bytes);
        let keeping = Keeping { segments_behind: 1, backed_up: parts.backed_up, ..Keeping::default() };
        Self {
            power,
            plan,
            journal: disks.0,
            backups: disks.1,
            store,
            committer: parts.committer,
            keeper: parts.keeper,
            window: parts.window,
            queue: Queue::new(QUEUE_CAPACITY),
            to_keeper: VecDeque::new(),
            to_grounds: VecDeque::new(),
            told: (1, 0),
            deciding: false,
            taken: 0,
            idle: true,
            keeping,
            scribe: None,
            grounds,
            poisoned: None,
            damaged: None,
            running_s: 0,
            committed: false,
            finished: Vec::new(),
            keeper_is_done: false,
            stopping: false,
        }
    }

    /// The last durable frame.
    pub(crate) fn last(&self) -> LogPosition {
        self.committer.journal().last()
    }

    /// One half of a committer's turn: hear and decide, or make it durable and answer. Between the halves the others go on, as they do while
    /// the real one waits for the disk.
    pub(crate) fn committer_step(&mut self, random: &mut Random) {
        self.committed = false;
        if self.deciding {
            self.finish_turn();
            return;
        }
        self.hear_all();
        let most = random.between(1, QUEUE_CAPACITY as u64) as usize;
        self.taken = 0;
        while self.taken < most
            && let Some(work) = self.queue.pop()
        {
            self.committer.execute(work);
            self.taken += 1;
        }
        self.deciding = true;
    }

    fn hear_all(&mut self) {
        self.idle = true;
        self.committer.set_uptime(self.running_s);
        while let Some(tidings) = self.queue.pop_control() {
            let noted = self.committer.on_event(tidings);
            self.note(noted);
            self.idle = false;
        }
    }

    fn finish_turn(&mut self) {
        self.deciding = false;
        let (turn, result) = self.committer.commit_batch();
        if self.power.is_dead() {
            return;
        }
        self.committed = turn.committed;
        send_replies(turn.replies);
        if let Err(error) = result {
            let noted = self.committer.poison(format!("the journal could not be written: {error}"));
            self.note(noted);
        }
        let journal = self.committer.journal();
        let now = (self.committer.uncheckpointed_segments(), journal.sealed_bytes());
        if now != self.told {
            self.told = now;
            self.to_keeper.push_back(Message::Journal(now.0, now.1));
        }
        self.send_outbox();
        if self.taken == 0 && self.idle && !self.stopping {
            self.committer.flush();
            self.send_outbox();
        }
    }

    fn note(&mut self, noted: EventEffect) {
        match noted {
            EventEffect::Poisoned(problem) => drop(self.poisoned.get_or_insert(problem)),
            EventEffect::Checkpointed(_, _, removed) => {
                let mut machine = self.power.lock();
                machine.tally.add("checkpoints", "", "");
                machine.tally.count("segments released", "", "", removed as u64);
            }
            EventEffect::DiskLow(true) => self.power.tally("disk low", "", ""),
            EventEffect::DiskLow(false) | EventEffect::Nothing => {}
        }
    }

    fn send_outbox(&mut self) {
        for order in self.committer.pending_tasks() {
            match order {
                BackgroundTask::Flush(..) | BackgroundTask::Load(_) | BackgroundTask::List(..) => {
                    self.to_keeper.push_back(Message::Do(order))
                }
                BackgroundTask::MakeSpare | BackgroundTask::Remove(_) => self.to_grounds.push_back(order),
            }
        }
    }

    fn tell(&self, tidings: CommitterEvent<SimFile>) {
        if !self.power.is_dead() {
            self.queue.send_control(tidings);
        }
    }

    /// One portion of the backup.
    pub(crate) fn scribe_step(&mut self) {
        let Some(scribe) = &mut self.scribe else { return };
        let sender_is_gone = self.keeping.job.is_none();
        if let Some(ended) = scribe.step(sender_is_gone) {
            if let (Ok(mark), Some(name)) = (&ended, scribe.name()) {
                self.finished.push((name, *mark));
            }
            self.scribe = None;
            self.to_keeper.push_back(Message::BackupEnded(ended));
        }
    }

    /// One order of the grounds, and a look at the free disk.
    pub(crate) fn grounds_step(&mut self) {
        if let Some(order) = self.to_grounds.pop_front() {
            self.grounds.enqueue(order);
        }
        if self.grounds.remove_retired().is_err() && !self.power.is_dead() {
            self.power.tally("segments not removed", "", "");
        }
        let look = self.grounds.poll(self.journal.available_bytes().unwrap_or(0) == 0);
        if look.failed.is_some() {
            self.power.tally("no spare", "", "");
        }
        look.events.into_iter().for_each(|tidings| self.tell(tidings));
    }

    /// Refuses changes from the start, as a store that opens on an almost full disk does.
    pub(crate) fn open_with_low_disk(&mut self) {
        self.committer.set_read_only(Some(Unavailable::DiskLow.into()));
    }

    /// Stops as a process that was asked to. Every request that was accepted is answered before.
    pub(crate) fn close(&mut self, random: &mut Random) {
        self.power.set_phase("close");
        loop {
            if !self.deciding {
                self.hear_all();
                self.taken = 0;
                while let Some(work) = self.queue.pop() {
                    self.committer.execute(work);
                    self.taken += 1;
                }
            }
            self.stopping = true;
            self.finish_turn();
            if self.power.is_dead() {
                return;
            }
            if self.taken == 0 && self.idle {
                break;
            }
        }
        let healthy = self.poisoned.is_none();
        if healthy {
            self.committer.flush();
            self.send_outbox();
        }
        while let Some(work) = self.queue.pop() {
            send_replies(vec![(work.responder, Err(StoreError::Unavailable(Unavailable::Closing)))]);
        }
        // The keeper meets `Close` behind everything that it was sent.
        while !self.to_keeper.is_empty() && !self.keeper_is_done {
            self.keeper_step(random);
        }
        self.keeping.closing = Some(healthy);
        while !self.keeper_is_done && !self.power.is_dead() {
            self.keeper_step(random);
        }
        self.scribe = None;
        while let Some(tidings) = self.queue.pop_control() {
            if let CommitterEvent::Checkpointed(..) | CommitterEvent::Failed(_) = tidings {
                let noted = self.committer.on_event(tidings);
                self.note(noted);
            }
        }
        self.send_outbox();
        while !self.to_grounds.is_empty() && !self.power.is_dead() {
            self.grounds_step();
        }
    }

    /// Whether a backup is under way.
    pub(crate) fn is_backing_up(&self) -> bool {
        self.scribe.is_some()
    }

    /// Whether nothing is left to do for anybody.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.deciding
            && self.queue.depth() == 0
            && self.to_keeper.is_empty()
            && self.to_grounds.is_empty()
            && self.scribe.is_none()
            && (self.keeper_is_done || !self.keeper.in_progress())
    }
}
