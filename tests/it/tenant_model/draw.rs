//! What a tenant does next, drawn by its seed from what its ledger says.
//!
//! Invariant: a draw depends on seed and ledger alone. Where the contract leaves open which of two
//! refusals comes first, no request deserves both.
//! Must never: leave a kind of request or of refusal out; `mod.rs` counts them.

use super::ledger::{ALL_SCOPES, Ledger};
use super::request::{Bounds, Op, Request, Way};
use crate::support::Random;
use crate::support::model::{Counter, DEFAULT, LARGEST};

/// Counters that a tenant may have by name, besides `default`.
const NAMES: u64 = 6;
const MOST_KEYS: usize = 8;

/// The name of one of the tenant's counters; no other tenant has it.
pub(crate) fn counter_name(tenant: usize, number: u64) -> String {
    format!("t{tenant}-c{number}")
}

/// Requests that can be under way at once, because each answer is the same whichever comes first.
pub(crate) fn batch(
    ledger: &Ledger,
    random: &mut Random,
    most: usize,
    serial: &mut u64,
) -> Vec<Request> {
    let mut batch = vec![next(ledger, random, serial)];
    for _ in 1..most {
        if batch[0].op.counter().is_none() {
            return batch;
        }
        let more = next(ledger, random, serial);
        let apart = |other: &Request| {
            let once_apart = more.once.is_none() || other.once != more.once;
            once_apart && more.op.counter().is_some() && other.op.counter() != more.op.counter()
        };
        if batch.iter().all(apart) {
            batch.push(more);
        }
    }
    batch
}

fn next(ledger: &Ledger, random: &mut Random, serial: &mut u64) -> Request {
    let by = bearer(ledger, random);
    let dice = random.between(0, 99);
    if dice < 12 && !ledger.told_keys.is_empty() {
        let once = ledger.told_keys[random.index(ledger.told_keys.len())].clone();
        return Request { op: ledger.request_of(&once).op.clone(), by, once: Some(once) };
    }
    if dice < 16 && !ledger.told_keys.is_empty() {
        let once = ledger.told_keys[random.index(ledger.told_keys.len())].clone();
        let op = sound(ledger, random);
        if op.can_be_once() && op.identity() != ledger.identity_of(&once) {
            return Request { op, by, once: Some(once) };
        }
    }
    let op = match dice {
        16..21 => Op::List { size: random.between(1, 9) },
        21..23 => Op::Tenant,
        23..25 => Op::ListKeys { size: random.between(1, 12) },
        25..29 => make_or_revoke(ledger, random),
        29..33 => broken(ledger, random),
        _ => sound(ledger, random),
    };
    let once = (op.can_be_once() && random.between(0, 2) == 0).then(|| {
        *serial += 1;
        format!("t{}-{serial}-{:x}", ledger.number, random.next())
    });
    Request { op, by, once }
}

/// Its first key as a rule, sometimes one with fewer scopes, or one that was revoked.
fn bearer(ledger: &Ledger, random: &mut Random) -> String {
    match random.between(0, 99) {
        0..4 if !ledger.revoked.is_empty() => {
            ledger.revoked[random.index(ledger.revoked.len())].0.clone()
        }
        4..24 => {
            let at = random.index(ledger.keys.len());
            ledger.keys.keys().nth(at).expect("one of them").clone()
        }
        _ => ledger.first_key.clone(),
    }
}

fn make_or_revoke(ledger: &Ledger, random: &mut Random) -> Op {
    let others: Vec<&String> = ledger.keys.keys().filter(|id| **id != ledger.first_key).collect();
    // The first key that can be revoked is revoked, so that every seed has one to be refused with.
    let revokes = ledger.revoked.is_empty() && !others.is_empty();
    if !revokes && ledger.keys.len() < MOST_KEYS && random.between(0, 2) > 0 {
        let number = random.between(1, 7);
        let scopes = ALL_SCOPES.into_iter().enumerate().filter(|(bit, _)| number >> bit & 1 == 1);
        let scopes = scopes.map(|(_, scope)| scope).collect();
        let label = format!("key \"{}\"", random.between(0, 999));
        let expires_in = (random.between(0, 1) == 0).then(|| random.between(3600, 315_360_000));
        return Op::MakeKey { label, scopes, expires_in };
    }
    let id = match random.between(0, 9) {
        0 => "00000000deadbeef".to_owned(),
        1 if !ledger.revoked.is_empty() => {
            ledger.revoked[random.index(ledger.revoked.len())].0.clone()
        }
        _ if others.is_empty() => "0123456789abcdef".to_owned(),
        _ => others[random.index(others.len())].clone(),
    };
    Op::Revoke { id }
}

