//! The admin socket: the listener in the data folder.
//!
//! Job: [`bind`] it, and [`accept`] connections, which speak HTTP/1.1 as those of the other
//! listeners do. Invariant: the socket belongs to the process that holds the data folder's lock,
//! and only its user may connect. Must never: have a peer's socket; the kernel says which user it
//! is.

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

/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 64;
/// After a connection could not be taken.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Makes the socket, in place of one that an earlier process left. Call it as the owner of the data
/// folder.
///
/// # Errors
/// Any error of the system.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let socket = SocketPath::of(data_dir)?;
    match fs::remove_file(socket.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket.path())?;
    fs::set_permissions(socket.path(), Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves connections on the calling thread until the task is aborted. Those that are open then end
/// after their response once `drain` turns true.
pub async fn accept(
    listener: tokio::net::UnixListener,
    endpoint: Endpoint,
    drain: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
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
                    "an admin connection could not be taken");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}
