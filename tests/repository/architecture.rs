//! The picture of the source in docs/architecture.md stays true.
//!
//! Job: read the `use` lines and `crate::` paths of every file in src, and hold them to a table of
//! who may import whom.
//! Invariant: imports point down the table only, and no two files import each other, however many
//! lie between.
//! Must never: count what only a unit test imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the top floor down: a path below src, and the rooms that its files may import. A file
/// belongs to the longest path that its own begins with.
const ROOMS: &[(&str, &[&str])] = &[
    ("main.rs", &[]),
    (
        "cli",
        &[
            "app.rs",
            "top",
            "healthcheck.rs",
            "config",
            "admin",
            "store/embedded",
            "store/embedded/recovery",
            "store/embedded/backup",
            "store",
        ],
    ),
    (
        "app.rs",
        &[
            "config",
            "http",
            "admin",
            "auth",
            "store/embedded",
            "store/embedded/recovery",
            "store/embedded/shutdown_record.rs",
            "store",
            "telemetry",
        ],
    ),
    ("top", &["admin", "store", "telemetry", "domain"]),
    ("healthcheck.rs", &["config"]),
    ("config", &["http", "auth", "store/embedded", "telemetry", "domain"]),
    ("http", &["admin", "auth", "store/embedded", "store", "telemetry", "domain"]),
    (
        "admin",
        &[
            "store/embedded/recovery",
            "store/embedded/state",
            "store/embedded/backup",
            "store/embedded/fs.rs",
            "telemetry",
        ],
    ),
    ("auth", &["store", "domain"]),
    (
        "store/embedded",
        &[
            "store/embedded/runtime",
            "store/embedded/recovery",
            "store/embedded/checkpoint",
            "store/embedded/state",
            "store/embedded/backup",
            "store/embedded/commit",
            "store/embedded/data_dir.rs",
            "store/embedded/journal",
            "store/embedded/codec",
            "store/embedded/options.rs",
            "store/embedded/fs.rs",
            "store",
            "telemetry",
            "domain",
        ],
    ),
    (
        "store/embedded/runtime",
        &[
            "store/embedded/recovery",
            "store/embedded/checkpoint",
            "store/embedded/state",
            "store/embedded/backup",
            "store/embedded/commit",
            "store/embedded/data_dir.rs",
            "store/embedded/journal",
            "store/embedded/shutdown_record.rs",
            "store/embedded/options.rs",
            "store/embedded/fs.rs",
            "store",
            "telemetry",
        ],
    ),
    (
        "store/embedded/recovery",
        &[
            "store/embedded/checkpoint",
            "store/embedded/state",
            "store/embedded/backup",
            "store/embedded/commit",
            "store/embedded/data_dir.rs",
            "store/embedded/journal",
            "store/embedded/codec",
            "store/embedded/shutdown_record.rs",
            "store/embedded/options.rs",
            "store/embedded/layout.rs",
            "store/embedded/fs.rs",
            "store",
        ],
    ),
    (
        "store/embedded/checkpoint",
        &[
            "store/embedded/state",
            "store/embedded/backup",
            "store/embedded/commit",
            "store/embedded/journal",
            "store/embedded/options.rs",
            "store/embedded/fs.rs",
            "store",
        ],
    ),
    (
        "store/embedded/state",
        &[
            "store/embedded/backup",
            "store/embedded/journal",
            "store/embedded/codec",
            "store/embedded/layout.rs",
            "store/embedded/fs.rs",
        ],
    ),
    (
        "store/embedded/backup",
        &["store/embedded/journal", "store/embedded/codec", "store/embedded/fs.rs"],
    ),
    (
        "store/embedded/commit",
        &[
            "store/embedded/journal",
            "store/embedded/codec",
            "store/embedded/fs.rs",
            "store",
            "domain",
        ],
    ),
    (
        "store/embedded/data_dir.rs",
        &[
            "store/embedded/journal",
            "store/embedded/upgrade.rs",
            "store/embedded/shutdown_record.rs",
            "store/embedded/layout.rs",
            "store/embedded/fs.rs",
        ],
    ),
    (
        "store/embedded/journal",
        &["store/embedded/codec", "store/embedded/layout.rs", "store/embedded/fs.rs"],
    ),
    ("store/embedded/codec", &["store", "domain"]),
    ("store/embedded/upgrade.rs", &["store/embedded/layout.rs", "store/embedded/fs.rs"]),
    ("store/embedded/shutdown_record.rs", &[]),
    ("store/embedded/options.rs", &[]),
    ("store/embedded/layout.rs", &[]),
    ("store/embedded/fs.rs", &[]),
    ("store", &["domain"]),
    ("telemetry", &[]),
    ("domain", &[]),
];

/// The path of each file's module, such as `["store", "embedded"]`, and the file.
type Modules = BTreeMap<Vec<String>, PathBuf>;

pub(crate) fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn collect(dir: &Path, modules: &mut Modules) {
    for entry in
        fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path())
    {
        if entry.is_dir() {
            collect(&entry, modules);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let file = entry.strip_prefix(source()).expect("below src").to_owned();
            let mut path: Vec<String> = file
                .with_extension("")
                .iter()
                .map(|part| part.to_string_lossy().into_owned())
                .collect();
            if matches!(path.last().map(String::as_str), Some("mod" | "lib")) {
                path.pop();
            }
            modules.insert(path, file);
        }
    }
}

