//! What was typed, exported or written to a file becomes one checked [`Config`].
//!
//! ```text
//! flags (cli) ─┐
//! environment ─┼─► layers.rs: the winning string ─► options.rs: rules      ─► Config, made of
//! file.rs ─────┤   of every setting                 between settings           checked options
//! settings.rs ─┘   (precedence in this order)       values.rs: one setting
//! ```
//! Job: [`Config::load`] reads the environment and the file; [`Config::resolve`] layers them and
//! checks every value once. After that the program works with types, never with the strings.
//! The settings are one table, [`SETTINGS`]: flags, environment names, keys and help come from it.
//! Invariant: a `Config` exists only if every setting and every rule between settings holds.
//! Must never: open, create or check a file other than `odometer.toml`, bind a port, or repeat a
//! password.

mod error;
mod file;
mod layers;
mod options;
mod settings;
mod values;

use std::collections::BTreeMap;
use std::path::Path;

use crate::auth::password::PasswordPolicy;
use crate::auth::rate_limiter::RateLimits;
use crate::http::listeners::ListenOptions;
use crate::http::server::{ConnectionLimits, ServerOptions};
use crate::http::tls::TlsSource;
use crate::store::embedded::Options;
use crate::telemetry::LogOptions;

pub use self::error::{ConfigError, Origin};
pub use self::file::ConfigFile;
pub use self::settings::{Flags, SETTINGS, Setting};

use self::layers::Layers;
use self::settings::FILE_ENV_NAME;

/// Every setting, typed and checked, as the options that [`App`](crate::app::App) hands to modules.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses of the listeners.
    pub listen: ListenOptions,
    /// The certificate and its key.
    pub tls: TlsSource,
    /// How requests are served.
    pub server: ServerOptions,
    /// How many connections may be open.
    pub limits: ConnectionLimits,
    /// How many requests a tenant and an unauthenticated address may make.
    pub rate_limits: RateLimits,
    /// Which passwords are accepted.
    pub passwords: PasswordPolicy,
    /// Named counters that a tenant may have.
    pub counters_per_tenant: u32,
    /// The data directory, and the limits of journal, cache and backups.
    pub store: Options,
    /// Format, level and destination of the logs.
    pub log: LogOptions,
    layers: Layers,
}

impl Config {
    /// Reads the environment and the file that it or `--config` names, and resolves them with
    /// `flags`.
    ///
    /// # Errors
    /// [`ConfigError`], one line for a person; the process should exit with 64.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let env = environment()?;
        let named_by_env = env.get(FILE_ENV_NAME).filter(|path| !path.is_empty()).map(Path::new);
        let file = ConfigFile::find(flags.file.as_deref().or(named_by_env))?;
        Self::resolve(flags, env, file.as_ref())
    }

    /// Resolves the layers: flag > environment > file > default. Environment variables that are
    /// empty or not a setting are ignored.
    ///
    /// # Errors
    /// [`ConfigError`] if a value is not what its setting takes, or two settings contradict each
    /// other.
    pub fn resolve(
        flags: &Flags,
        env: impl IntoIterator<Item = (String, String)>,
        file: Option<&ConfigFile>,
    ) -> Result<Self, ConfigError> {
        let env: BTreeMap<String, String> = env.into_iter().collect();
        Self::check(Layers::choose(flags, &env, file))
    }

    /// Every setting and its origin, as a valid `odometer.toml`.
    pub fn print(&self) -> String {
        self.layers.to_string()
    }

    fn check(layers: Layers) -> Result<Self, ConfigError> {
        let store = options::store(&layers)?;
        let listen = options::listen(&layers)?;
        Ok(Self {
            tls: options::tls(&layers, &store.data_dir, &listen)?,
            listen,
            server: options::server(&layers)?,
            limits: options::limits(&layers)?,
            rate_limits: options::rate_limits(&layers)?,
            passwords: options::passwords(&layers)?,
            counters_per_tenant: options::counters_per_tenant(&layers)?,
            log: options::log(&layers, store.min_free_disk_bytes)?,
            store,
            layers,
        })
    }
}

