//! The history checker of all fault tests: a pure function from what clients were told to the rules
//! that were broken.
//!
//! Invariant: it accepts every history that some correct counter could have produced and costs O(n
//! log n). An unanswered increment may have happened at any time between its sending and the end of
//! the process that it was sent to last. It must never guess: where a set overlaps other
//! operations, those only fill gaps, so a fault there may be missed but none is invented.
//!
//! A counter's history is cut at its sets; the rules for each piece are in `segment.rs`. Sets that
//! overlap each other form one cut with several possible values; a set with an unknown outcome is a
//! cut that may not have happened. Such a cut takes the first value that explains what follows; if
//! none does and no set in it was acknowledged, there was none.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::model::Counter;
use super::segment::{Evidence, Filler, Place, Segment, check_segment};
pub(crate) use super::segment::{Kind, Verdict};

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Increment,
    Read,
    Set(u64),
}

/// What the client was told. `Refused` is certainly not done; `Unknown` may or may not have
/// happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok(u64),
    Refused,
    Unknown,
}

/// One request of one client; the times are nanoseconds of one monotonic clock shared by all
/// clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) client: u32,
    pub(crate) tenant: u32,
    pub(crate) counter: u32,
    pub(crate) op: Op,
    pub(crate) sent: u64,
    /// When it was sent last: a request with an idempotency key is sent again until it is answered,
    /// and counts once.
    pub(crate) resent: u64,
    pub(crate) returned: u64,
    pub(crate) outcome: Outcome,
}

/// What is known besides the operations.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The value of a counter that nobody has touched; each increment adds one.
    pub(crate) initial: u64,
    /// Times at which the serving process was certainly dead, ascending: what was sent before
    /// cannot happen after.
    pub(crate) restarts: Vec<u64>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { initial: Counter::default().value, restarts: Vec::new() }
    }
}

impl Rules {
    /// The last moment at which an unanswered operation sent at `sent` can still take effect.
    pub(crate) fn latest_effect(&self, sent: u64) -> u64 {
        let next = self.restarts.partition_point(|restart| *restart <= sent);
        self.restarts.get(next).copied().unwrap_or(u64::MAX)
    }
}

/// Checks a whole history; every counter by itself.
pub(crate) fn check(operations: &[Operation], rules: &Rules) -> Verdict {
    assert!(rules.restarts.is_sorted(), "restarts are listed in the order in which they happened");
    let mut verdict = Verdict::default();
    let mut counters: BTreeMap<(u32, u32), Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        assert!(
            operation.sent <= operation.resent && operation.resent <= operation.returned,
            "an answer before its request: {operation:?}"
        );
        count(operation, &mut verdict);
        counters.entry((operation.tenant, operation.counter)).or_default().push(*operation);
    }
    for ((tenant, counter), operations) in counters {
        check_counter(Place { tenant, counter }, operations, rules, &mut verdict);
    }
    verdict
}

fn count(operation: &Operation, verdict: &mut Verdict) {
    match (operation.op, operation.outcome) {
        (Op::Read, Outcome::Ok(_) | Outcome::Unknown) => {}
        (_, Outcome::Ok(_)) => verdict.acknowledged += 1,
        (_, Outcome::Refused) => verdict.refused += 1,
        (_, Outcome::Unknown) => verdict.unknown += 1,
    }
    if let (Op::Set(wanted), Outcome::Ok(value)) = (operation.op, operation.outcome)
        && wanted != value
    {
        let place = Place { tenant: operation.tenant, counter: operation.counter };
        let detail = format!("a set to {wanted} answered {value}: {operation:?}");
        verdict.report(place.violation(Kind::SetIgnored, value, detail));
    }
}

/// One or more sets whose times overlap.
#[derive(Clone, Debug)]
struct Cut {
    start: u64,
    end: u64,
    candidates: Vec<u64>,
    /// One of the sets was acknowledged, so some candidate was in force at the end.
    certain: bool,
}

/// Checks one counter: cuts, distributes, and decides each cut in the order of time.
fn check_counter(place: Place, operations: Vec<Operation>, rules: &Rules, verdict: &mut Verdict) {
    let cuts = find_cuts(&operations, rules);
    let mut unknown: Vec<Filler> = operations
        .iter()
        .filter(|operation| operation.op == Op::Increment && operation.outcome == Outcome::Unknown)
        .map(|operation| Filler {
            sent: operation.sent,
            until: rules.latest_effect(operation.resent),
        })
        .collect();
    unknown.sort_unstable_by_key(|filler| filler.sent);
    let mut segments = distribute(&operations, &cuts).into_iter();
    drop(operations);

    let mut waiting = VecDeque::from(unknown);
    let mut fillers = VecDeque::new();
    let mut current = segments.next().expect("there is one segment more than cuts");
    current.base = rules.initial;
    let mut undecided: Option<Cut> = None;
    let mut possible = HashSet::new();
    for (index, (cut, mut next)) in cuts.iter().zip(segments).enumerate() {
        let cut = match undecided.take() {
            Some(earlier) => earlier.followed_by(cut),
            None => cut.clone(),
        };
        let is_last = index + 1 == cuts.len();
        if next.evidence.is_empty() && !is_last {
            undecided = Some(cut);
            possible.extend(next.perhaps);
            continue;
        }
        next.perhaps.extend(possible.drain());
        release(&mut waiting, &mut fillers, cut.end);
        let end = cuts.get(index + 1).map_or(u64::MAX, |following| following.start);
        match decide(place, &cut, (&current, &next), &fillers, &waiting, end) {
            Some(base) => {
                check_segment(place, &mut current, &mut fillers, verdict);
                expire(&mut fillers, cut.start);
                next.base = base;
                current = next;
            }
            None => current.absorb(next),
        }
    }
    fillers.append(&mut waiting);
    check_segment(place, &mut current, &mut fillers, verdict);
}

