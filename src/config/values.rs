//! A parser for each kind of setting.
//!
//! Job: the functions that `options.rs` names for the settings.
//! Invariant: a parser accepts exactly what its error says is expected; the error is half a
//! sentence that follows setting and value ("expected …").
//! Must never: know which setting it parses, or touch the disk or the network.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tracing_subscriber::EnvFilter;

use crate::domain::rate_limit::RateLimit;
use crate::telemetry::LogFormat;

/// The value, or what was expected.
pub(super) type Parsed<T> = Result<T, String>;

/// Switches a setting off.
const OFF: &str = "off";
/// Lets the program choose.
const AUTO: &str = "auto";

/// `off` is `None`; anything else goes to `parse`, whose error then mentions `off`, too.
pub(super) fn or_off<T>(parse: impl Fn(&str) -> Parsed<T>) -> impl Fn(&str) -> Parsed<Option<T>> {
    or_word(OFF, parse)
}

/// `auto` is `None`: the program chooses; anything else goes to `parse`.
pub(super) fn or_auto<T>(parse: impl Fn(&str) -> Parsed<T>) -> impl Fn(&str) -> Parsed<Option<T>> {
    or_word(AUTO, parse)
}

fn or_word<T>(
    word: &'static str,
    parse: impl Fn(&str) -> Parsed<T>,
) -> impl Fn(&str) -> Parsed<Option<T>> {
    move |text| {
        if text == word {
            Ok(None)
        } else {
            parse(text).map(Some).map_err(|why| format!("{why}, or {word}"))
        }
    }
}

pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:8443 or [::1]:8443".to_owned()
    })
}

pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if text.is_empty() { Err("expected a path".to_owned()) } else { Ok(text.into()) }
}

/// An empty string is `None`.
pub(super) fn optional_path(text: &str) -> Parsed<Option<PathBuf>> {
    Ok((!text.is_empty()).then(|| text.into()))
}

pub(super) fn rate(text: &str) -> Parsed<RateLimit> {
    text.parse().map_err(|why| format!("{why}"))
}

/// Networks separated by commas; an empty string is no network.
pub(super) fn networks(text: &str) -> Parsed<Vec<IpNet>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let expected = "a network is an address with an optional prefix length, \
                    such as 10.0.0.0/8 or ::1; several are separated by commas";
    text.split(',').map(|part| network(part.trim()).ok_or_else(|| expected.to_owned())).collect()
}

/// An address alone is a network of itself; bits after the prefix are dropped.
fn network(text: &str) -> Option<IpNet> {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let network = match prefix {
        Some(prefix) => IpNet::new(address, digits(prefix)?).ok()?,
        None => address.into(),
    };
    // The first 96 bits of an IPv4 address that is mapped into IPv6 only say that it is IPv4.
    let mapped = |v6: Ipv6Net| {
        Ipv4Net::new(v6.addr().to_ipv4_mapped()?, v6.prefix_len().checked_sub(96)?).ok()
    };
    let network = match network {
        IpNet::V6(v6) => mapped(v6).map_or(network, IpNet::from),
        IpNet::V4(_) => network,
    };
    Some(network.trunc())
}

pub(super) fn boolean(text: &str) -> Parsed<bool> {
    text.parse().map_err(|_| "expected true or false".to_owned())
}

pub(super) fn log_format(text: &str) -> Parsed<LogFormat> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err("expected auto, json or text".to_owned()),
    }
}

/// A level or a filter. To the filter library any bare word is the name of a module, so that `inof`
/// would silence everything; here a bare word has to be a level.
pub(super) fn log_level(text: &str) -> Parsed<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let is_bare = |part: &&str| {
        part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':'))
    };
    let bare_words_are_levels = text.split(',').map(str::trim).filter(is_bare).all(is_level);
    if bare_words_are_levels && EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("expected error, warn, info, debug, trace or a filter such as info,odometer=debug"
            .to_owned())
    }
}

/// A whole number within `range`.
pub(super) fn integer_in<N: FromStr + PartialOrd + Display>(
    range: RangeInclusive<N>,
) -> impl Fn(&str) -> Parsed<N> {
    move |text| {
        let expected =
            || format!("expected a whole number from {} to {}", range.start(), range.end());
        digits(text).filter(|number| range.contains(number)).ok_or_else(expected)
    }
}

/// `auto` is one thread per CPU; anything else is a number of threads.
pub(super) fn workers(text: &str) -> Parsed<usize> {
    const MAX_WORKERS: usize = 1024;
    let all = || std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    or_auto(integer_in(1..=MAX_WORKERS))(text).map(|count| count.unwrap_or_else(all))
}

/// A number of bytes, displayed in the largest binary unit that divides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ByteSize(pub(super) u64);

impl ByteSize {
    pub(super) const MIB: u64 = 1 << 20;
    pub(super) const GIB: u64 = 1 << 30;
    const UNITS: [(&str, u64); 9] = [
        ("TiB", 1 << 40),
        ("GiB", Self::GIB),
        ("MiB", Self::MIB),
        ("KiB", 1 << 10),
        ("TB", 1_000_000_000_000),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("KB", 1_000),
        ("B", 1),
    ];
}

impl FromStr for ByteSize {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) = split_unit(text);
        let scale = if unit.is_empty() { Some(1) } else { scale_of(unit, &Self::UNITS) };
        let number: u64 = digits(number).ok_or(())?;
        scale.and_then(|scale| number.checked_mul(scale)).map(Self).ok_or(())
    }
}

