//! The counter contract as a specification: maps in memory, plain integers and the rules of README.
//!
//! ```text
//! counter.rs      one counter: shape, value, increment, set
//! counters.rs     a tenant's counters by name: versions, preconditions, quota
//! idempotency.rs  which request is answered again, and which key was used for another one
//! ```
//! Job: say what the one right answer is. The contract suite holds the store against it, the tenant
//! model holds the server against it, the simulation and the proof of the history checker take
//! their counters from it.
//! Invariant: it is written from the documented contract and shares no line with the program, so
//! that a mistake in the program's rule is a difference here.
//! Must never: use a type or a function of the crate under test.

#![allow(unused_imports, reason = "every test crate uses its own part of the model")]

mod counter;
mod counters;
mod idempotency;

pub(crate) use counter::{Counter, DEFAULT_MAX, LARGEST, Range, RuleRefusal, Shape};
pub(crate) use counters::{Condition, Counters, DEFAULT, Entry, Refusal, Version};
pub(crate) use idempotency::{IdempotencyTable, Lookup};
