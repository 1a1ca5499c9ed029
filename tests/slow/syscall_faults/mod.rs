//! Every n-th system call fails once: at a first start, at a later one, under load, and while the
//! journal goes on to its next segment.
//!
//! Job: run the rounds of `plan.rs` through `round.rs` on the real binary and print what came of
//! them.
//! Invariant: whatever fails, no acknowledgement is lost or repeated and the next start works; a
//! process that gives up ends within two seconds with a code that says so, or never served and says
//! in one line why.
//! Must never: stop at the first violation; the table is the result.
//!
//! `ODOMETER_SYSCALL_FAULTS_ROUNDS` (8) is the number of rounds, drawn by `ODOMETER_SEED`
//! (printed); `all` tries every call and every fault: each n up to 24, and from there on in growing
//! steps, since what comes later repeats what came before. `ODOMETER_SYSCALL_FAULTS_PHASES` names
//! the phases to try, such as `FirstStart,Running`; without it, all of them.
//! `ODOMETER_SYSCALL_FAULTS_ONLY` repeats one round, named as a violation names it:
//! `FirstStart fdatasync error=EIO 1`.

mod orders;
mod plan;
mod round;
mod scenario;
mod syncs;

use std::collections::BTreeMap;

use crate::support::{Random, has_program, is_root, number_setting, require, say, setting};
use plan::{Phase, TARGETS, Target};
use round::{End, Template, run};

const DENSE: u64 = 24;
/// No thread makes more calls of a kind; only a campaign that does not end would get here.
const MOST: u64 = 5_000;
const SHOWN: usize = 10;

/// A row of the table.
#[derive(Debug, Default)]
struct Row {
    tried: u64,
    largest: u64,
    refused: u64,
    poisoned: u64,
    unharmed: u64,
    violations: u64,
}

#[derive(Default)]
struct Table {
    rows: BTreeMap<(usize, usize), Row>,
    violations: Vec<String>,
    slowest_end: f64,
}

#[test]
fn each_call_fails_once_and_nothing_is_lost() {
    if !require("strace", has_program("strace")) || !require("root, to attach strace", is_root()) {
        return;
    }
    let seed = Random::run_seed();
    let all = setting("ODOMETER_SYSCALL_FAULTS_ROUNDS").as_deref() == Some("all");
    say(&format!("syscall faults: ODOMETER_SEED={seed}"));
    let (template, random, table) = (Template::make(), Random::seeded(seed), Table::default());
    let mut campaign = Campaign { template, random, table, rows: chosen_rows() };
    if let Some(only) = setting("ODOMETER_SYSCALL_FAULTS_ONLY") {
        campaign.run_only(&only);
    } else if all {
        campaign.run_all();
    } else {
        campaign.run_some(number_setting("ODOMETER_SYSCALL_FAULTS_ROUNDS", 8));
    }
    let table = campaign.table;
    table.print();
    // A strace that fails no call must not look like a server that bears everything.
    let tried: u64 = table.rows.values().map(|row| row.tried).sum();
    assert!(tried > 0, "no call was made to fail");
    let count = table.violations.len();
    let shown = table.violations[..count.min(SHOWN)].join("\n\n");
    assert!(
        table.violations.is_empty(),
        "ODOMETER_SEED={seed}: {count} violations, the first are:\n{shown}"
    );
}

struct Campaign {
    template: Template,
    random: Random,
    table: Table,
    /// The rows to try, by number.
    rows: Vec<usize>,
}

/// The rows of the phases that were asked for.
fn chosen_rows() -> Vec<usize> {
    let phases = setting("ODOMETER_SYSCALL_FAULTS_PHASES");
    let chosen = |target: &Target| {
        let name = format!("{:?}", target.phase);
        phases.as_ref().is_none_or(|phases| phases.split(',').any(|phase| phase == name))
    };
    let rows: Vec<usize> = (0..TARGETS.len()).filter(|row| chosen(&TARGETS[*row])).collect();
    assert!(!rows.is_empty(), "ODOMETER_SYSCALL_FAULTS_PHASES={phases:?} names no phase");
    rows
}

impl Campaign {
    /// Every row, each n until no thread makes so many calls.
    fn run_all(&mut self) {
        for row in self.rows.clone() {
            let target = &TARGETS[row];
            for (fault, how) in target.faults.iter().enumerate() {
                let mut nth = 1;
                while nth < MOST && self.run_one(row, target, fault, how, nth) {
                    nth += if nth < DENSE { 1 } else { 1 + nth / 4 };
                }
            }
        }
    }

