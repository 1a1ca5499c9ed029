//! Recovery: open, verify, rebuild and restore, before a store is served.
//!
//! Job: bring state and journal to one position, or report exactly why that is impossible.
//! Invariant: an incomplete store is not served.
//! Must never: delete what cannot be created again; a corrupt state is quarantined.

pub mod open;
pub mod os_files;
pub mod rebuild;
pub mod restore;
pub mod start;
pub mod store_files;
pub mod verify;
