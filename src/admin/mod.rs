//! How commands of the same machine talk to the running server: a Unix socket in the data folder.
//!
//! ```text
//! odometer backup, top, tenant …, key … ──► <data-dir>/admin.sock, mode 0600 ──► the server
//!   {"command":"backup"}\n                    one line of JSON, at most 4 KiB
//!   {"ok":{"commit_seq":7,"records":5,"bytes":900}}\n   or {"error":"…"}\n; after a backup its bytes follow
//!   {"command":"tenant","tenant":"alice","order":"suspend"}\n
//!   {"tenant":{"id":1,"name":"alice",…}}\n "done"\n     rows, a line each, and at the end "done" or {"error":"…"}
//!   {"command":"metrics"}\n                   {"page":4711}\n and so many bytes of Prometheus' text
//! ```
//! Job: the protocol, both ends of the socket, and the commands that use it.
//! Invariant: whoever may open the data folder is the admin; there is no password. Must never: listen on a network.

pub mod backup;
mod orders;
pub mod server;
pub mod tenants;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};

/// The socket's name in the data folder.
pub const SOCKET: &str = "admin.sock";
/// The kernel takes paths up to 107 bytes.
const LONGEST_PATH: usize = 100;
/// How long the server may take for a page of metrics, which is made at once.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);
/// The longest request or reply, in bytes.
const LONGEST_LINE: u64 = 4096;

/// What the server is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// A backup of everything, now.
    Backup,
    /// The page that `/metrics` shows, whether or not there is an ops listener.
    Metrics,
    /// All tenants.
    TenantList,
    /// Something about one tenant.
    Tenant {
        /// Which: its name, in any case.
        tenant: String,
        /// What.
        order: Order,
    },
}

/// What is to be done with a tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// Only look.
    Show,
    /// Refuse its keys and password until it is resumed.
    Suspend,
    /// Take them again.
    Resume,
    /// Delete it, with everything it has.
    Delete,
    /// Let it make so many requests: `default`, `off`, or a rate.
    Limit(String),
    /// List its keys.
    KeyList,
    /// Revoke one of them, by its id.
    KeyRevoke(String),
}

/// What it answers: rows, if that is what was asked for, and then one of the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    /// A tenant.
    Tenant(TenantRow),
    /// A key.
    Key(KeyRow),
    /// A backup was made; its bytes follow.
    Ok(Made),
    /// A page of metrics; so many bytes follow.
    Page(u64),
    /// That was all.
    Done,
    /// It was not done; one sentence.
    Error(String),
}

/// A backup that was made and verified; so many bytes follow.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Made {
    commit_seq: u64,
    records: u64,
    bytes: u64,
}

/// What an operator may know of a tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TenantRow {
    /// Its number, as logs say it in `organization.id`.
    pub id: u64,
    /// Its name, as it was typed.
    pub name: String,
    /// When it registered, RFC 3339.
    pub created_at: String,
    /// Whether it is suspended.
    pub suspended: bool,
    /// How many requests it may make: `default`, `off`, or a rate.
    pub limit: String,
    /// Named counters that it has.
    pub counters: u32,
    /// API keys that it has.
    pub keys: u32,
}

/// What an operator may know of a key: never its secret, nor the hash of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyRow {
    /// Its public half.
    pub id: String,
    /// What its tenant calls it.
    pub label: String,
    /// What it may do.
    pub scopes: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// From when on it is refused, RFC 3339; none: never.
    pub expires_at: Option<String>,
    /// The last day on which it was used; none: never.
    pub last_used_on: Option<String>,
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

/// Connects to the server that runs on `data_dir`; `None` if none does.
fn connect(data_dir: &Path) -> Result<Option<UnixStream>> {
    match Address::of(data_dir).and_then(|address| UnixStream::connect(address.path)) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind()) => Ok(None),
        Err(error) => bail!("the server's admin socket in {} can not be used: {error}", data_dir.display()),
    }
}

/// The page of metrics of the server that runs on `data_dir`; `None` if none does.
///
/// # Errors
/// One sentence: the socket can not be used, or the server ended the connection.
pub fn metrics_page(data_dir: &Path) -> Result<Option<String>> {
    let Some(stream) = connect(data_dir)? else { return Ok(None) };
    // A server that is stopped takes the connection and answers nothing.
    stream.set_read_timeout(Some(PAGE_PATIENCE))?;
    stream.set_write_timeout(Some(PAGE_PATIENCE))?;
    write_line(&stream, &Request::Metrics)?;
    let mut stream = BufReader::new(stream);
    let bytes = match read_reply(&mut stream)? {
        Reply::Page(bytes) => bytes,
        Reply::Error(problem) => bail!("{problem}"),
        _ => bail!("the server answered something else"),
    };
    let mut page = String::new();
    stream.take(bytes).read_to_string(&mut page)?;
    if page.len() as u64 != bytes {
        bail!("the server ended the connection in the middle of its answer");
    }
    Ok(Some(page))
}

/// One request or reply, as a line.
fn write_line(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// The next reply.
fn read_reply(stream: &mut impl BufRead) -> Result<Reply> {
    let mut line = String::new();
    stream.take(LONGEST_LINE).read_line(&mut line).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => anyhow!("the server does not answer"),
        _ => error.into(),
    })?;
    serde_json::from_str(&line).map_err(|_| anyhow!("the server ended the connection; see its log"))
}
