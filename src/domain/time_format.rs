//! Formatting of timestamps and dates: UTC, RFC 3339.
//!
//! Job: [`rfc3339`] and [`date`].
//! Invariant: neither fails; a time beyond the year 9999 yields an empty string.
//! Must never: read a clock.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Seconds per day.
pub const SECONDS_PER_DAY: u64 = 86_400;

/// Formats a Unix time in seconds, such as `2026-11-24T09:00:00Z`. Years up to 9999 have a format;
/// a later time yields an empty string.
pub fn rfc3339(unix_s: u64) -> String {
    to_datetime(unix_s).and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// Formats a date, given in days since 1970, such as `2026-11-24`.
pub fn date(days: u32) -> String {
    to_datetime(u64::from(days) * SECONDS_PER_DAY)
        .and_then(|time| time.format(format_description!("[year]-[month]-[day]")).ok())
        .unwrap_or_default()
}

fn to_datetime(unix_s: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(unix_s).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_dates_are_formatted_as_rfc_3339_says() {
        assert_eq!(
            (rfc3339(0), rfc3339(1_795_510_800)),
            ("1970-01-01T00:00:00Z".into(), "2026-11-24T09:00:00Z".into())
        );
        assert_eq!(rfc3339(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!((date(0), date(20_781)), ("1970-01-01".to_owned(), "2026-11-24".to_owned()));
        assert_eq!(rfc3339(253_402_300_799), "9999-12-31T23:59:59Z");
    }
}
