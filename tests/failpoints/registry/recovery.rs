//! Faults of a start: what recovery, rebuild, restore and verify compare and keep.

use super::Failpoint;

pub(super) const FAILPOINTS: &[Failpoint] = &[];
