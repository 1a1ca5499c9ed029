//! How commands of the same machine talk to the running server: HTTP over a Unix socket in the data
//! folder.
//!
//! ```text
//! odometer backup, top, tenant …, key … ──► <data-dir>/admin.sock, mode 0600 ──► http: the App `admin`
//!   commands.rs  one question, its rows      client.rs  HTTP/1.1, errors as one line
//!   table.rs     rows for people, JSON       backup.rs  a file that is whole or not there
//!   rows.rs      what both ends send as JSON
//! ```
//! Job: the client's end of the socket, and what both ends must agree on: its address and the rows.
//! The routes are the server's, see [`routes`](crate::http::routes). Invariant: whoever may open
//! the data folder is the operator; there is no password. Must never: listen, on a network least of
//! all.

pub mod backup;
pub mod client;
pub mod commands;
pub mod rows;
pub mod table;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The socket's name in the data folder.
pub const SOCKET: &str = "admin.sock";
/// The kernel takes paths up to 107 bytes.
const LONGEST_PATH: usize = 100;

/// Where the socket is to be bound or connected to.
#[derive(Debug)]
pub struct Address {
    path: PathBuf,
    /// Held open while the address is used, since a long path goes through its descriptor.
    _folder: Option<File>,
}

impl Address {
    /// The address of the socket in a data folder.
    ///
    /// # Errors
    /// The folder can not be opened.
    pub fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        if path.as_os_str().len() <= LONGEST_PATH {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(data_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }

    /// The path, for as long as the address lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
