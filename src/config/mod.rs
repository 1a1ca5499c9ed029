//! What was typed, exported or written in a file, becomes one checked [`Config`].
//!
//! Job: [`Config::load`] reads the environment and the file, [`Config::resolve`] layers them (flag over environment
//! over file over default) and checks every value once. After that nobody looks at an option or a text again.
//! The settings themselves are one table, `settings.rs`; flags, environment names, keys and help all come from it.
//! Invariant: a `Config` exists only if every setting and every rule between settings holds.
//! Must never: open, create or check a file other than `odometer.toml`, bind a port, or repeat a password.

mod error;
mod file;
mod layers;
mod settings;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::domain::rate_limit::RateLimit;
use crate::store::embedded::BackupPolicy;
use crate::telemetry::LogOptions;

pub use self::error::{ConfigError, Origin};
pub use self::file::ConfigFile;
pub use self::settings::{Flags, SETTINGS, Setting};

use self::layers::Layers;
use self::settings::FILE_ENV_NAME;
use self::values::ByteSize;

/// Every setting, typed and checked. The help of `odometer serve` explains each.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of the store.
    pub data_dir: PathBuf,
    /// The public HTTPS listener.
    pub listen: SocketAddr,
    /// The port at which clients reach it, if that is another.
    pub public_port: Option<u16>,
    /// The listener that sends plain HTTP on to HTTPS, unless off.
    pub http_listen: Option<SocketAddr>,
    /// The listener of metrics and health, unless off.
    pub ops_listen: Option<SocketAddr>,
    /// Certificate chain and private key in PEM, in this order; none for a self-signed certificate.
    pub tls_files: Option<(PathBuf, PathBuf)>,
    /// Format, level and place of the logs.
    pub log: LogOptions,
    /// Of so many successful requests one is logged; none of them if off.
    pub access_log_sample: Option<u64>,
    /// What one tenant may request, unless off.
    pub tenant_rate_limit: Option<RateLimit>,
    /// What one address may request without a key, unless off.
    pub client_rate_limit: Option<RateLimit>,
    /// The shortest password accepted, in bytes.
    pub password_min_length: usize,
    /// Whether the most common passwords are accepted.
    pub allow_common_passwords: bool,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Threads that serve connections.
    pub workers: usize,
    /// Connections open at once.
    pub max_connections: usize,
    /// Connections open at once from one address.
    pub max_connections_per_address: usize,
    /// Writes stop while the disk has less than this free.
    pub min_free_disk_bytes: u64,
    /// The size of one journal file.
    pub journal_segment_bytes: u64,
    /// The time between two checkpoints.
    pub checkpoint_interval: Duration,
    /// How many cold records stay in memory.
    pub cache_records: usize,
    /// Idempotency keys remembered at most.
    pub idempotency_keys: usize,
    /// Named counters that a tenant may have.
    pub counters_per_tenant: u32,
    /// When automatic backups are made, unless off.
    pub backups: Option<BackupPolicy>,
    /// How long a stop waits for requests under way.
    pub drain_timeout: Duration,
    layers: Layers,
}

