//! The one table of settings.
//!
//! Job: [`SETTINGS`]. A row gives a setting its flag and, derived from that, its environment name
//! and its key in `odometer.toml`; also its default and its help. `cli` makes the flags from it,
//! `layers.rs` the lookup and `config print`, and `docs/configuration.md` is generated from it.
//! Invariant: a default is a string that passes the same check as what people type; an empty string
//! means "none" and is allowed only where a setting is optional.
//! Must never: say how a value is checked; that is `options.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The environment name of the flag `--config`, the one setting that cannot stand in the file.
pub(super) const FILE_ENV_NAME: &str = "ODOMETER_CONFIG";

/// The file that is read, if it exists, when none is named.
pub(super) const DEFAULT_FILE: &str = "./odometer.toml";

/// One row: everything about a setting except how its value is checked.
#[derive(Debug)]
pub struct Setting {
    /// Its heading in the help.
    pub heading: &'static str,
    /// The flag without its dashes, such as `data-dir`.
    pub name: &'static str,
    /// What the help calls the value, such as `DIR`.
    pub value_name: &'static str,
    /// The value if no layer sets it; empty for "none".
    pub default: &'static str,
    /// What it does, with unit and range, without the default.
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

/// The flags of the command line, unchecked: the layer that beats the others.
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
        let values = pairs.into_iter().map(|(name, text)| (name, text.to_owned()));
        Self { file: None, values: values.collect() }
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
    row("Listening", "listen", "ADDR", "127.0.0.1:8443",
        "Address and port of the public HTTPS listener; port 0 lets the system choose one"),
    row("Listening", "public-port", "PORT|auto", "auto",
        "Port at which clients reach HTTPS, 1 to 65535, if a port mapping makes it differ from \
         --listen; auto is the port of --listen"),
    row("Listening", "http-listen", "ADDR|off", "127.0.0.1:8080",
        "Address and port of the plain HTTP listener, which redirects to HTTPS, or off"),
    row("Listening", "ops-listen", "ADDR|off", "127.0.0.1:9464",
        "Address and port of /metrics, /livez and /readyz: plain HTTP without authentication, \
         for operators; or off"),
    row("Listening", "trusted-proxies", "NETWORKS", "",
        "Trusted proxies: their X-Forwarded-For is used as the client address. Addresses or \
         networks such as 10.0.0.0/8, separated by commas"),
    row("TLS", "tls-cert", "FILE", "",
        "Certificate chain in PEM, leaf first; needs --tls-key. Without both, a self-signed \
         certificate is created in <data-dir>/tls"),
    row("TLS", "tls-key", "FILE", "",
        "Private key of the certificate in PEM; needs --tls-cert"),
    row("Storage", "data-dir", "DIR", "./data",
        "Data directory of the store, created on the first start"),
    row("Storage", "store", "STORE", "sled",
        "Kind of store; this build has sled, the embedded store"),
    row("Storage", "min-free-disk", "SIZE", "64MiB",
        "Free disk space below which writes and backups are refused, such as 64MiB, 16MB or \
         1048576 bytes"),
    row("Storage", "journal-segment-size", "SIZE", "16MiB",
        "Size of one segment (file) of the journal, 1MiB to 1GiB"),
    row("Storage", "checkpoint-interval", "DURATION", "30s",
        "Time between two checkpoints of the journal into the state, 100ms to 1h"),
    row("Storage", "cache-records", "COUNT", "100000",
        "Records kept in the memory cache, 1000 to 100000000; records that are changing come on \
         top"),
    row("Storage", "idempotency-keys", "COUNT", "1000000",
        "Idempotency keys stored at once, each for 24 hours of running time, 1000 to 100000000; \
         a tenant may use a quarter of them"),
    row("Storage", "backup-interval", "DURATION|off", "24h",
        "Time between two automatic backups into <data-dir>/backups, 1s to 8760h, or off"),
    row("Storage", "backup-keep", "COUNT", "7",
        "Automatic backups kept, 1 to 1000; older ones are deleted"),
    row("Storage", "journal-cap", "SIZE", "256MiB",
        "Journal size at which an automatic backup is made early, so that old segments can be \
         deleted; at least two segments"),
    row("Logs", "log-format", "FORMAT", "auto",
        "json (Elastic Common Schema), text, or auto: text on a terminal, JSON elsewhere"),
    row("Logs", "log-level", "LEVEL", "info",
        "off, error, warn, info, debug, trace, or a filter such as info,odometer=debug"),
    row("Logs", "log-dir", "DIR", "",
        "Directory for daily log files, instead of stdout; lines are dropped while its disk has \
         less than twice --min-free-disk free"),
    row("Logs", "log-keep", "COUNT", "14",
        "Daily log files kept, 1 to 3650; older ones are deleted"),
    row("Logs", "access-log-sample", "N|off", "1",
        "Log one in N successful requests, 1 to 1000000; off logs none. Refused and failed \
         requests are always logged"),
    row("Limits", "tenant-rate-limit", "RATE|off", "1000/s:2000",
        "Requests of one tenant, as COUNT/UNIT:BURST with the unit s, m or h, or off; the burst \
         is the count if left out"),
    row("Limits", "counters-per-tenant", "COUNT", "1000",
        "Named counters that a tenant may have, 0 to 1000000"),
    row("Limits", "client-rate-limit", "RATE|off", "10/s:20",
        "Unauthenticated requests of one client address, as COUNT/UNIT:BURST, or off"),
    row("Limits", "password-min-length", "BYTES", "8",
        "Shortest password accepted, 1 to 256 bytes"),
    row("Limits", "allow-common-passwords", SWITCH, "false",
        "Accept passwords from the list of the most common ones"),
    row("Limits", "workers", "COUNT|auto", "auto",
        "Worker threads that serve connections, 1 to 1024; auto is one per CPU"),
    row("Limits", "max-connections", "COUNT", "10000",
        "Connections open at once, 1 to 1000000; more are closed"),
    row("Limits", "max-connections-per-address", "COUNT", "2000",
        "Connections open at once from one client address, 1 to 1000000; more are closed"),
    row("Limits", "drain-timeout", "DURATION", "5s",
        "Time that requests in progress have to finish when the server stops, 0s to 60s"),
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
