//! The options of each module, which together are a [`Config`](super::Config).
//!
//! Job: one function for the options of one module; it names the parser of every setting, and
//! checks the rules between settings. Invariant: options exist only if all their settings hold.
//! Must never: open, create or check a file, or bind a port.

use std::path::Path;
use std::time::Duration;

use super::error::ConfigError;
use super::layers::Layers;
use super::values::{
    ByteSize, address, boolean, bytes, bytes_within, duration, integer_in, log_format, log_level,
    networks, optional_path, or_auto, or_off, path, rate, workers,
};
use crate::auth::password::PasswordPolicy;
use crate::auth::rate_limiter::RateLimits;
use crate::http::listeners::ListenOptions;
use crate::http::server::{ConnectionLimits, ServerOptions};
use crate::http::tls::TlsSource;
use crate::store::embedded::{BackupPolicy, Options};
use crate::telemetry::LogOptions;

type Checked<T> = Result<T, ConfigError>;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn listen(layers: &Layers) -> Checked<ListenOptions> {
    let options = ListenOptions {
        public: layers.parse("listen", address)?,
        public_port: layers.parse("public-port", or_auto(integer_in(1..=u16::MAX)))?,
        http: layers.parse("http-listen", or_off(address))?,
        ops: layers.parse("ops-listen", or_off(address))?,
    };
    check_listeners_differ(&options, layers)?;
    Ok(options)
}

/// Two listeners on one port would fail only at the second bind, with an error that names one
/// setting of the two.
fn check_listeners_differ(options: &ListenOptions, layers: &Layers) -> Checked<()> {
    let listeners = [
        ("listen", Some(options.public)),
        ("http-listen", options.http),
        ("ops-listen", options.ops),
    ];
    for (i, (name, address)) in listeners.into_iter().enumerate() {
        // The system chooses another port 0 for each.
        let Some(address) = address.filter(|address| address.port() != 0) else { continue };
        if let Some((earlier, _)) = listeners[..i].iter().find(|(_, other)| *other == Some(address))
        {
            let origin = layers.origin(earlier);
            let why = format!("{address} is taken by {earlier} ({origin}); give each its own port");
            return Err(ConfigError::Setting { name, origin: layers.origin(name), why });
        }
    }
    Ok(())
}

pub(super) fn tls(layers: &Layers, data_dir: &Path, listen: &ListenOptions) -> Checked<TlsSource> {
    let alone = |name, missing| {
        let why = format!("{missing} is missing; give both or neither");
        Err(ConfigError::Setting { name, origin: layers.origin(name), why })
    };
    match (layers.parse("tls-cert", optional_path)?, layers.parse("tls-key", optional_path)?) {
        (Some(cert), Some(key)) => Ok(TlsSource::Files { cert, key }),
        (Some(_), None) => alone("tls-cert", "tls-key"),
        (None, Some(_)) => alone("tls-key", "tls-cert"),
        (None, None) => {
            Ok(TlsSource::SelfSigned { folder: data_dir.join("tls"), address: listen.public.ip() })
        }
    }
}

pub(super) fn server(layers: &Layers) -> Checked<ServerOptions> {
    Ok(ServerOptions {
        workers: layers.parse("workers", workers)?,
        drain_timeout: layers.parse("drain-timeout", duration(Duration::ZERO..=60 * SECOND))?,
        trusted_proxies: layers.parse("trusted-proxies", networks)?.into(),
        access_log_sample: layers.parse("access-log-sample", or_off(integer_in(1..=1_000_000)))?,
    })
}

pub(super) fn limits(layers: &Layers) -> Checked<ConnectionLimits> {
    let count = || integer_in(1..=1_000_000);
    Ok(ConnectionLimits {
        connections: layers.parse("max-connections", count())?,
        connections_per_address: layers.parse("max-connections-per-address", count())?,
    })
}

pub(super) fn rate_limits(layers: &Layers) -> Checked<RateLimits> {
    Ok(RateLimits {
        tenant: layers.parse("tenant-rate-limit", or_off(rate))?,
        client: layers.parse("client-rate-limit", or_off(rate))?,
    })
}

pub(super) fn passwords(layers: &Layers) -> Checked<PasswordPolicy> {
    Ok(PasswordPolicy {
        min_bytes: layers.parse("password-min-length", integer_in(1..=256))?,
        allow_common: layers.parse("allow-common-passwords", boolean)?,
    })
}

pub(super) fn counters_per_tenant(layers: &Layers) -> Checked<u32> {
    layers.parse("counters-per-tenant", integer_in(0..=1_000_000))
}

pub(super) fn store(layers: &Layers) -> Checked<Options> {
    // A URL may hold a password.
    layers.parse_secret("store", validate_store)?;
    let segment_bytes = bytes_within(ByteSize::MIB..=ByteSize::GIB);
    let checkpoint_interval = duration(SECOND / 10..=HOUR);
    let count = || integer_in(1000..=100_000_000);
    let journal_segment_bytes = layers.parse("journal-segment-size", segment_bytes)?;
    Ok(Options {
        data_dir: layers.parse("data-dir", path)?,
        journal_segment_bytes,
        checkpoint_interval: layers.parse("checkpoint-interval", checkpoint_interval)?,
        cache_records: layers.parse("cache-records", count())?,
        idempotency_keys: layers.parse("idempotency-keys", count())?,
        min_free_disk_bytes: layers.parse("min-free-disk", bytes)?,
        backups: backups(layers, journal_segment_bytes)?,
    })
}

fn validate_store(text: &str) -> Result<(), String> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("postgres" | "postgresql") => {
            Err("the PostgreSQL store is not in this build yet; use sled".to_owned())
        }
        _ if text == "sled" => Ok(()),
        _ => Err("this is not a store of this build; expected sled".to_owned()),
    }
}

/// The limits of journal and backups are checked even if automatic backups are off.
fn backups(layers: &Layers, segment_bytes: u64) -> Checked<Option<BackupPolicy>> {
    let interval = layers.parse("backup-interval", or_off(duration(SECOND..=8760 * HOUR)))?;
    let keep = layers.parse("backup-keep", integer_in(1..=1000))?;
    let journal_cap_bytes = layers.parse("journal-cap", bytes)?;
    if journal_cap_bytes < segment_bytes.saturating_mul(2) {
        let why = format!(
            "{journal_cap_bytes} bytes are less than two journal segments of {segment_bytes} bytes"
        );
        let name = "journal-cap";
        return Err(ConfigError::Setting { name, origin: layers.origin(name), why });
    }
    Ok(interval.map(|interval| BackupPolicy { interval, journal_cap_bytes, keep }))
}

pub(super) fn log(layers: &Layers, min_free_disk_bytes: u64) -> Checked<LogOptions> {
    Ok(LogOptions {
        format: layers.parse("log-format", log_format)?,
        level: layers.parse("log-level", log_level)?,
        dir: layers.parse("log-dir", optional_path)?,
        keep: layers.parse("log-keep", integer_in(1..=3650))?,
        // Log lines stop before writes of the store do.
        reserve_bytes: min_free_disk_bytes.saturating_mul(2),
    })
}