/// Moves the unknown increments that were sent before `until` to those that may explain a gap.
fn release(waiting: &mut VecDeque<Filler>, fillers: &mut VecDeque<Filler>, until: u64) {
    while let Some(filler) = waiting.pop_front_if(|filler| filler.sent < until) {
        fillers.push_back(filler);
    }
}

/// Forgets the unknown increments that cannot have happened after `start`.
fn expire(fillers: &mut VecDeque<Filler>, start: u64) {
    while fillers.front().is_some_and(|filler| filler.until < start) {
        fillers.pop_front();
    }
}

/// The value that was in force after the cut, or nothing when the cut did not happen.
fn decide(
    place: Place,
    cut: &Cut,
    (current, next): (&Segment, &Segment),
    fillers: &VecDeque<Filler>,
    waiting: &VecDeque<Filler>,
    end: u64,
) -> Option<u64> {
    if let ([only], true) = (cut.candidates.as_slice(), cut.certain) {
        return Some(*only);
    }
    // What explains a gap before the cut cannot explain one behind it too.
    let mut left = fillers.clone();
    check_segment(place, &mut current.clone(), &mut left, &mut Verdict::default());
    expire(&mut left, cut.start);
    let explains = |base: u64| {
        let mut trial = Segment { base, ..next.clone() };
        let mut available = left.clone();
        available.extend(waiting.iter().take_while(|filler| filler.sent < end));
        let mut outcome = Verdict::default();
        check_segment(place, &mut trial, &mut available, &mut outcome);
        outcome.is_clean()
    };
    let fitting = cut.candidates.iter().copied().find(|base| explains(*base));
    fitting.or_else(|| cut.certain.then(|| cut.candidates[0]))
}

impl Cut {
    /// Both cuts with nothing seen in between: a certain later one hides the earlier.
    fn followed_by(mut self, later: &Cut) -> Cut {
        if later.certain {
            return Cut { start: self.start, ..later.clone() };
        }
        self.end = later.end;
        self.candidates.extend(&later.candidates);
        self
    }
}

fn find_cuts(operations: &[Operation], rules: &Rules) -> Vec<Cut> {
    let mut cuts: Vec<Cut> =
        operations.iter().filter_map(|operation| cut_of(operation, rules)).collect();
    cuts.sort_unstable_by_key(|cut| cut.start);
    let mut merged: Vec<Cut> = Vec::with_capacity(cuts.len());
    for cut in cuts {
        match merged.last_mut() {
            Some(last) if cut.start <= last.end => {
                last.end = last.end.max(cut.end);
                last.candidates.extend(cut.candidates);
                last.certain |= cut.certain;
            }
            _ => merged.push(cut),
        }
    }
    merged
}

/// The cut that a set makes. An unknown one lasts until its process was dead, or, without a
/// restart, until its client gave up.
fn cut_of(operation: &Operation, rules: &Rules) -> Option<Cut> {
    let Op::Set(value) = operation.op else { return None };
    let certain = match operation.outcome {
        Outcome::Ok(_) => true,
        Outcome::Unknown => false,
        Outcome::Refused => return None,
    };
    let dead = rules.latest_effect(operation.resent);
    let end =
        if certain || dead == u64::MAX { operation.returned } else { operation.returned.max(dead) };
    Some(Cut { start: operation.sent, end, candidates: vec![value], certain })
}

/// Gives each segment its evidence; operations that overlap a cut go to the segments beside it as
/// mere possibilities.
fn distribute(operations: &[Operation], cuts: &[Cut]) -> Vec<Segment> {
    let mut segments = vec![Segment::default(); cuts.len() + 1];
    for operation in operations {
        let Outcome::Ok(value) = operation.outcome else { continue };
        let increments = match operation.op {
            Op::Increment => true,
            Op::Read => false,
            Op::Set(_) => continue,
        };
        let first = cuts.partition_point(|cut| cut.end < operation.sent);
        let after = cuts.partition_point(|cut| cut.start <= operation.returned);
        let (sent, returned, client) = (operation.sent, operation.returned, operation.client);
        if first == after {
            segments[first].evidence.push(Evidence { value, sent, returned, client, increments });
        } else if increments {
            for segment in &mut segments[first..=after] {
                segment.perhaps.insert(value);
            }
        }
    }
    segments
}
