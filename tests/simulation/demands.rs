//! What a run of the simulation has to have seen, and how often.
//!
//! Job: [`missing`] names each kind of event that was too rare in a run. Invariant: a demand is
//! about a quarter of what ten thousand seeds show, and grows with the number of seeds, so that a
//! generator that stops making something is noticed by a thousand of them already.
//! Must never: count what was planned; only what happened.

use crate::machine::Tally;

/// A run with fewer seeds demands nothing: it looks at one of them again.
const FEWEST_SEEDS: u64 = 1_000;

/// Every kind of call that may fail, and may be the last one before a crash.
pub(crate) const CALLS: [(&str, &str); 32] = [
    ("backups", "create"),
    ("backups", "list"),
    ("backups", "open"),
    ("backups", "read"),
    ("backups", "remove"),
    ("backups", "rename"),
    ("backups", "sync"),
    ("backups", "sync dir"),
    ("backups", "write"),
    ("format", "declare"),
    ("journal", "create"),
    ("journal", "create zeroed"),
    ("journal", "list"),
    ("journal", "open"),
    ("journal", "read"),
    ("journal", "remove"),
    ("journal", "rename"),
    ("journal", "sync"),
    ("journal", "sync dir"),
    ("journal", "trim"),
    ("journal", "write"),
    ("state", "clear"),
    ("state", "make"),
    ("state", "mark corrupt"),
    ("state", "open"),
    ("state", "put"),
    ("state", "quarantine"),
    ("state", "read"),
    ("state", "record position"),
    ("state", "save digests"),
    ("state", "swap"),
    ("state", "sync"),
];

/// Those of them that few lives come to.
pub(crate) const RARE_CALLS: [(&str, &str); 6] = [
    ("backups", "remove"),
    ("backups", "rename"),
    ("state", "make"),
    ("state", "mark corrupt"),
    ("state", "quarantine"),
    ("state", "swap"),
];

