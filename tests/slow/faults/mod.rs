//! Faults that are made on purpose: of system calls, of the power, and of a whole file system.
//!
//! Invariant: each ends with its value, also when a test fails. Must never: touch a process, a
//! mount or a device that the test did not make.

pub(crate) mod power;
pub(crate) mod scratch_fs;
pub(crate) mod steps;
pub(crate) mod strace;
