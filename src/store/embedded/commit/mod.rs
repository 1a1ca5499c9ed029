//! Group commit: commands in, one journal frame for all of them, replies out.
//!
//! Job: decide every change, in one thread, on records in memory.
//! Invariant: a reply is sent after the frame that holds its change was synced.
//! Must never: start a thread, read a clock, or open a file by itself; the simulation drives this
//! very code.

pub mod apply;
pub mod apply_tenant;
pub mod cache;
pub mod command;
pub mod committer;
pub mod idempotency;
pub mod queue;
pub mod working_set;
