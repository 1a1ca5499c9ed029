//! What a server says about itself: events, samples of them, files of them, and metrics whose
//! number stays what it is.
//!
//! Job: the promises that operators build on, through the public door.
//! Invariant: what is dropped, kept back or sampled away is counted somewhere.
//! Must never: measure time; benches/telemetry.rs does.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]
#![allow(clippy::cast_precision_loss, reason = "numbers of a test are small")]

mod documented;
mod events;
mod files;
mod series;
mod shipped;
