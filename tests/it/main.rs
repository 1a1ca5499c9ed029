//! The server as its clients and operators meet it: over TLS, by its commands, and by the files
//! that it leaves.
//!
//! Job: one binary for every suite that runs the real server and ends in seconds. Invariant: each
//! test has a server, a folder and ports of its own, so all of them run side by side in this one
//! process. Must never: change what a process has once, such as its environment or its current
//! folder.

mod admin;
mod api;
mod backup;
mod cli;
mod clock;
mod contract;
mod examples;
mod load;
mod openapi;
mod retries;
#[path = "../support/mod.rs"]
mod support;
mod telemetry;
mod tenant_model;
mod tls;
mod upgrade;
