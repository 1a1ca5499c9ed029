//! The one table of settings.
//!
//! Job: [`SETTINGS`]. A row gives a setting its flag and, derived from that, its environment name and its key in
//! `odometer.toml`; also its default and its help. `cli.rs` makes the flags from it, `layers.rs` the lookup and
//! `config print`.
//! Invariant: a default is text that passes the same check as what people type; an empty text means "none" and is
//! allowed only where a setting is optional.
//! Must never: say how a value is checked, that is `Config`'s part (`mod.rs`).

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The environment name of the flag `--config`, the one setting that cannot stand in the file.
pub(super) const FILE_ENV_NAME: &str = "ODOMETER_CONFIG";

/// The file that is read when none is named, if it exists.
pub(super) const DEFAULT_FILE: &str = "./odometer.toml";

/// One row: everything about a setting except how its value is checked.
#[derive(Debug)]
pub struct Setting {
    /// The heading that it stands under in the help.
    pub heading: &'static str,
    /// The flag without its dashes, such as `data-dir`.
    pub name: &'static str,
    /// What the help calls the value, such as `DIR`.
    pub value_name: &'static str,
    /// The value if nobody says otherwise; empty for "none".
    pub default: &'static str,
    /// What it does, in a sentence without the default.
    pub help: &'static str,
}

impl Setting {
    /// Its name in the environment, such as `ODOMETER_DATA_DIR`.
    pub fn env_name(&self) -> String {
        format!("ODOMETER_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Its key in `odometer.toml`, such as `data_dir`.
    pub fn toml_key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Whether the flag alone, without a value, means `true`.
    pub fn is_switch(&self) -> bool {
        self.value_name == SWITCH
    }
}

/// What was typed on the command line, unchecked: the uppermost layer.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The value of `--config`.
    pub file: Option<PathBuf>,
    /// The value of every setting that was given, by [`Setting::name`].
    pub values: BTreeMap<&'static str, String>,
}

impl<'a, const N: usize> From<[(&'static str, &'a str); N]> for Flags {
    /// Flags as if typed, for tests and embedders: `Flags::from([("listen", "127.0.0.1:0")])`.
    fn from(pairs: [(&'static str, &'a str); N]) -> Self {
        Self { file: None, values: pairs.into_iter().map(|(name, text)| (name, text.to_owned())).collect() }
    }
}

const SWITCH: &str = "true|false";

const fn row(
    heading: &'static str,
    name: &'static str,
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { heading, name, value_name, default, help }
}

/// Every setting, in the order of the help and of `config print`.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    row("Listening", "listen", "ADDR", "127.0.0.1:8443", "Address and port of the public HTTPS listener"),
    row("Listening", "public-port", "PORT|auto", "auto", "Port at which clients reach HTTPS, where a port mapping makes it another than --listen's"),
    row("Listening", "http-listen", "ADDR|off", "127.0.0.1:8080", "Address and port that send plain HTTP on to HTTPS"),
    row("Listening", "ops-listen", "ADDR|off", "127.0.0.1:9464", "Address and port of /metrics, /livez and /readyz, plain HTTP"),
    row("Listening", "trusted-proxies", "NETWORKS", "", "Proxies whose X-Forwarded-For is believed: addresses or networks such as 10.0.0.0/8, separated by commas"),
    row("TLS", "tls-cert", "FILE", "", "Certificate chain in PEM; without it a self-signed one is made in <data-dir>/tls"),
    row("TLS", "tls-key", "FILE", "", "Private key of the certificate in PEM"),
    row("Storage", "data-dir", "DIR", "./data", "Folder of the store, made on the first run"),
    row("Storage", "store", "STORE", "sled", "Where counters live; this build knows sled, the embedded store"),
    row("Storage", "min-free-disk", "SIZE", "64MiB", "Writes stop while the disk has less than this free"),
    row("Storage", "journal-segment-size", "SIZE", "16MiB", "Size of one journal file, 1MiB to 1GiB"),
    row("Storage", "checkpoint-interval", "DURATION", "30s", "Time between two checkpoints, 100ms to 1h"),
    row("Storage", "cache-records", "COUNT", "100000", "How many cold records stay in memory, 1000 to 100000000"),
    row("Storage", "idempotency-keys", "COUNT", "1000000", "How many idempotency keys are remembered at most, each for 24 hours, 1000 to 100000000"),
    row("Storage", "backup-interval", "DURATION|off", "24h", "Time between two automatic backups into <data-dir>/backups, 1s to 8760h; off for none"),
    row("Storage", "backup-keep", "COUNT", "7", "How many automatic backups are kept, 1 to 1000"),
    row("Storage", "journal-cap", "SIZE", "256MiB", "An automatic backup is made earlier when the journal has grown to this, at least two segments"),
    row("Logs", "log-format", "FORMAT", "auto", "json, text, or auto: text on a terminal and JSON elsewhere"),
    row("Logs", "log-level", "LEVEL", "info", "error, warn, info, debug, trace, or a filter such as info,odometer=debug"),
    row("Logs", "log-dir", "DIR", "", "Write logs to daily files in this folder instead of to stdout"),
    row("Logs", "log-keep", "COUNT", "14", "How many daily log files are kept, 1 to 3650"),
    row("Logs", "access-log-sample", "COUNT|off", "1", "Log one of so many successful requests, 1 to 1000000, or none of them; refused and failed ones are always logged"),
    row("Limits", "tenant-rate-limit", "RATE|off", "1000/s:2000", "Requests of one tenant, as count/s|m|h:burst"),
    row("Limits", "counters-per-tenant", "COUNT", "1000", "How many named counters a tenant may have, 0 to 1000000"),
    row("Limits", "client-rate-limit", "RATE|off", "10/s:20", "Unauthenticated requests of one address, as count/s|m|h:burst"),
    row("Limits", "password-min-length", "BYTES", "8", "Shortest password that is accepted, 1 to 256"),
    row("Limits", "allow-common-passwords", SWITCH, "false", "Accept passwords that are among the most common ones"),
    row("Limits", "workers", "COUNT|auto", "auto", "Threads that serve connections, 1 to 1024; auto is one per CPU"),
    row("Limits", "max-connections", "COUNT", "10000", "Connections open at once, 1 to 1000000"),
    row("Limits", "max-connections-per-address", "COUNT", "2000", "Connections open at once from one address, 1 to 1000000"),
    row("Limits", "drain-timeout", "DURATION", "5s", "How long a stop waits for requests under way, 0s to 60s"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_carry_over() {
        let keys: std::collections::BTreeSet<_> = SETTINGS.iter().map(Setting::toml_key).collect();
        assert_eq!(keys.len(), SETTINGS.len());
        let setting = SETTINGS.iter().find(|s| s.name == "max-connections-per-address").unwrap();
        assert_eq!(setting.env_name(), "ODOMETER_MAX_CONNECTIONS_PER_ADDRESS");
        assert_eq!(setting.toml_key(), "max_connections_per_address");
    }

    #[test]
    fn headings_stay_together() {
        let mut headings: Vec<_> = SETTINGS.iter().map(|s| s.heading).collect();
        headings.dedup();
        assert_eq!(headings, ["Listening", "TLS", "Storage", "Logs", "Limits"]);
    }
}
