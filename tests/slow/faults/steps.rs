//! What a process did to a data directory, step by step, and orders that the steps must have.
//!
//! Job: read the trace of strace as steps ([`read`]), and hold it to a table of orders ([`Order`]).
//! Invariant: a sync counts from its end and only if it succeeded, everything else from its begin;
//! so what stands behind a sync in the list was not begun before the sync had returned.
//! Must never: accept an order that no step of the trace was held to.
//!
//! A step is a string: a verb, a space, and a path below the data directory, which itself is `.`
//! and its parent `..`. Verbs are `write`, `sync`, `rename` (with the new name), `remove`, `mkdir`,
//! `advise` (the page cache is dropped), and `end` for the end of the process. A write of the
//! journal is a `header`, a `commit` or a `checkpoint`, and one of the digests is of a checkpoint's
//! `begin` or of its `complete` end.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use odometer::store::embedded::state::digests::BucketDigests;

/// The calls that are steps. `?` stands before those that not every machine has.
const CALLS: &str = "write,pwrite64,fsync,fdatasync,?rename,?renameat,?renameat2,?unlink,\
                     ?unlinkat,?mkdir,?mkdirat,?fadvise64";
/// As many bytes of a write are shown: the header of the digests and of a frame are shorter.
const SHOWN_BYTES: &str = "40";
const SEGMENT_MAGIC: &[u8] = b"ODOJRNL1";

/// Whenever the step `before` is made and the step `since` was made before it, these steps stand
/// between the last of those and it, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// A step, or `start` for the start of the process. `*` stands for any characters.
    pub(crate) since: &'static str,
    pub(crate) needs: &'static [&'static str],
    pub(crate) before: &'static str,
}

/// The words before a command line whose steps are written to `trace`.
pub(crate) fn traced(trace: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> =
        ["strace", "--seccomp-bpf", "-f", "-y", "-x", "-s", SHOWN_BYTES, "-o"]
            .map(OsString::from)
            .to_vec();
    words.extend([trace.into(), "-e".into(), format!("trace={CALLS}").into()]);
    words
}

/// The steps in a trace of one process that has ended.
pub(crate) fn read(trace: &Path, data_dir: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(&fs::read(trace).expect("a trace")).into_owned();
    let data_dir = data_dir.canonicalize().expect("the process made it");
    let mut begun: Vec<(&str, &str)> = Vec::new();
    let mut steps = Vec::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
        let call = call.trim_start();
        if let Some(call) = call.strip_suffix("<unfinished ...>") {
            begun.push((thread, call));
            // Where the end of the call does not matter, its begin is the step.
            steps.extend(step(call, &data_dir).filter(|step| !step.starts_with("sync ")));
        } else if call.starts_with("<...") {
            let at = begun.iter().position(|(of, _)| *of == thread);
            let Some((_, first)) = at.map(|at| begun.remove(at)) else { continue };
            let ended = step(first, &data_dir).filter(|step| step.starts_with("sync "));
            steps.extend(ended.filter(|_| call.ends_with("= 0")));
        } else {
            let step = step(call, &data_dir);
            let failed = |step: &String| step.starts_with("sync ") && !call.ends_with("= 0");
            steps.extend(step.filter(|step| !failed(step)));
        }
    }
    steps.push("end .".to_owned());
    steps
}

/// The step that a call is, if it is about the data directory.
fn step(call: &str, data_dir: &Path) -> Option<String> {
    let (name, arguments) = call.split_once('(')?;
    let relative = |path: &str| {
        let path = Path::new(path);
        match path.strip_prefix(data_dir) {
            Ok(rest) if rest.as_os_str().is_empty() => Some(".".to_owned()),
            Ok(rest) => Some(rest.display().to_string()),
            Err(_) => (Some(path) == data_dir.parent()).then(|| "..".to_owned()),
        }
    };
    // The file of a descriptor stands behind it: `7</data/FORMAT.new>`.
    let opened = || relative(arguments.split_once('<')?.1.split_once('>')?.0);
    // The last string among the arguments: the new name of a rename.
    let named = || relative(arguments.rsplit('"').nth(1)?);
    let (verb, path) = match name {
        "write" | "pwrite64" => {
            let path = opened()?;
            (written(&path, &bytes(arguments)), path)
        }
        "fsync" | "fdatasync" => ("sync", opened()?),
        "fadvise64" => ("advise", opened()?),
        "rename" | "renameat" | "renameat2" => ("rename", named()?),
        "unlink" | "unlinkat" => ("remove", named()?),
        "mkdir" | "mkdirat" => ("mkdir", named()?),
        _ => return None,
    };
    Some(format!("{verb} {path}"))
}

