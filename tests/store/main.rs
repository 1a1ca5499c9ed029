//! The store and its parsers in this process, and the checker of histories: nothing here starts a
//! server.
//!
//! Job: one binary for what opens stores itself.
//! Invariant: no child process is started, which could hold the lock of a store that is closed and
//! opened again.
//! Must never: need root, a network or a tool.

mod contract;
mod counter_rule;
mod frame;
mod fuzz;
mod history;
mod model_store;
mod recovery;
#[path = "../support/mod.rs"]
mod support;
mod words;
