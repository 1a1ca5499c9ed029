//! Shutdown record: one line in the file LOCK, by which the next process can report how the last
//! one stopped.
//!
//! ```text
//! running            a process uses the data directory, or used it and was killed, or the power
//!                    failed
//! clean              the process shut down in an orderly way
//! poisoned: <why>    a write failed and the process stopped
//! ```
//! Job: write the record, and read it as a [`PreviousShutdown`].
//! Invariant: the record only informs the operator. Whether a data directory is served depends on
//! its data and never on this line.
//! Must never: make a start or a shutdown fail because the line cannot be read or written.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// The largest size of the line, in bytes.
const MAX_LINE_BYTES: usize = 512;
const RUNNING: &str = "running";
const CLEAN: &str = "clean";
const POISONED: &str = "poisoned: ";

/// How the previous process stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PreviousShutdown {
    /// There was no previous process.
    #[default]
    First,
    /// It shut down in an orderly way.
    Clean,
    /// It was killed, it crashed, or the power failed.
    Unclean,
    /// It stopped after a failed write; the reason.
    Poisoned(String),
}

impl PreviousShutdown {
    /// Reads the record in `lock`. `is_initialized`: the data directory contains a store.
    pub(crate) fn read(mut lock: &File, is_initialized: bool) -> Self {
        let mut bytes = Vec::new();
        let _ = (&mut lock).take(MAX_LINE_BYTES as u64).read_to_end(&mut bytes);
        match String::from_utf8_lossy(&bytes).lines().next() {
            _ if !is_initialized => Self::First,
            // A restored directory, or one of a version of odometer that wrote no record.
            None | Some(CLEAN) => Self::Clean,
            Some(line) => match line.strip_prefix(POISONED) {
                Some(why) => Self::Poisoned(why.to_owned()),
                None => Self::Unclean,
            },
        }
    }

    /// The name used in logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Clean => CLEAN,
            Self::Unclean => "unclean",
            Self::Poisoned(_) => "poisoned",
        }
    }
}

/// The record of the running process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ShutdownRecord<'a> {
    /// It uses the data directory.
    Running,
    /// It shuts down in an orderly way.
    Clean,
    /// It stops after a failed write; the reason.
    Poisoned(&'a str),
}

impl ShutdownRecord<'_> {
    /// The record as a line of at most [`MAX_LINE_BYTES`] bytes.
    pub(crate) fn line(self) -> String {
        let mut line = match self {
            Self::Running => RUNNING.to_owned(),
            Self::Clean => CLEAN.to_owned(),
            Self::Poisoned(why) => format!("{POISONED}{}", why.replace(char::is_control, " ")),
        };
        line.truncate(line.floor_char_boundary(MAX_LINE_BYTES - 1));
        line.push('\n');
        line
    }
}

/// Replaces the line in `lock` and syncs it.
///
/// # Errors
/// Any I/O error; callers ignore it, because the record is best effort.
pub(crate) fn write(lock: &File, line: &str) -> io::Result<()> {
    lock.write_all_at(line.as_bytes(), 0)?;
    lock.set_len(line.len() as u64)?;
    lock.sync_data()
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn what_one_process_writes_the_next_one_reads() {
        let temp = tempfile::tempdir().unwrap();
        let open = || {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).read(true).write(true);
            options.open(temp.path().join("LOCK")).unwrap()
        };
        assert_eq!(PreviousShutdown::read(&open(), false), PreviousShutdown::First);
        let read = PreviousShutdown::read(&open(), true);
        assert_eq!(read, PreviousShutdown::Clean, "a version that wrote no record");
        let long = "€".repeat(MAX_LINE_BYTES);
        let poisoned = PreviousShutdown::Poisoned("no space left".into());
        for (record, expected) in [
            (ShutdownRecord::Poisoned("no space\nleft"), poisoned),
            (ShutdownRecord::Running, PreviousShutdown::Unclean),
            (ShutdownRecord::Clean, PreviousShutdown::Clean),
        ] {
            write(&open(), &record.line()).unwrap();
            assert_eq!(PreviousShutdown::read(&open(), true), expected);
        }
        write(&open(), &ShutdownRecord::Poisoned(&long).line()).unwrap();
        let read = PreviousShutdown::read(&open(), true);
        assert!(matches!(read, PreviousShutdown::Poisoned(why) if long.starts_with(&why)));
    }

    #[test]
    fn a_corrupt_line_reads_as_unclean() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        for corrupt in [&b"\xff\xfe\n"[..], b"\n", b"CLEAN\n", &[0; 4096]] {
            std::fs::write(temp.path(), corrupt).unwrap();
            let lock = File::open(temp.path()).unwrap();
            assert_eq!(PreviousShutdown::read(&lock, true), PreviousShutdown::Unclean);
        }
    }
}
