//! The table of events and the index template beside what the program has.
//!
//! What servers really wrote is held against both in every test, see `support/ecs.rs`; here is what
//! can be seen without a server.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::ecs;

/// Every Rust file below a folder, as one text.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| if path.is_dir() { sources(&path) } else { fs::read_to_string(path).unwrap() })
        .collect()
}

#[test]
fn each_event_of_the_table_is_in_the_program_and_each_of_the_program_in_the_table() {
    let source = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let unknown: Vec<_> =
        ecs::events().iter().filter(|event| !source.contains(&format!("\"{event}\""))).collect();
    assert!(unknown.is_empty(), "the table has events that the program does not: {unknown:?}");
    // Those whose name is chosen while it runs are found when a test's server writes them.
    let written: BTreeSet<_> = source
        .split("event.action")
        .skip(1)
        .filter_map(|rest| {
            rest.trim_start_matches('"').trim_start().strip_prefix("= \"")?.split('"').next()
        })
        .collect();
    let untold: Vec<_> = written.iter().filter(|event| !ecs::events().contains(**event)).collect();
    assert!(written.len() > 20 && untold.is_empty(), "not in the table: {untold:?}");
}

#[test]
fn the_index_template_has_the_types_of_the_schema() {
    for (field, kind) in ecs::mapped() {
        if field.starts_with("odometer.") || field.starts_with("container.") {
            continue;
        }
        assert_eq!(ecs::fields().get(field.as_str()), Some(&kind.as_str()), "{field}");
    }
}
