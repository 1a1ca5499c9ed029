//! The failpoints: every fault that `src` can plant, and the test that must fail while it is on.
//!
//! Job: the list, a file for each part of the program. Invariant: it has exactly the names that
//! stand in `failpoint!` in `src`, each once; `tests/repository/failpoints.rs` compares them.
//! Must never: name a test that fails without the fault.

mod commit;
mod disk;
mod http;
mod recovery;

/// A fault of `src`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failpoint {
    /// Its name in `failpoint!`.
    pub(crate) name: &'static str,
    /// The careless change that it stands for.
    pub(crate) fault: &'static str,
    /// The test that sees it: the test target (`lib` for unit tests), and a prefix or a part of a
    /// test's path in it.
    pub(crate) seen_by: (&'static str, &'static str),
}

/// Every failpoint.
pub(crate) fn all() -> impl Iterator<Item = &'static Failpoint> {
    [http::FAILPOINTS, commit::FAILPOINTS, disk::FAILPOINTS, recovery::FAILPOINTS]
        .into_iter()
        .flatten()
}

impl Failpoint {
    const fn new(
        name: &'static str,
        fault: &'static str,
        seen_by: (&'static str, &'static str),
    ) -> Self {
        Self { name, fault, seen_by }
    }
}
