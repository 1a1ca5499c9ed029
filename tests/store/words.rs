//! The model's counters in the program's words, and back.
//!
//! Job: translate, for the comparison. Invariant: what is said is what the model holds.
//! Must never: decide anything.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use odometer::domain::counter::{self, CounterRefusal, Step, Value};
use odometer::store::{CounterState, Precondition, Refusal, Version};

use crate::support::model::{self, Condition, RuleRefusal};

pub(crate) fn value(raw: u64) -> Value {
    Value::new(raw).unwrap()
}

/// The model's shape, as the program's says it.
pub(crate) fn shape_of(shape: counter::CounterConfig) -> model::Shape {
    model::Shape {
        start: shape.start().get(),
        step: shape.step().get(),
        min: shape.min().get(),
        max: shape.max().get(),
        rewindable: shape.rewindable(),
    }
}

pub(crate) fn version_of(version: model::Version) -> Version {
    Version { generation: version.generation, revision: version.revision }
}

pub(crate) fn state_of(entry: &model::Entry<u64>) -> CounterState {
    let model::Shape { start, step, min, max, rewindable } = entry.counter.shape;
    let (step, start) = (Step::new(step).unwrap(), value(start));
    let shape =
        counter::CounterConfig::new(start, step, value(min), value(max), rewindable).unwrap();
    let counter = counter::Counter::from_parts(value(entry.counter.value), shape).unwrap();
    // What the program's types make of it says nothing else than the model does.
    let said = (counter.value().get(), shape_of(*counter.config()));
    assert_eq!(said, (entry.counter.value, entry.counter.shape));
    CounterState { counter, version: version_of(entry.version), created_unix_s: entry.data }
}

pub(crate) fn condition_of(expected: &Precondition) -> Condition {
    match expected {
        Precondition::Any => Condition::Exists,
        Precondition::OneOf(versions) => {
            let version = |one: &Version| model::Version {
                generation: one.generation,
                revision: one.revision,
            };
            Condition::OneOf(versions.iter().map(version).collect())
        }
    }
}

pub(crate) fn refusal_of(refusal: model::Refusal<u64>) -> Refusal {
    match refusal {
        model::Refusal::NotFound => Refusal::NoSuchCounter,
        model::Refusal::AlreadyExists => Refusal::CounterExists,
        model::Refusal::DefaultCounter => Refusal::DefaultCounter,
        model::Refusal::Quota(quota) => Refusal::Quota(quota),
        model::Refusal::ConditionFailed(entry) => Refusal::PreconditionFailed(state_of(&entry)),
        model::Refusal::Rule(refusal) => Refusal::Counter(rule_refusal_of(refusal)),
    }
}

/// As the program words what the model's rule refuses.
pub(crate) fn rule_refusal_of(refusal: RuleRefusal) -> CounterRefusal {
    match refusal {
        RuleRefusal::Exhausted { value: at, max, count } => CounterRefusal::Exhausted {
            value: value(at),
            max: value(max),
            count: count.try_into().unwrap(),
        },
        RuleRefusal::OutOfRange { requested, min, max } => CounterRefusal::OutOfRange {
            requested: value(requested),
            min: value(min),
            max: value(max),
        },
        RuleRefusal::RewindRequired { value: at, requested } => {
            CounterRefusal::RewindRequired { value: value(at), requested: value(requested) }
        }
    }
}

/// As the program words what the model's rule issues.
pub(crate) fn range_of(range: model::Range) -> counter::Range {
    counter::Range {
        first: value(range.first),
        last: value(range.last),
        count: range.count.try_into().unwrap(),
    }
}
