//! One seed: a store that is started several times, on a disk that fails, forgets and rots, under
//! clients that never stop.
//!
//! Job: [`run`] plays the lives of a [`Plan`] and judges them. Invariant: every step is decided by
//! the seed.
//! Must never: forgive a refusal, a rebuilt state or a poisoned store without a cause.

use std::sync::Arc;

use odometer::store::embedded::journal::frame::LogPosition;
use tokio::sync::oneshot::error::TryRecvError;

use crate::bugs::Bug;
use crate::checker::{self, Checker, Start as Found};
use crate::clients::{Clients, Now, Reply, What};
use crate::corruption::Rot;
use crate::demands::{CALLS, RARE_CALLS};
use crate::machine::{Cut, Power, Tally};
use crate::plan::Plan;
use crate::process::Process;
use crate::start::{Refusal, Site, start};
use crate::state::SimState;
use crate::support::Random;

/// Rounds in which a store that nothing disturbs comes to rest.
const ROUNDS: u64 = 3000;

/// What is wrong with a seed, and what was done to it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) problem: String,
    pub(crate) events: Vec<String>,
}

/// How a life ended.
enum End {
    /// By a crash, by being poisoned, or cleanly.
    Ended,
    /// Nothing more can be learned from this seed.
    Over,
}

struct World {
    plan: Arc<Plan>,
    random: Random,
    site: Site,
    clients: Clients,
    checker: Checker,
    rot: Rot,
    clock: u64,
    /// How long the store ran in all its lives, in seconds of its clock.
    age_s: u64,
    restarts: Vec<u64>,
}

/// Plays a seed from its first start to its last.
pub(crate) fn run(plan: Plan) -> Result<Tally, Failure> {
    let power = Power::new(plan.seed ^ 0x5851_f42d_4c95_7f2d);
    let plan = Arc::new(plan);
    let mut world = World {
        random: Random::seeded(plan.seed),
        site: Site::new(&power, &plan),
        clients: Clients::new(plan.bug),
        checker: Checker::default(),
        rot: Rot::default(),
        clock: 0,
        age_s: 0,
        restarts: Vec::new(),
        plan,
    };
    match world.play() {
        Ok(()) => {
            let mut tally = power.lock().tally.clone();
            tally.merge(&world.clients.tally);
            tally.merge(&world.checker.tally);
            Ok(tally)
        }
        Err(problem) => Err(Failure { problem, events: power.events() }),
    }
}

impl World {
    fn play(&mut self) -> Result<(), String> {
        for _ in 0..self.plan.lives {
            let crashes = self.random.between(0, 99) < self.plan.crash_rate;
            let cut = crashes.then(|| self.draw_cut());
            self.site.power.rise(cut, self.plan.fault_rate, self.plan.weak);
            self.site.power.tally("lives", "", "");
            if let End::Over = self.live()? {
                return self.judge_history();
            }
            self.fall();
        }
        self.last_life()?;
        self.judge_history()
    }

    /// Where the power goes: often at any operation, else at one of a certain kind, since some are
    /// rare.
    fn draw_cut(&mut self) -> Cut {
        if self.random.between(0, 3) > 0 {
            return Cut::At(self.random.between(1, self.plan.crash_within));
        }
        let calls = if self.random.one_in(2) { &RARE_CALLS[..] } else { &CALLS[..] };
        let (area, operation) = self.random.pick(calls);
        let first = self.random.one_in(2);
        Cut::AtCall(area, operation, if first { 0 } else { self.random.between(1, 7) })
    }

    /// From a start to whatever ends the process.
    fn live(&mut self) -> Result<End, String> {
        let process = match self.start()? {
            Ok(process) => process,
            Err(end) => return Ok(end),
        };
        if self.random.between(0, 7) == 0 && !self.rot.state {
            self.checker.look(&self.site, &self.plan)?;
        }
        self.site.power.set_phase("serve");
        self.serve(process)?;
        Ok(End::Ended)
    }

    fn start(&mut self) -> Result<Result<Process, End>, String> {
        let cause = self.cause_to_rebuild();
        let started = start(&mut self.site, &self.plan);
        self.read_frames();
        let (process, report) = match started {
            _ if self.site.power.is_dead() => return Ok(Err(End::Ended)),
            Ok(up) => up,
            Err(refusal) => return self.refused(&refusal).map(Err),
        };
        if self.plan.strict {
            let cause = cause || self.cause_to_rebuild();
            if let Found::InherentLoss =
                self.checker.started(&report, &self.site, &self.rot, cause)?
            {
                self.site.power.tally("last frame rotted", "", "");
                return Ok(Err(End::Over));
            }
        } else {
            self.checker.resume(report.last)?;
        }
        self.rot.accepted();
        self.rot.state &= report.rebuilt.is_none();
        Ok(Ok(process))
    }

