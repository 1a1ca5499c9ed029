//! What holds for the repository itself: its documents and the picture of its source.
//!
//! Job: one binary for the checks that read files and run no server.
//! Invariant: each names the file and the line or the import that is wrong.
//! Must never: change a file, unless `ODOMETER_BLESS=1` asks for the generated ones.

mod architecture;
mod docs;
mod failpoints;
#[path = "../support/mod.rs"]
mod support;
