//! The program's counter rule beside the model's, over all that their arguments may be.
//!
//! Job: two counters of one shape, one of the program and one of the model, take the same random
//! changes, and small ones take every change there is. Invariant: each answer and each value after
//! it are the same, at the ends of the range of integers too, which the contract suite rarely comes
//! near. Must never: let one of the two decide for the other.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use odometer::domain::counter::{Counter, CounterConfig, Step, Value};
use proptest::prelude::*;

use super::words::{range_of, rule_refusal_of, shape_of};
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
    prop_assert_eq!(shape_of(theirs), shape);
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

/// Every counter whose bounds are among these numbers, with each step, rewindable or not.
fn every_shape(bounds: &[u64], steps: &[u64]) -> Vec<model::Shape> {
    let mut shapes = Vec::new();
    for (min, start, max) in every_three(bounds) {
        for step in steps.iter().copied() {
            let of = |rewindable| model::Shape { start, step, min, max, rewindable };
            shapes.extend([of(false), of(true)]);
        }
    }
    shapes
}

/// Three of these numbers, in every order.
fn every_three(numbers: &[u64]) -> impl Iterator<Item = (u64, u64, u64)> {
    let pairs = numbers.iter().flat_map(|one| numbers.iter().map(move |two| (*one, *two)));
    pairs.flat_map(|(one, two)| numbers.iter().map(move |three| (one, two, *three)))
}

/// Plays every change after every other one, on every shape.
fn play_all(shapes: &[model::Shape], counts: &[u32], values: &[u64]) {
    let increments = counts.iter().map(|count| Change::Increment(*count));
    let sets =
        values.iter().flat_map(|to| [true, false].map(|rewind| Change::Set { to: *to, rewind }));
    let changes: Vec<Change> = increments.chain(sets).collect();
    for shape in shapes {
        for first in &changes {
            for second in &changes {
                play(*shape, &[first.clone(), second.clone()]).unwrap();
            }
        }
    }
}

#[test]
fn small_counters_do_as_the_model_does_after_every_change() {
    play_all(&every_shape(&[0, 1, 2, 3, 5], &[1, 2, 3]), &[1, 2, 3], &[0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn counters_at_the_end_of_the_integers_do_too() {
    let last = [LARGEST - 3, LARGEST - 1, LARGEST];
    play_all(&every_shape(&last, &[1, 2, DEFAULT_MAX]), &[1, 2, 3, MOST_COUNT], &last);
    // Far below the maximum, and yet the sum does not fit.
    play_all(&every_shape(&[0, LARGEST], &[DEFAULT_MAX]), &[1, 2048, MOST_COUNT], &[0, LARGEST]);
}

#[test]
fn a_counter_that_was_not_created_otherwise_is_the_models() {
    let (theirs, ours) = (Counter::default(), model::Counter::default());
    let shape = theirs.config();
    assert_eq!((theirs.value().get(), shape.start().get(), shape.step().get()), (ours.value, 1, 1));
    assert_eq!((shape.min().get(), shape.max().get(), shape.rewindable()), (1, DEFAULT_MAX, true));
    assert_eq!((ours.value, Value::DEFAULT_MAX.get(), Value::MAX.get()), (1, DEFAULT_MAX, LARGEST));
}
