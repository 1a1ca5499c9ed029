//! What happens before the store serves: open, verify, rebuild, restore.
//!
//! Job: bring state and journal to one position, or say exactly why that is impossible.
//! Invariant: a store that is incomplete is not served.
//! Must never: throw away what cannot be made again; a corrupt state is quarantined.

pub mod open;
pub mod rebuild;
pub mod restore;
pub mod verify;
