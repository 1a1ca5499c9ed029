//! What a seed stands for: how long, how small, how eager, and how much goes wrong.
//!
//! Job: [`Plan::of`] draws everything from the seed.
//! Invariant: the same seed and bug are the same run, step by step.
//! Must never: depend on anything but them.

use std::path::PathBuf;
use std::time::Duration;

use odometer::store::embedded::{BackupPolicy, Options};

use crate::bugs::Bug;
use crate::support::Random;

/// Time between two checkpoints, and between two backups, by the clock of the scheduler.
pub(crate) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const BACKUP_INTERVAL: Duration = Duration::from_secs(3600);
/// Wall time at each start, in seconds since 1970: it goes back with every process, since nothing
/// that is durable may depend on it.
pub(crate) const WALL_CLOCK_S: u64 = 1_700_000_000;

/// What a machine may be weak at.
const WEAK: [(&str, &str); 9] = [
    ("journal", "remove"),
    ("journal", "create zeroed"),
    ("journal", "sync dir"),
    ("journal", "rename"),
    ("journal", "sync"),
    ("state", "save digests"),
    ("state", "record position"),
    ("backups", "sync dir"),
    ("backups", "sync"),
];
/// The same of operations that few processes come to.
const WEAK_AND_RARE: [(&str, &str); 8] = [
    ("backups", "create"),
    ("backups", "open"),
    ("backups", "remove"),
    ("backups", "rename"),
    ("state", "make"),
    ("state", "mark corrupt"),
    ("state", "quarantine"),
    ("state", "swap"),
];

/// See the module's text. Rates are of 1,000 steps, but where they say otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) bug: Option<Bug>,
    /// Whether more than the clients' history is judged.
    pub(crate) strict: bool,
    /// Processes, one after the other.
    pub(crate) lives: u64,
    /// Steps of each.
    pub(crate) steps: u64,
    pub(crate) segment_bytes: u64,
    /// Records in memory.
    pub(crate) capacity: usize,
    /// Idempotency keys that are kept at most.
    pub(crate) idempotency_keys: usize,
    /// Seconds that a step takes, by the clock of the store.
    pub(crate) step_s: u64,
    /// How many backups are kept, if any are made.
    pub(crate) backups: Option<usize>,
    pub(crate) backup_rate: u64,
    pub(crate) asked_rate: u64,
    pub(crate) checkpoint_rate: u64,
    /// How many of 10,000 operations on disk and state fail.
    pub(crate) fault_rate: u64,
    /// An operation that fails much more often.
    pub(crate) weak: Option<(&'static str, &'static str)>,
    /// How many of 100 restarts find something rotten.
    pub(crate) rot_rate: u64,
    /// How many of 100 lives end in a crash.
    pub(crate) crash_rate: u64,
    /// The last operation at which a crash may come.
    pub(crate) crash_within: u64,
}

impl Plan {
    pub(crate) fn of(seed: u64, bug: Option<Bug>) -> Self {
        let mut random = Random::seeded(seed ^ 0x9a7c_15f3_9cc0_605d);
        let mut one_of = |choices: &[u64]| choices[random.index(choices.len())];
        let strict = bug.is_none_or(|bug| !Bug::SEEN_BY_CLIENTS.contains(&bug));
        let backups = one_of(&[0, 0, 1, 2, 3]);
        let asks = one_of(&[0, 0, 0, 1]) == 1;
        let weak = one_of(&[0, 0, 0, 1]) == 1;
        let weak = weak.then(|| match one_of(&[0, 1]) {
            0 => WEAK[one_of(&[0, 1, 2, 3, 4, 5, 6, 7, 8]) as usize],
            _ => WEAK_AND_RARE[one_of(&[0, 1, 2, 3, 4, 5, 6, 7]) as usize],
        });
        let plan = Self {
            seed,
            bug,
            strict,
            lives: one_of(&[2, 3, 3, 4, 6]),
            steps: one_of(&[60, 100, 150, 250]),
            segment_bytes: one_of(&[2048, 2048, 4096]),
            capacity: one_of(&[2, 3, 4, 8]) as usize,
            idempotency_keys: one_of(&[4, 40, 400]) as usize,
            step_s: one_of(&[0, 60, 300]),
            backups: (backups > 0).then_some(backups as usize),
            backup_rate: one_of(&[2, 5, 20]),
            asked_rate: u64::from(asks) * 10,
            checkpoint_rate: one_of(&[0, 10, 30, 100]),
            fault_rate: one_of(&[0, 0, 0, 10, 30, 100]),
            weak,
            // Few processes rebuild a state if nothing rots.
            rot_rate: match (one_of(&[0, 0, 0, 30, 60]), weak) {
                (_, Some(weak)) if WEAK_AND_RARE.contains(&weak) => 60,
                (rate, _) => rate,
            },
            crash_rate: one_of(&[50, 80, 100]),
            crash_within: one_of(&[30, 100, 250]),
        };
        // A bug is to be found for what it is, and not among rot and faults.
        match bug {
            None => plan,
            // This one shows only after a sync that failed.
            Some(Bug::NothingRewritten) => {
                Self { rot_rate: 0, weak: Some(("journal", "sync")), ..plan }
            }
            Some(_) => Self { rot_rate: 0, fault_rate: 0, weak: None, ..plan },
        }
    }

    /// How the store is run.
    pub(crate) fn options(&self) -> Options {
        let policy = |keep| BackupPolicy {
            interval: BACKUP_INTERVAL,
            journal_cap_bytes: 6 * self.segment_bytes,
            keep,
        };
        Options {
            data_dir: PathBuf::new(),
            journal_segment_bytes: self.segment_bytes,
            checkpoint_interval: CHECKPOINT_INTERVAL,
            cache_records: self.capacity,
            idempotency_keys: self.idempotency_keys,
            min_free_disk_bytes: 1,
            backups: self.backups.map(policy),
        }
    }
}
