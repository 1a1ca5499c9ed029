//! Campaigns against the real binary: kills, power cuts, full and failing disks, damaged files,
//! malformed requests, leaks of secrets, dashboards.
//!
//! Job: one binary for what takes long, or needs root, strace, a mount or a Prometheus. Invariant:
//! what a campaign needs and the machine has not is said (`support::require`), and each campaign
//! has a short form that runs by default. Must never: change what a process has once, such as its
//! environment.

mod corruption;
mod crash;
mod dashboards;
mod disk;
mod drain;
mod faults;
mod malformed;
mod secret_leaks;
mod state_rebuild;
#[path = "../support/mod.rs"]
mod support;
mod syscall_faults;