impl Config {
    /// Reads the process environment and the file that it or `--config` names, and resolves them with `flags`.
    ///
    /// # Errors
    /// [`ConfigError`], one line for a person; the process should end with 64.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let env = environment()?;
        let named_by_env = env.get(FILE_ENV_NAME).filter(|path| !path.is_empty()).map(Path::new);
        let file = ConfigFile::find(flags.file.as_deref().or(named_by_env))?;
        Self::resolve(flags, env, file.as_ref())
    }

    /// Resolves the layers: a flag beats the environment, which beats the file, which beats the default. Variables
    /// that are no setting are ignored, and so are empty ones.
    ///
    /// # Errors
    /// [`ConfigError`] if a value is not what its setting takes, or two settings contradict each other.
    pub fn resolve(
        flags: &Flags,
        env: impl IntoIterator<Item = (String, String)>,
        file: Option<&ConfigFile>,
    ) -> Result<Self, ConfigError> {
        let env: BTreeMap<String, String> = env.into_iter().collect();
        Self::check(Layers::choose(flags, &env, file))
    }

    /// Every setting and its origin, as a valid `odometer.toml`.
    #[must_use]
    pub fn print(&self) -> String {
        self.layers.to_string()
    }

    fn check(layers: Layers) -> Result<Self, ConfigError> {
        layers.parse_secret("store", validate_store)?;
        let min_free_disk_bytes: u64 = layers.parse("min-free-disk", values::bytes)?;
        let at_most_an_hour = Duration::from_millis(100)..=Duration::from_secs(3600);
        let config = Self {
            data_dir: layers.parse("data-dir", values::path)?,
            listen: layers.parse("listen", values::address)?,
            public_port: layers.parse("public-port", values::or_auto(values::integer_in(1..=u16::MAX)))?,
            http_listen: layers.parse("http-listen", values::or_off(values::address))?,
            ops_listen: layers.parse("ops-listen", values::or_off(values::address))?,
            tls_files: tls_files(&layers)?,
            log: LogOptions {
                format: layers.parse("log-format", values::log_format)?,
                level: layers.parse("log-level", values::log_level)?,
                dir: layers.parse("log-dir", values::optional_path)?,
                keep: layers.parse("log-keep", values::integer_in(1..=3650))?,
                reserve_bytes: min_free_disk_bytes.saturating_mul(2),
            },
            access_log_sample: layers.parse("access-log-sample", values::or_off(values::integer_in(1..=1_000_000)))?,
            tenant_rate_limit: layers.parse("tenant-rate-limit", values::or_off(values::rate))?,
            client_rate_limit: layers.parse("client-rate-limit", values::or_off(values::rate))?,
            password_min_length: layers.parse("password-min-length", values::integer_in(1..=256))?,
            allow_common_passwords: layers.parse("allow-common-passwords", values::boolean)?,
            trusted_proxies: layers.parse("trusted-proxies", values::networks)?,
            workers: layers.parse("workers", values::workers)?,
            max_connections: layers.parse("max-connections", values::integer_in(1..=1_000_000))?,
            max_connections_per_address: layers
                .parse("max-connections-per-address", values::integer_in(1..=1_000_000))?,
            min_free_disk_bytes,
            journal_segment_bytes: layers
                .parse("journal-segment-size", values::bytes_within(ByteSize::MIB..=ByteSize::GIB))?,
            checkpoint_interval: layers.parse("checkpoint-interval", values::duration(at_most_an_hour))?,
            cache_records: layers.parse("cache-records", values::integer_in(1000..=100_000_000))?,
            idempotency_keys: layers.parse("idempotency-keys", values::integer_in(1000..=100_000_000))?,
            counters_per_tenant: layers.parse("counters-per-tenant", values::integer_in(0..=1_000_000))?,
            backups: backups(&layers)?,
            drain_timeout: layers.parse("drain-timeout", values::duration(Duration::ZERO..=Duration::from_secs(60)))?,
            layers,
        };
        config.check_listeners_differ()?;
        Ok(config)
    }

    /// Two listeners on one port would fail only at the second bind, with a text that names neither setting.
    fn check_listeners_differ(&self) -> Result<(), ConfigError> {
        let listeners =
            [("listen", Some(self.listen)), ("http-listen", self.http_listen), ("ops-listen", self.ops_listen)];
        for (i, (name, address)) in listeners.into_iter().enumerate() {
            let Some(address) = address.filter(|address| address.port() != 0) else { continue };
            if let Some((earlier, _)) = listeners[..i].iter().find(|(_, other)| *other == Some(address)) {
                let earlier_origin = self.layers.origin(earlier);
                let why = format!("{address} is taken by {earlier} ({earlier_origin}); give each its own port");
                return Err(ConfigError::Setting { name, origin: self.layers.origin(name), why });
            }
        }
        Ok(())
    }
}

/// The variables that are ours. A value that is not UTF-8 is refused, because a path must not be changed silently.
fn environment() -> Result<BTreeMap<String, String>, ConfigError> {
    let ours = |name: &String| name == FILE_ENV_NAME || SETTINGS.iter().any(|setting| setting.env_name() == *name);
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok().filter(ours)?, value)))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(ConfigError::NotText { name }),
        })
        .collect()
}

fn validate_store(text: &str) -> Result<(), String> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("postgres" | "postgresql") => Err("the PostgreSQL store is not in this build yet; use sled".to_owned()),
        _ if text == "sled" => Ok(()),
        _ => Err("this is not a store of this build; expected sled".to_owned()),
    }
}

