//! Moments and days as people read them.
//!
//! Job: [`rfc3339`] and [`date`]. Invariant: both are UTC, and neither fails: what has no text is an empty one. Must never: read a clock.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Seconds in a day.
pub const SECONDS_PER_DAY: u64 = 86_400;

/// A moment in seconds since 1970, such as `2026-11-24T09:00:00Z`; the year 9999 is the last that has a text.
#[must_use]
pub fn rfc3339(unix_s: u64) -> String {
    to_datetime(unix_s)
        .and_then(|to_datetime| to_datetime.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// A day in days since 1970, such as `2026-11-24`.
#[must_use]
pub fn date(days: u32) -> String {
    let to_datetime = to_datetime(u64::from(days) * SECONDS_PER_DAY);
    to_datetime
        .and_then(|to_datetime| {
            to_datetime.format(format_description!("[year]-[month]-[day]")).ok()
        })
        .unwrap_or_default()
}

fn to_datetime(unix_s: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(unix_s).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_days_are_written_as_rfc_3339_wants_them() {
        assert_eq!(
            (rfc3339(0), rfc3339(1_795_510_800)),
            ("1970-01-01T00:00:00Z".into(), "2026-11-24T09:00:00Z".into())
        );
        assert_eq!(rfc3339(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!((date(0), date(20_781)), ("1970-01-01".to_owned(), "2026-11-24".to_owned()));
        assert_eq!(rfc3339(253_402_300_799), "9999-12-31T23:59:59Z");
    }
}