fn name(ledger: &Ledger, random: &mut Random) -> (Way, String) {
    match random.between(0, 9) {
        0 | 1 => (Way::Old, DEFAULT.to_owned()),
        2 => (Way::ByName, DEFAULT.to_owned()),
        _ => (Way::ByName, counter_name(ledger.number, random.between(1, NAMES))),
    }
}

/// Something about a counter whose parameters can be read.
fn sound(ledger: &Ledger, random: &mut Random) -> Op {
    let (way, name) = name(ledger, random);
    let there = ledger.counters.get(&name);
    let dice = random.between(0, 99);
    if (there.is_none() && dice < 60) || dice < 3 {
        return Op::Create { name, bounds: bounds(random) };
    }
    match dice {
        60..75 => Op::Read { way, name },
        75..90 => set(ledger, random, way, name),
        90..95 => {
            // Of `default` nothing else may be wrong.
            let if_match = if name == DEFAULT { None } else { if_match(ledger, random, &name) };
            Op::Delete { name, if_match }
        }
        _ => {
            let least = if way == Way::Old { 1 } else { 2 };
            let count = match random.between(0, 9) {
                0..6 => None,
                6..9 => Some(random.between(least, 40)),
                _ => Some(random.between(least, 1_000_000)),
            };
            Op::Increment { way, name, count }
        }
    }
}

/// The tag that it has, any, or one that it does not have; often none at all.
fn if_match(ledger: &Ledger, random: &mut Random, name: &str) -> Option<String> {
    let tag = ledger.tag(name).map(str::to_owned);
    match random.between(0, 9) {
        0..5 => None,
        5 => Some("*".to_owned()),
        6..9 => tag,
        _ => Some("\"1-999999999\"".to_owned()),
    }
}

fn set(ledger: &Ledger, random: &mut Random, way: Way, name: String) -> Op {
    let Some(entry) = ledger.counters.get(&name) else {
        return Op::Set { way, name, value: 7, rewind: false, if_match: None };
    };
    let Counter { shape, value } = entry.counter;
    let if_match = if_match(ledger, random, &name);
    let stale = if_match.as_deref().is_some_and(|tag| tag != "*" && Some(tag) != ledger.tag(&name));
    let rewind = way == Way::ByName && random.between(0, 3) == 0;
    let above = random.between(value, shape.max.min(value.saturating_add(1000)));
    let value = match random.between(0, 9) {
        _ if stale => above,
        0 if shape.min > 0 => shape.min - 1,
        1 if shape.max < LARGEST => shape.max + 1,
        0..5 => random.between(shape.min, value),
        _ => above,
    };
    Op::Set { way, name, value, rewind, if_match }
}

/// Counters of all kinds: large and small steps, soon at their end, at zero, beyond 2^53.
fn bounds(random: &mut Random) -> Bounds {
    let mut some =
        |low: u64, high: u64| (random.between(0, 1) == 0).then(|| random.between(low, high));
    let bounds = Bounds {
        start: some(0, 50),
        step: some(1, 9),
        min: some(0, 20),
        max: some(50, 400),
        rewindable: some(0, 1).map(|one| one == 1),
    };
    let bounds = match random.between(0, 9) {
        0 => Bounds { start: Some(0), min: None, ..bounds },
        1 => Bounds { max: Some(LARGEST), start: Some(LARGEST - 100), ..bounds },
        2 => Bounds { max: Some(LARGEST), step: Some((1 << 53) - 1), ..bounds },
        _ => bounds,
    };
    if bounds.shape().is_sound() { bounds } else { Bounds { min: None, start: None, ..bounds } }
}

/// Something about a counter that is there, with parameters that cannot be.
fn broken(ledger: &Ledger, random: &mut Random) -> Op {
    let (way, name) = name(ledger, random);
    if random.between(0, 1) == 0 && name != DEFAULT && ledger.counters.get(&name).is_none() {
        let bounds = Bounds { start: Some(5), min: Some(6), ..bounds(random) };
        return Op::Create { name, bounds };
    }
    let (way, name) = if ledger.counters.get(&name).is_some() {
        (way, name)
    } else {
        (Way::Old, DEFAULT.to_owned())
    };
    let count = Some(if random.between(0, 1) == 0 { 0 } else { 1_000_001 });
    Op::Increment { way, name, count }
}
