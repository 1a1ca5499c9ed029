//! A rate limit as people write it: `1000/s:2000` is 1000 per second with a burst of 2000.
//!
//! Job: [`RateLimit`], read from text and written back.
//! Invariant: count and burst are at least 1; what [`RateLimit::from_str`] took, `Display` writes so that it reads back
//! as the same limit.
//! Must never: read a clock or count anything; that is the throttle's work.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// The units of a rate: their letter and their length in seconds.
const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

/// How much of something may happen: `count` per `per` in the long run, `burst` at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many are allowed within [`RateLimit::per`].
    pub count: NonZeroU32,
    /// The stretch of time that the count is for: a second, a minute or an hour.
    pub per: Duration,
    /// How many may come at once after a pause; the count itself unless written otherwise.
    pub burst: NonZeroU32,
}

/// Why a text is not a [`RateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a rate is a count per s, m or h and an optional burst, both from 1 to 4294967295, such as 1000/s:2000 or 10/m"
)]
pub struct ParseRateLimitError;

impl FromStr for RateLimit {
    type Err = ParseRateLimitError;

    fn from_str(text: &str) -> Result<Self, ParseRateLimitError> {
        let (rate, burst) = match text.split_once(':') {
            Some((rate, burst)) => (rate, Some(burst)),
            None => (text, None),
        };
        let (count, unit) = rate.split_once('/').ok_or(ParseRateLimitError)?;
        let (_, seconds) =
            UNITS.into_iter().find(|(letter, _)| *letter == unit).ok_or(ParseRateLimitError)?;
        let count = positive(count)?;
        let burst = burst.map_or(Ok(count), positive)?;
        Ok(Self { count, per: Duration::from_secs(seconds), burst })
    }
}

/// Digits only: the integer parser of std would also take `+5`.
fn positive(text: &str) -> Result<NonZeroU32, ParseRateLimitError> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseRateLimitError);
    }
    text.parse().map_err(|_| ParseRateLimitError)
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.into_iter().find(|(_, seconds)| Duration::from_secs(*seconds) == self.per) {
            Some((letter, _)) => write!(f, "{}/{letter}", self.count)?,
            // Only a limit built in code can have another stretch; it is shown, but there is no text to read it from.
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
    fn a_limit_reads_and_writes_the_same_text() {
        for (text, expected) in [
            ("1000/s:2000", limit(1000, 1, 2000)),
            ("10/m", limit(10, 60, 10)),
            ("5/h:10", limit(5, 3600, 10)),
            ("4294967295/s", limit(u32::MAX, 1, u32::MAX)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
            assert_eq!(expected.to_string(), text);
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
    fn a_stretch_without_a_letter_is_still_shown() {
        assert_eq!(limit(10, 90, 20).to_string(), "10/90s:20");
    }
}
