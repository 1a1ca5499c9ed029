//! What the benches share beside the tests' support: load, and a description of the machine.
//!
//! Job: [`load_client`] asks as fast as answers come, [`paced_load`] on a schedule, [`machine`]
//! says what the figures were measured on. Must never: be part of a test, which has no business
//! with speed.
#![allow(dead_code, reason = "every bench uses its own part")]

pub(crate) mod load_client;
pub(crate) mod machine;
pub(crate) mod paced_load;
