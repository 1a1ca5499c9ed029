//! A start, as `EmbeddedStore::open` and `recover` make it, on the doubles: attach, and where the state can not be used, rebuild it.
//!
//! Job: [`start`] brings a [`Site`] up or says why not. Invariant: the steps and their order are those of the store; a crash at any of them
//! leaves the site as it then is. Must never: serve what `attach` did not accept.

use std::sync::Arc;

use odometer::store::embedded::backup::directory::{self, read_file};
use odometer::store::embedded::commit::cache::{ReadView, RecordCache};
use odometer::store::embedded::commit::committer::{Committer, RetentionWatermarks};
use odometer::store::embedded::commit::idempotency::IdempotencyTable;
use odometer::store::embedded::commit::working_set::WorkingSet;
use odometer::store::embedded::fs::Directory;
use odometer::store::embedded::journal::frame::{CommitSeq, LogPosition, StoreId};
use odometer::store::embedded::journal::reader::JournalTail;
use odometer::store::embedded::journal::segment::JournalDir;
use odometer::store::embedded::journal::writer::Journal;
use odometer::store::embedded::recovery::open::{OpenedStore, RecoveryError, StateOrigin, open_state_and_journal};
use odometer::store::embedded::recovery::rebuild::{NoRebuildSource, RebuildSource, choose_source, rebuild};
use odometer::store::embedded::state::StateOpenError;
use odometer::store::embedded::state::checkpointer::run_checkpoint;

use crate::bugs::Bug;
use crate::disk::SimDisk;
use crate::machine::{Fate, Power};
use crate::plan::Plan;
use crate::process::{Parts, Process};
use crate::state::SimState;
use crate::support::Random;

pub(crate) const SYSTEM_TENANT: StoreId = [7; 16];

/// Everything that outlives a process.
pub(crate) struct Site {
    pub(crate) power: Power,
    pub(crate) journal: SimDisk,
    pub(crate) backups: SimDisk,
    /// The folder `sled`; gone only in the middle of a swap.
    pub(crate) sled: Option<SimState>,
    /// The folder `sled.rebuilding`.
    pub(crate) healing: Option<SimState>,
    /// The file FORMAT is there.
    pub(crate) declared: bool,
    /// A crash came in the middle of a heal, so another one is due.
    pub(crate) heal_is_due: bool,
}

/// Why a start did not lead to a process; one sentence, for the report of a failing seed.
#[derive(Debug)]
#[expect(dead_code, reason = "the sentences are shown by Debug alone")]
pub(crate) enum Refusal {
    /// The system said no.
    System(String),
    /// The journal has a hole, or lost its end.
    Journal(String),
    /// The state can not be used, and nothing is there to rebuild it from.
    NoRebuildSource(String),
}

/// What was wrong with a state, and what it was rebuilt from.
type Healed = (String, RebuildSource);

/// What a start did, for whoever judges it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) last: LogPosition,
    /// What was wrong with the state, and what it was rebuilt from.
    pub(crate) healed: Option<Healed>,
}

pub(crate) fn files(disk: &SimDisk, segment_bytes: u64) -> JournalDir<SimDisk> {
    JournalDir { dir: Arc::new(disk.clone()), store: SYSTEM_TENANT, segment_bytes }
}

impl Site {
    pub(crate) fn new(power: &Power, plan: &Plan) -> Self {
        Self {
            power: power.clone(),
            journal: SimDisk::new(power.clone(), "journal", plan.bug),
            backups: SimDisk::new(power.clone(), "backups", plan.bug),
            sled: None,
            healing: None,
            declared: false,
            heal_is_due: false,
        }
    }

    /// A copy on a machine where nothing fails.
    pub(crate) fn fork(&self) -> Self {
        let power = Power::new(0);
        Self {
            journal: self.journal.fork(power.clone()),
            backups: self.backups.fork(power.clone()),
            sled: self.sled.as_ref().map(|sled| sled.fork(power.clone())),
            healing: None,
            declared: self.declared,
            heal_is_due: self.heal_is_due,
            power,
        }
    }

    /// The process is gone; what the kernel still knew is too, if the power was cut.
    pub(crate) fn crash(&mut self, random: &mut Random, power_cut: bool) {
        for disk in [&self.journal, &self.backups] {
            if power_cut { disk.cut_power(random) } else { disk.kill(random) }
        }
        // sled keeps what it did not write yet in the process, so both are the same to it.
        [&self.sled, &self.healing].into_iter().flatten().for_each(|state| state.crash(random));
    }

    fn open(&mut self, files: &JournalDir<SimDisk>, origin: StateOrigin) -> Result<OpenedStore<SimState>, Trouble> {
        let sled = self.sled.get_or_insert_with(|| SimState::new(self.power.clone()));
        match sled.open() {
            Ok(state) => open_state_and_journal(state, files, origin).map_err(Trouble::from),
            Err(StateOpenError::Io(problem)) => Err(Trouble::Refused(Refusal::System(problem))),
            Err(StateOpenError::Corrupt(problem)) => Err(Trouble::State(problem)),
        }
    }

