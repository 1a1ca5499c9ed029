//! The data directory of a simulated store, and a start on it by the store's own recovery.
//!
//! Job: [`Site`] is [`StoreFiles`] in memory; [`start`] calls what `EmbeddedStore::open` calls.
//! Invariant: a crash in any operation leaves the site as it then is.
//! Must never: decide what recovery decides.

use std::sync::Arc;
use std::time::Duration;

use odometer::store::embedded::checkpoint::messages::Now;
use odometer::store::embedded::data_dir::DataDirError;
use odometer::store::embedded::journal::frame::{LogPosition, StoreId};
use odometer::store::embedded::journal::segment::JournalDir;
use odometer::store::embedded::recovery::open::{RebuiltState, RecoveryError};
use odometer::store::embedded::recovery::start::recover_store;
use odometer::store::embedded::recovery::store_files::StoreFiles;
use odometer::store::embedded::state::StateOpenError;

use crate::bugs::Bug;
use crate::disk::SimDisk;
use crate::machine::{Fate, Power, io_error};
use crate::plan::{Plan, WALL_CLOCK_S};
use crate::process::Process;
use crate::state::SimState;
use crate::support::Random;

/// The store's id.
pub(crate) const STORE: StoreId = [7; 16];

/// Everything that outlives a process.
pub(crate) struct Site {
    pub(crate) power: Power,
    pub(crate) journal: SimDisk,
    pub(crate) backups: SimDisk,
    /// The directory `sled`; gone only in the middle of a swap.
    pub(crate) sled: Option<SimState>,
    /// The directory `sled.rebuilding`.
    pub(crate) rebuilding: Option<SimState>,
    /// The file FORMAT is there.
    pub(crate) declared: bool,
    /// A crash came in the middle of a rebuild, so another one is due.
    pub(crate) rebuild_is_due: bool,
}

/// Why a start did not lead to a process; one sentence, for the report of a failing seed.
#[derive(Debug)]
#[expect(dead_code, reason = "the sentences are shown by Debug alone")]
pub(crate) enum Refusal {
    /// The system said no.
    System(String),
    /// The journal has a hole, or lost its end.
    Journal(String),
    /// The state cannot be used, and there is nothing to rebuild it from.
    NoRebuildSource(String),
}

impl From<RecoveryError> for Refusal {
    fn from(error: RecoveryError) -> Self {
        let text = error.to_string();
        match error {
            RecoveryError::Journal(_)
            | RecoveryError::JournalTruncated(_)
            | RecoveryError::FormatMissing(_) => Self::Journal(text),
            RecoveryError::NoRebuildSource(_) => Self::NoRebuildSource(text),
            _ => Self::System(text),
        }
    }
}

/// What a start did, for the checker.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) last: LogPosition,
    pub(crate) rebuilt: Option<RebuiltState>,
}

pub(crate) fn files(disk: &SimDisk, segment_bytes: u64) -> JournalDir<SimDisk> {
    JournalDir { dir: Arc::new(disk.clone()), store: STORE, segment_bytes }
}

impl Site {
    pub(crate) fn new(power: &Power, plan: &Plan) -> Self {
        Self {
            power: power.clone(),
            journal: SimDisk::new(power.clone(), "journal", plan.bug),
            backups: SimDisk::new(power.clone(), "backups", plan.bug),
            sled: None,
            rebuilding: None,
            declared: false,
            rebuild_is_due: false,
        }
    }

    /// A copy on a machine where nothing fails.
    pub(crate) fn fork(&self) -> Self {
        let power = Power::new(0);
        Self {
            journal: self.journal.fork(power.clone()),
            backups: self.backups.fork(power.clone()),
            sled: self.sled.as_ref().map(|sled| sled.fork(power.clone())),
            rebuilding: None,
            declared: self.declared,
            rebuild_is_due: self.rebuild_is_due,
            power,
        }
    }

    /// The process is gone; what the kernel still knew is too, if the power was cut.
    pub(crate) fn crash(&mut self, random: &mut Random, power_cut: bool) {
        for disk in [&self.journal, &self.backups] {
            if power_cut { disk.cut_power(random) } else { disk.kill(random) }
        }
        // sled keeps what it did not write yet in the process, so both are the same to it.
        [&self.sled, &self.rebuilding].into_iter().flatten().for_each(|state| state.crash(random));
    }
}

fn failed(what: &str) -> DataDirError {
    DataDirError::Io { path: what.into(), cause: io_error() }
}

impl StoreFiles for Site {
    type Dir = SimDisk;
    type State = SimState;

    fn journal(&self) -> Arc<SimDisk> {
        Arc::new(self.journal.clone())
    }

    fn backups(&self) -> Arc<SimDisk> {
        Arc::new(self.backups.clone())
    }

    fn read_format(&self) -> Result<Option<StoreId>, DataDirError> {
        Ok(self.declared.then_some(STORE))
    }

    fn write_format(&mut self, _: StoreId) -> Result<(), DataDirError> {
        let fate = self.power.act("format", "declare");
        self.declared = fate == Fate::Fine || (fate == Fate::Crash && self.power.coin());
        if fate == Fate::Fine { Ok(()) } else { Err(failed("FORMAT")) }
    }

    fn clear_state(&mut self) -> Result<(), DataDirError> {
        let fate = self.power.act("state", "clear");
        if fate == Fate::Fine || (fate == Fate::Crash && self.power.coin()) {
            self.sled = None;
        }
        if fate == Fate::Fine { Ok(()) } else { Err(failed("sled")) }
    }

    fn open_state(&mut self) -> Result<SimState, StateOpenError> {
        self.sled.get_or_insert_with(|| SimState::new(self.power.clone())).open()
    }

    fn create_rebuilding_state(&mut self) -> Result<SimState, String> {
        self.power.set_phase("rebuild");
        self.rebuild_is_due = true;
        self.power.whole("state", "make").map_err(|error| error.to_string())?;
        let state = self.rebuilding.insert(SimState::new(self.power.clone()));
        state.open().map_err(|error| error.to_string())
    }

    /// Two renames, each made durable before the next. The corrupt state is not kept.
    fn replace_state(&mut self, _: u64) -> Result<String, String> {
        for operation in ["quarantine", "swap"] {
            let fate = self.power.act("state", operation);
            if fate == Fate::Fine || (fate == Fate::Crash && self.power.coin()) {
                self.sled = if operation == "swap" { self.rebuilding.take() } else { None };
            }
            if fate != Fate::Fine {
                return Err("a directory could not be renamed".to_owned());
            }
        }
        self.power.tally("rebuilds", "", "");
        self.rebuild_is_due = false;
        Ok("quarantine".to_owned())
    }
}

/// Brings a process up.
pub(crate) fn start(site: &mut Site, plan: &Arc<Plan>) -> Result<(Process, Report), Refusal> {
    site.power.set_phase("start");
    let mut recovered = recover_store(site, STORE, plan.segment_bytes, WALL_CLOCK_S)?;
    if plan.bug == Some(Bug::KeysForgotten) {
        recovered.opened.idempotency_pages.clear();
    }
    let now = Now { uptime: Duration::ZERO, unix_s: WALL_CLOCK_S };
    let mut parts = recovered.start(site, &plan.options(), now)?;
    let last = parts.committer.journal().last();
    let report = Report { last, rebuilt: parts.report.rebuilt.take() };
    let process = Process::new(Arc::clone(plan), site.power.clone(), site.journal.clone(), parts);
    Ok((process, report))
}
