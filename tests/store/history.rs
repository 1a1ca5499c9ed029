//! Proves the history checker: each kind of wrong history is caught, correct ones
//! pass, and a million operations are judged in seconds.
//!
//! Needs no server. A checker that lets one of these pass would make every fault test worthless.

use crate::support::Random;
use crate::support::history::{Kind, Op, Operation, Outcome, Rules, Verdict, check};
use crate::support::model::Counter;

/// An operation of one tenant's default counter.
fn told(op: Op, sent: u64, returned: u64, outcome: Outcome) -> Operation {
    Operation { client: 0, tenant: 0, counter: 0, op, sent, resent: sent, returned, outcome }
}

fn increment(sent: u64, returned: u64, value: u64) -> Operation {
    told(Op::Increment, sent, returned, Outcome::Ok(value))
}

fn unanswered(sent: u64, returned: u64) -> Operation {
    told(Op::Increment, sent, returned, Outcome::Unknown)
}

fn read(sent: u64, returned: u64, value: u64) -> Operation {
    told(Op::Read, sent, returned, Outcome::Ok(value))
}

fn set(sent: u64, returned: u64, value: u64) -> Operation {
    told(Op::Set(value), sent, returned, Outcome::Ok(value))
}

fn judge(operations: &[Operation], restarts: &[u64]) -> Verdict {
    check(operations, &Rules { restarts: restarts.to_vec(), ..Rules::default() })
}

#[track_caller]
fn assert_caught(operations: &[Operation], restarts: &[u64], kind: Kind) {
    let verdict = judge(operations, restarts);
    assert!(verdict.has(kind), "{kind:?} was not caught: {verdict:?}");
}

#[track_caller]
fn assert_passes(operations: &[Operation], restarts: &[u64]) -> Verdict {
    let verdict = judge(operations, restarts);
    verdict.assert_clean("a correct history");
    verdict
}

#[test]
fn catches_an_acknowledgement_before_the_sync() {
    let lost = [increment(0, 1, 2), increment(2, 3, 3), read(20, 21, 2)];
    assert_caught(&lost, &[10], Kind::Backwards);
    let lost_and_issued_again = [increment(0, 1, 2), increment(2, 3, 3), increment(20, 21, 3)];
    assert_caught(&lost_and_issued_again, &[10], Kind::Duplicate);
    let all_lost = [increment(0, 1, 2), read(20, 21, 1)];
    assert_caught(&all_lost, &[10], Kind::Backwards);
}

#[test]
fn catches_a_read_of_the_undurable_value() {
    // The increment to 3 was under way, so reading 3 is fine until the power cut takes it back.
    let read_then_gone = [increment(0, 1, 2), unanswered(2, 9), read(3, 4, 3), read(20, 21, 2)];
    assert_caught(&read_then_gone, &[10], Kind::Backwards);
    let read_then_issued =
        [increment(0, 1, 2), unanswered(2, 9), read(3, 4, 3), increment(20, 21, 3)];
    assert_caught(&read_then_issued, &[10], Kind::Order);
    let nobody_asked_for_it = [increment(0, 1, 2), read(3, 4, 3), increment(5, 6, 4)];
    assert_caught(&nobody_asked_for_it, &[], Kind::Skipped);
}

#[test]
fn catches_a_lost_compare_and_set() {
    let two_took_the_same_base = [increment(0, 5, 2), increment(1, 4, 2)];
    assert_caught(&two_took_the_same_base, &[], Kind::Duplicate);
    let set_was_overwritten = [increment(0, 1, 2), set(2, 3, 100), increment(4, 5, 3)];
    assert_caught(&set_was_overwritten, &[], Kind::Order);
    let set_was_forgotten = [set(2, 3, 100), read(20, 21, 1)];
    assert_caught(&set_was_forgotten, &[10], Kind::Backwards);
    let set_answered_another = [told(Op::Set(100), 2, 3, Outcome::Ok(99))];
    assert_caught(&set_answered_another, &[], Kind::SetIgnored);
}

#[test]
fn catches_an_issue_twice_after_a_restart() {
    let again = [
        increment(0, 1, 2),
        increment(2, 3, 3),
        unanswered(4, 12),
        increment(20, 21, 3),
        increment(22, 23, 4),
    ];
    assert_caught(&again, &[10], Kind::Duplicate);
    let after_a_set = [set(0, 1, 50), increment(2, 3, 51), increment(20, 21, 51)];
    assert_caught(&after_a_set, &[10], Kind::Duplicate);
}

#[test]
fn catches_a_skipped_value() {
    assert_caught(&[increment(0, 1, 2), increment(2, 3, 4)], &[], Kind::Skipped);
    let two_gaps_one_unknown = [unanswered(0, 1), increment(2, 3, 4)];
    assert_caught(&two_gaps_one_unknown, &[], Kind::Skipped);
    let unknown_came_too_late = [increment(0, 1, 3), unanswered(2, 3)];
    assert_caught(&unknown_came_too_late, &[], Kind::Skipped);
    let unknown_died_with_its_process =
        [unanswered(0, 9), increment(20, 21, 2), increment(22, 23, 4)];
    assert_caught(&unknown_died_with_its_process, &[10], Kind::Skipped);
    let refused_explains_nothing =
        [told(Op::Increment, 0, 1, Outcome::Refused), increment(2, 3, 3)];
    assert_caught(&refused_explains_nothing, &[], Kind::Skipped);
    assert_caught(&[set(0, 1, 10), increment(2, 3, 12)], &[], Kind::Skipped);
    assert_caught(&[increment(0, 1, u64::MAX)], &[], Kind::Skipped);
}

