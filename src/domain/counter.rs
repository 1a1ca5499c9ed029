//! The counter and the one rule that makes its next value.
//!
//! Job: pure types ([`Value`], [`CounterName`], [`CounterConfig`], [`Counter`], [`Range`]) and the
//! two operations on a counter, [`Counter::advance`] and [`Counter::set`]. Every store calls these
//! inside its commit, so the rule exists once.
//! Invariant: a refused operation leaves the counter unchanged; a value is always within its
//! counter's bounds and never wraps.
//! Must never: read a clock, touch a disk, know a tenant or HTTP.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::failpoint::failpoint;

/// A counter's value: 0 ..= 2^63−1 ([`Value::MAX`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(u64);

impl Value {
    /// The smallest value that any counter may hold.
    pub const ZERO: Self = Self(0);
    /// The default start of a counter: its value before the first increment.
    pub const FIRST: Self = Self(1);
    /// 2^53−1, the default maximum of a counter: the largest integer that every JSON parser
    /// represents exactly.
    pub const DEFAULT_MAX: Self = Self((1 << 53) - 1);
    /// 2^63−1, the largest value that any counter may reach.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The value `raw`; `None` unless it is within 0 ..= 2^63−1.
    pub const fn new(raw: u64) -> Option<Self> {
        if raw <= Self::MAX.0 { Some(Self(raw)) } else { None }
    }

    /// The value as a plain integer.
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

/// The amount that one increment adds to a counter: 1 ..= 2^53−1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(u64);

impl Step {
    /// The default step.
    pub const ONE: Self = Self(1);
    /// 2^53−1.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// The step `raw`; `None` unless it is within 1 ..= 2^53−1.
    pub const fn new(raw: u64) -> Option<Self> {
        if raw >= Self::ONE.0 && raw <= Self::MAX.0 { Some(Self(raw)) } else { None }
    }

    /// The step as a plain integer.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A counter's name within its tenant: 1–128 of `[A-Za-z0-9._-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterName(Arc<str>);

/// The string is not a [`CounterName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a counter name is 1 to 128 characters of A-Z a-z 0-9 . _ -")]
pub struct ParseCounterNameError;

impl CounterName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Checks `string` and copies it.
    ///
    /// # Errors
    /// [`ParseCounterNameError`] if it is empty, longer than 128 bytes or has another character.
    pub fn parse(string: &str) -> Result<Self, ParseCounterNameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if string.is_empty() || string.len() > Self::MAX_BYTES || !string.bytes().all(allowed) {
            return Err(ParseCounterNameError);
        }
        Ok(Self(string.into()))
    }

    /// The name of the counter behind `/api/v1/integer`, which every tenant has.
    pub fn default_counter() -> Self {
        static NAME: std::sync::OnceLock<CounterName> = std::sync::OnceLock::new();
        NAME.get_or_init(|| Self("default".into())).clone()
    }

    /// Whether this is the name of [`CounterName::default_counter`].
    pub fn is_default(&self) -> bool {
        &*self.0 == "default"
    }

    /// The name as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CounterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The integers that one increment issues: `first`, then every step up to `last`, without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The smallest integer.
    pub first: Value,
    /// The largest integer; it is also the counter's value after the increment.
    pub last: Value,
    /// The number of integers, at least 1.
    pub count: u32,
}

/// Why an operation on a counter was refused. The counter is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CounterRefusal {
    /// The increment would exceed the maximum.
    #[error("the counter is at {value} and its maximum is {max}: {count} more do not fit")]
    Exhausted {
        /// The current value.
        value: Value,
        /// The counter's maximum.
        max: Value,
        /// The number of integers requested.
        count: u32,
    },
    /// The new value is outside the counter's bounds.
    #[error("{requested} is outside this counter's range of {min} to {max}")]
    OutOfRange {
        /// The value requested.
        requested: Value,
        /// The counter's minimum.
        min: Value,
        /// The counter's maximum.
        max: Value,
    },
    /// The new value is lower than the current one, and the request did not allow that.
    #[error("the counter is at {value}; setting it to {requested} would make integers repeat")]
    RewindRequired {
        /// The current value.
        value: Value,
        /// The value requested.
        requested: Value,
    },
}

/// The configuration of a counter, fixed when it is created: start, step, bounds, and whether it is
/// rewindable. `min <= start <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterConfig {
    start: Value,
    step: Step,
    min: Value,
    max: Value,
    rewindable: bool,
}

