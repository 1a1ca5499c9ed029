//! One damage to one file.
//!
//! Job: choose a file and a kind of damage, apply it, and tell exactly which bytes are not what
//! they were.
//! Invariant: a mutation changes at least one byte, or removes or lengthens the file. What is
//! chosen depends on the generator and the files alone.
//! Must never: touch a second file.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::folder::{Class, StoreFile, is_zero, store_files};
use super::seeds::Seed;
use crate::support::{Random, setting};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Bytes of a line: places are chosen among lines, so that written areas can be preferred.
const LINE: usize = 64;
const TAIL_LINES: usize = 4;
const TRIES: u32 = 1000;

/// The kinds of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    FlipBit,
    ZeroSector,
    Truncate,
    SwapBlocks,
    /// A block becomes a copy of another of the file: a write that went to the wrong place.
    OtherBlock,
    /// A block becomes what it was earlier: a write that never came.
    OlderBlock,
    Delete,
    Append,
}

const KINDS: [Kind; 8] = [
    Kind::FlipBit,
    Kind::ZeroSector,
    Kind::Truncate,
    Kind::SwapBlocks,
    Kind::OtherBlock,
    Kind::OlderBlock,
    Kind::Delete,
    Kind::Append,
];

/// What rounds in a row damage, by turns: a class of files, or any; and how, or anyhow. The small
/// files say what the large ones are worth, and each of them has its share in a short run too.
pub(crate) const ROTA: [(Option<Class>, Option<Kind>); 16] = [
    (Some(Class::Format), Some(Kind::Delete)),
    (Some(Class::SledDb), None),
    (Some(Class::Current), None),
    (Some(Class::JournalLast), None),
    (Some(Class::SledDigests), Some(Kind::Delete)),
    (Some(Class::SledDb), None),
    (Some(Class::ShutdownRecord), None),
    (None, None),
    (Some(Class::Format), None),
    (Some(Class::JournalOlder), None),
    (Some(Class::Current), Some(Kind::Delete)),
    (Some(Class::SledSnapshot), None),
    (Some(Class::SledDigests), None),
    (Some(Class::JournalLast), None),
    (Some(Class::Backup), None),
    (None, None),
];

/// How often a file of a class is chosen where any may be, compared with the others that are there.
fn weight(class: Class) -> usize {
    match class {
        Class::SledDb => 8,
        Class::JournalLast => 5,
        Class::JournalOlder | Class::SledSnapshot => 3,
        Class::SledDigests => 2,
        Class::Format
        | Class::Spare
        | Class::SledConf
        | Class::SledOther
        | Class::Backup
        | Class::Current
        | Class::ShutdownRecord => 1,
    }
}

/// What was done.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    pub(crate) kind: Kind,
    pub(crate) file: StoreFile,
    /// From the first to behind the last byte that is not as it was; what a truncation or a removal
    /// takes away counts, zeros too.
    pub(crate) changed: Range<usize>,
    pub(crate) length: usize,
}

impl Mutation {
    pub(crate) fn describe(&self) -> String {
        let Range { start, end } = self.changed;
        format!(
            "{:?} of {} ({} bytes), changed {start}..{end}",
            self.kind, self.file.path, self.length
        )
    }

    /// Where the store's journal ends if the damage is taken for a write that a crash cut short:
    /// one stretch, in place, that reaches the last frame. Nobody can tell the two apart. `None`
    /// for every other damage.
    pub(crate) fn end_like_a_crash(&self, seed: &Seed) -> Option<Range<usize>> {
        let in_place = matches!(
            self.kind,
            Kind::FlipBit | Kind::ZeroSector | Kind::OtherBlock | Kind::OlderBlock
        );
        let (path, frames) = seed.last_frames.as_ref().filter(|_| in_place)?;
        let last = frames
            .last()
            .filter(|last| *path == self.file.path && last.start < self.changed.end)?;
        let first = frames.iter().find(|frame| frame.end > self.changed.start)?;
        Some(first.start..last.end)
    }
}

