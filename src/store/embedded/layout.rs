//! Names of files in the data directory that several rooms of the store know.
//!
//! Job: say each name once. Invariant: a name changes only with the format, see upgrade.rs.
//! Must never: hold anything but names.

/// In `journal/`: the file that names the active segment.
pub const CURRENT: &str = "CURRENT";

/// In `sled/`, beside sled's own files: the bucket digests.
pub(crate) const DIGESTS_FILE: &str = "odometer.digests";

/// In `sled/`: the state is corrupt and must not be opened; the file says why.
pub(crate) const CORRUPT_MARKER: &str = "odometer.corrupt";

/// In the data directory: a backup is being restored into it.
pub const RESTORING: &str = "RESTORING";
