//! Mutations of an input: flips, cuts, splices, and numbers that are too large.
//!
//! Job: [`mutated`].
//! Invariant: what comes out depends on the corpus and the generator alone, and is at most a few
//! corpus files long.
//! Must never: make sense of a format; the targets mend what must be mended.

use crate::support::Random;

/// Edits of one input; most have few.
const MOST_EDITS: u64 = 6;
const LONGEST: usize = 1 << 13;
/// Numbers at which lengths and counts go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    31,
    32,
    64,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFE,
    0xFFFF,
    0x7FFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    0xFFFF_FFFF_FFFF_FFFF,
];

/// One of the corpus, changed in a few places.
pub(crate) fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.index(corpus.len())].clone();
    let edits = 1 + random.between(0, MOST_EDITS - 1).min(random.between(0, MOST_EDITS - 1));
    for _ in 0..edits {
        edit(&mut bytes, corpus, random);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn edit(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    if bytes.is_empty() {
        bytes.push(random.byte());
    }
    let at = random.index(bytes.len());
    match random.index(9) {
        0 | 1 => bytes[at] ^= 1 << random.index(8),
        2 => bytes[at] = random.byte(),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..at + short(bytes.len() - at, random))),
        5 => {
            let piece: Vec<u8> = (0..random.between(1, 8)).map(|_| random.byte()).collect();
            bytes.splice(at..at, piece);
        }
        6 => {
            // A piece of the same input again, or of another one.
            let other = if random.index(2) == 0 {
                bytes.clone()
            } else {
                corpus[random.index(corpus.len())].clone()
            };
            let from = random.index(other.len().max(1)).min(other.len());
            let piece = &other[from..from + short(other.len() - from, random)];
            let end = if random.index(2) == 0 { at } else { bytes.len().min(at + piece.len()) };
            bytes.splice(at..end, piece.iter().copied());
        }
        7 => {
            let other = &corpus[random.index(corpus.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(other.get(at.min(other.len())..).unwrap_or_default());
        }
        _ => write_number(bytes, at, random),
    }
}

/// Writes a number of one to eight bytes over what is there: an edge, or one that is a little off.
fn write_number(bytes: &mut [u8], at: usize, random: &mut Random) {
    let width = [1, 2, 4, 8][random.index(4)].min(bytes.len() - at);
    let mut number = [0; 8];
    number[8 - width..].copy_from_slice(&bytes[at..at + width]);
    let old = u64::from_be_bytes(number);
    let new = match random.index(4) {
        0 => old.wrapping_add(random.between(1, 9)),
        1 => old.wrapping_sub(random.between(1, 9)),
        2 => bytes.len() as u64,
        _ => EDGES[random.index(EDGES.len())],
    };
    bytes[at..at + width].copy_from_slice(&new.to_be_bytes()[8 - width..]);
}

/// A length of at most `most`, mostly a small one.
fn short(most: usize, random: &mut Random) -> usize {
    let longest = if random.index(4) == 0 { most } else { most.min(16) };
    random.index(longest + 1)
}
