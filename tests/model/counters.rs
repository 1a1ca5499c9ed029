//! The counters of one tenant, by name.
//!
//! Job: creation, increments, sets and deletions with their refusals, in the order in which they
//! are looked for.
//! Invariant: `default` is always there and cannot be created or deleted; no two states of a
//! tenant's counters of one name have the same version, not even after a deletion.
//! Must never: know a request's route, its credentials or a status.

use std::collections::BTreeMap;

use super::counter::{Counter, Range, RuleRefusal, Shape};

/// The counter that every tenant has.
pub(crate) const DEFAULT: &str = "default";

/// Which state of a counter it is; what an entity tag stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Version {
    /// Which of the tenant's counters it is, in the order of creation; 0 for `default`.
    pub(crate) generation: u64,
    /// How often it was changed since.
    pub(crate) revision: u64,
}

/// A counter and what is said about it; `D` is what only its user knows, such as its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<D> {
    pub(crate) counter: Counter,
    pub(crate) version: Version,
    pub(crate) data: D,
}

/// What a set or a deletion makes a condition of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// That the counter exists.
    Exists,
    /// That it is in one of these states.
    OneOf(Vec<Version>),
}

impl Condition {
    fn is_met(&self, version: Version) -> bool {
        match self {
            Self::Exists => true,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }
}

/// Why nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal<D> {
    NotFound,
    AlreadyExists,
    DefaultCounter,
    /// The tenant has as many counters as it may have: this number.
    Quota(u32),
    /// The counter is in another state than the condition says: in this one.
    ConditionFailed(Entry<D>),
    Rule(RuleRefusal),
}

impl<D> From<RuleRefusal> for Refusal<D> {
    fn from(refusal: RuleRefusal) -> Self {
        Self::Rule(refusal)
    }
}

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Counters<D> {
    entries: BTreeMap<String, Entry<D>>,
    /// How many were ever created.
    pub(crate) created: u64,
}

impl<D: Clone + Default> Default for Counters<D> {
    fn default() -> Self {
        let default =
            Entry { counter: Counter::default(), version: Version::default(), data: D::default() };
        Self { entries: BTreeMap::from([(DEFAULT.to_owned(), default)]), created: 0 }
    }
}

impl<D: Clone + Default> Counters<D> {
    pub(crate) fn get(&self, name: &str) -> Option<&Entry<D>> {
        self.entries.get(name)
    }

    /// All of them in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Entry<D>)> {
        self.entries.iter()
    }

    /// How many there are besides `default`, which are those that a quota counts.
    pub(crate) fn named(&self) -> usize {
        self.entries.len() - 1
    }

    pub(crate) fn create(
        &mut self,
        name: &str,
        shape: Shape,
        quota: u32,
        data: D,
    ) -> Result<Entry<D>, Refusal<D>> {
        if name == DEFAULT {
            return Err(Refusal::DefaultCounter);
        }
        if self.entries.contains_key(name) {
            return Err(Refusal::AlreadyExists);
        }
        if self.named() >= quota as usize {
            return Err(Refusal::Quota(quota));
        }
        self.created += 1;
        let version = Version { generation: self.created, revision: 0 };
        let entry = Entry { counter: Counter::new(shape), version, data };
        self.entries.insert(name.to_owned(), entry.clone());
        Ok(entry)
    }

    pub(crate) fn increment(
        &mut self,
        name: &str,
        count: u64,
    ) -> Result<(Range, Version), Refusal<D>> {
        let entry = self.entries.get_mut(name).ok_or(Refusal::NotFound)?;
        let range = entry.counter.increment(count)?;
        entry.version.revision += 1;
        Ok((range, entry.version))
    }

    pub(crate) fn set(
        &mut self,
        name: &str,
        value: u64,
        rewind: bool,
        condition: &Condition,
    ) -> Result<Entry<D>, Refusal<D>> {
        let entry = self.entries.get_mut(name).ok_or(Refusal::NotFound)?;
        if !condition.is_met(entry.version) {
            return Err(Refusal::ConditionFailed(entry.clone()));
        }
        entry.counter.set(value, rewind)?;
        entry.version.revision += 1;
        Ok(entry.clone())
    }

    pub(crate) fn delete(&mut self, name: &str, condition: &Condition) -> Result<(), Refusal<D>> {
        if name == DEFAULT {
            return Err(Refusal::DefaultCounter);
        }
        let entry = self.entries.get(name).ok_or(Refusal::NotFound)?;
        if !condition.is_met(entry.version) {
            return Err(Refusal::ConditionFailed(entry.clone()));
        }
        self.entries.remove(name);
        Ok(())
    }
}
