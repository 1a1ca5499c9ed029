//! Everything that can be wrong with a configuration, and the one line that says so.
//!
//! Job: [`ConfigError`] and [`Origin`].
//! Invariant: an error is one line; it names the setting (or the file) and the origin of its value.
//! Must never: repeat a value that may hold a password; such settings use [`ConfigError::Setting`].

use std::fmt;

use thiserror::Error;

/// Where a setting's value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The flag of this name (without dashes).
    Flag(&'static str),
    /// The environment variable of this name.
    Env(String),
    /// The file at this path, as it was given.
    File(String),
    /// No other layer set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why there is no `Config`: one line for a person. The process exits with 64.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A value is not what its setting takes.
    #[error("{name} = {value:?} ({origin}): {why}")]
    Value {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// Where the value comes from.
        origin: Origin,
        /// What is expected.
        why: String,
    },
    /// A setting contradicts another one, or its value must not be shown.
    #[error("{name} ({origin}): {why}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Where its value comes from.
        origin: Origin,
        /// What is wrong and what would be right.
        why: String,
    },
    /// The file has a key that is no setting.
    #[error("{key:?} is not a setting ({place}){hint}")]
    UnknownKey {
        /// The key.
        key: String,
        /// File and line.
        place: String,
        /// The nearest setting, or nothing.
        hint: String,
    },
    /// The file cannot be read, is not TOML, or has a value of a type that no setting takes.
    #[error("{place}: {why}")]
    File {
        /// File and, where known, line.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// An environment variable is not UTF-8.
    #[error("env {name}: the value is not UTF-8")]
    NotUtf8 {
        /// The variable.
        name: String,
    },
}
