//! A file system of the test's own: a small one in memory that can be full, or one in an image that
//! can turn read-only under load.
//!
//! Invariant: the mount goes with the value, also when a test fails.
//! Must never: touch a mount that it did not make.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{has_loop_devices, has_program, is_root, require};

/// Sparse: costs what is written.
const IMAGE_BYTES: u64 = 256 << 20;

/// A mounted file system.
#[derive(Debug)]
pub(crate) struct Mounted {
    home: TempDir,
}

impl Mounted {
    /// Whether a file system in memory can be mounted here; says so if not.
    pub(crate) fn can_memory() -> bool {
        require("root", is_root()) && require("mount", has_program("mount"))
    }

    /// Whether an ext4 image can be mounted here; says so if not.
    pub(crate) fn can_ext4() -> bool {
        Self::can_memory()
            && require("loop devices", has_loop_devices())
            && require("mkfs.ext4", has_program("mkfs.ext4"))
    }

    /// A file system in memory of so many MiB.
    pub(crate) fn memory(mebibytes: u64) -> Self {
        let mounted = Self::place();
        let size = format!("size={mebibytes}m");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "odometer-test"])
            .arg(mounted.point()));
        mounted
    }

    /// An ext4 file system in an image file.
    pub(crate) fn ext4() -> Self {
        let mounted = Self::place();
        let image = fs::File::create_new(mounted.image()).expect("the image file is new");
        image.set_len(IMAGE_BYTES).expect("the image file is sparse");
        drop(image);
        run(Command::new("mkfs.ext4").arg("-q").arg(mounted.image()));
        mounted.mount_image();
        mounted
    }

    fn place() -> Self {
        let mounted = Self { home: TempDir::new().expect("a temporary folder") };
        fs::create_dir(mounted.point()).expect("the mount point is new");
        mounted
    }

    fn image(&self) -> PathBuf {
        self.home.path().join("image")
    }

    fn mount_image(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.point()));
    }

    /// Where it is mounted.
    pub(crate) fn point(&self) -> PathBuf {
        self.home.path().join("disk")
    }

    /// Changes it while it is in use: `size=64m`, `ro`, `rw`; `abort` makes ext4 fail all writes
    /// from now on, as after an error of the disk.
    pub(crate) fn remount(&self, option: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.point()));
    }

    /// Unmounts the image and mounts it again. Nothing may have a file open on it any more.
    pub(crate) fn mount_again(&self) {
        run(Command::new("umount").arg(self.point()));
        self.mount_image();
    }

    /// Takes all that is free but `left` bytes; removing the file gives it back.
    pub(crate) fn fill(&self, left: u64) -> PathBuf {
        let path = self.point().join("filler");
        let mut file = fs::File::create(&path).expect("one more file fits");
        let free =
            || rustix::fs::statvfs(self.point()).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
        while free() > left {
            match file.write_all(&[0x5a; 1 << 14]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("the file that fills the disk: {error}"),
            }
        }
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let umount =
            |words: &[&str], point: &Path| Command::new("umount").args(words).arg(point).output();
        if !umount(&[], &self.point()).is_ok_and(|output| output.status.success()) {
            // A failed test left a file open; the lazy way takes it out of the tree at least.
            let _ = umount(&["-l"], &self.point());
        }
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
