//! Bit rot: one damage to one file of a stopped store, and what a look (`verify`) and a start of
//! the real binary make of it.
//!
//! Job: a campaign. `seeds` makes store folders of different shape and notes what each counter must
//! be; `mutate` damages a copy of one; `round` runs the binary on it, as `state_rebuild` does with
//! damages by name; `report` counts. A round depends on the seed folders and its own seed alone,
//! not on other rounds.
//! Invariant: a damaged folder is refused in one line, or served with exactly the values of before.
//! The one exception is one damaged stretch that reaches the last frame of the journal, which looks
//! like a write that a crash cut short: then the frames from its beginning on may be gone, and it
//! is counted by itself (`Inherent`). A truncation is no such damage, since segments are written
//! ahead and no crash makes them shorter.
//! Must never: call a round good whose values were not all read; damage a seed folder; wait for a
//! while instead of for an event.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `ODOMETER_CORRUPTION_ROUNDS` | 16 | Rounds; round `i` has the seed `ODOMETER_SEED + i`. |
//! | `ODOMETER_CORRUPTION_THREADS` | 2 | Rounds at once. |
//! | `ODOMETER_CORRUPTION_FILES` | | Only files whose path in the data directory starts with this, such as `sled/`; any file where there is none. |
//! | `ODOMETER_CORRUPTION_CHURN` | 200 | Changes of each of hundreds of counters before a folder counts as used. |
//! | `ODOMETER_CORRUPTION_SEEDS` | | Where the seed folders are kept; they are made if they are not there. |
//!
//! Keys, ids and times in the seed folders are random. To repeat a round exactly, name the same
//! `ODOMETER_CORRUPTION_SEEDS` in both runs, the seed that was printed, and one round.
//!
//! Rounds work in `/dev/shm` if it is there: what is tested is what is read back, not whether it
//! was durable, and memory is quicker.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod folder;
mod mutate;
mod report;
pub(crate) mod round;
pub(crate) mod seeds;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Random, number_setting, say, setting};
use report::Report;
use seeds::Seed;
use tempfile::TempDir;

/// Consecutive seeds take their turns.
const ROUNDS_OF_ROTA: u64 = mutate::ROTA.len() as u64;
/// A long campaign says how it stands after so many rounds.
const PROGRESS: u64 = 250;

#[test]
fn a_damaged_folder_is_refused_or_served_as_it_was() {
    let rounds = number_setting("ODOMETER_CORRUPTION_ROUNDS", 16);
    let base = Random::run_seed();
    say(&format!("corruption: {rounds} rounds, ODOMETER_SEED={base}"));
    let own = TempDir::new().unwrap();
    let place =
        setting("ODOMETER_CORRUPTION_SEEDS").map_or_else(|| own.path().to_owned(), PathBuf::from);
    let seeds = seeds::all(&place);
    for seed in &seeds {
        say(&format!("corruption: {}", seed.describe()));
        // Without this the campaign could pass because every start is refused.
        round::assert_sound(seed, work_place().path());
    }
    let report = Mutex::new(Report::default());
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..number_setting("ODOMETER_CORRUPTION_THREADS", 2) {
            scope.spawn(|| work(&seeds, base, rounds, &next, &report));
        }
    });
    report.into_inner().unwrap().conclude();
}

fn work(seeds: &[Seed], base: u64, rounds: u64, next: &AtomicU64, report: &Mutex<Report>) {
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= rounds {
            return;
        }
        let round_seed = base.wrapping_add(index);
        let mut random = Random::seeded(round_seed);
        let what = mutate::ROTA[usize::try_from(round_seed % ROUNDS_OF_ROTA).unwrap()];
        let has = |seed: &&Seed| what.0.is_none_or(|class| seed.has(class));
        let able: Vec<&Seed> = seeds.iter().filter(has).collect();
        assert!(!able.is_empty(), "no seed folder has a file to damage: {what:?}");
        let seed = able[random.index(able.len())];
        let place = work_place();
        let result = round::run(seed, place.path(), what, &mut random);
        let mut report = report.lock().unwrap();
        report.add(round_seed, result);
        if (index + 1).is_multiple_of(PROGRESS) {
            say(&report.table());
        }
    }
}

fn work_place() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}