/// The environment variables that are settings. A value that is not UTF-8 is refused: converting it
/// would silently change a path.
fn environment() -> Result<BTreeMap<String, String>, ConfigError> {
    let ours = |name: &String| {
        name == FILE_ENV_NAME || SETTINGS.iter().any(|setting| setting.env_name() == *name)
    };
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok().filter(ours)?, value)))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(ConfigError::NotUtf8 { name }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn file(text: &str) -> ConfigFile {
        ConfigFile::parse(Path::new("./odometer.toml"), text).unwrap()
    }

    fn resolve<const N: usize>(flags: [(&'static str, &str); N]) -> Result<Config, ConfigError> {
        Config::resolve(&Flags::from(flags), [], None)
    }

    fn refusal<const N: usize>(flags: [(&'static str, &str); N]) -> String {
        let line = resolve(flags).unwrap_err().to_string();
        assert!(!line.contains('\n'), "{line:?}");
        line
    }

    /// A config without its origins, to compare two.
    fn typed(config: &Config) -> String {
        let texts = config.print();
        let without_origins: Vec<_> = texts.lines().map(|line| line.split("  # ").next()).collect();
        let all = format!("{config:?}");
        let fields = all.split(", layers: ").next().unwrap();
        format!("{fields} {without_origins:?}")
    }

    #[test]
    fn defaults_pass_their_own_checks() {
        let config = resolve([]).unwrap();
        assert_eq!(config.listen.public, "127.0.0.1:8443".parse().unwrap());
        let self_signed = TlsSource::SelfSigned {
            folder: "./data/tls".into(),
            address: config.listen.public.ip(),
        };
        assert_eq!(config.tls, self_signed);
        assert_eq!(config.store.min_free_disk_bytes, 64 << 20);
        assert_eq!(config.store.checkpoint_interval, Duration::from_secs(30));
        assert_eq!(config.rate_limits.client.unwrap().to_string(), "10/s:20");
        assert!(config.server.trusted_proxies.is_empty() && !config.passwords.allow_common);
    }

    #[test]
    fn a_flag_beats_env_beats_file_beats_default() {
        let (flag, nothing) = (Flags::from([("log-keep", "1")]), Flags::default());
        let (set, unset) = (
            env(&[("ODOMETER_LOG_KEEP", "2")]),
            env(&[("ODOMETER_NO_SUCH", "x"), ("LOG_KEEP", "9")]),
        );
        let file = file("log_keep = 3");
        for (flags, env, file, keep, origin) in [
            (&flag, &set, Some(&file), 1, "1  # flag --log-keep"),
            (&nothing, &set, Some(&file), 2, "2  # env ODOMETER_LOG_KEEP"),
            (&nothing, &unset, Some(&file), 3, "3  # file ./odometer.toml"),
            (&nothing, &unset, None, 14, "14  # default"),
        ] {
            let config = Config::resolve(flags, env.clone(), file).unwrap();
            assert_eq!(config.log.keep, keep);
            assert!(
                config.print().contains(&format!("log_keep = {origin}\n")),
                "{}",
                config.print()
            );
        }
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        let config =
            Config::resolve(&Flags::default(), env(&[("ODOMETER_LISTEN", "")]), None).unwrap();
        assert!(config.print().contains("listen = \"127.0.0.1:8443\"  # default\n"));
    }

    #[test]
    fn printed_settings_load_as_the_same_settings() {
        let odd = [
            ("data-dir", "a \"quoted\"\\ 'path'\nwith a line"),
            ("tls-cert", "5"),
            ("tls-key", "true"),
            ("ops-listen", "off"),
            ("log-level", "info,odometer=debug"),
            ("log-keep", "0007"),
            ("allow-common-passwords", "true"),
            ("trusted-proxies", "10.0.0.0/8, ::1"),
            ("workers", "3"),
        ];
        for config in [resolve([]).unwrap(), resolve(odd).unwrap()] {
            let again =
                Config::resolve(&Flags::default(), [], Some(&file(&config.print()))).unwrap();
            assert_eq!(typed(&again), typed(&config));
        }
    }

    #[test]
    fn a_bad_value_names_setting_origin_value_and_expectation() {
        let address = "expected an IP address and a port, such as 127.0.0.1:8443 or [::1]:8443";
        assert_eq!(
            refusal([("listen", "off")]),
            format!("listen = \"off\" (flag --listen): {address}")
        );
        let error = Config::resolve(&Flags::default(), env(&[("ODOMETER_OPS_LISTEN", "x")]), None)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("ops-listen = \"x\" (env ODOMETER_OPS_LISTEN): {address}, or off")
        );
        let error =
            Config::resolve(&Flags::default(), [], Some(&file("log_keep = -1"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "log-keep = \"-1\" (file ./odometer.toml): expected a whole number from 1 to 3650"
        );
    }

    #[test]
    fn every_setting_refuses_nonsense() {
        for (name, text) in [
            ("data-dir", ""),
            ("http-listen", "8080"),
            ("log-format", "yaml"),
            ("log-level", "loud"),
            ("tenant-rate-limit", "many"),
            ("client-rate-limit", "0/s"),
            ("password-min-length", "257"),
            ("allow-common-passwords", "yes"),
            ("trusted-proxies", "10.0.0.0/33"),
            ("workers", "1025"),
            ("max-connections", "0"),
            ("max-connections-per-address", "-2"),
            ("min-free-disk", "much"),
            ("journal-segment-size", "2GiB"),
            ("checkpoint-interval", "99ms"),
            ("cache-records", "999"),
            ("idempotency-keys", "999"),
            ("counters-per-tenant", "1000001"),
            ("drain-timeout", "5"),
        ] {
            let line = refusal([(name, text)]);
            assert!(line.starts_with(&format!("{name} = {text:?} (flag --{name}): ")), "{line}");
        }
    }

    #[test]
    fn a_store_url_is_refused_without_its_password() {
        assert_eq!(
            refusal([("store", "postgres://u:secret@h/db")]),
            "store (flag --store): the PostgreSQL store is not in this build yet; use sled"
        );
        for url in [
            "postgresql://u:secret@h",
            "Postgres://u:secret@h",
            "mysql://u:secret@h",
            "password=secret",
        ] {
            assert!(!refusal([("store", url)]).contains("secret"));
        }
        assert!(refusal([("store", "redis")]).ends_with("expected sled"));
    }

    #[test]
    fn certificate_and_key_come_together() {
        assert_eq!(
            refusal([("tls-cert", "c")]),
            "tls-cert (flag --tls-cert): tls-key is missing; give both or neither"
        );
        assert!(refusal([("tls-key", "k")]).contains("tls-cert is missing"));
        let both = resolve([("tls-cert", "c"), ("tls-key", "k")]).unwrap();
        assert_eq!(both.tls, TlsSource::Files { cert: "c".into(), key: "k".into() });
    }

    #[test]
    fn listeners_differ_unless_the_port_is_free_to_choose() {
        assert_eq!(
            refusal([("ops-listen", "127.0.0.1:8443")]),
            "ops-listen (flag --ops-listen): 127.0.0.1:8443 is taken by listen (default); \
             give each its own port"
        );
        resolve([("listen", "127.0.0.1:0"), ("ops-listen", "127.0.0.1:0"), ("http-listen", "off")])
            .unwrap();
    }
}
