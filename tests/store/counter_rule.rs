//! The program's counter rule beside the model's, over all that their arguments may be.
//!
//! Job: two counters of one shape, one of the program and one of the model, take the same random
//! changes. Invariant: each answer and each value after it are the same, at the ends of the range
//! of integers too, which the contract suite rarely comes near. Must never: let one of the two
//! decide for the other.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use odometer::domain::counter::{Counter, CounterConfig, Step, Value};
use proptest::prelude::*;

use super::model_store::{range_of, rule_refusal_of};
use crate::support::model::{self, DEFAULT_MAX, LARGEST};

const MOST_COUNT: u32 = 1_000_000;

/// Any value, and more often one near an end or near one that JSON readers stumble over.
fn values() -> impl Strategy<Value = u64> {
    let near = |middle: u64| middle.saturating_sub(40)..=middle.saturating_add(40).min(LARGEST);
    prop_oneof![2 => 0..=LARGEST, 3 => 0u64..60, 2 => near(DEFAULT_MAX), 3 => near(LARGEST)]
}

fn steps() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(1u64), 3 => 2u64..50, 2 => 1..=DEFAULT_MAX, 1 => DEFAULT_MAX - 3..=DEFAULT_MAX]
}

fn shapes() -> impl Strategy<Value = model::Shape> {
    (values(), values(), values(), steps(), any::<bool>()).prop_map(
        |(start, min, max, step, rewindable)| model::Shape { start, step, min, max, rewindable },
    )
}

/// Three of four are sorted into a sound shape.
fn mostly_sound() -> impl Strategy<Value = model::Shape> {
    (shapes(), 0..4u8).prop_map(|(shape, dice)| {
        let mut bounds = [shape.min, shape.start, shape.max];
        if dice > 0 {
            bounds.sort_unstable();
        }
        model::Shape { min: bounds[0], start: bounds[1], max: bounds[2], ..shape }
    })
}

#[derive(Clone, Debug)]
enum Change {
    Increment(u32),
    Set {
        to: u64,
        rewind: bool,
    },
    /// To so much below the maximum, or to the maximum plus one.
    Near {
        below: u64,
        rewind: bool,
    },
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let count = prop_oneof![4 => Just(1u32), 3 => 1u32..30, 1 => 1..=MOST_COUNT];
    let change = prop_oneof![
        4 => count.prop_map(Change::Increment),
        2 => (values(), any::<bool>()).prop_map(|(to, rewind)| Change::Set { to, rewind }),
        2 => (0u64..60, any::<bool>()).prop_map(|(below, rewind)| Change::Near { below, rewind }),
    ];
    prop::collection::vec(change, 1..30)
}

fn play(shape: model::Shape, changes: &[Change]) -> Result<(), TestCaseError> {
    let value = |raw: u64| Value::new(raw).unwrap();
    let (start, step) = (value(shape.start), Step::new(shape.step).unwrap());
    let theirs =
        CounterConfig::new(start, step, value(shape.min), value(shape.max), shape.rewindable);
    prop_assert_eq!(theirs.is_ok(), shape.is_sound());
    let Ok(theirs) = theirs else { return Ok(()) };
    let (mut counter, mut expected) = (Counter::new(theirs), model::Counter::new(shape));
    for change in changes {
        let (to, rewind) = match *change {
            Change::Increment(count) => {
                let answer =
                    expected.increment(count.into()).map(range_of).map_err(rule_refusal_of);
                prop_assert_eq!(counter.advance(count), answer);
                prop_assert_eq!(counter.value().get(), expected.value);
                continue;
            }
            Change::Set { to, rewind } => (to, rewind),
            Change::Near { below: 0, rewind } => (shape.max.saturating_add(1).min(LARGEST), rewind),
            Change::Near { below, rewind } => (shape.max.saturating_sub(below), rewind),
        };
        let answer = expected.set(to, rewind).map(|()| value(to)).map_err(rule_refusal_of);
        prop_assert_eq!(counter.set(value(to), rewind), answer);
        prop_assert_eq!(counter.value().get(), expected.value);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_program_counts_as_the_model_does(shape in mostly_sound(), changes in changes()) {
        play(shape, &changes)?;
    }
}

#[test]
fn a_counter_that_was_not_created_otherwise_is_the_models() {
    let (theirs, ours) = (Counter::default(), model::Counter::default());
    let shape = theirs.config();
    assert_eq!((theirs.value().get(), shape.start().get(), shape.step().get()), (ours.value, 1, 1));
    assert_eq!((shape.min().get(), shape.max().get(), shape.rewindable()), (1, DEFAULT_MAX, true));
    assert_eq!((ours.value, Value::DEFAULT_MAX.get(), Value::MAX.get()), (1, DEFAULT_MAX, LARGEST));
}
