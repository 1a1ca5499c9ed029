//! Group commit: many commands, one journal frame for all of them, one fsync, then the replies.
//!
//! Job: apply every command, in one thread, to records in memory.
//! Invariant: a reply is sent after the frame with its change was synced.
//! Must never: start a thread, read a clock, or open a file itself; the simulation drives this
//! very code.

pub mod apply;
pub mod apply_tenant;
pub mod cache;
pub mod command;
pub mod committer;
pub mod idempotency;
pub mod queue;
pub mod working_set;
