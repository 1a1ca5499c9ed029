//! What a campaign found: a table, and every round that broke the promise.
//!
//! Invariant: each round is in exactly one cell.
//! Must never: forget a failure, or hide the seed to repeat it with.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::folder::Class;
use super::mutate::{Kind, ROTA};
use super::round::{Outcome, RoundResult};
use crate::support::{say, setting};

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Report {
    cells: BTreeMap<(Class, Kind), BTreeMap<Outcome, u64>>,
    totals: BTreeMap<Outcome, u64>,
    failures: Vec<String>,
    panics: u64,
    rounds: u64,
}

impl Report {
    pub(crate) fn add(&mut self, round_seed: u64, result: RoundResult) {
        let RoundResult { seed, mutation, outcome, detail, panicked } = result;
        self.rounds += 1;
        self.panics += u64::from(panicked);
        *self.totals.entry(outcome).or_default() += 1;
        *self
            .cells
            .entry((mutation.file.class, mutation.kind))
            .or_default()
            .entry(outcome)
            .or_default() += 1;
        if !outcome.is_allowed() {
            let line = format!(
                "{outcome:?}: ODOMETER_SEED={round_seed}, {seed}, {}; {detail}",
                mutation.describe()
            );
            // At once: a long campaign is looked at while it runs.
            say(&line);
            self.failures.push(line);
        }
    }

    /// Files and kinds of damage against outcomes.
    pub(crate) fn table(&self) -> String {
        let outcomes: Vec<Outcome> = self.totals.keys().copied().collect();
        let mut text = format!(
            "corruption: after {} rounds, {} with a panic that was caught\n",
            self.rounds, self.panics
        );
        let mut row = |first: &str, cells: &mut dyn Iterator<Item = String>| {
            let _ = write!(text, "{first:<26}");
            cells.for_each(|cell| {
                let _ = write!(text, " {cell:>12}");
            });
            text.push('\n');
        };
        row("", &mut outcomes.iter().map(|outcome| format!("{outcome:?}")));
        for ((class, kind), counts) in &self.cells {
            let count = |outcome| counts.get(outcome).map_or_else(String::new, u64::to_string);
            row(&format!("{class:?} {kind:?}"), &mut outcomes.iter().map(count));
        }
        row("all", &mut self.totals.values().map(u64::to_string));
        text
    }

    /// Shows the table, and fails if the promise was broken, or if a run that was long enough left
    /// out a kind of file.
    pub(crate) fn conclude(self) {
        say(&self.table());
        let is_whole =
            self.rounds >= ROTA.len() as u64 && setting("ODOMETER_CORRUPTION_FILES").is_none();
        for (class, kind) in ROTA.into_iter().filter(|_| is_whole) {
            let had = |cell: &(Class, Kind)| {
                class.is_none_or(|class| class == cell.0) && kind.is_none_or(|kind| kind == cell.1)
            };
            assert!(self.cells.keys().any(had), "not damaged: {class:?} {kind:?}");
        }
        let failures = self.failures.join("\n");
        assert!(
            self.failures.is_empty(),
            "{} rounds broke the promise:\n{failures}",
            self.failures.len()
        );
    }
}
