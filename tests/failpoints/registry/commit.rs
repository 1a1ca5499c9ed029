//! Faults of the commit path: the counter rule, idempotency keys, replies, rate limits.

use super::Failpoint;

pub(super) const FAILPOINTS: &[Failpoint] = &[];