    /// Whether anything was done that is a reason to rebuild the state.
    fn cause_to_rebuild(&self) -> bool {
        let swapping = self.site.declared && self.site.sled.is_none();
        let hurt = self.site.sled.as_ref().is_some_and(SimState::is_hurt);
        let failed_reads = self.site.power.lock().failed_reads;
        self.rot.state || self.site.rebuild_is_due || swapping || hurt || failed_reads > 0
    }

    fn refused(&mut self, refusal: &Refusal) -> Result<End, String> {
        let faults = self.site.power.lock().faults;
        self.site.power.tally("refused starts", "", "");
        if faults > 0 {
            return Ok(End::Ended);
        }
        match refusal {
            Refusal::Journal(_) if self.rot.mend_journal(&self.site) => {
                self.site.power.tally("refused journal rot", "", "");
                Ok(End::Ended)
            }
            // State and journal hurt at once are more than is promised for.
            Refusal::NoRebuildSource(_)
                if self.cause_to_rebuild()
                    && (self.plan.backups.is_none()
                        || self.rot.backup
                        || self.rot.is_journal_hurt()) =>
            {
                self.site.power.tally("refused state rot", "", "");
                Ok(End::Over)
            }
            _ if !self.plan.strict => Ok(End::Over),
            _ => Err(format!("a start was refused without a cause: {refusal:?}")),
        }
    }

    fn serve(&mut self, mut process: Process) -> Result<(), String> {
        for _ in 0..self.plan.steps {
            self.pass(&mut process);
            self.step(&mut process)?;
            if self.site.power.is_dead() {
                return Ok(());
            }
            if process.poisoned.is_some() && self.random.between(0, 9) == 0 {
                break;
            }
        }
        if process.poisoned.is_none() && self.random.one_in(2) {
            self.come_to_rest(&mut process)?;
        }
        if !self.site.power.is_dead() && self.random.one_in(2) {
            process.close(&mut self.random);
            self.absorb(&mut process)?;
            if !self.site.power.is_dead() {
                self.checker.closed(&self.site, &process)?;
                self.site.power.tally("clean stops", "", "");
            }
        }
        Ok(())
    }

    fn clients_now(&self) -> Now {
        Now { step: self.clock, age_s: self.age_s }
    }

    /// Time passes.
    fn pass(&mut self, process: &mut Process) {
        self.clock += 1;
        self.age_s += self.plan.step_s;
        process.running_s += self.plan.step_s;
    }

    fn step(&mut self, process: &mut Process) -> Result<(), String> {
        let now = self.clients_now();
        let random = &mut self.random;
        match random.between(0, 99) {
            0..45 => {
                let known = |tenant| self.checker.counters_of_tenant(tenant);
                let read = self.clients.act(random, now, &process.read_view, &process.queue, known);
                if let Some((place, value)) = read.filter(|_| self.plan.strict) {
                    self.checker.read(place, value)?;
                }
                return Ok(());
            }
            45..70 => process.committer_step(random),
            70..86 => {
                // A backup takes dozens of steps, which a real checkpoint thread takes while the
                // committer waits for one sync.
                let steps = if process.is_backing_up() { random.between(1, 60) } else { 1 };
                for _ in 0..steps {
                    process.checkpoint_step(random);
                    process.backup_step();
                }
            }
            86..92 => process.backup_step(),
            92..99 => process.allocator_step(),
            _ => self.site.power.lock().low = self.plan.fault_rate > 0 && random.between(0, 9) == 0,
        }
        self.absorb(process)
    }

    /// Takes what the last step led to: frames, answers, backups; and judges it.
    fn absorb(&mut self, process: &mut Process) -> Result<(), String> {
        let written = self.read_frames();
        if self.plan.bug == Some(Bug::UndurableRead) {
            for mark in written {
                for (place, value) in self.checker.counters_of(mark) {
                    self.clients.note_read(place, value, self.clients_now());
                }
            }
        }
        if self.site.power.is_dead() {
            return Ok(());
        }
        if process.damaged.is_some() && !self.cause_to_rebuild() {
            return Err(format!(
                "the state was found damaged without a cause: {:?}",
                process.damaged
            ));
        }
        if process.damaged.is_some() {
            // Marked corrupt or not: after this report a rebuilt state is no surprise.
            self.rot.state = true;
        }
        let quiet = self.site.power.lock().faults == 0 && !self.cause_to_rebuild();
        if let Some(problem) = process.poisoned.as_ref().filter(|_| quiet) {
            return Err(format!("poisoned without a cause: {problem}"));
        }
        let answered = self.clients.collect(self.clients_now());
        if let Some(problem) = self.clients.problem.take() {
            return Err(problem);
        }
        let counted = std::mem::take(&mut process.counted);
        self.checker.committed(process.last(), answered, counted, &self.plan)?;
        for mark in process.finished.drain(..) {
            self.checker.backup(&self.site, mark)?;
        }
        self.judge_replies(process)
    }

