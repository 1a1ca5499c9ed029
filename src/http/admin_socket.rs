//! The admin socket: the Unix listener in the data directory.
//!
//! Job: [`bind`] the socket, and [`accept`] HTTP/1.1 connections on it.
//! Invariant: the socket belongs to the process that holds the data directory's lock, and only that
//! process's user may connect (mode 0600).
//! Must never: trust a client's claim of its identity; the kernel reports the user id.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_local;

use super::connection::{self, Endpoint};
use crate::admin::SocketPath;
use crate::failpoint::failpoint;

/// Connections at once; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 64;
/// Wait after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Binds the socket, replacing one that an earlier process left. The caller must hold the lock
/// of the data directory.
///
/// # Errors
/// The socket cannot be replaced, bound or restricted to the user.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let socket = SocketPath::of(data_dir)?;
    match fs::remove_file(socket.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket.path())?;
    let mode = if failpoint!("admin-socket-open-to-all") { 0o666 } else { 0o600 };
    fs::set_permissions(socket.path(), Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts and serves connections on the calling thread until the task is aborted. Open connections
/// end after their current response once `drain` turns true.
pub async fn accept(
    listener: tokio::net::UnixListener,
    endpoint: Endpoint,
    drain: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted =
            listener.accept().await.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream)));
        match accepted {
            Ok((uid, stream)) => {
                let (endpoint, drain) = (endpoint.clone(), drain.clone());
                spawn_local(async move {
                    connection::serve_unix(stream, uid, endpoint, drain).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(event.action = "admin-accept-failed", error.message = %error,
                    "admin connection could not be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}
