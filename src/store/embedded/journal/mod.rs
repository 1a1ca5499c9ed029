//! The journal, which is a write-ahead log: frames in preallocated segments.
//!
//! Job: append a frame and sync it; read all frames back after a start.
//! Invariant: each frame names the checksum of the one before it, across segments.
//! Must never: append after a failed write, or skip a frame that cannot be read.

pub mod frame;
pub mod reader;
pub mod segment;
pub mod writer;
