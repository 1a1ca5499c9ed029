//! The fuzz targets in `cargo test`: each over its corpus, and over mutations of it.
//!
//! Job: the same bodies that cargo-fuzz runs (`fuzz/fuzz_targets/targets`), without coverage and
//! without a nightly compiler. What libFuzzer found goes into `fuzz/corpus` and is tried here from
//! then on.
//! Invariant: every input depends on the seed and the corpus alone; the one that fails is printed
//! and kept.
//! Must never: pass a target of whose corpus nothing is accepted, since then only its first check
//! was tried.
//!
//! `ODOMETER_FUZZ_ROUNDS` (1000) mutations for each target, drawn by `ODOMETER_SEED` (printed).
//! `ODOMETER_WRITE_CORPUS=1` writes those parts of the corpus that are real encodings.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod mutate;
mod samples;
#[path = "../../../fuzz/fuzz_targets/targets/mod.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::support::{Random, number_setting, say, setting};
use targets::{TARGETS, Target};

/// Files of digests are large, and there is little in them that could be wrong.
const DIGESTS_SHARE: u64 = 10;

fn corpus_of(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The corpus of a target, by name, so that it is the same on every machine.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(corpus_of(target)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| (path.file_name().unwrap().display().to_string(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Runs a target; a panic in it fails the test, and names the input.
fn run((name, body): Target, input: &[u8], what: &str) -> bool {
    catch_unwind(AssertUnwindSafe(|| body(input))).unwrap_or_else(|_| {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        fs::write(&kept, input).unwrap();
        panic!(
            "{name}, {what}: the input is in {}, {} bytes: {input:02x?}",
            kept.display(),
            input.len()
        );
    })
}

#[test]
fn what_is_accepted_encodes_to_the_same_bytes_and_nothing_panics() {
    let (seed, rounds) = (Random::run_seed(), number_setting("ODOMETER_FUZZ_ROUNDS", 1000));
    say(&format!("fuzz: {rounds} rounds, ODOMETER_SEED={seed}"));
    for target in TARGETS {
        let (name, _) = target;
        let corpus = corpus(name);
        let whole = corpus
            .iter()
            .filter(|(file, input)| run(target, input, &format!("corpus file {file}")))
            .count();
        assert!(whole > 0, "{name}: nothing of the corpus is accepted");
        let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
        let mut random = Random::seeded(seed);
        let rounds = if name == "digests" { rounds / DIGESTS_SHARE } else { rounds };
        let accepted = (0..rounds)
            .filter(|round| {
                let input = mutate::mutated(&inputs, &mut random);
                run(target, &input, &format!("ODOMETER_SEED={seed}, round {round}"))
            })
            .count();
        say(&format!(
            "fuzz: {name}: {whole} of {} files and {accepted} of {rounds} mutations accepted",
            inputs.len()
        ));
    }
}

#[test]
fn the_corpus_is_made_of_real_encodings() {
    for (target, name, bytes) in samples::all() {
        let path = corpus_of(target).join(name);
        if setting("ODOMETER_WRITE_CORPUS").as_deref() == Some("1") {
            fs::create_dir_all(corpus_of(target)).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(
            fs::read(&path).unwrap(),
            bytes,
            "{} is not what this build writes",
            path.display()
        );
    }
}
