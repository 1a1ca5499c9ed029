//! The counter and the one rule that makes its next value.
//!
//! Job: pure types ([`Value`], [`CounterName`], [`Counter`], [`Range`]) and the two changes a counter knows,
//! [`Counter::advance`] and [`Counter::set`]. Every store calls these inside its commit, so the rule exists once.
//! Invariant: a refused change leaves the counter as it was; a value is always within 1 ..= 2^63−1 and never wraps.
//! Must never: read a clock, touch a disk, know a tenant or HTTP.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// A counter's value: 1 ..= 2^63−1 ([`Value::LARGEST`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(u64);

impl Value {
    /// What a counter holds before its first increment.
    pub const FIRST: Self = Self(1);
    /// 2^53−1, the largest integer that every JSON reader keeps exact: the default maximum of a counter.
    pub const DEFAULT_MAX: Self = Self((1 << 53) - 1);
    /// 2^63−1, the largest value that any counter may reach.
    pub const LARGEST: Self = Self(i64::MAX as u64);

    /// Takes `raw` if it is within 1 ..= 2^63−1.
    #[must_use]
    pub const fn new(raw: u64) -> Option<Self> {
        if raw >= Self::FIRST.0 && raw <= Self::LARGEST.0 { Some(Self(raw)) } else { None }
    }

    /// The value as a plain integer, for the wire and the disk.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    fn checked_add(self, amount: u64) -> Option<Self> {
        self.0.checked_add(amount).and_then(Self::new)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A counter's name within its tenant: 1–128 of `[A-Za-z0-9._-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterName(Arc<str>);

/// Why a text is not a [`CounterName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a counter name is 1 to 128 characters of A-Z a-z 0-9 . _ -")]
pub struct BadCounterName;

impl CounterName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// [`BadCounterName`] if the text is empty, longer than 128 bytes or has another character.
    pub fn parse(text: &str) -> Result<Self, BadCounterName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > Self::MAX_BYTES || !text.bytes().all(allowed) {
            return Err(BadCounterName);
        }
        Ok(Self(text.into()))
    }

    /// The name of the counter behind `/api/v1/integer`.
    #[must_use]
    pub fn default_counter() -> Self {
        static NAME: std::sync::OnceLock<CounterName> = std::sync::OnceLock::new();
        NAME.get_or_init(|| Self("default".into())).clone()
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Integers reserved by one change: `first ..= last`, both of them issued, nothing between them missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The smallest integer reserved.
    pub first: Value,
    /// The largest integer reserved, which is also the counter's value after the change.
    pub last: Value,
}

/// Why a counter did not change; the caller is at fault and the counter is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CounterRefusal {
    /// The maximum would be passed.
    #[error("the counter is at {value} and its maximum is {max}: {count} more do not fit")]
    Exhausted {
        /// The value, which stays.
        value: Value,
        /// The counter's maximum.
        max: Value,
        /// How many integers were asked for.
        count: u32,
    },
    /// A set to a value that the counter may not hold.
    #[error("{requested} is outside this counter's range of 1 to {max}")]
    OutOfRange {
        /// What was asked for.
        requested: Value,
        /// The counter's maximum.
        max: Value,
    },
}

/// A counter: the value issued last, and the maximum it may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The value issued last (or [`Value::FIRST`] before any increment).
    pub value: Value,
    /// The largest value this counter may reach.
    pub max: Value,
}

impl Default for Counter {
    fn default() -> Self {
        Self { value: Value::FIRST, max: Value::DEFAULT_MAX }
    }
}

/// How many integers one increment may reserve at most.
pub const MAX_COUNT: u32 = 1_000_000;

impl Counter {
    /// Reserves the next `count` integers: all of them or, near the maximum, none.
    ///
    /// # Errors
    /// [`CounterRefusal::Exhausted`] if the last of them would pass the maximum; the counter is unchanged.
    ///
    /// # Panics
    /// If `count` is 0; callers check it at the door.
    pub fn advance(&mut self, count: u32) -> Result<Range, CounterRefusal> {
        assert!(count > 0, "an increment reserves at least one integer");
        let exhausted = CounterRefusal::Exhausted { value: self.value, max: self.max, count };
        let last = self.value.checked_add(u64::from(count)).ok_or(exhausted)?;
        if last > self.max {
            return Err(exhausted);
        }
        let first = self.value.checked_add(1).ok_or(exhausted)?;
        self.value = last;
        Ok(Range { first, last })
    }

    /// Sets the value, up or down: setting it down makes numbers repeat, which is the caller's wish.
    ///
    /// # Errors
    /// [`CounterRefusal::OutOfRange`] if `value` passes the maximum; the counter is unchanged.
    pub fn set(&mut self, value: Value) -> Result<Value, CounterRefusal> {
        if value > self.max {
            return Err(CounterRefusal::OutOfRange { requested: value, max: self.max });
        }
        self.value = value;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counter(value: u64, max: u64) -> Counter {
        Counter { value: Value::new(value).unwrap(), max: Value::new(max).unwrap() }
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "default", "A.b_c-9", &"x".repeat(128)] {
            assert_eq!(CounterName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "a/b", "ä", "a\0", &"x".repeat(129)] {
            assert_eq!(CounterName::parse(bad), Err(BadCounterName), "{bad:?}");
        }
    }

    #[test]
    fn values_end_at_two_to_the_63_minus_1() {
        assert_eq!(Value::new(0), None);
        assert_eq!(Value::new(i64::MAX as u64), Some(Value::LARGEST));
        assert_eq!(Value::new(i64::MAX as u64 + 1), None);
    }

    #[test]
    fn a_full_counter_refuses_and_stays() {
        let largest = Value::LARGEST.get();
        for (value, max, count) in [(9, 9, 1), (7, 9, 3), (largest, largest, 1), (largest - 1, largest, 2)] {
            let mut c = counter(value, max);
            assert!(matches!(c.advance(count), Err(CounterRefusal::Exhausted { .. })));
            assert_eq!(c, counter(value, max));
        }
    }

    proptest! {
        #[test]
        fn ranges_follow_one_another_without_a_hole(start in 1u64..1000, counts in prop::collection::vec(1u32..50, 1..50)) {
            let mut c = counter(start, 1500);
            let mut expected_first = start + 1;
            for count in counts {
                let before = c;
                match c.advance(count) {
                    Ok(range) => {
                        prop_assert_eq!(range.first.get(), expected_first);
                        prop_assert_eq!(range.last.get(), expected_first + u64::from(count) - 1);
                        prop_assert_eq!(c.value, range.last);
                        expected_first = range.last.get() + 1;
                    }
                    Err(_) => {
                        prop_assert!(before.value.get() + u64::from(count) > 1500);
                        prop_assert_eq!(c, before);
                    }
                }
            }
        }
    }
}
