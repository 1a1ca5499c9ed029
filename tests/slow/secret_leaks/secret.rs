//! Secrets that can be told from everything else, and the search for them.
//!
//! Invariant: a secret is looked for by its core, in every form that it could be written in: as it
//! is in any case, in hexadecimal, percent-encoded, and in base64 wherever in a longer text it
//! stands. What holds a shortened secret holds a half of a key too.
//! Must never: show a secret when one is found; its name is enough.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::support::Random;

/// Needles begin with so many bytes that are looked up at once; none is shorter.
const HEAD_BYTES: usize = 8;
const SLOT_BITS: u32 = 16;
const HEX_DIGITS_OF_SECRET: std::ops::Range<usize> = 21..85;

/// What is looked for.
pub(crate) struct Secrets {
    /// By the beginning, in lower case: the rest, and whose it is and in what form.
    needles: BTreeMap<u64, Vec<(Vec<u8>, String)>>,
    /// By the `slot` of a beginning: whether it is worth being looked up.
    perhaps: Vec<bool>,
    count: usize,
    forms: Vec<(Vec<u8>, String)>,
}

/// Where a secret was found that belongs nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) what: String,
    pub(crate) place: String,
}

impl Secrets {
    pub(crate) fn none() -> Self {
        Self {
            needles: BTreeMap::new(),
            perhaps: vec![false; 1 << SLOT_BITS],
            count: 0,
            forms: Vec::new(),
        }
    }

    /// A new password: long, with characters that every encoding treats in its own way.
    pub(crate) fn password(&mut self, what: &str, random: &mut Random) -> String {
        let core = core(random);
        self.add(what, core.as_bytes());
        format!("Kw%41 &\"+{core}/=?#;'-long-enough")
    }

    /// A word that nothing is done to, for places that show it by contract.
    pub(crate) fn word(&mut self, what: &str, random: &mut Random) -> String {
        let core = core(random);
        self.add(what, core.as_bytes());
        core
    }

    /// The secret half of an API key, its own halves, and the bytes that it stands for.
    pub(crate) fn key(&mut self, what: &str, api_key: &str) {
        let half = &api_key[HEX_DIGITS_OF_SECRET];
        let (first, second) = half.split_at(32);
        self.add(&format!("{what}, first half"), first.as_bytes());
        self.add(&format!("{what}, second half"), second.as_bytes());
        let digits: Vec<u8> =
            half.bytes().map(|digit| (digit as char).to_digit(16).unwrap_or(0) as u8).collect();
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        self.add(&format!("{what}, as bytes"), &bytes);
    }

    pub(crate) fn add(&mut self, what: &str, core: &[u8]) {
        self.count += 1;
        self.needle(what, "as it is", core);
        self.needle(what, "hex", hex(core, "").as_bytes());
        self.needle(what, "percent", hex(core, "%").as_bytes());
        for before in 0..3 {
            // Of so many unknown bytes in front and behind, those characters that depend on the
            // core alone.
            let padded = [&b"\0\0"[..before], core].concat();
            let certain = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
            self.needle(
                what,
                "base64",
                &STANDARD_NO_PAD.encode(&padded).as_bytes()[certain.clone()],
            );
            self.needle(
                what,
                "base64 for URLs",
                &URL_SAFE_NO_PAD.encode(&padded).as_bytes()[certain],
            );
        }
    }

    fn needle(&mut self, what: &str, form: &str, bytes: &[u8]) {
        assert!(bytes.len() >= HEAD_BYTES, "too short to be told from chance: {what} {form}");
        let (lower, name) = (bytes.to_ascii_lowercase(), format!("{what} ({form})"));
        let (head, rest) = lower.split_first_chunk::<HEAD_BYTES>().expect("it was just measured");
        let head = u64::from_be_bytes(*head);
        self.perhaps[slot(head)] = true;
        self.needles.entry(head).or_default().push((rest.to_vec(), name.clone()));
        self.forms.push((bytes.to_vec(), name));
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Every form of every secret, as it would be written.
    pub(crate) fn forms(&self) -> &[(Vec<u8>, String)] {
        &self.forms
    }

    /// All secrets in these bytes, each form once.
    pub(crate) fn search(&self, place: &str, bytes: &[u8]) -> Vec<Hit> {
        let (mut last, mut found) = (0_u64, Vec::new());
        for (at, byte) in bytes.iter().enumerate() {
            last = last << 8 | u64::from(byte.to_ascii_lowercase());
            if !self.perhaps[slot(last)] || at + 1 < HEAD_BYTES {
                continue;
            }
            for (rest, what) in self.needles.get(&last).into_iter().flatten() {
                let follows = bytes
                    .get(at + 1..at + 1 + rest.len())
                    .is_some_and(|follows| follows.eq_ignore_ascii_case(rest));
                let hit = || Hit { what: what.clone(), place: place.to_owned() };
                if follows && !found.contains(&hit()) {
                    found.push(hit());
                }
            }
        }
        found
    }

    /// All secrets in all files of a folder, names of files too. Returns how many files there were.
    pub(crate) fn search_folder(&self, folder: &Path, hits: &mut Vec<Hit>) -> usize {
        let mut files = 0;
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("an entry has a name");
            hits.extend(self.search("the name of a file", name.as_encoded_bytes()));
            if path.is_dir() {
                files += self.search_folder(&path, hits);
                continue;
            }
            if path.is_file() {
                let bytes = std::fs::read(&path).expect("a file of a server that has ended");
                hits.extend(self.search(&path.display().to_string(), &bytes));
                files += 1;
            }
        }
        files
    }
}

/// A short number for a beginning, so that most places are passed by without a look-up.
fn slot(head: u64) -> usize {
    usize::try_from(head.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOT_BITS))
        .expect("a few bits")
}

/// Twenty-four characters that no encoding of text changes.
fn core(random: &mut Random) -> String {
    (0..24).map(|_| char::from(b"abcdefghjkmnpqrstuvwxyz23456789"[random.index(31)])).collect()
}

fn hex(bytes: &[u8], before: &str) -> String {
    bytes.iter().map(|byte| format!("{before}{byte:02x}")).collect()
}