    /// The one round with this name.
    fn run_only(&mut self, name: &str) {
        let (prefix, nth) = name.rsplit_once(' ').expect("phase, calls, fault and number");
        let nth = nth.parse().expect("a number");
        let mut found = false;
        for (row, target) in TARGETS.iter().enumerate() {
            for (fault, how) in
                target.faults.iter().enumerate().filter(|(_, how)| target.name(how) == prefix)
            {
                found |= self.run_one(row, target, fault, how, nth);
            }
        }
        assert!(found, "{name:?} names no round, or there is no such call");
    }

    /// So many rounds that did fail a call, evenly over the rows.
    fn run_some(&mut self, rounds: u64) {
        let (mut done, mut attempts) = (0, 0);
        while done < rounds {
            let row = self.rows[self.random.index(self.rows.len())];
            let target = &TARGETS[row];
            // To fill a segment takes ten times as long as anything else; so not so often, unless
            // nothing else was asked for.
            if target.phase == Phase::Rolling
                && self.rows.len() == TARGETS.len()
                && self.random.between(0, 3) > 0
            {
                continue;
            }
            // Some drawn numbers are larger than that of the last such call; most are not.
            attempts += 1;
            assert!(attempts <= 16 * (done + 1), "{done} of {attempts} rounds made a call fail");
            let fault = self.random.index(target.faults.len());
            let nth = self.random.between(1, target.typical);
            done += u64::from(self.run_one(row, target, fault, target.faults[fault], nth));
        }
    }

    /// Whether a call was failed.
    fn run_one(
        &mut self,
        row: usize,
        target: &Target,
        fault: usize,
        how: &'static str,
        nth: u64,
    ) -> bool {
        let seed = self.random.next();
        let round = run(&self.template, target, how, nth, seed);
        let entry = self.table.rows.entry((row, fault)).or_default();
        match round.end {
            Some(End::Refused) => entry.refused += 1,
            Some(End::Poisoned) => entry.poisoned += 1,
            Some(End::Unharmed) => entry.unharmed += 1,
            None => {}
        }
        if round.end.is_some() {
            entry.tried += 1;
            entry.largest = entry.largest.max(nth);
        }
        self.table.slowest_end = self.table.slowest_end.max(round.seconds.unwrap_or(0.0));
        entry.violations += u64::from(!round.violations.is_empty());
        let what = format!("{} {nth}", target.name(how));
        self.table
            .violations
            .extend(round.violations.iter().map(|violation| format!("{what}: {violation}")));
        round.end.is_some()
    }
}

impl Table {
    fn print(&self) {
        say(
            "phase      | call × fault                        | n tried (largest) | refused | poisoned | unharmed | VIOLATIONS",
        );
        for ((row, fault), counts) in &self.rows {
            let target = &TARGETS[*row];
            let (call, how) = (target.short(), target.faults[*fault]);
            let Row { tried, largest, refused, poisoned, unharmed, violations } = counts;
            let phase = format!("{:?}", target.phase);
            let call = format!("{call} × {how}");
            let tried = format!("{tried} ({largest})");
            say(&format!(
                "{phase:10} | {call:35} | {tried:17} | {refused:7} | {poisoned:8} | {unharmed:8} | {violations}"
            ));
        }
        for violation in &self.violations {
            // All of them in short; the failing test shows the first in full.
            let mut lines = violation.lines().filter(|line| !line.trim().is_empty());
            let (first, last) =
                (lines.next().unwrap_or_default(), lines.next_back().unwrap_or_default());
            say(&format!("VIOLATION {first} … {}", last.chars().take(200).collect::<String>()));
        }
        let sum = |of: fn(&Row) -> u64| self.rows.values().map(of).sum::<u64>();
        say(&format!(
            "syscall faults: {} rounds: {} refused to start, {} poisoned, gone after {:.2} s at most, {} went on unharmed; {} with violations",
            sum(|row| row.tried),
            sum(|row| row.refused),
            sum(|row| row.poisoned),
            self.slowest_end,
            sum(|row| row.unharmed),
            sum(|row| row.violations),
        ));
    }
}
