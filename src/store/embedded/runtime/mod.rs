//! Threads: the only place of the store with `spawn`, clocks and channels.
//!
//! Job: run the committer, the checkpointer and the segment allocator, and stop them in order.
//! Invariant: a thread that ends unexpectedly poisons the store.
//! Must never: decide anything about a counter.

pub mod allocator_thread;
pub mod checkpoint_thread;
pub mod committer_thread;
pub mod messages;
pub mod segment_allocator;
pub mod shared;
