//! How commands of the same machine talk to the running server: a Unix socket in the data folder.
//!
//! ```text
//! odometer backup ──► <data-dir>/admin.sock, mode 0600 ──► the server
//!   {"command":"backup"}\n                    one line of JSON, at most 4 KiB
//!   {"ok":{"commit_seq":7,"records":5,"bytes":900}}\n   or {"error":"…"}\n; after a backup its bytes follow
//! ```
//! Job: the protocol, both ends of the socket, and the command `backup`.
//! Invariant: whoever may open the data folder is the admin; there is no password. Must never: listen on a network.

pub mod backup;
pub mod server;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The socket's name in the data folder.
pub const SOCKET: &str = "admin.sock";
/// The kernel takes paths up to 107 bytes.
const LONGEST_PATH: usize = 100;
/// The longest request or reply, in bytes.
const LONGEST_LINE: u64 = 4096;

/// What the server is asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    /// A backup of everything, now.
    Backup,
}

/// What it answers first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    Ok(Made),
    Error(String),
}

/// A backup that was made and verified; so many bytes follow.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Made {
    commit_seq: u64,
    records: u64,
    bytes: u64,
}

/// The path to bind or connect to. The folder is held open while it is used, since a long path goes through its descriptor.
struct Address {
    path: PathBuf,
    _folder: Option<File>,
}

impl Address {
    fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        if path.as_os_str().len() <= LONGEST_PATH {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(data_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }
}

fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(Address::of(data_dir)?.path)
}
