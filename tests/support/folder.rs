//! Copies of data directories, to damage or to start on.
//!
//! Invariant: a copy has the same bytes.
//! Must never: write to the folder that is copied.
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Copies a folder with everything in it; long zeros become holes, and sockets stay where they are.
/// A file that goes away meanwhile, as those of a running server may, is left out.
pub(crate) fn copy(from: &Path, to: &Path) {
    const PIECE: usize = 1 << 14;
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&source, &target);
            continue;
        }
        if !entry.file_type().unwrap().is_file() {
            continue;
        }
        let Ok(mut source) = File::open(&source) else { continue };
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).unwrap();
        let file = File::create_new(&target).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        for (index, piece) in bytes.chunks(PIECE).enumerate().filter(|(_, piece)| !is_zero(piece)) {
            file.write_all_at(piece, (index * PIECE) as u64).unwrap();
        }
        file.set_permissions(source.metadata().unwrap().permissions()).unwrap();
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && rest.iter().all(|&byte| byte == 0)
}
