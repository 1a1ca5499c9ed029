//! Faults of the server: credentials, trust in proxies, preconditions, admin socket, drain.

use super::Failpoint;

pub(super) const FAILPOINTS: &[Failpoint] = &[];
