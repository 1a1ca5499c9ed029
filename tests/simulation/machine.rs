//! The machine under a simulated process: it counts every operation on disk and state, and decides
//! which of them fails and at which the power goes.
//!
//! Job: [`Power`], one handle shared by all doubles, gives each operation a [`Fate`]; [`Tally`]
//! counts what happened.
//! Invariant: everything is decided by the seed. Once dead, every operation fails until
//! [`Power::rise`].
//! Must never: read a clock, or let an operation of a dead process have an effect.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::support::Random;

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It does what it says.
    Fine,
    /// It fails; whatever a failure of its kind may leave is left.
    Fails,
    /// The process ends in the middle of it.
    Crash,
    /// The process is gone already.
    Dead,
}

/// The operation at which the power goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// The operation of this number.
    At(u64),
    /// An operation of this kind, after this many of them.
    AtCall(&'static str, &'static str, u64),
}

/// How often each thing happened: what, where, and which operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(BTreeMap<(&'static str, &'static str, &'static str), u64>);

impl Tally {
    pub(crate) fn add(&mut self, what: &'static str, area: &'static str, operation: &'static str) {
        self.count(what, area, operation, 1);
    }

    pub(crate) fn count(
        &mut self,
        what: &'static str,
        area: &'static str,
        operation: &'static str,
        times: u64,
    ) {
        *self.0.entry((what, area, operation)).or_default() += times;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(key, count)| *self.0.entry(*key).or_default() += count);
    }

    /// How often `what` happened, wherever.
    pub(crate) fn total(&self, what: &str) -> u64 {
        self.0.iter().filter(|((is, ..), _)| *is == what).map(|(_, count)| count).sum()
    }

    /// How often exactly this happened.
    pub(crate) fn times(
        &self,
        what: &'static str,
        area: &'static str,
        operation: &'static str,
    ) -> u64 {
        self.0.get(&(what, area, operation)).copied().unwrap_or(0)
    }

    /// One line for each kind of event.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ((what, area, operation), count) in &self.0 {
            let part = if area.is_empty() {
                count.to_string()
            } else {
                format!("{area} {operation} {count}")
            };
            lines.entry(*what).or_default().push(part);
        }
        lines.into_iter().map(|(what, parts)| format!("{what}: {}", parts.join(", "))).collect()
    }
}

/// See the module's text.
pub(crate) struct Machine {
    random: Random,
    /// What the process is doing, for the tally.
    pub(crate) phase: &'static str,
    operations: u64,
    cut: Option<Cut>,
    dead: bool,
    /// How many of 10,000 operations fail.
    fault_rate: u64,
    /// An operation that fails more often than others.
    weak: Option<(&'static str, &'static str)>,
    /// The next operation of this kind fails.
    pub(crate) fails_next: Option<(&'static str, &'static str)>,
    /// Faults since the process began.
    pub(crate) faults: u64,
    /// Reads of the state that failed since the process began: they look like damage.
    pub(crate) failed_reads: u64,
    /// Whether the disk is almost full.
    pub(crate) low: bool,
    pub(crate) tally: Tally,
    events: Vec<(u64, &'static str, &'static str, &'static str, &'static str)>,
}

/// A handle to the machine.
#[derive(Clone)]
pub(crate) struct Power(Arc<Mutex<Machine>>);

impl Power {
    /// A machine on which nothing fails yet.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Machine {
            random: Random::seeded(seed),
            phase: "start",
            operations: 0,
            cut: None,
            dead: false,
            fault_rate: 0,
            weak: None,
            fails_next: None,
            faults: 0,
            failed_reads: 0,
            low: false,
            tally: Tally::default(),
            events: Vec::new(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new process begins: it dies at the operation that `cut` says; `fault_rate` of 10,000
    /// operations fail, and every fourth weak one.
    pub(crate) fn rise(
        &self,
        cut: Option<Cut>,
        fault_rate: u64,
        weak: Option<(&'static str, &'static str)>,
    ) {
        let mut machine = self.lock();
        machine.dead = false;
        machine.operations = 0;
        machine.cut = cut;
        machine.fault_rate = fault_rate;
        machine.weak = weak;
        machine.faults = 0;
        machine.failed_reads = 0;
        machine.low = false;
    }

    /// No operation fails any more.
    pub(crate) fn calm(&self) {
        let mut machine = self.lock();
        machine.fault_rate = 0;
        machine.weak = None;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    pub(crate) fn set_phase(&self, phase: &'static str) {
        self.lock().phase = phase;
    }

    /// Decides one operation.
    pub(crate) fn act(&self, area: &'static str, operation: &'static str) -> Fate {
        let mut machine = self.lock();
        if machine.dead {
            return Fate::Dead;
        }
        machine.operations += 1;
        if machine.is_cut(area, operation) {
            machine.dead = true;
            let phase = machine.phase;
            machine.tally.add("crashed while", phase, "");
            machine.note("crash at", area, operation);
            return Fate::Crash;
        }
        let rate = if machine.weak == Some((area, operation)) { 2_500 } else { machine.fault_rate };
        let is_next = machine.fails_next.take_if(|next| *next == (area, operation)).is_some();
        if is_next || (rate > 0 && machine.random.next() % 10_000 < rate) {
            machine.faults += 1;
            machine.note("failed", area, operation);
            return Fate::Fails;
        }
        Fate::Fine
    }

    /// An operation that happens or does not, and nothing in between.
    pub(crate) fn whole(&self, area: &'static str, operation: &'static str) -> io::Result<()> {
        match self.act(area, operation) {
            Fate::Fine => Ok(()),
            _ => Err(io_error()),
        }
    }

    pub(crate) fn tally(&self, what: &'static str, area: &'static str, operation: &'static str) {
        self.lock().tally.add(what, area, operation);
    }

    /// Counts an event of what the process is doing now.
    pub(crate) fn tally_phase(&self, what: &'static str) {
        let mut machine = self.lock();
        let phase = machine.phase;
        machine.tally.add(what, phase, "");
    }

    /// The faults and crashes so far, one line each, for the report of a failing seed.
    pub(crate) fn events(&self) -> Vec<String> {
        let machine = self.lock();
        machine
            .events
            .iter()
            .map(|(at, phase, what, area, operation)| {
                format!("operation {at} ({phase}): {what} {area} {operation}")
            })
            .collect()
    }

    /// A number in `low..=high`, for what a fault leaves.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        self.lock().random.between(low, high)
    }

    pub(crate) fn coin(&self) -> bool {
        self.between(0, 1) == 0
    }
}

impl Machine {
    /// Whether the power goes at this operation.
    fn is_cut(&mut self, area: &'static str, operation: &'static str) -> bool {
        match &mut self.cut {
            Some(Cut::At(number)) => *number == self.operations,
            Some(Cut::AtCall(of, kind, left)) if (*of, *kind) == (area, operation) => {
                let is_it = *left == 0;
                *left = left.saturating_sub(1);
                is_it
            }
            _ => false,
        }
    }

    /// Counts an event and keeps it for the report of a failing seed.
    pub(crate) fn note(&mut self, what: &'static str, area: &'static str, operation: &'static str) {
        self.tally.add(what, area, operation);
        self.events.push((self.operations, self.phase, what, area, operation));
    }
}

/// What the system says when the device does not answer.
pub(crate) fn io_error() -> io::Error {
    // EIO
    io::Error::from_raw_os_error(5)
}
