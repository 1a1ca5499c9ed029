//! The four layers and their precedence: flag > environment > file > default.
//!
//! Job: [`Layers`] holds the winning string of every setting and its origin, prints itself as a
//! valid `odometer.toml`, and hands a string to its parser so that an error names setting and
//! origin.
//! Invariant: exactly one string for each row of [`SETTINGS`], in the table's order.
//! Must never: know what a setting means, or read the process environment.

use std::collections::BTreeMap;
use std::fmt;

use super::error::{ConfigError, Origin};
use super::file::ConfigFile;
use super::settings::{Flags, SETTINGS, Setting};
use super::values::Parsed;

#[derive(Clone, Debug)]
struct ResolvedSetting {
    setting: &'static Setting,
    text: String,
    origin: Origin,
}

/// Every setting as a string, with its origin.
#[derive(Clone, Debug)]
pub(super) struct Layers(Vec<ResolvedSetting>);

impl Layers {
    /// Takes each setting from the first layer that has it. An empty environment variable counts
    /// as not set, because that is what `${NAME:-}` in a compose file means.
    pub(super) fn choose(
        flags: &Flags,
        env: &BTreeMap<String, String>,
        file: Option<&ConfigFile>,
    ) -> Self {
        let choose = |setting: &'static Setting| {
            let from_flag =
                || Some((flags.values.get(setting.name)?.clone(), Origin::Flag(setting.name)));
            let from_env = || {
                let name = setting.env_name();
                let text = env.get(&name).filter(|text| !text.is_empty())?.clone();
                Some((text, Origin::Env(name)))
            };
            let from_file = || {
                let file = file?;
                Some((file.get(setting)?.to_owned(), Origin::File(file.shown_path().to_owned())))
            };
            let from_default = || (setting.default.to_owned(), Origin::Default);
            let (text, origin) =
                from_flag().or_else(from_env).or_else(from_file).unwrap_or_else(from_default);
            ResolvedSetting { setting, text, origin }
        };
        Self(SETTINGS.iter().map(choose).collect())
    }

    fn chosen(&self, name: &str) -> &ResolvedSetting {
        self.0
            .iter()
            .find(|chosen| chosen.setting.name == name)
            .expect("every name in code is a row of SETTINGS")
    }

    pub(super) fn origin(&self, name: &str) -> Origin {
        self.chosen(name).origin.clone()
    }

    /// Parses the setting `name`; an error shows its value.
    pub(super) fn parse<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<T, ConfigError> {
        let ResolvedSetting { text, origin, .. } = self.chosen(name);
        let refused =
            |why| ConfigError::Value { name, value: text.clone(), origin: origin.clone(), why };
        parse(text).map_err(refused)
    }

    /// As [`Layers::parse`], but an error does not show the value, which may hold a password.
    pub(super) fn parse_secret<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<T, ConfigError> {
        let ResolvedSetting { text, origin, .. } = self.chosen(name);
        parse(text).map_err(|why| ConfigError::Setting { name, origin: origin.clone(), why })
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut heading = "";
        for ResolvedSetting { setting, text, origin } in &self.0 {
            if heading != setting.heading {
                let gap = if heading.is_empty() { "" } else { "\n" };
                heading = setting.heading;
                writeln!(f, "{gap}# {heading}")?;
            }
            writeln!(f, "{} = {}  # {origin}", setting.toml_key(), toml_value(text))?;
        }
        Ok(())
    }
}

/// A TOML value that reads back as the same string: integers and booleans are not quoted.
fn toml_value(text: &str) -> String {
    let is_integer = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    if is_integer || matches!(text, "true" | "false") {
        text.to_owned()
    } else {
        toml::Value::String(text.to_owned()).to_string()
    }
}
