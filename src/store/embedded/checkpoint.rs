//! The keeper: takes what was committed, brings it into the state in steps, and finds records that are not in memory.
//!
//! Job: hold the changes since the last checkpoint; write them to the [`State`] off the path of a commit; answer loads from the newest
//! of *pending*, *being written* and *state*, so that a load never sees an older value than what was handed over.
//!
//! ```text
//! committer ── changes, in order ──► pending ── begin ──► writing ── step, step, … ──► state ── cover ──► checkpoint frame
//!           ── load ──────────────►  looks into pending, then writing, then state
//! ```
//! Invariant: whatever is in neither *pending* nor *writing* is in the state.
//! Must never: decide a value; report a checkpoint before the state is durable.

use std::collections::HashMap;

use super::frame::{Change, CommitSeq};
use super::record::{Key, Record};
use super::state::State;

/// Records written to the state in one step; loads are served between two steps.
const STEP_RECORDS: usize = 512;

/// See the module's text.
pub struct Keeper<S> {
    state: S,
    pending: HashMap<Key, Option<Record>>,
    pending_up_to: CommitSeq,
    writing: HashMap<Key, Option<Record>>,
    left: Vec<Change>,
    target: Option<CommitSeq>,
}

impl<S: State> Keeper<S> {
    /// A keeper in front of `state`.
    pub fn new(state: S) -> Self {
        let pending_up_to = state.covered();
        Self { state, pending: HashMap::new(), pending_up_to, writing: HashMap::new(), left: Vec::new(), target: None }
    }

    /// The state, to ask it questions.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Takes changes that are durable in the journal, all of them up to commit `up_to`, in order.
    pub fn take(&mut self, changes: impl IntoIterator<Item = Change>, up_to: CommitSeq) {
        self.pending.extend(changes);
        self.pending_up_to = self.pending_up_to.max(up_to);
    }

    /// How many records wait for the next checkpoint.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether the state does not yet cover everything that was taken.
    pub fn is_behind(&self) -> bool {
        self.pending_up_to > self.state.covered()
    }

    /// The newest record of `key` that was handed over.
    ///
    /// # Errors
    /// As [`State::get`].
    pub fn load(&self, key: &Key) -> Result<Option<Record>, String> {
        match self.pending.get(key).or_else(|| self.writing.get(key)) {
            Some(record) => Ok(record.clone()),
            None => self.state.get(key),
        }
    }

    /// Starts a checkpoint of everything taken so far. Does nothing while one is under way.
    pub fn begin(&mut self) {
        if self.target.is_none() {
            self.target = Some(self.pending_up_to);
            self.writing = std::mem::take(&mut self.pending);
            self.left = self.writing.iter().map(|(key, record)| (key.clone(), record.clone())).collect();
            // sled writes neighbours together.
            self.left.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        }
    }

    /// Whether a checkpoint is under way.
    pub fn is_writing(&self) -> bool {
        self.target.is_some()
    }

    /// Takes one step of the checkpoint; returns the covered commit when it is complete and durable.
    ///
    /// # Errors
    /// As [`State::put`] and [`State::cover`]; the store must then stop.
    pub fn step(&mut self) -> Result<Option<CommitSeq>, String> {
        let Some(target) = self.target else { return Ok(None) };
        if !self.left.is_empty() {
            let rest = self.left.len().saturating_sub(STEP_RECORDS);
            let part = self.left.split_off(rest);
            self.state.put(&part)?;
            return Ok(None);
        }
        self.state.cover(target)?;
        self.writing = HashMap::new();
        self.target = None;
        Ok(Some(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Memory {
        records: HashMap<Key, Option<Record>>,
        covered: CommitSeq,
    }

    impl State for Memory {
        fn get(&self, key: &Key) -> Result<Option<Record>, String> {
            Ok(self.records.get(key).cloned().flatten())
        }
        fn put(&mut self, changes: &[Change]) -> Result<(), String> {
            self.records.extend(changes.iter().cloned());
            Ok(())
        }
        fn cover(&mut self, seq: CommitSeq) -> Result<(), String> {
            self.covered = seq;
            Ok(())
        }
        fn covered(&self) -> CommitSeq {
            self.covered
        }
    }

    #[test]
    fn a_load_sees_the_newest_value_at_every_step() {
        let mut keeper = Keeper::new(Memory::default());
        let name = |i: u64| Key::Name(format!("n{i}"));
        let owner = |i: u64| Some(Record::Name(crate::tenant::TenantId(i)));
        keeper.take((0..1200).map(|i| (name(i), owner(i))), CommitSeq(1));
        keeper.begin();
        let mut covered = None;
        while covered.is_none() {
            keeper.take([(name(7), owner(99))], CommitSeq(2));
            assert_eq!(keeper.load(&name(7)).unwrap(), owner(99));
            assert_eq!(keeper.load(&name(1100)).unwrap(), owner(1100));
            covered = keeper.step().unwrap();
        }
        assert_eq!(covered, Some(CommitSeq(1)));
        assert!(keeper.is_behind());
        assert_eq!(keeper.load(&name(7)).unwrap(), owner(99));
        keeper.begin();
        while keeper.step().unwrap().is_none() {}
        assert!(!keeper.is_behind());
        assert_eq!(keeper.state().get(&name(7)).unwrap(), owner(99));
    }
}