    /// The replies to operators who asked for a backup.
    fn judge_replies(&mut self, process: &mut Process) -> Result<(), String> {
        for mut reply in std::mem::take(&mut process.backup_replies) {
            match reply.try_recv() {
                Ok(Ok((file, summary))) => self.checker.asked_backup(&file.content(), &summary)?,
                Err(TryRecvError::Empty) => process.backup_replies.push(reply),
                // It failed, or the process was closed before it was finished.
                Ok(Err(_)) | Err(TryRecvError::Closed) => {}
            }
        }
        Ok(())
    }

    fn read_frames(&mut self) -> Vec<LogPosition> {
        let written = self.site.journal.take_written();
        self.site.backups.take_written();
        written.iter().filter_map(|written| self.checker.ledger.hear(written)).collect()
    }

    /// With nothing failing any more, everything that was asked is answered, and a change is taken.
    fn come_to_rest(&mut self, process: &mut Process) -> Result<(), String> {
        self.site.power.set_phase("rest");
        self.site.power.calm();
        self.site.power.lock().low = false;
        self.settle(process)?;
        if self.site.power.is_dead() || process.poisoned.is_some() {
            return Ok(());
        }
        if !self.clients.are_idle() {
            return Err("a request was never answered".to_owned());
        }
        let now = self.clients_now();
        self.clients.ask(1, What::Advance((0, 0), 1, None), now, &process.queue);
        self.settle(process)?;
        let taken =
            self.checker.answered.last().is_some_and(|(_, reply)| matches!(reply, Reply::Value(_)));
        if self.site.power.is_dead() || process.poisoned.is_some() || taken || !self.plan.strict {
            self.site.power.tally("rests", "", "");
            return Ok(());
        }
        Err(format!(
            "a store that nothing disturbs took no change: {:?}",
            self.checker.answered.last()
        ))
    }

    fn settle(&mut self, process: &mut Process) -> Result<(), String> {
        for round in 0..ROUNDS {
            self.pass(process);
            match round % 6 {
                0 | 1 => process.committer_step(&mut self.random),
                2 | 3 => process.checkpoint_step(&mut self.random),
                4 => process.backup_step(),
                _ => process.allocator_step(),
            }
            self.absorb(process)?;
            if self.site.power.is_dead()
                || (round > 24 && process.is_quiet() && self.clients.are_idle())
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The process is gone, and perhaps the power; data at rest may then rot.
    fn fall(&mut self) {
        self.clock += 1;
        self.clients.lose_all(self.clients_now());
        self.clock += 1;
        self.restarts.push(self.clock);
        self.clock += 1;
        let power_cut = self.random.between(0, 9) < 6;
        self.site.power.tally(if power_cut { "power cuts" } else { "kills" }, "", "");
        self.site.crash(&mut self.random, power_cut);
        if self.plan.bug == Some(Bug::IssuedTwice) {
            self.checker.forget_the_last_frame(&self.site);
        }
        if self.plan.bug == Some(Bug::DigestsDeceived) {
            self.site.sled.iter().for_each(SimState::deceive);
        }
        if self.random.between(0, 99) < self.plan.rot_rate {
            self.rot.strike(&mut self.random, &self.site);
        }
    }

    /// A start on a machine where nothing fails, and a look at everything.
    fn last_life(&mut self) -> Result<(), String> {
        // A start that is refused for rot is tried again when that is mended.
        for _ in 0..3 {
            self.site.power.rise(None, 0, None);
            let mut process = match self.start()? {
                Ok(process) => process,
                Err(End::Ended) => continue,
                Err(End::Over) => return Ok(()),
            };
            // Hidden damage may show at any load, and then the store stops.
            if !self.rot.state {
                for (place, value) in self.checker.look(&self.site, &self.plan)? {
                    self.clock += 1;
                    self.clients.note_read(place, value, self.clients_now());
                }
            }
            self.site.power.set_phase("last");
            process.close(&mut self.random);
            self.site.power.tally("seeds to their end", "", "");
            self.absorb(&mut process)?;
            return self.checker.closed(&self.site, &process);
        }
        Err("a start was refused again and again".to_owned())
    }

    fn judge_history(&mut self) -> Result<(), String> {
        self.clock += 1;
        self.clients.lose_all(self.clients_now());
        self.clients.give_up(self.clients_now());
        checker::history(&self.clients.history, &self.restarts)
    }
}
