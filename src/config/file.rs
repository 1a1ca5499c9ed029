//! `odometer.toml`: flat keys, each a string, an integer or a boolean.
//!
//! Job: [`ConfigFile`]: find the file, read it, and reduce its values to strings.
//! Invariant: every key is a setting; a misspelt key is an error that suggests the right one.
//! Must never: quote a line of the file in an error (it may hold a password); line numbers do.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use strsim::levenshtein;
use toml::{Spanned, Value};

use super::error::ConfigError;
use super::settings::{DEFAULT_FILE, SETTINGS, Setting};

/// A settings file that was read; the values are unchecked strings.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    shown_path: String,
    values: BTreeMap<String, String>,
}

impl ConfigFile {
    /// Reads `named`, which has to exist, or else `./odometer.toml` if it does.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read or [`ConfigFile::parse`] refuses it.
    pub fn find(named: Option<&Path>) -> Result<Option<Self>, ConfigError> {
        match named {
            Some(path) => Self::read(path, true),
            None => Self::read(Path::new(DEFAULT_FILE), false),
        }
    }

    fn read(path: &Path, must_exist: bool) -> Result<Option<Self>, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => Ok(None),
            Err(error) => Err(ConfigError::File {
                place: format!("file {}", shown(path)),
                why: error.to_string(),
            }),
        }
    }

    /// Parses `text`, the content of the file at `path`. The path is only for errors and origins.
    ///
    /// # Errors
    /// [`ConfigError`] on a syntax error, an unknown key, or a value that is not a string, an
    /// integer or a boolean.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let shown_path = shown(path);
        let place =
            |offset: Option<usize>| match offset.and_then(|offset| text.as_bytes().get(..offset)) {
                Some(before) => format!(
                    "file {shown_path}, line {}",
                    1 + before.iter().filter(|b| **b == b'\n').count()
                ),
                None => format!("file {shown_path}"),
            };
        let bad_toml = |error: toml::de::Error| ConfigError::File {
            place: place(error.span().map(|span| span.start)),
            why: error.message().replace('\n', ", "),
        };
        let entries: BTreeMap<Spanned<String>, Spanned<Value>> =
            toml::from_str(text).map_err(bad_toml)?;
        let mut values = BTreeMap::new();
        for (key, value) in entries {
            let place = place(Some(key.span().start));
            let key = key.into_inner();
            if !SETTINGS.iter().any(|setting| setting.toml_key() == key) {
                return Err(ConfigError::UnknownKey { hint: hint_for(&key), key, place });
            }
            let text = match value.into_inner() {
                Value::String(text) => text,
                Value::Integer(number) => number.to_string(),
                Value::Boolean(truth) => truth.to_string(),
                other => {
                    let why = format!(
                        "{key} takes a string, an integer or a boolean, but this is {}",
                        kind_of(&other)
                    );
                    return Err(ConfigError::File { place, why });
                }
            };
            values.insert(key, text);
        }
        Ok(Self { shown_path, values })
    }

    pub(super) fn get(&self, setting: &Setting) -> Option<&str> {
        self.values.get(&setting.toml_key()).map(String::as_str)
    }

    pub(super) fn shown_path(&self) -> &str {
        &self.shown_path
    }
}

/// The path for errors and for the comments of `config print`, which are one line even if the path
/// has a line break.
fn shown(path: &Path) -> String {
    let escape =
        |c: char| if c.is_control() { c.escape_debug().collect() } else { String::from(c) };
    path.display().to_string().chars().map(escape).collect()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
        Value::Float(_) => "a float",
        Value::Datetime(_) => "a date",
        Value::String(_) | Value::Integer(_) | Value::Boolean(_) => "a plain value",
    }
}

/// The nearest key, unless more than half of the letters would have to change.
fn hint_for(key: &str) -> String {
    let distances =
        SETTINGS.iter().map(Setting::toml_key).map(|known| (levenshtein(key, &known), known));
    match distances.min() {
        Some((distance, known)) if distance * 2 <= key.chars().count() => {
            format!("; did you mean {known}?")
        }
        _ => "; `odometer config print` lists them all".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let line = ConfigFile::parse(Path::new("o.toml"), text).unwrap_err().to_string();
        assert!(!line.contains('\n'), "{line:?}");
        line
    }

    #[test]
    fn unknown_keys_get_a_suggestion() {
        assert_eq!(
            refusal("listen = \"x\"\ndata-dir = \"d\""),
            "\"data-dir\" is not a setting (file o.toml, line 2); did you mean data_dir?"
        );
        assert!(refusal("log_levle = 1").ends_with("did you mean log_level?"));
        assert!(refusal("[server]\nlisten = 1").contains("`odometer config print` lists them all"));
    }

    #[test]
    fn bad_toml_is_one_line_with_its_number() {
        assert!(
            refusal("\nlisten = \n").starts_with("file o.toml, line 2: "),
            "{}",
            refusal("\nlisten = \n")
        );
        let twice = refusal("log_keep = 1\n# again\nlog_keep = 2");
        assert!(twice.starts_with("file o.toml, line 3: duplicate key"), "{twice}");
        assert_eq!(
            refusal("listen = \"x\"\n\ntrusted_proxies = [\"::1\"]"),
            "file o.toml, line 3: trusted_proxies takes a string, an integer or a boolean, \
             but this is an array"
        );
        assert!(refusal("workers = 1.5").ends_with("but this is a float"));
    }

    #[test]
    fn errors_never_quote_the_file() {
        for text in [
            "store = \"postgres://u:secret@h\" x",
            "store = [\"postgres://u:secret@h\"]",
            "store = secret",
        ] {
            assert!(!refusal(text).contains("secret"), "{}", refusal(text));
        }
    }

    #[test]
    fn a_named_file_must_exist_and_a_default_need_not() {
        let path = Path::new("/nonexistent/o.toml");
        let missing = ConfigFile::find(Some(path)).unwrap_err().to_string();
        assert!(missing.starts_with("file /nonexistent/o.toml: No such file"), "{missing}");
        assert!(ConfigFile::read(path, false).unwrap().is_none());
    }

    #[test]
    fn a_suggestion_shares_half_of_the_letters() {
        for (key, hint) in [
            ("stor", "; did you mean store?"),
            ("stxx", "; `odometer config print` lists them all"),
            ("listen_to_me", "; did you mean listen?"),
            ("listen_to_met", "; `odometer config print` lists them all"),
            ("prüfung_der_größe", "; `odometer config print` lists them all"),
            ("größe", "; `odometer config print` lists them all"),
            ("störe", "; did you mean store?"),
            ("", "; `odometer config print` lists them all"),
        ] {
            assert_eq!(hint_for(key), hint, "{key:?}");
        }
    }
}
