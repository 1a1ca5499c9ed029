//! Names of files in the data directory that more than one module uses.
//!
//! Job: define each name once.
//! Invariant: a name changes only together with the format version, see upgrade.rs.
//! Must never: contain anything but names.

/// In `journal/`: the file that names the newest segment.
pub const CURRENT: &str = "CURRENT";

/// In `sled/`, beside sled's own files: the bucket digests.
pub(crate) const DIGESTS_FILE: &str = "odometer.digests";

/// In `sled/`: marks the state as corrupt, so that it is not opened; contains the reason.
pub(crate) const CORRUPT_MARKER: &str = "odometer.corrupt";

/// In the data directory: a backup is being restored into it.
pub const RESTORING: &str = "RESTORING";

/// The same three files in format 3: read where no upgrade has renamed them, see upgrade.rs.
pub(crate) const CURRENT_V3: &str = "newest";
/// See [`CURRENT_V3`].
pub(crate) const DIGESTS_FILE_V3: &str = "odometer.seals";
/// See [`CURRENT_V3`].
pub(crate) const CORRUPT_MARKER_V3: &str = "odometer.condemned";
