//! Requests that are done once, however often they are sent.
//!
//! Job: [`IdempotencyTable::lookup`] before a request is looked at, [`IdempotencyTable::record`]
//! after it has changed something. Invariant: a key stands for the request that was done with it
//! first. Must never: hold a refusal, which changed nothing and is not remembered.

use std::collections::HashMap;
use std::hash::Hash;

/// By key: what was asked for, and what was answered.
#[derive(Clone, Debug)]
pub(crate) struct IdempotencyTable<K, Q, R>(HashMap<K, (Q, R)>);

/// What a key says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup<R> {
    /// It has to be done.
    New,
    /// It was done, and is answered as it was.
    Replay(R),
    /// Another one was done with this key.
    Reused,
}

impl<K, Q, R> Default for IdempotencyTable<K, Q, R> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, Q: PartialEq, R> IdempotencyTable<K, Q, R> {
    pub(crate) fn lookup(&self, key: &K, request: &Q) -> Lookup<&R> {
        match self.0.get(key) {
            None => Lookup::New,
            Some((first, result)) if first == request => Lookup::Replay(result),
            Some(_) => Lookup::Reused,
        }
    }

    pub(crate) fn record(&mut self, key: K, request: Q, result: R) {
        self.0.insert(key, (request, result));
    }

    /// What was asked for with this key, and what was answered.
    pub(crate) fn get(&self, key: &K) -> Option<&(Q, R)> {
        self.0.get(key)
    }
}
