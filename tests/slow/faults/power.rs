//! A disk whose power can be cut: a filesystem in an image file, mounted through a loop device.
//!
//! Invariant: `cut` drops everything that was not synced (FS_IOC_SHUTDOWN without log flush),
//! `restore` mounts what is left and lets the filesystem replay its own journal. The mount goes
//! with the value, also when a test fails. It must never touch another mount, and does not model a
//! drive that lies about its cache.
//!
//! Freeze the server before the cut. A sync that is under way during the ioctl can return success
//! although its record is gone. Seen without any server: a bare writer that acknowledges after
//! `fdatasync` lost its last record in 18 of 190 cuts when the file grew, each time one
//! acknowledged after the ioctl had begun, and in 0 of 190 when it was preallocated. Where power
//! fails the processor stops too, so nobody is told of such a record. The price: freezing may let
//! the sync end first, so cuts in the middle of one are rare or absent (`crash.rs` prints how
//! many), and what a running server does when its syncs fail is left to another test (EIO by
//! strace).

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::{has_loop_devices, has_program, is_root, require, setting};

/// Sparse, so it costs what is written; large enough for xfs and for the server's low-disk limit.
const IMAGE_BYTES: u64 = 640 << 20;

/// Opens the mount point, waits for a byte, and shuts its filesystem down. The crate forbids unsafe
/// code, and an ioctl is; perl is in every Debian. 0x8004587d is FS_IOC_SHUTDOWN (the same for ext4
/// and xfs), 2 is NOLOGFLUSH.
const SHUTDOWN_PERL: &str = r#"
sysopen(my $mount, $ARGV[0], 0) or die "open: $!";
my $flags = pack("L", 2);
syswrite(STDOUT, "armed"); sysread(STDIN, my $go, 1);
ioctl($mount, 0x8004587d, $flags) or die "ioctl: $!";
"#;
const SHUTDOWN_PYTHON: &str = "
import fcntl, os, struct, sys
mount = os.open(sys.argv[1], os.O_RDONLY)
os.write(1, b'armed'); os.read(0, 1)
fcntl.ioctl(mount, 0x8004587d, struct.pack('I', 2))
";

/// A mounted filesystem of its own.
#[derive(Debug)]
pub(crate) struct PowerDisk {
    home: TempDir,
    mounted: bool,
}

impl PowerDisk {
    /// Whether this machine can do it; says so if not.
    pub(crate) fn is_possible() -> bool {
        require("root", is_root())
            && require("loop devices", has_loop_devices())
            && require(&mkfs(), has_program(&mkfs()))
            && require(&format!("{} in the kernel", filesystem()), in_kernel(&filesystem()))
            && require("perl or python3", has_program("perl") || has_program("python3"))
    }

    /// Makes the filesystem named by `ODOMETER_POWER_FS` (ext4 or xfs) and mounts it.
    pub(crate) fn create() -> Self {
        let home = TempDir::new().expect("a temporary folder");
        let mut disk = Self { home, mounted: false };
        let image = std::fs::File::create_new(disk.image()).expect("the image file is new");
        image.set_len(IMAGE_BYTES).expect("the image file is sparse");
        drop(image);
        run(Command::new(mkfs()).arg("-q").arg(disk.image()));
        std::fs::create_dir(disk.mount_point()).expect("the mount point is new");
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.home.path().join("image")
    }

    pub(crate) fn mount_point(&self) -> PathBuf {
        self.home.path().join("disk")
    }

    fn mount(&mut self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.mount_point()));
        self.mounted = true;
    }

    /// Prepares a cut, so that `Cut::now` takes no longer than the ioctl.
    pub(crate) fn arm(&self) -> Cut {
        let mut command = shutdown_command(&self.mount_point());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut armed = [0; 5];
        child
            .stdout
            .as_mut()
            .expect("it is piped")
            .read_exact(&mut armed)
            .expect("the helper opens the mount point");
        Cut(child)
    }

    /// Unmounts and mounts again. Nothing may have a file open on it any more.
    pub(crate) fn restore(&mut self) {
        run(Command::new("umount").arg(self.mount_point()));
        self.mounted = false;
        self.mount();
    }
}

/// A cut that waits for its moment.
#[derive(Debug)]
pub(crate) struct Cut(Child);

impl Cut {
    /// From here on nothing reaches the disk, and what had not reached it is gone.
    pub(crate) fn now(mut self) {
        self.0
            .stdin
            .take()
            .expect("it is piped")
            .write_all(b"!")
            .expect("the helper waits for this");
        let status = self.0.wait().expect("the helper can be waited for");
        assert!(status.success(), "FS_IOC_SHUTDOWN: {status}");
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // Only when a test failed before the cut; an ended child is left alone by both calls.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        if self.mounted {
            let unmounted = Command::new("umount").arg(self.mount_point()).output();
            if !unmounted.is_ok_and(|output| output.status.success()) {
                // Something still has a file open; the lazy way takes it out of the tree at least.
                // Nobody is left to tell.
                let _ = Command::new("umount").arg("-l").arg(self.mount_point()).output();
            }
        }
    }
}

fn filesystem() -> String {
    let filesystem = setting("ODOMETER_POWER_FS").unwrap_or_else(|| "ext4".to_owned());
    assert!(
        ["ext4", "xfs"].contains(&filesystem.as_str()),
        "ODOMETER_POWER_FS={filesystem} is neither ext4 nor xfs"
    );
    filesystem
}

fn mkfs() -> String {
    format!("mkfs.{}", filesystem())
}

/// Whether it can be mounted, perhaps after its module was loaded.
fn in_kernel(filesystem: &str) -> bool {
    let known = || {
        let listed = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        listed.lines().any(|line| line.split_whitespace().last() == Some(filesystem))
    };
    known() || (Command::new("modprobe").arg(filesystem).output().is_ok() && known())
}

fn shutdown_command(mount_point: &Path) -> Command {
    let (program, script) = if has_program("perl") {
        ("perl", ["-e", SHUTDOWN_PERL])
    } else {
        ("python3", ["-c", SHUTDOWN_PYTHON])
    };
    let mut command = Command::new(program);
    command.args(script).arg(mount_point);
    command
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
