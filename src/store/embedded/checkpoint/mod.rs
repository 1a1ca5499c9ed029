//! When to checkpoint and when to back up.
//!
//! Job: the scheduler between the committer and the checkpointer, and what it is told and tells.
//! Invariant: pure: time is an argument, messages come in by a call, effects are returned.
//! Must never: start a thread, read a clock, or wait.

pub mod backup_schedule;
pub mod messages;
pub mod scheduler;

#[cfg(test)]
mod scheduler_tests;