/// The first bytes of a write. strace shows a string with a byte that is no character in
/// hexadecimal, each byte of it.
fn bytes(arguments: &str) -> Vec<u8> {
    let shown = arguments.split('"').nth(1).unwrap_or_default();
    if !shown.starts_with("\\x") {
        return shown.as_bytes().to_vec();
    }
    shown.split("\\x").filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

/// The verb of a write of these first bytes.
fn written(path: &str, bytes: &[u8]) -> &'static str {
    if path.starts_with("journal/") && bytes.starts_with(SEGMENT_MAGIC) {
        "header"
    } else if path.ends_with(".journal") {
        // See journal/frame.rs: the kind of a frame.
        if bytes.get(12..16) == Some(&2_u32.to_be_bytes()) { "checkpoint" } else { "commit" }
    } else if path.ends_with("odometer.digests.new") {
        // The file is longer than what is shown; its two positions are not.
        if bytes.get(8..20) == bytes.get(20..32) { "complete" } else { "begin" }
    } else {
        "write"
    }
}

/// Holds the steps to the orders. Returns how often each was applied, and what is wrong.
pub(crate) fn judge(steps: &[String], orders: &[Order]) -> (Vec<usize>, Vec<String>) {
    let (mut applied, mut wrong) = (vec![0; orders.len()], Vec::new());
    for (order, applied) in orders.iter().zip(&mut applied) {
        for (end, _) in steps.iter().enumerate().filter(|(_, step)| is(step, order.before)) {
            let since = steps[..end].iter().rposition(|step| is(step, order.since));
            let begin = match since {
                Some(at) => at + 1,
                None if order.since == "start" => 0,
                None => continue,
            };
            *applied += 1;
            let mut between = steps[begin..end].iter();
            let is_made = |wanted: &&str| between.any(|step| is(step, wanted));
            if !order.needs.iter().all(is_made) {
                let shown = steps[begin.saturating_sub(1)..=end].join("\n  ");
                wrong.push(format!("{order:?}\n  {shown}"));
            }
        }
    }
    (applied, wrong)
}

/// Whether the step is of this pattern.
fn is(step: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => step == pattern,
        Some((first, last)) => {
            let rest = step.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
            rest.is_some_and(|rest| !rest.contains('/'))
        }
    }
}

/// The digests are found by their size too, so that a change of the format is noticed here.
#[test]
fn the_steps_of_a_checkpoint_are_told_apart() {
    use odometer::store::embedded::journal::frame::{CommitSeq, LogPosition};
    let at = |seq| LogPosition { seq: CommitSeq(seq), crc: 7 };
    let table = BucketDigests::empty().table;
    for (from, to, verb) in [(3, 9, "begin"), (9, 9, "complete")] {
        let saved = BucketDigests::encode(at(from), at(to), &table);
        assert_eq!(written("sled/odometer.digests.new", &saved[..32]), verb);
    }
    let text = ["write a", "sync a", "rename b", "end ."].map(str::to_owned);
    let order = |needs| Order { since: "write a", needs, before: "rename *" };
    assert_eq!(judge(&text, &[order(&["sync a"])]), (vec![1], Vec::new()));
    assert_eq!(judge(&text, &[order(&["sync b"])]).1.len(), 1);
    assert_eq!(judge(&text, &[order(&["sync a", "sync a"])]).1.len(), 1);
}
