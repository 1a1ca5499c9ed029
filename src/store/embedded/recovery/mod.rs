//! Recovery: open, verify, rebuild and restore, before a store is served.
//!
//! Job: bring state and journal to one position, or report exactly why that is impossible.
//!
//! How it is found out that the state is corrupt, or behind the journal, in the order of a start:
//!
//! ```text
//! 1 SledState::open         state/sled.rs          the marker odometer.corrupt is there; sled
//!                                                  returns an error or panics; the position that
//!                                                  it was synced through does not decode
//! 2 Checkpointer::open      state/checkpointer.rs  the digest file is missing or corrupt; sled is
//!                                                  synced through a commit outside of the digest
//!                                                  file's range, checkpointed to target
//! 3 open_state_and_journal  recovery/open.rs       the journal starts after the state ends; its
//!                                                  frames have other CRCs at the state's positions
//!                                                  (another history); a checkpoint frame names a
//!                                                  later checkpoint than the state has
//! 4 idempotency_pages       state/checkpointer.rs  a digest of the buckets that every start reads
//! 5 verify_bucket           state/checkpointer.rs  any other bucket's digest, at its first use by
//!                                                  this process: a cache miss, a scan, a
//!                                                  checkpoint; a backup reads all of them
//! ```
//! 1 to 4 are [`RecoveryError::StateUnusable`](open::RecoveryError::StateUnusable), and the same
//! start rebuilds the state (start.rs). An error that only the system returned is
//! [`StateIo`](open::RecoveryError::StateIo): nothing is rebuilt, the start fails. 5 comes while
//! the store serves: `report_corruption` in checkpoint/scheduler.rs poisons the store and, if there
//! are automatic backups, leaves the marker of step 1 for the next start. [`verify::verify`] reads
//! all buckets at once. A journal that ends before the state does is no fault of the state, and
//! no rebuild hides it ([`JournalTruncated`](open::RecoveryError::JournalTruncated)).
//!
//! Invariant: an incomplete store is not served.
//! Must never: delete what cannot be created again; a corrupt state is quarantined.

pub mod open;
pub mod os_files;
pub mod rebuild;
pub mod restore;
pub mod start;
pub mod store_files;
pub mod verify;
