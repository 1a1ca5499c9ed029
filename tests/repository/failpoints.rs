//! The registry of failpoints has exactly those that stand in `src`.
//!
//! Job: compare both. Invariant: each name stands once in `src` and once in the registry, so a
//! fault that no test is known to see cannot be planted, and none gets lost in a change.
//! Must never: turn a fault on; `tests/failpoints` does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::architecture::{source, source_files};

#[path = "../failpoints/registry/mod.rs"]
#[allow(dead_code, reason = "what a fault is and which test sees it is for the campaign")]
mod registry;

#[test]
fn the_failpoints_of_the_source_are_those_of_the_registry() {
    let mut count: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for file in source_files().iter().filter(|file| *file != Path::new("failpoint.rs")) {
        let text = fs::read_to_string(source().join(file)).expect("a readable file");
        for rest in text.split("failpoint!(\"").skip(1) {
            let name = rest.split('"').next().unwrap_or_default();
            count.entry(name.to_owned()).or_default().0 += 1;
        }
    }
    for point in registry::all() {
        count.entry(point.name.to_owned()).or_default().1 += 1;
    }
    let wrong: Vec<String> = count
        .iter()
        .filter(|(_, count)| **count != (1, 1))
        .map(|(name, (src, rows))| format!("{name}: {src} times in src, {rows} in the registry"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