/// An event, where and of which kind if that counts too, and how often ten thousand seeds have to
/// show it.
type Demand = (&'static str, &'static str, &'static str, u64);

#[rustfmt::skip]
const DEMANDS: [Demand; 102] = [
    ("asked backups", "", "", 160),
    ("backups", "", "", 340),
    ("checkpoints", "", "", 6_500),
    ("clean stops", "", "", 2_100),
    ("current backups", "", "", 14),
    ("disk low", "", "", 290),
    ("failed backups", "", "", 150),
    ("kills", "", "", 3_500),
    ("last frame rotted", "", "", 6),
    ("loads", "", "", 63_500),
    ("no spare", "", "", 200),
    ("poisoned", "", "", 420),
    ("power cuts", "", "", 5_300),
    ("rebuilds", "", "", 330),
    ("refused journal rot", "", "", 99),
    ("refused state rot", "", "", 53),
    ("rests", "", "", 2_100),
    ("seeds to their end", "", "", 2_400),
    ("segments not removed", "", "", 17),
    ("segments released", "", "", 2_500),
    ("stalled backups", "", "", 89),
    ("unfinished backups", "", "", 47),
    ("answered", "advance", "closing", 40),
    ("answered", "advance", "damaged", 49),
    ("answered", "advance", "disk low", 1_200),
    ("answered", "advance", "done", 30_300),
    ("answered", "advance", "key reused", 3_300),
    ("answered", "advance", "keys full", 5_900),
    ("answered", "advance", "no counter", 10_000),
    ("answered", "advance", "overloaded", 1_500),
    ("answered", "advance", "poisoned", 220),
    ("answered", "advance", "replayed", 4_900),
    ("answered", "advance", "unknown", 150),
    ("answered", "create", "closing", 7),
    ("answered", "create", "damaged", 22),
    ("answered", "create", "disk low", 110),
    ("answered", "create", "done", 1_600),
    ("answered", "create", "exists", 860),
    ("answered", "create", "key reused", 410),
    ("answered", "create", "keys full", 610),
    ("answered", "create", "no tenant", 1_000),
    ("answered", "create", "overloaded", 160),
    ("answered", "create", "poisoned", 20),
    ("answered", "create", "replayed", 340),
    ("answered", "create", "unknown", 10),
    ("answered", "list", "done", 2_000),
    ("answered", "read", "done", 13_700),
    ("answered", "register", "disk low", 180),
    ("answered", "register", "done", 6_200),
    ("answered", "register", "name taken", 1_300),
    ("answered", "register", "poisoned", 25),
    ("answered", "register", "unknown", 33),
    ("answered", "set", "disk low", 32),
    ("answered", "set", "done", 710),
    ("answered", "set", "keys full", 130),
    ("answered", "set", "no counter", 220),
    ("answered", "set", "overloaded", 34),
    ("answered", "set", "poisoned", 6),
    ("answered", "set", "replayed", 67),
    ("answered", "set", "unknown", 4),
    ("keys", "done", "after a refusal", 350),
    ("keys", "of another tenant", "", 1_000),
    ("keys", "of two requests", "at once", 2_200),
    ("keys", "of two requests", "at once, and one was refused", 2_200),
    ("keys", "of two requests", "later", 1_500),
    ("keys", "sent again", "after a lost answer", 3_100),
    ("keys", "sent again", "after a refusal", 5_000),
    ("keys", "sent again", "while it waits", 2_000),
    ("keys", "sent twice", "and answered from one", 2_100),
    ("keys", "sent twice", "at once", 3_000),
    ("keys", "used again", "after it expired", 210),
    ("keys", "used again", "for the same request", 3_000),
    ("pages", "removed", "", 910),
    ("pages", "written", "", 8_600),
    ("replayed", "after a restart", "", 1_900),
    ("replayed", "from a page", "", 1_400),
    ("replayed", "in its batch", "", 2_000),
    ("segments begun", "close", "", 24),
    ("segments begun", "rest", "", 170),
    ("segments begun", "serve", "", 440),
    ("segments begun", "start", "", 8_700),
    ("segments removed", "close", "", 1_500),
    ("segments removed", "rest", "", 410),
    ("segments removed", "serve", "", 680),
    ("segments removed", "start", "", 170),
    ("crashed while", "close", "", 180),
    ("crashed while", "rebuild", "", 100),
    ("crashed while", "rest", "", 240),
    ("crashed while", "serve", "", 1_100),
    ("crashed while", "start", "", 2_200),
    ("rebuilt from", "a backup", "", 1),
    ("rebuilt from", "the journal", "", 1),
    ("rot", "backups", "flipped bit", 30),
    ("rot", "journal", "flipped bit", 420),
    ("rot", "journal", "zeroed sector", 130),
    ("rot", "state", "digests damaged", 110),
    ("rot", "state", "digests missing", 53),
    ("rot", "state", "does not open", 52),
    ("rot", "state", "missing record", 51),
    ("rot", "state", "older record", 32),
    ("rot", "state", "rolled back with its digests", 50),
    ("rot", "state", "rolled back without its digests", 50),
];

/// The events that were too rare in a run of this many seeds.
pub(crate) fn missing(tally: &Tally, seeds: u64) -> Vec<String> {
    let mut missing = Vec::new();
    let mut demand = |(what, area, operation, per_10_000): Demand| {
        let is = match area {
            "" => tally.total(what),
            _ => tally.times(what, area, operation),
        };
        let wanted = per_10_000 * seeds / 10_000;
        if is < wanted {
            missing.push(format!("{what} {area} {operation}: {is} instead of {wanted}"));
        }
    };
    if seeds < FEWEST_SEEDS {
        return missing;
    }
    DEMANDS.into_iter().for_each(&mut demand);
    for (area, operation) in CALLS {
        demand(("failed", area, operation, 1));
        demand(("crash at", area, operation, 1));
    }
    missing
}

#[test]
fn a_run_in_which_nothing_happened_is_noticed() {
    let all = DEMANDS.len() + 2 * CALLS.len();
    assert_eq!(missing(&Tally::default(), 10_000).len(), all);
    // What is expected a few times in ten thousand seeds is not demanded of a thousand.
    let scaled = DEMANDS.iter().filter(|(.., per_10_000)| *per_10_000 >= 10).count();
    assert_eq!(missing(&Tally::default(), 1_000).len(), scaled);
    assert!(missing(&Tally::default(), 1).is_empty(), "one seed is looked at again");
}