/// Damages one file of `folder`, which is a copy of `seed`'s: one of this class and in this way, if
/// there is one.
pub(crate) fn mutate(
    seed: &Seed,
    folder: &Path,
    (class, kind): (Option<Class>, Option<Kind>),
    random: &mut Random,
) -> Mutation {
    let only = setting("ODOMETER_CORRUPTION_FILES").unwrap_or_default();
    // An empty file says nothing that could rot.
    let says = |file: &StoreFile| fs::metadata(folder.join(&file.path)).unwrap().len() > 0;
    let mut files: Vec<StoreFile> = store_files(folder).into_iter().filter(says).collect();
    if files.iter().any(|file| file.path.starts_with(&only)) {
        files.retain(|file| file.path.starts_with(&only));
    }
    let wanted = |file: &StoreFile| Some(file.class) == class;
    if files.iter().any(wanted) {
        files.retain(wanted);
    }
    let file = choose_file(files, random);
    let path = folder.join(&file.path);
    let before = fs::read(&path).unwrap();
    let older = fs::read(seed.older().join(&file.path)).unwrap_or_default();
    for _ in 0..TRIES {
        let kind = kind.unwrap_or_else(|| random.pick(&KINDS));
        let Some(after) = apply(kind, &before, &older, random) else { continue };
        let Some(changed) = difference(&before, after.as_deref()) else { continue };
        match after {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        return Mutation { kind, file, changed, length: before.len() };
    }
    unreachable!("every file can be deleted")
}

fn choose_file(files: Vec<StoreFile>, random: &mut Random) -> StoreFile {
    let mut classes: Vec<Class> = files.iter().map(|file| file.class).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut at = random.index(classes.iter().map(|class| weight(*class)).sum());
    let class = classes.into_iter().find(|class| {
        let found = at < weight(*class);
        at = at.saturating_sub(weight(*class));
        found
    });
    let mut files: Vec<StoreFile> =
        files.into_iter().filter(|file| Some(file.class) == class).collect();
    let index = random.index(files.len());
    files.swap_remove(index)
}

/// The file's bytes after the damage, `Some(None)` if it is gone; `None` if this damage is not
/// possible here.
#[expect(clippy::option_option, reason = "the module's own two meanings, one line above")]
fn apply(kind: Kind, before: &[u8], older: &[u8], random: &mut Random) -> Option<Option<Vec<u8>>> {
    let mut bytes = before.to_vec();
    match kind {
        Kind::FlipBit => {
            let at = place(before, 1, random)?;
            bytes[at] ^= 1 << random.index(8);
        }
        Kind::ZeroSector => {
            let at = place(before, SECTOR, random)?;
            let end = bytes.len().min(at + SECTOR);
            bytes[at..end].fill(0);
        }
        Kind::Truncate => bytes.truncate(place(before, 1, random)?),
        Kind::SwapBlocks => {
            let (one, other) = (block(before, random)?, block(before, random)?);
            bytes[one.clone()].copy_from_slice(&before[other.clone()]);
            bytes[other].copy_from_slice(&before[one]);
        }
        Kind::OtherBlock => {
            let (to, from) = (block(before, random)?, block(before, random)?);
            bytes[to].copy_from_slice(&before[from]);
        }
        Kind::OlderBlock => {
            let at = block(before, random)?;
            bytes[at.clone()].copy_from_slice(older.get(at)?);
        }
        Kind::Delete => return Some(None),
        Kind::Append => {
            bytes.extend((0..random.between(1, 5000)).map(|_| random.next().to_le_bytes()[0]))
        }
    }
    Some(Some(bytes))
}

/// A place, a multiple of `unit`: seven times of eight one where something is written, if there is.
fn place(bytes: &[u8], unit: usize, random: &mut Random) -> Option<usize> {
    let written: Vec<usize> =
        (0..bytes.len()).step_by(LINE).filter(|&at| !is_zero(line(bytes, at))).collect();
    if bytes.is_empty() {
        return None;
    }
    let at = if written.is_empty() || random.index(8) == 0 {
        random.index(bytes.len())
    } else {
        // The end of what is written gets a share of its own: there damage is hardest to tell from
        // a crash.
        let from = if random.index(8) == 0 { written.len().saturating_sub(TAIL_LINES) } else { 0 };
        let start = written[from + random.index(written.len() - from)];
        start + random.index(line(bytes, start).len())
    };
    Some(at - at % unit)
}

fn line(bytes: &[u8], at: usize) -> &[u8] {
    &bytes[at..bytes.len().min(at + LINE)]
}

/// A whole block, seven times of eight one where something is written.
fn block(bytes: &[u8], random: &mut Random) -> Option<Range<usize>> {
    if bytes.len() < 2 * BLOCK {
        return None;
    }
    let whole = bytes.len() - bytes.len() % BLOCK;
    let at = place(&bytes[..whole], BLOCK, random)?;
    Some(at..at + BLOCK)
}

fn difference(before: &[u8], after: Option<&[u8]>) -> Option<Range<usize>> {
    let after = after.unwrap_or_default();
    let length = before.len().max(after.len());
    // Whole blocks first, since a file has millions of bytes.
    let differs = |at: usize, size: usize| part(before, at, size) != part(after, at, size);
    let mut blocks = (0..length).step_by(BLOCK).filter(|&at| differs(at, BLOCK));
    let first = blocks.next()?;
    let last = blocks.next_back().unwrap_or(first);
    let start = (first..length).find(|&at| differs(at, 1))?;
    let end = (last..length.min(last + BLOCK)).rev().find(|&at| differs(at, 1))?;
    Some(start..end + 1)
}

fn part(bytes: &[u8], at: usize, size: usize) -> &[u8] {
    bytes.get(at..bytes.len().min(at + size)).unwrap_or_default()
}
