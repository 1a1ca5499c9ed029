//! The store in a machine that is made of memory: the real committer, journal, checkpoint
//! scheduler, backup task, recovery and segment allocator, on a disk that fails and forgets.
//!
//! ```text
//! main.rs      how many seeds
//!  ├ demands    what they have to see         ├ turns        single batches, without a seed
//!  ├ cluster    the lives of a seed           ├ process      queues between the store's parts
//!  ├ plan       what a seed stands for        │  └ checkpoint  effects of the scheduler
//!  ├ clients    requests and their history    ├ start        the data directory; a start
//!  ├ checker    what must hold, by the ledger ├ disk, inode  names, files, unsynced bytes
//!  ├ ledger     every frame ever written      ├ state        sled's double
//!  │  └ keys    idempotency keys in them      └ machine      which operation fails
//!  └ corruption, bugs
//! ```
//!
//! Job: one thread plays thousands of seeds: any operation may be the last before the power goes,
//! any may fail, and what rests may rot.
//! Invariant: a seed is the same run each time; only threads and clocks are replaced, all else is
//! the store's own code.
//! Must never: pass because nothing went wrong. The tally says what happened, and each kind of
//! fault has to.

mod bugs;
mod checker;
mod clients;
mod cluster;
mod corruption;
mod demands;
mod disk;
mod inode;
mod keys;
mod ledger;
mod machine;
mod plan;
mod process;
mod start;
mod state;
#[path = "../support/mod.rs"]
mod support;
mod turns;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bugs::Bug;
use cluster::{Failure, run};
use machine::Tally;
use plan::Plan;
use support::{number_setting, say};

/// The first seed, unless ODOMETER_SEED names another.
const BASE: u64 = 1;
const SEEDS: u64 = 10_000;
const THREADS: u64 = 2;

/// Seeds of millions that found a fault when they were played first: a journal that was written to
/// after a write of it had failed. With each change of the harness a seed becomes another run.
const FOUND: [u64; 13] = [
    54505, 66931, 103692, 226726, 464225, 520005, 653543, 685910, 773920, 786613, 881812, 897991,
    960347,
];

/// Plays a seed; a panic is a failure like another.
fn play(seed: u64, bug: Option<Bug>) -> Result<Tally, Failure> {
    catch_unwind(AssertUnwindSafe(|| run(Plan::of(seed, bug)))).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Failure {
            problem: format!("a panic: {}", said.unwrap_or_default()),
            events: Vec::new(),
        })
    })
}

#[test]
fn ten_thousand_seeds_lose_and_repeat_nothing() {
    let (base, seeds) =
        (number_setting("ODOMETER_SEED", BASE), number_setting("ODOMETER_SIM_SEEDS", SEEDS));
    say(&format!("{seeds} seeds from ODOMETER_SEED={base}"));
    let start = Instant::now();
    let (tally, failures) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| scope.spawn(move || play_some(base, seeds, worker)))
            .collect();
        let mut all = (Tally::default(), Vec::new());
        for worker in workers {
            let (tally, failures) = worker.join().expect("a failing seed is no panic");
            all.0.merge(&tally);
            all.1.extend(failures);
        }
        all
    });
    tally.lines().iter().for_each(|line| say(&format!("  {line}")));
    say(&format!("{seeds} seeds in {:.1} s", start.elapsed().as_secs_f64()));
    for (seed, failure) in failures.iter().take(5) {
        say(&format!(
            "ODOMETER_SEED={seed} ODOMETER_SIM_SEEDS=1: {}\n  {:?}",
            failure.problem,
            Plan::of(*seed, None)
        ));
        failure.events.iter().for_each(|event| say(&format!("    {event}")));
    }
    let missing = demands::missing(&tally, seeds);
    assert!(missing.is_empty(), "too rare in {seeds} seeds:\n{}", missing.join("\n"));
    let found: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
    assert!(found.is_empty(), "{} of {seeds} seeds failed: {found:?}", found.len());
}

#[test]
fn what_was_found_once_is_not_found_again() {
    for seed in FOUND {
        if let Err(failure) = play(seed, None) {
            panic!("seed {seed}: {}\n{:?}", failure.problem, failure.events);
        }
    }
}

/// Every seed of one of the workers.
fn play_some(base: u64, seeds: u64, worker: u64) -> (Tally, Vec<(u64, Failure)>) {
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    for seed in (base..base + seeds).filter(|seed| seed % THREADS == worker) {
        match play(seed, None) {
            Ok(of_seed) => tally.merge(&of_seed),
            Err(failure) => failures.push((seed, failure)),
        }
        if failures.len() == 20 {
            break;
        }
    }
    (tally, failures)
}

/// Seeds in which a bug has to be found.
const BOUND: u64 = 3_000;

#[test]
fn seeded_bugs_are_caught() {
    let base = number_setting("ODOMETER_SEED", BASE);
    for bug in Bug::SEEN_BY_CLIENTS.into_iter().chain(Bug::OF_THE_STORE) {
        let found =
            (base..base + BOUND).find_map(|seed| Some((seed, play(seed, Some(bug)).err()?)));
        let (seed, failure) =
            found.unwrap_or_else(|| panic!("{bug:?} was not caught by {BOUND} seeds"));
        say(&format!("{bug:?}: seed {seed}, {}", failure.problem));
        if let Err(failure) = play(seed, None) {
            panic!("seed {seed} fails without {bug:?} too: {}", failure.problem);
        }
    }
}
