//! Failpoints: the faults of a careless change, each planted by its name.
//!
//! Job: say whether the fault of a name is on in this process. `tests/failpoints` lists every name
//! with the test that must fail while it is on, so a promise whose test sees nothing is found.
//!
//! Invariant: without the feature `failpoints`, which only that campaign turns on, each use of
//! [`failpoint!`] is the constant `false`, and its name is not in the binary. With it, at most the
//! one fault that `FAILPOINT` names is on. (No name with `ODOMETER_`: the tests keep those from the
//! servers that they start.)
//!
//! Must never: be part of an optimized build, which is what users run.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!(
    "the feature `failpoints` plants faults; it is for the campaign of tests/failpoints"
);

/// `true` if the fault `$name` is planted in this process. Stands where the careless change would
/// be made: `if !failpoint!("journal-not-synced") { file.sync()?; }`.
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::failpoint::is_on($name)
    };
}

/// `false`: this build has no faults planted.
#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($name:literal) => {
        false
    };
}

pub(crate) use failpoint;

/// Whether `FAILPOINT` names this fault. The variable is read once.
#[cfg(feature = "failpoints")]
#[expect(clippy::disallowed_methods, reason = "a fault is no setting, and the config knows none")]
pub(crate) fn is_on(name: &str) -> bool {
    use std::sync::OnceLock;
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    PLANTED.get_or_init(|| std::env::var("FAILPOINT").ok()).as_deref() == Some(name)
}
