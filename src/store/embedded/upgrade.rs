//! Upgrade of a data directory from format 3 to format 4.
//!
//! Job: rename three files; nothing else differs between the two formats.
//! Invariant: FORMAT names the new format before the first rename, so that an older version of
//! odometer refuses the directory from then on, and the next start finishes an interrupted upgrade.
//! Must never: change the content of a file.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::store::embedded::layout::{CORRUPT_MARKER, CURRENT, DIGESTS_FILE};

/// Directory, name in format 3, name in format 4.
const RENAMED: [(&str, &str, &str); 3] = [
    ("journal", "newest", CURRENT),
    ("sled", SEALS_FILE, DIGESTS_FILE),
    ("sled", "odometer.condemned", CORRUPT_MARKER),
];

/// The file of the bucket digests in format 3.
pub(crate) const SEALS_FILE: &str = "odometer.seals";

/// The directory of an interrupted rebuild in format 3: an incomplete state that is not used.
const UNFINISHED_REBUILD: &str = "sled.healing";

/// Renames the files that still have their old name, and removes an unfinished rebuild. Does
/// nothing in a directory that is up to date.
///
/// # Errors
/// Any I/O error; the next call continues where this one stopped.
pub(crate) fn rename_files(data_dir: &Path) -> io::Result<()> {
    for (dir, old, new) in RENAMED {
        let dir = data_dir.join(dir);
        match fs::rename(dir.join(old), dir.join(new)) {
            Ok(()) => File::open(&dir)?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match fs::remove_dir_all(data_dir.join(UNFINISHED_REBUILD)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_are_replaced_and_an_interrupted_upgrade_is_finished() {
        let temp = tempfile::tempdir().unwrap();
        for (dir, old, new) in RENAMED {
            fs::create_dir_all(temp.path().join(dir)).unwrap();
            fs::write(temp.path().join(dir).join(old), new).unwrap();
        }
        fs::create_dir(temp.path().join(UNFINISHED_REBUILD)).unwrap();
        // A crash after the first rename.
        let (dir, old, new) = RENAMED[0];
        fs::rename(temp.path().join(dir).join(old), temp.path().join(dir).join(new)).unwrap();
        for _ in 0..2 {
            rename_files(temp.path()).unwrap();
            for (dir, old, new) in RENAMED {
                let dir = temp.path().join(dir);
                assert_eq!(fs::read_to_string(dir.join(new)).unwrap(), new);
                assert!(!dir.join(old).exists());
            }
            assert!(!temp.path().join(UNFINISHED_REBUILD).exists());
        }
    }
}