/// The numbers violate `min <= start <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("start must lie between min and max; {min} <= {start} <= {max} does not hold")]
pub struct InvalidCounterConfig {
    start: Value,
    min: Value,
    max: Value,
}

impl CounterConfig {
    /// The configuration of the counter `default`.
    pub const DEFAULT: Self = Self {
        start: Value::FIRST,
        step: Step::ONE,
        min: Value::FIRST,
        max: Value::DEFAULT_MAX,
        rewindable: true,
    };

    /// Checks the bounds. A `rewindable` counter may be set to a lower value without `rewind`.
    ///
    /// # Errors
    /// [`InvalidCounterConfig`] unless `min <= start <= max`.
    pub fn new(
        start: Value,
        step: Step,
        min: Value,
        max: Value,
        rewindable: bool,
    ) -> Result<Self, InvalidCounterConfig> {
        let below = u64::from(failpoint!("start-below-minimum-accepted"));
        let above = u64::from(failpoint!("start-above-maximum-accepted"));
        if min.0 <= start.0 + below && start.0 <= max.0 + above {
            Ok(Self { start, step, min, max, rewindable })
        } else {
            Err(InvalidCounterConfig { start, min, max })
        }
    }

    /// The value before the first increment, which issues `start` + `step`.
    pub fn start(&self) -> Value {
        self.start
    }

    /// The amount that an increment adds.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The smallest value that the counter may be set to.
    pub fn min(&self) -> Value {
        self.min
    }

    /// The largest value that the counter may reach.
    pub fn max(&self) -> Value {
        self.max
    }

    /// Whether the counter may be set to a lower value without `rewind`.
    pub fn rewindable(&self) -> bool {
        self.rewindable
    }
}

/// A counter: its configuration and the value issued last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    value: Value,
    config: CounterConfig,
}

impl Default for Counter {
    fn default() -> Self {
        Self::new(CounterConfig::DEFAULT)
    }
}

/// The largest number of integers that one increment may issue.
pub const MAX_COUNT: u32 = 1_000_000;

impl Counter {
    /// A counter before its first increment.
    pub fn new(config: CounterConfig) -> Self {
        Self { value: config.start, config }
    }

    /// A counter from its stored parts; `None` if `value` is outside the bounds.
    pub fn from_parts(value: Value, config: CounterConfig) -> Option<Self> {
        (config.min <= value && value <= config.max).then_some(Self { value, config })
    }

    /// The value issued last or set; the start before the first increment.
    pub fn value(&self) -> Value {
        self.value
    }

    /// The counter's configuration.
    pub fn config(&self) -> &CounterConfig {
        &self.config
    }

    /// Issues the next `count` integers, a step apart: all of them or, near the maximum, none.
    ///
    /// # Errors
    /// [`CounterRefusal::Exhausted`] if the last one would exceed the maximum; the counter is
    /// unchanged.
    ///
    /// # Panics
    /// If `count` is 0; callers validate it.
    pub fn advance(&mut self, count: u32) -> Result<Range, CounterRefusal> {
        assert!(count > 0, "an increment issues at least one integer");
        let exhausted =
            CounterRefusal::Exhausted { value: self.value, max: self.config.max, count };
        let step = self.config.step.0;
        let taken = u64::from(count) - u64::from(failpoint!("range-one-short"));
        let wrapped = failpoint!("increment-wraps-around").then_some(step);
        let distance = step.checked_mul(taken).or(wrapped).ok_or(exhausted)?;
        let last = self
            .value
            .checked_add(distance)
            .filter(|last| *last <= self.config.max || failpoint!("maximum-not-checked"))
            .filter(|last| *last < self.config.max || !failpoint!("maximum-never-issued"))
            .ok_or(exhausted)?;
        let early = u64::from(failpoint!("range-begins-one-too-low"));
        let first = self.value.checked_add(step - early).ok_or(exhausted)?;
        self.value = last;
        Ok(Range { first, last, count })
    }

