//! The binary as a command that ends by itself: how it is called, and what it left behind.
//!
//! Invariant: no setting of the test run reaches it.
//! Must never: be used for what does not end by itself.

use std::ffi::OsStr;
use std::process::Command;

use super::server::binary;

/// What a command that ended by itself left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// It failed with this code and said why in one line, which has all of these words.
    #[track_caller]
    pub(crate) fn complained(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "more or less than one line: {}", self.stderr);
        assert!(self.stderr.starts_with("odometer: "), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {}", self.stderr);
        }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }
}

/// The binary with these words, not started yet.
pub(crate) fn odometer(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(binary().canonicalize().expect("the binary was built"));
    command.args(words);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ODOMETER_"))
    {
        command.env_remove(name);
    }
    command
}

/// Runs it to its end.
pub(crate) fn ended(command: &mut Command) -> Ended {
    let output = command.output().expect("the command starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}