impl Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let binary = Self::UNITS.into_iter().take(4);
        match binary
            .into_iter()
            .find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale))
        {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => self.0.fmt(f),
        }
    }
}

/// A size such as `64MiB`, `16MB` or `1024` (bytes).
pub(super) fn bytes(text: &str) -> Parsed<u64> {
    let size: Parsed<ByteSize> =
        text.parse().map_err(|()| "expected a size such as 64MiB, 16MB or 1024".to_owned());
    size.map(|size| size.0)
}

/// A size within `range`, in bytes.
pub(super) fn bytes_within(range: RangeInclusive<u64>) -> impl Fn(&str) -> Parsed<u64> {
    move |text| {
        let (least, most) = (ByteSize(*range.start()), ByteSize(*range.end()));
        let expected = |_: String| {
            format!("expected a size from {least} to {most}, such as 64MiB, 16MB or 1048576")
        };
        let size = bytes(text).map_err(expected)?;
        if range.contains(&size) { Ok(size) } else { Err(expected(String::new())) }
    }
}

/// A duration within `range`: `250ms`, `30s`, `5m` or `1h`; a number without a unit is refused.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Parsed<Duration> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    move |text| {
        let (number, unit) = split_unit(text);
        let millis =
            digits(number).and_then(|number: u64| number.checked_mul(scale_of(unit, &UNITS)?));
        let expected = || {
            let hint = if unit.is_empty() { ", with its unit" } else { "" };
            format!(
                "expected a duration from {:?} to {:?}{hint}, such as 250ms, 30s or 5m",
                range.start(),
                range.end()
            )
        };
        millis.map(Duration::from_millis).filter(|d| range.contains(d)).ok_or_else(expected)
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn scale_of(unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale)
}

/// Digits only: the integer parsers of std would also take `+5`.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("1024", 1024),
            ("7B", 7),
            ("2KB", 2000),
            ("16MB", 16_000_000),
            ("64MiB", 64 << 20),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "MiB",
            "64 MiB",
            "64Mib",
            "64M",
            "-1",
            "+1",
            "1.5MiB",
            "99999999999TiB",
            "18446744073709551616",
        ] {
            assert!(bytes(bad).is_err(), "{bad:?}");
        }
        let segment = bytes_within(ByteSize::MIB..=ByteSize::GIB);
        assert_eq!(segment("1GiB"), Ok(1 << 30));
        for bad in ["1048575", "1025MiB", "x"] {
            let expected = "expected a size from 1MiB to 1GiB, such as 64MiB, 16MB or 1048576";
            assert_eq!(segment(bad).unwrap_err(), expected, "{bad}");
        }
    }

    #[test]
    fn durations_name_their_unit() {
        let parse = duration(Duration::from_millis(100)..=Duration::from_secs(3600));
        for (text, millis) in [("100ms", 100), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "99ms", "61m", "1d", "-1s", "1.5s", "30 s", "18446744073709551615h"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let expected =
            "expected a duration from 100ms to 3600s, with its unit, such as 250ms, 30s or 5m";
        assert_eq!(parse("30").unwrap_err(), expected);
        assert_eq!(duration(Duration::ZERO..=Duration::from_secs(60))("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn a_misspelt_level_is_no_filter() {
        for good in [
            "info",
            "TRACE",
            "off",
            "info,odometer=debug",
            "warn,hyper::proto=trace",
            "odometer[span]=debug",
        ] {
            assert!(log_level(good).is_ok(), "{good:?}");
        }
        for bad in ["", "info, sled=warn", "inof", "info,sled", "odometer=inof", "info,"] {
            assert!(log_level(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn off_and_auto_are_words() {
        assert_eq!(or_off(address)("off"), Ok(None));
        assert!(or_off(address)("localhost:1").unwrap_err().ends_with("[::1]:8443, or off"));
        assert!(workers("auto").unwrap() >= 1);
        assert_eq!(workers("3"), Ok(3));
        assert!(workers("0").unwrap_err().ends_with("from 1 to 1024, or auto"));
    }

    #[test]
    fn lists_of_networks() {
        assert_eq!(networks(" "), Ok(Vec::new()));
        assert_eq!(networks("10.0.0.0/8, ::1").unwrap().len(), 2);
        assert!(networks("10.0.0.0/8,").is_err());
        assert_eq!(
            networks("::1, x").unwrap_err(),
            "a network is an address with an optional prefix length, such as 10.0.0.0/8 or ::1; \
             several are separated by commas"
        );
    }

    #[test]
    fn networks_are_shown_without_the_bits_after_their_prefix() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/008", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.168.1.7", "192.168.1.7/32"),
            ("::1", "::1/128"),
            ("fd12::1/8", "fd00::/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.3/96", "0.0.0.0/0"),
            ("::ffff:10.1.2.3/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn any_other_text_is_no_network() {
        for bad in [
            "",
            "10.0.0.0/33",
            "::1/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "host",
            "1.2.3.4/256",
            " ::1",
            "10.0.0.0/8/8",
            "10.0.0.0 /8",
            "010.0.0.0/8",
            "::1%1/128",
        ] {
            assert_eq!(network(bad), None, "{bad:?}");
        }
    }
}