    /// Sets the value. A lower value makes integers repeat, so it needs `rewind` or a rewindable
    /// counter.
    ///
    /// # Errors
    /// [`CounterRefusal::OutOfRange`] if `value` is outside the bounds,
    /// [`CounterRefusal::RewindRequired`] if it is lower and neither applies; the counter is
    /// unchanged.
    pub fn set(&mut self, value: Value, rewind: bool) -> Result<Value, CounterRefusal> {
        let CounterConfig { min, max, rewindable, .. } = self.config;
        let below = u64::from(failpoint!("set-below-minimum-accepted"));
        let above = u64::from(failpoint!("set-above-maximum-accepted"));
        if value.0 + below < min.0 || value.0 > max.0 + above {
            return Err(CounterRefusal::OutOfRange { requested: value, min, max });
        }
        let may_rewind = rewind || rewindable || failpoint!("rewind-not-asked-for");
        let is_equal = failpoint!("set-to-the-same-value-refused") && value == self.value;
        if (value < self.value || is_equal) && !may_rewind {
            return Err(CounterRefusal::RewindRequired { value: self.value, requested: value });
        }
        self.value = value;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counter(value: u64, step: u64, max: u64) -> Counter {
        let [start, max] = [1, max].map(|raw| Value::new(raw).unwrap());
        let config =
            CounterConfig::new(start, Step::new(step).unwrap(), start, max, false).unwrap();
        Counter::from_parts(Value::new(value).unwrap(), config).unwrap()
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "default", "A.b_c-9", &"x".repeat(128)] {
            assert_eq!(CounterName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "a/b", "ä", "a\0", &"x".repeat(129)] {
            assert_eq!(CounterName::parse(bad), Err(ParseCounterNameError), "{bad:?}");
        }
    }

    #[test]
    fn values_end_at_two_to_the_63_minus_1() {
        assert_eq!(Value::new(0), Some(Value::ZERO));
        assert_eq!(Value::new(i64::MAX as u64), Some(Value::MAX));
        assert_eq!(Value::new(i64::MAX as u64 + 1), None);
        assert_eq!((Step::new(0), Step::new(1 << 53)), (None, None));
    }

    #[test]
    fn a_full_counter_refuses_and_stays() {
        let largest = Value::MAX.get();
        let widest = Step::MAX.get();
        for (value, step, max, count) in [
            (9, 1, 9, 1),
            (7, 1, 9, 3),
            (7, 3, 9, 1),
            (1, widest, largest, 2000),
            (largest, 1, largest, 1),
            (largest - 1, 1, largest, 2),
            (largest - 1, widest, largest, 1),
        ] {
            let mut c = counter(value, step, max);
            assert!(matches!(c.advance(count), Err(CounterRefusal::Exhausted { .. })));
            assert_eq!(c, counter(value, step, max));
        }
    }

    #[test]
    fn a_set_stays_within_the_bounds_and_goes_down_only_with_rewind() {
        let value = |raw| Value::new(raw).unwrap();
        let mut c = counter(5, 1, 9);
        for bad in [0, 10] {
            assert!(matches!(c.set(value(bad), true), Err(CounterRefusal::OutOfRange { .. })));
        }
        assert!(matches!(c.set(value(4), false), Err(CounterRefusal::RewindRequired { .. })));
        assert_eq!(c, counter(5, 1, 9));
        assert_eq!(
            (c.set(value(5), false), c.set(value(9), false), c.set(value(1), true)),
            (Ok(value(5)), Ok(value(9)), Ok(value(1)))
        );
        assert_eq!(Counter::default().set(Value::FIRST, false), Ok(Value::FIRST));
        assert!(CounterConfig::new(value(1), Step::ONE, value(2), value(3), false).is_err());
        assert_eq!(Counter::from_parts(value(0), CounterConfig::DEFAULT), None);
    }

    proptest! {
        #[test]
        fn ranges_follow_one_another_without_a_gap(
            start in 1u64..1000,
            step in 1u64..9,
            counts in prop::collection::vec(1u32..50, 1..50),
        ) {
            let mut c = counter(start, step, 1500);
            let mut expected_first = start + step;
            for count in counts {
                let before = c;
                match c.advance(count) {
                    Ok(range) => {
                        prop_assert_eq!((range.first.get(), range.count), (expected_first, count));
                        let last = expected_first + step * u64::from(count - 1);
                        prop_assert_eq!(range.last.get(), last);
                        prop_assert_eq!(c.value(), range.last);
                        expected_first = range.last.get() + step;
                    }
                    Err(_) => {
                        prop_assert!(before.value().get() + step * u64::from(count) > 1500);
                        prop_assert_eq!(c, before);
                    }
                }
            }
        }
    }
}
