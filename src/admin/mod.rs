//! The admin client: HTTP to the running server over a Unix socket in the data directory.
//!
//! ```text
//! odometer backup, top, tenant …, key … ──► <data-dir>/admin.sock (0600) ──► http/routes.rs
//!   commands.rs  tenant and key commands     client.rs  HTTP/1.1 client, errors as one line
//!   table.rs     rows as a table or JSON     backup.rs  a backup file that is complete or absent
//!   rows.rs      JSON types of both ends
//! ```
//! Job: the client's end of the socket, and what both ends share: the socket's path and the rows.
//! The routes are the server's, see `http/routes.rs`.
//! Invariant: every user who may open the data directory is an operator; there is no password.
//! Must never: listen.

pub mod backup;
pub mod client;
pub mod commands;
pub mod rows;
pub mod table;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The socket's name in the data directory.
pub const SOCKET: &str = "admin.sock";
/// A longer path goes through `/proc/self/fd`: the kernel accepts socket paths of up to 107 bytes.
const MAX_SOCKET_PATH_BYTES: usize = 100;

/// The path at which the socket is bound or connected to.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    /// Held open while the path is used, since a long path goes through its descriptor.
    _folder: Option<File>,
}

impl SocketPath {
    /// The path of the socket in a data directory.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        if path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(data_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }

    /// The path, valid for as long as `self` lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
