//! Upgrade of a data directory from format 3 to format 4.
//!
//! Job: rename three files; nothing else differs between the two formats.
//! Invariant: FORMAT names the new format before the first rename, so that an older version of
//! odometer refuses the directory from then on, and the next start finishes an interrupted upgrade.
//! Must never: change the content of a file. In particular records are not rewritten: an older
//! layout of a record is read for as long as its format is, see codec/record.rs. A format that only
//! brings a new layout needs a new `FORMAT_VERSION` in data_dir.rs and nothing here.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::failpoint::failpoint;
use crate::store::embedded::fs::ignore_not_found;
use crate::store::embedded::layout::{
    CORRUPT_MARKER, CORRUPT_MARKER_V3, CURRENT, CURRENT_V3, DIGESTS_FILE, DIGESTS_FILE_V3,
};

/// Directory, name in format 3, name in format 4.
const RENAMED: [(&str, &str, &str); 3] = [
    ("journal", CURRENT_V3, CURRENT),
    ("sled", DIGESTS_FILE_V3, DIGESTS_FILE),
    ("sled", CORRUPT_MARKER_V3, CORRUPT_MARKER),
];

/// The directory of a rebuild, in format 3 and 4. A rebuild clears it, once it knows its source;
/// until then a state that was complete when the process was killed may be the best there is.
const REBUILDING: (&str, &str) = ("sled.healing", "sled.rebuilding");

/// Renames what still has its old name, and removes half-written files of the old names. Does
/// nothing in a directory that is up to date.
///
/// # Errors
/// Any I/O error; the next call continues where this one stopped.
pub(crate) fn rename_files(data_dir: &Path) -> io::Result<()> {
    for (dir, old, new) in RENAMED {
        let dir = data_dir.join(dir);
        match fs::rename(dir.join(old), dir.join(new)) {
            Ok(()) if failpoint!("upgrade-not-synced") => {}
            Ok(()) => File::open(&dir)?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // What an atomic replacement left that was cut off; nobody would remove it later.
        ignore_not_found(fs::remove_file(dir.join(format!("{old}.new"))))?;
    }
    let (old, new) = REBUILDING;
    if data_dir.join(new).exists() {
        return Ok(());
    }
    ignore_not_found(fs::rename(data_dir.join(old), data_dir.join(new)))
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
        fs::create_dir(temp.path().join(REBUILDING.0)).unwrap();
        fs::write(temp.path().join("sled").join(format!("{DIGESTS_FILE_V3}.new")), "half").unwrap();
        // A crash after the first rename.
        let (dir, old, new) = RENAMED[0];
        fs::rename(temp.path().join(dir).join(old), temp.path().join(dir).join(new)).unwrap();
        for _ in 0..2 {
            rename_files(temp.path()).unwrap();
            for (dir, old, new) in RENAMED {
                let dir = temp.path().join(dir);
                assert_eq!(fs::read_to_string(dir.join(new)).unwrap(), new);
                assert!(!dir.join(old).exists() && !dir.join(format!("{old}.new")).exists());
            }
            assert!(!temp.path().join(REBUILDING.0).exists());
            assert!(temp.path().join(REBUILDING.1).exists(), "a state that may be needed is kept");
        }
    }
}