/// The paths of a use tree: `a::{b, c::{d, e}}` is three.
fn expand(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let body = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, c) in body.char_indices().chain([(body.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = body.get(start..at).unwrap_or_default().trim();
                if !part.is_empty() {
                    paths.extend(
                        expand(part).into_iter().map(|path| format!("{}{path}", prefix.trim())),
                    );
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    paths
}

/// Every path into this crate that a file names outside comments and unit tests.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("mod tests {").next().unwrap_or_default();
    let code: String = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut paths = Vec::new();
    for start in ["use crate::", "use super::", "use self::"] {
        for (at, _) in code.match_indices(start) {
            let tree =
                code.get(at + 4..).and_then(|rest| rest.split(';').next()).unwrap_or_default();
            paths.extend(expand(tree));
        }
    }
    let is_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let is_of_use = |at: &usize| code.get(..*at).is_some_and(|before| before.ends_with("use "));
    for (at, _) in code.match_indices("crate::").filter(|(at, _)| !is_of_use(at)) {
        let rest = code.get(at..).unwrap_or_default();
        paths.push(rest.split(|c: char| !is_of_path(c)).next().unwrap_or_default().to_owned());
    }
    paths
}

/// Which file a path leads to, seen from the module `from`.
fn resolve<'a>(from: &[String], path: &str, modules: &'a Modules) -> Option<&'a PathBuf> {
    let mut at = from.to_vec();
    for (index, part) in path.split("::").map(str::trim).enumerate() {
        match part.split_whitespace().next().unwrap_or_default() {
            "crate" if index == 0 => at.clear(),
            "self" => {}
            "super" => {
                at.pop();
            }
            name => at.push(name.to_owned()),
        }
    }
    (0..=at.len()).rev().find_map(|length| modules.get(at.get(..length)?))
}

/// Every file of the source, relative to it, but for unit tests in files of their own.
pub(crate) fn source_files() -> Vec<PathBuf> {
    modules().into_values().collect()
}

fn modules() -> Modules {
    let mut modules = Modules::new();
    collect(&source(), &mut modules);
    modules.retain(|_, file| !file.to_string_lossy().ends_with("_tests.rs"));
    modules
}

/// Who imports whom, by file.
fn graph() -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let modules = modules();
    let mut graph = BTreeMap::new();
    for (module, file) in &modules {
        let text = fs::read_to_string(source().join(file)).expect("a readable file");
        let targets =
            imports(&text).into_iter().filter_map(|path| resolve(module, &path, &modules).cloned());
        // A failpoint may stand in any room: outside of its campaign it is the constant `false`.
        let of_no_room = [Path::new("lib.rs"), Path::new("failpoint.rs")];
        let targets: BTreeSet<_> = targets
            .filter(|target| target != file && !of_no_room.contains(&target.as_path()))
            .collect();
        graph.insert(file.clone(), targets);
    }
    graph
}

fn room(file: &Path) -> usize {
    let is_in = |room: &str| file == Path::new(room) || file.starts_with(room);
    let found = ROOMS
        .iter()
        .enumerate()
        .filter(|(_, (room, _))| is_in(room))
        .max_by_key(|(_, (room, _))| room.len());
    found.unwrap_or_else(|| panic!("{} is in no room of the table", file.display())).0
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (file, targets) in graph().iter().filter(|(file, _)| *file != Path::new("lib.rs")) {
        for target in targets {
            let (from, to) = (room(file), room(target));
            let (name, allowed) = ROOMS[from];
            if from == to {
                continue;
            }
            used.insert((from, to));
            if !allowed.contains(&ROOMS[to].0) {
                wrong.push(format!(
                    "{name} may not import {}: {} -> {}",
                    ROOMS[to].0,
                    file.display(),
                    target.display()
                ));
            }
        }
    }
    for (from, (name, allowed)) in ROOMS.iter().enumerate() {
        for below in *allowed {
            let to = ROOMS.iter().position(|(room, _)| room == below).expect("a room of the table");
            if to <= from {
                wrong.push(format!("{below} does not lie below {name}"));
            }
            if !used.contains(&(from, to)) {
                wrong.push(format!("{name} may import {below}, and does not"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_two_files_import_each_other() {
    let mut graph = graph();
    // Take away files that import nothing any more, again and again; what stays is on a cycle or
    // above one.
    loop {
        let done: Vec<_> = graph
            .iter()
            .filter(|(_, targets)| targets.is_empty())
            .map(|(file, _)| file.clone())
            .collect();
        if done.is_empty() {
            break;
        }
        for file in done {
            graph.remove(&file);
            graph.values_mut().for_each(|targets| {
                targets.remove(&file);
            });
        }
    }
    let rest: Vec<_> =
        graph.iter().map(|(file, targets)| format!("{} -> {targets:?}", file.display())).collect();
    assert!(
        rest.is_empty(),
        "these files import each other, or files that do:\n{}",
        rest.join("\n")
    );
}

#[test]
fn a_use_tree_is_read_whole() {
    assert_eq!(
        expand("crate::a::{B, c::{self, D as E}, f}"),
        ["crate::a::B", "crate::a::c::self", "crate::a::c::D as E", "crate::a::f"]
    );
    assert_eq!(
        imports("use crate::a::B; // crate::x\nfn f() { crate::c::d() }\n"),
        ["crate::a::B", "crate::c::d"]
    );
}