    /// As `recover`: opens state and journal, and rebuilds the state if that is what it takes.
    fn recover(
        &mut self,
        files: &JournalDir<SimDisk>,
        origin: StateOrigin,
    ) -> Result<(OpenedStore<SimState>, Option<Healed>), Refusal> {
        let problem = match self.open(files, origin) {
            Ok(recovered) => return Ok((recovered, None)),
            Err(Trouble::Refused(refusal)) => return Err(refusal),
            Err(Trouble::State(problem)) => problem,
        };
        self.power.set_phase("heal");
        let base = choose_source(files, &self.backups).map_err(|error| match error {
            NoRebuildSource::Journal(cause) => Refusal::Journal(cause.to_string()),
            NoRebuildSource::Missing(why) => Refusal::NoRebuildSource(format!("{problem}, and {why}")),
        })?;
        self.heal_is_due = true;
        self.make_state(files, &base).map_err(Refusal::System)?;
        self.swap().map_err(Refusal::System)?;
        self.power.tally("heals", "", "");
        self.heal_is_due = false;
        match self.open(files, StateOrigin::Existing) {
            Ok(recovered) => Ok((recovered, Some((problem, base)))),
            Err(Trouble::Refused(refusal)) => Err(refusal),
            Err(Trouble::State(problem)) => Err(Refusal::System(problem)),
        }
    }

    fn make_state(&mut self, files: &JournalDir<SimDisk>, base: &RebuildSource) -> Result<(), String> {
        self.power.whole("state", "make").map_err(|error| error.to_string())?;
        let healing = SimState::new(self.power.clone());
        self.healing = Some(healing.clone());
        let mut state = healing.open().map_err(|trouble| format!("{trouble:?}"))?;
        if let RebuildSource::Backup(name, _) = base {
            rebuild(&mut state, |visit| read_file(&self.backups, name, visit)).map_err(|error| error.to_string())?;
        }
        let recovered =
            open_state_and_journal(state, files, StateOrigin::Rebuilt).map_err(|misfit| format!("{misfit:?}"))?;
        run_checkpoint(recovered.checkpointer).map_err(|trouble| format!("{trouble:?}"))
    }

    /// As `swap`: two renames, each made durable before the next step. The damaged state is kept for nobody.
    fn swap(&mut self) -> Result<(), String> {
        for operation in ["quarantine", "swap"] {
            let fate = self.power.act("state", operation);
            if fate == Fate::Fine || (fate == Fate::Crash && self.power.coin()) {
                self.sled = if operation == "swap" { self.healing.take() } else { None };
            }
            if fate != Fate::Fine {
                return Err("a folder could not be renamed".to_owned());
            }
        }
        Ok(())
    }

    /// As `identify` for a folder without FORMAT: an interrupted first start is cleared away.
    fn clear(&self) -> Result<(), Refusal> {
        let system = |error: std::io::Error| Refusal::System(error.to_string());
        for name in self.journal.list().map_err(system)? {
            self.journal.remove(&name).map_err(system)?;
        }
        Ok(())
    }

    fn declare(&mut self) -> Result<(), Refusal> {
        let fate = self.power.act("format", "declare");
        self.declared = fate == Fate::Fine || (fate == Fate::Crash && self.power.coin());
        if fate == Fate::Fine { Ok(()) } else { Err(Refusal::System("FORMAT could not be written".to_owned())) }
    }
}

enum Trouble {
    State(String),
    Refused(Refusal),
}

impl From<RecoveryError> for Trouble {
    fn from(misfit: RecoveryError) -> Self {
        match misfit {
            RecoveryError::State(problem) => Self::State(problem),
            RecoveryError::Journal(error) => Self::Refused(Refusal::Journal(error.to_string())),
            RecoveryError::JournalTruncated(problem) => Self::Refused(Refusal::Journal(problem)),
        }
    }
}

/// Brings a process up.
pub(crate) fn start(site: &mut Site, run: &Arc<Plan>) -> Result<(Process, Report), Refusal> {
    site.power.set_phase("start");
    let files = files(&site.journal, run.segment_bytes);
    let is_new = !site.declared;
    if is_new {
        site.clear()?;
    }
    let (recovered, healed) = site.recover(&files, if is_new { StateOrigin::New } else { StateOrigin::Existing })?;
    let _ = directory::remove_partial(&site.backups);
    let OpenedStore { checkpointer: keeper, tail, idempotency_pages: answers, .. } = recovered;
    let last = tail.last();
    let backed_up = directory::newest(&site.backups, SYSTEM_TENANT, last.seq).map_or(CommitSeq(0), |(seq, _)| seq);
    let answers = if run.bug == Some(Bug::KeysForgotten) { Vec::new() } else { answers };
    let remembered = IdempotencyTable::new(run.remembered, answers);
    let (committer, window) = begin(run, files, tail, remembered, (keeper.checkpointed().seq, backed_up))?;
    if is_new {
        site.declare()?;
    }
    let parts = Parts { committer, keeper, window, backed_up };
    let disks = (site.journal.clone(), site.backups.clone());
    let mut process = Process::new(Arc::clone(run), site.power.clone(), disks, SYSTEM_TENANT, parts);
    if site.journal.available_bytes().unwrap_or(0) == 0 {
        process.open_with_low_disk();
    }
    Ok((process, Report { last, healed }))
}

fn begin(
    run: &Plan,
    files: JournalDir<SimDisk>,
    tail: JournalTail,
    remembered: IdempotencyTable,
    (covered, backed_up): (CommitSeq, CommitSeq),
) -> Result<(Committer<SimDisk>, ReadView), Refusal> {
    let journal = Journal::start(files, tail).map_err(|error| Refusal::System(error.to_string()))?;
    let window = ReadView::default();
    let residents = RecordCache::new(Arc::clone(&window), run.capacity);
    let kept_for_backup = if run.backups.is_some() { backed_up } else { CommitSeq(u64::MAX) };
    let covered = RetentionWatermarks { checkpointed: covered, backed_up: kept_for_backup };
    Ok((Committer::new(journal, WorkingSet::new(residents, remembered), covered), window))
}