#[test]
fn catches_answers_out_of_their_order() {
    assert_caught(&[increment(0, 9, 2), increment(1, 2, 4), increment(3, 4, 3)], &[], Kind::Order);
    assert_caught(&[increment(0, 1, 2), read(2, 3, 2), read(4, 5, 1)], &[], Kind::Backwards);
}

#[test]
fn passes_correct_histories() {
    assert_passes(&[], &[]);
    let overlapping =
        [increment(0, 9, 3), increment(1, 8, 2), read(2, 7, 1), read(2, 7, 3), read(3, 4, 2)];
    assert_passes(&overlapping, &[]);
    let with_unknowns = [
        increment(0, 1, 2),
        unanswered(2, 9),
        unanswered(2, 9),
        increment(20, 21, 4),
        read(22, 23, 4),
    ];
    assert_eq!(assert_passes(&with_unknowns, &[10]).gaps, 1);
    let late_effect = [unanswered(0, 1), increment(2, 3, 2), increment(4, 5, 4)];
    assert_eq!(assert_passes(&late_effect, &[]).gaps, 1);
    let refused = [told(Op::Increment, 0, 1, Outcome::Refused), increment(2, 3, 2), read(4, 5, 2)];
    assert_passes(&refused, &[]);
    let mut other_tenant = increment(2, 3, 2);
    other_tenant.tenant = 1;
    assert_passes(&[increment(0, 1, 2), other_tenant], &[]);
}

#[test]
fn passes_sets_that_happened_and_sets_that_did_not() {
    assert_passes(
        &[
            increment(0, 1, 2),
            set(2, 3, 100),
            increment(4, 5, 101),
            set(6, 7, 1),
            increment(8, 9, 2),
        ],
        &[],
    );
    let unknown = told(Op::Set(100), 2, 9, Outcome::Unknown);
    assert_passes(&[increment(0, 1, 2), unknown, read(20, 21, 100), increment(22, 23, 101)], &[10]);
    assert_passes(&[increment(0, 1, 2), unknown, read(20, 21, 2), increment(22, 23, 3)], &[10]);
    assert_caught(&[increment(0, 1, 2), unknown, read(20, 21, 50)], &[10], Kind::Skipped);
    let another = told(Op::Set(200), 12, 19, Outcome::Unknown);
    for value in [2, 100, 200] {
        assert_passes(&[increment(0, 1, 2), unknown, another, read(40, 41, value)], &[10, 30]);
    }
    // The two that explain 2 and 3 before the set cannot explain 4 and 5 behind it: the set did
    // not happen.
    let used_up = [
        unanswered(0, 9),
        unanswered(0, 9),
        read(20, 21, 3),
        increment(22, 23, 4),
        increment(24, 25, 5),
    ];
    let unknown_set = told(Op::Set(3), 30, 39, Outcome::Unknown);
    assert_passes(&[&used_up[..], &[unknown_set, increment(50, 51, 6)]].concat(), &[10, 40]);
    let both_at_once = [set(0, 9, 100), set(1, 8, 200), increment(20, 21, 101)];
    assert_passes(&both_at_once, &[]);
    let beside_a_set =
        [set(10, 20, 100), increment(5, 15, 2), increment(12, 18, 101), increment(30, 31, 102)];
    assert_passes(&beside_a_set, &[]);
}

/// A simulated correct server: concurrent clients, unanswered increments of which half happen, and
/// restarts.
fn simulate(count: u64, seed: u64) -> (Vec<Operation>, Vec<u64>) {
    let mut random = Random::seeded(seed);
    let (mut operations, mut restarts, mut counters) =
        (Vec::new(), Vec::new(), [Counter::default(); 3]);
    let mut now = 1_000;
    for number in 0..count {
        now += random.between(1, 20);
        let tenant = u32::try_from(random.between(0, 2)).expect("a small number");
        let counter = &mut counters[tenant as usize];
        let mut increment = || counter.increment(1).expect("far from its maximum").last;
        let sent =
            now - random.between(1, 300).min(now - restarts.last().copied().unwrap_or(0) - 1);
        let returned = now + random.between(1, 300);
        let (op, outcome) = match random.between(0, 99) {
            0..20 => (Op::Read, Outcome::Ok(counter.value)),
            20..22 => {
                if random.one_in(2) {
                    increment();
                }
                (Op::Increment, Outcome::Unknown)
            }
            _ => (Op::Increment, Outcome::Ok(increment())),
        };
        operations.push(Operation {
            client: 0,
            tenant,
            counter: 0,
            op,
            sent,
            resent: sent,
            returned,
            outcome,
        });
        if number % 10_000 == 9_999 {
            now += 1_000;
            restarts.push(now - 500);
        }
    }
    (operations, restarts)
}

#[test]
fn passes_simulated_servers_and_catches_one_seeded_fault_in_each() {
    for seed in 0..200 {
        let (mut operations, restarts) = simulate(300, seed);
        assert_passes(&operations, &restarts);
        let answered: Vec<usize> = (0..operations.len())
            .filter(|at| {
                operations[*at].op == Op::Increment
                    && matches!(operations[*at].outcome, Outcome::Ok(_))
            })
            .collect();
        let at = answered[Random::seeded(seed).between(0, answered.len() as u64 - 2) as usize];
        let Outcome::Ok(value) = operations[at].outcome else {
            unreachable!("only answered ones were listed")
        };
        operations[at].outcome = Outcome::Ok(value + 1_000);
        assert!(!judge(&operations, &restarts).is_clean(), "seed {seed}: a wild value passed");
    }
}

#[test]
fn judges_a_million_operations() {
    let (operations, restarts) = simulate(1_000_000, 7);
    let verdict = assert_passes(&operations, &restarts);
    assert!(verdict.acknowledged > 700_000 && verdict.gaps > 5_000, "{}", verdict.gaps);
}
