//! The server's end of the admin socket.
//!
//! Job: [`bind`] the socket, [`serve`] its connections. Each is one request on a blocking thread: they are rare, and a slow one waits for
//! nobody but itself.
//! Invariant: the socket belongs to the process that holds the data folder's lock. Must never: wait for ever for a peer that does nothing.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::orders::{Failure, carry_out, list};
use super::{Address, LONGEST_LINE, Made, Reply, Request, write_line};
use crate::store::embedded::EmbeddedStore;
use crate::telemetry::Metrics;

/// Connections at once; more wait.
const AT_ONCE: usize = 8;
/// After a connection could not be taken.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a peer may take to send its request, and how long it may take nothing of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the socket, in place of one that an earlier process left. Call it as the owner of the data folder.
///
/// # Errors
/// Any error of the system.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let address = Address::of(data_dir)?;
    match fs::remove_file(&address.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&address.path)?;
    fs::set_permissions(&address.path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves connections for as long as it is polled.
///
/// # Errors
/// Any error of the system that makes the listener unusable from the start.
pub async fn serve(listener: UnixListener, store: EmbeddedStore, metrics: Metrics) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let accepted = listener.accept().await.and_then(|(stream, _)| {
            let user = stream.peer_cred()?.uid();
            Ok((stream.into_std()?, user))
        });
        let (stream, user) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(event.action = "admin-accept-failed", error.message = %error, "an admin connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (store, metrics, runtime) = (store.clone(), metrics.clone(), tokio::runtime::Handle::current());
        tokio::task::spawn_blocking(move || {
            let _place = place;
            if let Err(error) = answer(&stream, user, &store, &metrics, &runtime) {
                tracing::debug!(event.action = "admin-connection", error.message = %error, "an admin connection ended early");
            }
        });
    }
}

fn answer(
    stream: &UnixStream,
    user: u32,
    store: &EmbeddedStore,
    metrics: &Metrics,
    runtime: &tokio::runtime::Handle,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(Patient { stream, until: Instant::now() + PATIENCE }).take(LONGEST_LINE).read_line(&mut line)?;
    let mut rows = |row| write_line(stream, &row);
    match serde_json::from_str(&line) {
        Ok(Request::TenantList) => conclude(stream, runtime.block_on(list(store, &mut rows))),
        Ok(Request::Tenant { tenant, order }) => {
            conclude(stream, runtime.block_on(carry_out(store, &tenant, &order, user, &mut rows)))
        }
        Ok(Request::Metrics) => {
            let page = metrics.render();
            write_line(stream, &Reply::Page(page.len() as u64))?;
            (&*stream).write_all(page.as_bytes())
        }
        Ok(Request::Backup) => match runtime.block_on(store.backup()) {
            Ok((mut file, summary)) => {
                let made =
                    Made { commit_seq: summary.header.mark.seq.0, records: summary.records, bytes: summary.bytes };
                tracing::info!(
                    event.action = "backup-taken",
                    odometer.commit_seq = made.commit_seq,
                    odometer.records = made.records,
                    file.size = made.bytes,
                    "a backup was asked for and made"
                );
                write_line(stream, &Reply::Ok(made))?;
                file.seek(SeekFrom::Start(0))?;
                io::copy(&mut file.take(made.bytes), &mut &*stream).map(drop)
            }
            Err(problem) => {
                tracing::warn!(event.action = "backup-taken", event.outcome = "failure", error.message = %problem, "a backup was asked for and failed");
                write_line(stream, &Reply::Error(problem))
            }
        },
        // What was sent is not repeated, as everywhere: it may hold what was meant for elsewhere.
        Err(error) => {
            let place = format!("the request can not be read, at its character {}", error.column());
            write_line(stream, &Reply::Error(place))
        }
    }
}

/// Reads until a moment, however the bytes trickle in.
struct Patient<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        (&mut &*self.stream).read(buffer)
    }
}

/// Says how it ended, if there is still somebody to say it to.
fn conclude(stream: &UnixStream, result: Result<(), Failure>) -> io::Result<()> {
    match result {
        Ok(()) => write_line(stream, &Reply::Done),
        Err(Failure::Said(problem)) => write_line(stream, &Reply::Error(problem)),
        Err(Failure::Gone(error)) => Err(error),
    }
}
