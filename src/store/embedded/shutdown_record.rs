//! How a process left the data folder, for the next one to tell: one line in LOCK.
//!
//! ```text
//! running            a process has the folder, or had it and was killed, or the power failed
//! clean              it gave the folder back
//! poisoned: <why>    a write failed and it gave up
//! ```
//! Job: read the line as a [`PreviousShutdown`], and write it. Invariant: this is a hint for people: whether a folder may be served is decided by what is in it
//! and never by this line. Must never: fail a start or a stop because the line can not be read or written.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// A line is not longer, in bytes.
const MAX_LINE_BYTES: usize = 512;
const RUNNING: &str = "running";
const CLEAN: &str = "clean";
const POISONED: &str = "poisoned: ";

/// How the process before this one left the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PreviousShutdown {
    /// There was none.
    #[default]
    First,
    /// It gave the folder back.
    Clean,
    /// It was killed, crashed, or lost its power.
    Unclean,
    /// A write failed, and it gave up; why.
    Poisoned(String),
}

impl PreviousShutdown {
    /// What the line in `lock` says of a folder that holds a store, or none yet.
    #[must_use]
    pub(crate) fn read(mut lock: &File, is_store: bool) -> Self {
        let mut bytes = Vec::new();
        let _ = (&mut lock).take(MAX_LINE_BYTES as u64).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        match text.lines().next() {
            _ if !is_store => Self::First,
            // A restored folder, and those of builds that wrote no line.
            None | Some(CLEAN) => Self::Clean,
            Some(line) => match line.strip_prefix(POISONED) {
                Some(why) => Self::Poisoned(why.to_owned()),
                None => Self::Unclean,
            },
        }
    }

    /// The word for it, as logs and metrics say it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Clean => CLEAN,
            Self::Unclean => "unclean",
            Self::Poisoned(_) => "poisoned",
        }
    }
}

/// What is to be written of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ShutdownRecord<'a> {
    /// It has the folder.
    Running,
    /// It gives the folder back.
    Clean,
    /// It gives up.
    Poisoned(&'a str),
}

impl ShutdownRecord<'_> {
    pub(crate) fn text(self) -> String {
        let mut text = match self {
            Self::Running => RUNNING.to_owned(),
            Self::Clean => CLEAN.to_owned(),
            Self::Poisoned(why) => format!("{POISONED}{}", why.replace(char::is_control, " ")),
        };
        text.truncate(text.floor_char_boundary(MAX_LINE_BYTES - 1));
        text.push('\n');
        text
    }
}

/// Puts the line in place of the one before.
///
/// # Errors
/// Any error of the system; there is nothing to be done about it.
pub(crate) fn write(lock: &File, text: &str) -> io::Result<()> {
    lock.write_all_at(text.as_bytes(), 0)?;
    lock.set_len(text.len() as u64)?;
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
            let path = temp.path().join("LOCK");
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).unwrap()
        };
        assert_eq!(PreviousShutdown::read(&open(), false), PreviousShutdown::First);
        assert_eq!(PreviousShutdown::read(&open(), true), PreviousShutdown::Clean, "of a build that wrote no line");
        let long = "€".repeat(MAX_LINE_BYTES);
        for (line, expected) in [
            (ShutdownRecord::Poisoned("no space\nleft"), PreviousShutdown::Poisoned("no space left".into())),
            (ShutdownRecord::Running, PreviousShutdown::Unclean),
            (ShutdownRecord::Clean, PreviousShutdown::Clean),
        ] {
            write(&open(), &line.text()).unwrap();
            assert_eq!(PreviousShutdown::read(&open(), true), expected);
        }
        write(&open(), &ShutdownRecord::Poisoned(&long).text()).unwrap();
        assert!(
            matches!(PreviousShutdown::read(&open(), true), PreviousShutdown::Poisoned(why) if long.starts_with(&why))
        );
    }

    #[test]
    fn a_line_that_rotted_is_unclean_and_stops_nothing() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        for rotten in [&b"\xff\xfe\n"[..], b"\n", b"CLEAN\n", &[0; 4096]] {
            std::fs::write(temp.path(), rotten).unwrap();
            assert_eq!(PreviousShutdown::read(&File::open(temp.path()).unwrap(), true), PreviousShutdown::Unclean);
        }
    }
}
