//! One counter: its shape, its value, and the two changes that it knows.
//!
//! Job: [`Counter::increment`] and [`Counter::set`] as the contract states them. Invariant: a
//! refused change leaves the counter as it was, and a value is within `min` and `max`.
//! Must never: wrap; sums are made in 128 bits and compared before they are narrowed.

/// The maximum of a counter that was not created otherwise: 2^53 − 1.
pub(crate) const DEFAULT_MAX: u64 = (1 << 53) - 1;
/// The largest value of all: 2^63 − 1.
pub(crate) const LARGEST: u64 = (1 << 63) - 1;

/// What is fixed when a counter is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The value before the first increment, which issues `start + step`.
    pub(crate) start: u64,
    pub(crate) step: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
    /// Whether a set to a lower value needs no `rewind`.
    pub(crate) rewindable: bool,
}

impl Shape {
    /// Of the counter `default`, which every tenant has.
    pub(crate) const DEFAULT: Self =
        Self { start: 1, step: 1, min: 1, max: DEFAULT_MAX, rewindable: true };

    /// Whether there can be such a counter.
    pub(crate) fn is_sound(&self) -> bool {
        self.min <= self.start && self.start <= self.max
    }
}

/// The integers that one increment issued: `count` of them, from `first` to `last`, a step apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) count: u64,
}

/// Why the counter stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleRefusal {
    /// So many more do not fit below the maximum.
    Exhausted { value: u64, max: u64, count: u64 },
    /// The counter may not hold this value.
    OutOfRange { requested: u64, min: u64, max: u64 },
    /// Integers would repeat, and the request does not say that this is wanted.
    RewindRequired { value: u64, requested: u64 },
}

/// A counter: the integer issued last, within its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counter {
    pub(crate) value: u64,
    pub(crate) shape: Shape,
}

impl Default for Counter {
    fn default() -> Self {
        Self::new(Shape::DEFAULT)
    }
}

impl Counter {
    /// A counter before its first change.
    pub(crate) fn new(shape: Shape) -> Self {
        Self { value: shape.start, shape }
    }

    /// Issues the next `count` integers, all or none.
    pub(crate) fn increment(&mut self, count: u64) -> Result<Range, RuleRefusal> {
        let Shape { step, max, .. } = self.shape;
        let last = u128::from(self.value) + u128::from(step) * u128::from(count);
        if last > u128::from(max) {
            return Err(RuleRefusal::Exhausted { value: self.value, max, count });
        }
        let first = self.value + step;
        self.value = u64::try_from(last).expect("it is not above the maximum");
        Ok(Range { first, last: self.value, count })
    }

    /// Sets the value; a lower one needs `rewind`, or a counter that is rewindable.
    pub(crate) fn set(&mut self, requested: u64, rewind: bool) -> Result<(), RuleRefusal> {
        let Self { value, shape: Shape { min, max, rewindable, .. } } = *self;
        if !(min..=max).contains(&requested) {
            return Err(RuleRefusal::OutOfRange { requested, min, max });
        }
        let repeats = requested < value;
        if repeats && !(rewind || rewindable) {
            return Err(RuleRefusal::RewindRequired { value, requested });
        }
        self.value = requested;
        Ok(())
    }
}
