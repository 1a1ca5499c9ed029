//! What a bench says besides its own figures: the machine, the disk, and medians.
//!
//! Invariant: the price of durability is measured in the folder that the server will use. It must
//! never compare runs.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;

use crate::support::setting;

/// Whether one very short round is wanted, as of a test: without `--bench`, or with `--test`.
pub(crate) fn is_short() -> bool {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    has("--test") || !has("--bench")
}

/// A folder for the server's data: in `ODOMETER_BENCH_DIR`, or else in `usual`.
pub(crate) fn bench_folder(usual: &str) -> TempDir {
    let place = setting("ODOMETER_BENCH_DIR").unwrap_or_else(|| usual.to_owned());
    TempDir::new_in(place).expect("a temporary folder in the bench folder")
}

/// Says on what machine and disk the figures that follow were measured.
pub(crate) fn show_surroundings(folder: &Path) {
    show(&machine());
    show(&format!(
        "disk: {}, 4 KiB write + fdatasync {:.0} µs",
        filesystem(folder),
        fdatasync_us(folder)
    ));
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |at| at.1);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let build = if cfg!(debug_assertions) { ", DEBUG BUILD: the figures mean nothing" } else { "" };
    format!("machine: {model}, {cores} cores, Linux {}{build}", kernel.trim())
}

/// The type of the filesystem that holds the folder: of all mounts above it the deepest, and of
/// those the last.
fn filesystem(folder: &Path) -> String {
    let folder = folder.canonicalize().expect("the folder exists");
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let above = fields.filter(|fields| fields.len() > 2 && folder.starts_with(fields[1]));
    above
        .max_by_key(|fields| fields[1].len())
        .map_or_else(|| "unknown".to_owned(), |fields| fields[2].to_owned())
}

/// The price of durability on this disk: one 4 KiB overwrite and fdatasync, median of 200.
fn fdatasync_us(folder: &Path) -> f64 {
    const BLOCK: [u8; 4096] = [7; 4096];
    const BLOCKS: u64 = 64;
    let file = File::create_new(folder.join("fdatasync")).expect("a new file in the bench folder");
    for block in 0..BLOCKS {
        file.write_all_at(&BLOCK, block * 4096).expect("the disk takes 256 KiB");
    }
    file.sync_all().expect("the disk syncs");
    let once = |turn: u64| {
        let started = Instant::now();
        file.write_all_at(&BLOCK, turn % BLOCKS * 4096)
            .and_then(|()| file.sync_data())
            .expect("the disk syncs");
        started.elapsed().as_secs_f64() * 1e6
    };
    median((0..200).map(once).collect())
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

/// One line of the report.
pub(crate) fn show(line: &str) {
    // A closed pipe (`| head`) is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{line}");
}
