//! The syntax of a rate limit: `1000/s:2000` is 1000 per second with a burst of 2000.
//!
//! Job: [`RateLimit`], parsed from a string and formatted as one.
//! Invariant: count and burst are at least 1; parsing what `Display` wrote yields the same limit.
//! Must never: read a clock or count anything; the rate limiters do that.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// The units of a rate: the letter and the length in seconds.
const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

/// A rate limit: `count` per `per` in the long run, and at most `burst` at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The number allowed within [`RateLimit::per`].
    pub count: NonZeroU32,
    /// The period that the count is for: a second, a minute or an hour.
    pub per: Duration,
    /// The number allowed at once after a pause; equal to `count` unless given.
    pub burst: NonZeroU32,
}

/// The string is not a [`RateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a rate is a count per s, m or h and an optional burst, both from 1 to 4294967295, \
     such as 1000/s:2000 or 10/m"
)]
pub struct ParseRateLimitError;

impl FromStr for RateLimit {
    type Err = ParseRateLimitError;

    fn from_str(string: &str) -> Result<Self, ParseRateLimitError> {
        let (rate, burst) = match string.split_once(':') {
            Some((rate, burst)) => (rate, Some(burst)),
            None => (string, None),
        };
        let (count, unit) = rate.split_once('/').ok_or(ParseRateLimitError)?;
        let (_, seconds) =
            UNITS.into_iter().find(|(letter, _)| *letter == unit).ok_or(ParseRateLimitError)?;
        let count = positive(count)?;
        let burst = burst.map_or(Ok(count), positive)?;
        Ok(Self { count, per: Duration::from_secs(seconds), burst })
    }
}

/// Parses a positive number of digits only: std's integer parser also accepts `+5`.
fn positive(string: &str) -> Result<NonZeroU32, ParseRateLimitError> {
    if !string.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseRateLimitError);
    }
    string.parse().map_err(|_| ParseRateLimitError)
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.into_iter().find(|(_, seconds)| Duration::from_secs(*seconds) == self.per) {
            Some((letter, _)) => write!(f, "{}/{letter}", self.count)?,
            // Only a limit built in code can have another period: `Display` shows it, but no string
            // parses to it.
            None => write!(f, "{}/{:?}", self.count, self.per)?,
        }
        if self.burst == self.count { Ok(()) } else { write!(f, ":{}", self.burst) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(count: u32, seconds: u64, burst: u32) -> RateLimit {
        RateLimit {
            count: NonZeroU32::new(count).unwrap(),
            per: Duration::from_secs(seconds),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    #[test]
    fn a_limit_is_parsed_from_the_string_that_it_displays() {
        for (string, expected) in [
            ("1000/s:2000", limit(1000, 1, 2000)),
            ("10/m", limit(10, 60, 10)),
            ("5/h:10", limit(5, 3600, 10)),
            ("4294967295/s", limit(u32::MAX, 1, u32::MAX)),
        ] {
            assert_eq!(string.parse(), Ok(expected), "{string}");
            assert_eq!(expected.to_string(), string);
        }
    }

    #[test]
    fn a_burst_equal_to_the_count_is_left_out() {
        assert_eq!("7/s:7".parse::<RateLimit>().unwrap().to_string(), "7/s");
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "10",
            "/s",
            "10/",
            "10/d",
            "10/S",
            "0/s",
            "10/s:0",
            "10/s:",
            "-1/s",
            "+1/s",
            "1.5/s",
            " 1/s",
            "1/s ",
            "1/s:2:3",
            "1/s/m",
            "4294967296/s",
            "1/s:4294967296",
            "off",
        ] {
            assert_eq!(bad.parse::<RateLimit>(), Err(ParseRateLimitError), "{bad:?}");
        }
    }

    #[test]
    fn a_period_without_a_letter_is_still_shown() {
        assert_eq!(limit(10, 90, 20).to_string(), "10/90s:20");
    }
}