fn backups(layers: &Layers) -> Result<Option<BackupPolicy>, ConfigError> {
    let at_most_a_year = Duration::from_secs(1)..=Duration::from_secs(8760 * 3600);
    let interval = layers.parse("backup-interval", values::or_off(values::duration(at_most_a_year)))?;
    let keep = layers.parse("backup-keep", values::integer_in(1..=1000))?;
    let journal_cap_bytes = layers.parse("journal-cap", values::bytes)?;
    let segment = layers.parse("journal-segment-size", values::bytes)?;
    if journal_cap_bytes < segment.saturating_mul(2) {
        let why = format!("{journal_cap_bytes} bytes are less than two journal segments of {segment} bytes");
        return Err(ConfigError::Setting { name: "journal-cap", origin: layers.origin("journal-cap"), why });
    }
    Ok(interval.map(|interval| BackupPolicy { interval, journal_cap_bytes, keep }))
}

fn tls_files(layers: &Layers) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let alone = |name, missing| {
        let why = format!("{missing} is missing; give both or neither");
        Err(ConfigError::Setting { name, origin: layers.origin(name), why })
    };
    let certificate = layers.parse("tls-cert", values::optional_path)?;
    let key = layers.parse("tls-key", values::optional_path)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => alone("tls-cert", "tls-key"),
        (None, Some(_)) => alone("tls-key", "tls-cert"),
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(config.listen, "127.0.0.1:8443".parse().unwrap());
        assert_eq!(config.tls_files, None);
        assert_eq!(config.min_free_disk_bytes, 64 << 20);
        assert_eq!(config.checkpoint_interval, Duration::from_secs(30));
        assert_eq!(config.client_rate_limit.unwrap().to_string(), "10/s:20");
        assert!(config.trusted_proxies.is_empty() && !config.allow_common_passwords);
    }

    #[test]
    fn a_flag_beats_env_beats_file_beats_default() {
        let (flag, nothing) = (Flags::from([("log-keep", "1")]), Flags::default());
        let (set, unset) = (env(&[("ODOMETER_LOG_KEEP", "2")]), env(&[("ODOMETER_NO_SUCH", "x"), ("LOG_KEEP", "9")]));
        let file = file("log_keep = 3");
        for (flags, env, file, keep, origin) in [
            (&flag, &set, Some(&file), 1, "1  # flag --log-keep"),
            (&nothing, &set, Some(&file), 2, "2  # env ODOMETER_LOG_KEEP"),
            (&nothing, &unset, Some(&file), 3, "3  # file ./odometer.toml"),
            (&nothing, &unset, None, 14, "14  # default"),
        ] {
            let config = Config::resolve(flags, env.clone(), file).unwrap();
            assert_eq!(config.log.keep, keep);
            assert!(config.print().contains(&format!("log_keep = {origin}\n")), "{}", config.print());
        }
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        let config = Config::resolve(&Flags::default(), env(&[("ODOMETER_LISTEN", "")]), None).unwrap();
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
            let again = Config::resolve(&Flags::default(), [], Some(&file(&config.print()))).unwrap();
            assert_eq!(typed(&again), typed(&config));
        }
    }

    #[test]
    fn a_bad_value_names_setting_origin_value_and_expectation() {
        let address = "expected an IP address and a port, such as 127.0.0.1:8443 or [::1]:8443";
        assert_eq!(refusal([("listen", "off")]), format!("listen = \"off\" (flag --listen): {address}"));
        let error = Config::resolve(&Flags::default(), env(&[("ODOMETER_OPS_LISTEN", "x")]), None).unwrap_err();
        assert_eq!(error.to_string(), format!("ops-listen = \"x\" (env ODOMETER_OPS_LISTEN): {address}, or off"));
        let error = Config::resolve(&Flags::default(), [], Some(&file("log_keep = -1"))).unwrap_err();
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
        for url in ["postgresql://u:secret@h", "Postgres://u:secret@h", "mysql://u:secret@h", "password=secret"] {
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
        assert_eq!(both.tls_files, Some(("c".into(), "k".into())));
    }

    #[test]
    fn listeners_differ_unless_the_port_is_free_to_choose() {
        assert_eq!(
            refusal([("ops-listen", "127.0.0.1:8443")]),
            "ops-listen (flag --ops-listen): 127.0.0.1:8443 is taken by listen (default); give each its own port"
        );
        resolve([("listen", "127.0.0.1:0"), ("ops-listen", "127.0.0.1:0"), ("http-listen", "off")]).unwrap();
    }
}
