//! The rules for one stretch of a counter's history in which nothing was set, and the verdict that
//! collects what broke.
//!
//! Invariant: operations that some correct counter could have answered so pass, however slow the
//! answers, at a cost of O(n log n). An increment whose outcome is unknown explains at most one
//! value that nobody was told. It must never look at anything but times and values: which
//! operations belong to the stretch is decided by `history.rs`.
//!
//! * acknowledged increments are distinct (`Duplicate`) and above everything known before they were
//!   sent (`Order`);
//! * a read is not below anything known before it was sent (`Backwards`);
//! * each value at or below a seen one was acknowledged or is explained by an unknown increment
//!   (`Skipped`).

use std::collections::{HashSet, VecDeque};

/// The rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Duplicate,
    Order,
    Backwards,
    Skipped,
    SetIgnored,
}

/// One broken rule, with enough to find the operations again.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    pub(crate) tenant: u32,
    pub(crate) counter: u32,
    pub(crate) value: u64,
    pub(crate) detail: String,
}

/// The outcome of a check: counts of everything, and the first broken rules in full.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    /// Values that nobody was told and that unknown increments explain.
    pub(crate) gaps: u64,
    pub(crate) duplicates: u64,
    /// Acknowledged or read values that a later answer contradicts.
    pub(crate) lost: u64,
    pub(crate) skipped: u64,
    pub(crate) broken: u64,
    pub(crate) violations: Vec<Violation>,
}

const DETAILED_VIOLATIONS: usize = 20;

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.broken == 0
    }

    /// Panics with the first broken rules unless the history is correct.
    #[track_caller]
    pub(crate) fn assert_clean(&self, context: &str) {
        assert!(
            self.is_clean(),
            "{context}: {} rules broken, first: {:#?}",
            self.broken,
            self.violations
        );
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.violations.iter().any(|violation| violation.kind == kind)
    }

    pub(crate) fn report(&mut self, violation: Violation) {
        match violation.kind {
            Kind::Duplicate => self.duplicates += 1,
            Kind::Order | Kind::Backwards | Kind::SetIgnored => self.lost += 1,
            Kind::Skipped => self.skipped += 1,
        }
        self.broken += 1;
        if self.violations.len() < DETAILED_VIOLATIONS {
            self.violations.push(violation);
        }
    }
}

/// Which counter a violation belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) tenant: u32,
    pub(crate) counter: u32,
}

/// An unanswered increment: it happened at most once, after `sent` and not after `until`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filler {
    pub(crate) sent: u64,
    pub(crate) until: u64,
}

/// Operations between two sets, together with the value they start from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) base: u64,
    /// Increments and reads that certainly belong here, with their answered values.
    pub(crate) evidence: Vec<Evidence>,
    /// Values answered to increments that overlap a set at either end: they may belong here.
    pub(crate) perhaps: HashSet<u64>,
}

/// An answered increment or read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    pub(crate) value: u64,
    pub(crate) sent: u64,
    pub(crate) returned: u64,
    pub(crate) client: u32,
    pub(crate) increments: bool,
}

impl Segment {
    /// Takes over what is known about the stretch that follows without a set in between.
    pub(crate) fn absorb(&mut self, other: Segment) {
        self.evidence.extend(other.evidence);
        self.perhaps.extend(other.perhaps);
    }
}

/// Applies the rules to one segment, taking from `fillers` (ordered by `sent`) what explains its
/// gaps.
pub(crate) fn check_segment(
    place: Place,
    segment: &mut Segment,
    fillers: &mut VecDeque<Filler>,
    verdict: &mut Verdict,
) {
    check_real_time(place, segment, verdict);
    segment.evidence.sort_unstable_by_key(|seen| (seen.value, seen.increments));
    check_distinct(place, segment, verdict);
    check_gapless(place, segment, fillers, verdict);
}

impl Place {
    /// A broken rule of this counter.
    pub(crate) fn violation(self, kind: Kind, value: u64, detail: String) -> Violation {
        Violation { kind, tenant: self.tenant, counter: self.counter, value, detail }
    }
}

/// What returned before an operation was sent bounds that operation's value from below.
fn check_real_time(place: Place, segment: &mut Segment, verdict: &mut Verdict) {
    let mut returned: Vec<(u64, u64)> =
        segment.evidence.iter().map(|seen| (seen.returned, seen.value)).collect();
    returned.sort_unstable();
    segment.evidence.sort_unstable_by_key(|seen| seen.sent);
    let (mut known, mut next) = (segment.base, 0);
    for seen in &segment.evidence {
        while next < returned.len() && returned[next].0 < seen.sent {
            known = known.max(returned[next].1);
            next += 1;
        }
        let detail = || format!("{known} was known before it was sent: {seen:?}");
        if seen.increments && seen.value <= known {
            verdict.report(place.violation(Kind::Order, seen.value, detail()));
        } else if seen.value < known {
            verdict.report(place.violation(Kind::Backwards, seen.value, detail()));
        }
    }
}

fn check_distinct(place: Place, segment: &Segment, verdict: &mut Verdict) {
    let mut before: Option<&Evidence> = None;
    for seen in segment.evidence.iter().filter(|seen| seen.increments) {
        if let Some(first) = before.filter(|first| first.value == seen.value) {
            let detail = format!("answered twice: {first:?} and {seen:?}");
            verdict.report(place.violation(Kind::Duplicate, seen.value, detail));
        }
        before = Some(seen);
    }
}

/// Matches every value that nobody was told to an unknown increment that was sent before the value
/// was first exceeded and that could still happen after every smaller value was in use. Both bounds
/// rise with the value, so taking the earliest usable increment each time finds a matching whenever
/// there is one.
fn check_gapless(
    place: Place,
    segment: &Segment,
    fillers: &mut VecDeque<Filler>,
    verdict: &mut Verdict,
) {
    let evidence = &segment.evidence;
    let mut seen_by = vec![u64::MAX; evidence.len() + 1];
    for (index, seen) in evidence.iter().enumerate().rev() {
        seen_by[index] = seen_by[index + 1].min(seen.returned);
    }
    let (mut last, mut not_before, mut index) = (segment.base, 0, 0);
    while index < evidence.len() {
        let value = evidence[index].value;
        let end = index + evidence[index..].partition_point(|seen| seen.value == value);
        let acknowledged = evidence[end - 1].increments;
        let missing = last.saturating_add(1)..value.saturating_add(u64::from(!acknowledged));
        let mut unexplained = None;
        for absent in missing.clone() {
            if !segment.perhaps.contains(&absent)
                && !explain(fillers, not_before, seen_by[index], verdict)
            {
                unexplained = Some(absent);
                break;
            }
        }
        if let Some(first) = unexplained {
            let detail = format!(
                "nobody can have been issued {first}..={}, yet: {:?}",
                missing.end - 1,
                evidence[index]
            );
            verdict.report(place.violation(Kind::Skipped, first, detail));
        }
        last = last.max(value);
        for seen in &evidence[index..end] {
            not_before = not_before.max(seen.sent);
        }
        index = end;
    }
}

fn explain(
    fillers: &mut VecDeque<Filler>,
    not_before: u64,
    seen_by: u64,
    verdict: &mut Verdict,
) -> bool {
    while fillers.front().is_some_and(|filler| filler.until < not_before) {
        fillers.pop_front();
    }
    let found = fillers.front().is_some_and(|filler| filler.sent < seen_by);
    if found {
        fillers.pop_front();
        verdict.gaps += 1;
    }
    found
}
