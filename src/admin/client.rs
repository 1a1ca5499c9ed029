//! The HTTP client of the admin socket.
//!
//! Job: [`Client`], one blocking HTTP/1.1 connection to the server that runs on a data directory.
//! Invariant: an error response becomes one line for people; a response that ends early is an
//! error.
//! Must never: wait forever for a server that is stopped (`SIGSTOP`), unless the request itself may
//! take any time, as a backup or a deletion does.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::SocketPath;
use crate::telemetry::Snapshot;

/// How long the head of a response may take. The kernel accepts connections for a stopped process,
/// but no response follows.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a command waits for the head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// For 5 s, `RESPONSE_TIMEOUT`.
    Limited,
    /// Without a limit.
    Unlimited,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

/// An error document, as far as this client shows it.
#[derive(Deserialize)]
struct ErrorDocument {
    errors: Vec<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    id: String,
    code: String,
    detail: String,
}

/// The error of a command that needs a running server.
pub fn no_server(data_dir: &Path) -> Error {
    anyhow!("no server runs on {}; this command needs a running server", data_dir.display())
}

/// The metrics of the server that runs on `data_dir`; `None` if none does.
///
/// # Errors
/// The socket cannot be used, or there was no response.
pub fn metrics_of(data_dir: &Path) -> Result<Option<Snapshot>> {
    let Some(mut client) = Client::connect(data_dir)? else { return Ok(None) };
    client.request(Method::GET, "/stats", None).map(Some)
}

impl Client {
    /// Connects to the server that runs on `data_dir`; `None` if none does.
    ///
    /// # Errors
    /// The socket exists and cannot be used.
    pub fn connect(data_dir: &Path) -> Result<Option<Self>> {
        let unusable =
            || format!("the server's admin socket in {} cannot be used", data_dir.display());
        let stream =
            match SocketPath::of(data_dir).and_then(|socket| UnixStream::connect(socket.path())) {
                Ok(stream) => stream,
                Err(error)
                    if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused]
                        .contains(&error.kind()) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error).with_context(unusable),
            };
        stream.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sender = runtime.block_on(async {
            let stream = TokioIo::new(tokio::net::UnixStream::from_std(stream)?);
            let (sender, connection) = handshake(stream).await?;
            // It runs while this thread waits for a response; its errors end that response too.
            tokio::spawn(connection);
            Ok::<_, Error>(sender)
        });
        Ok(Some(Self { sender: sender.with_context(unusable)?, runtime }))
    }

    /// Sends a request and parses the JSON of the response.
    ///
    /// # Errors
    /// The server's error, or the lack of a response, as one sentence.
    pub fn request<T: DeserializeOwned>(
        &mut self,
        method: Method,
        target: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T> {
        let body = self.exchange(method, target, body, Wait::Limited)?;
        serde_json::from_slice(&body)
            .map_err(|_| anyhow!("the server's response is not the expected JSON"))
    }

    /// Sends a request whose response has no content.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn request_no_content(&mut self, method: Method, target: &str, wait: Wait) -> Result<()> {
        self.exchange(method, target, None, wait).map(drop)
    }

    fn exchange(
        &mut self,
        method: Method,
        target: &str,
        body: Option<Vec<u8>>,
        wait: Wait,
    ) -> Result<Bytes> {
        let Self { runtime, sender } = self;
        runtime.block_on(async { collect(send(sender, method, target, body, wait).await?).await })
    }

    /// Requests a backup and passes it to `take` chunk by chunk, each with the total length.
    ///
    /// # Errors
    /// As [`Client::request`]; an error of `take`; the backup ended early.
    pub fn backup(&mut self, take: &mut dyn FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        let Self { runtime, sender } = self;
        runtime.block_on(async {
            let response = send(sender, Method::POST, "/backup", None, Wait::Unlimited).await;
            let mut response = response.context("the server made no backup")?;
            let length = response
                .body()
                .size_hint()
                .exact()
                .context("the server's response has no length")?;
            let mut received = 0;
            while let Some(frame) = response.body_mut().frame().await {
                let Some(chunk) = frame.ok().and_then(|frame| frame.into_data().ok()) else {
                    break;
                };
                received += chunk.len() as u64;
                take(&chunk, length)?;
            }
            if received != length {
                bail!(
                    "the server closed the connection with {} of {length} bytes missing",
                    length - received
                );
            }
            Ok(())
        })
    }
}

/// Sends a request and returns the response if its status is a success.
async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    method: Method,
    target: &str,
    body: Option<Vec<u8>>,
    wait: Wait,
) -> Result<Response<Incoming>> {
    let mut request = Request::builder().method(method).uri(target).header(HOST, "localhost");
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::from(body.unwrap_or_default()))?;
    let response = async {
        sender.ready().await?;
        sender.send_request(request).await
    };
    let response = match wait {
        Wait::Unlimited => response.await,
        Wait::Limited => match tokio::time::timeout(RESPONSE_TIMEOUT, response).await {
            Ok(response) => response,
            Err(_) => bail!("the server does not answer"),
        },
    };
    let response = response.map_err(|_| ended())?;
    let status = response.status();
    if status.is_success() {
        Ok(response)
    } else {
        Err(error_of(status, &collect(response).await?))
    }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes> {
    Ok(response.into_body().collect().await.map_err(|_| ended())?.to_bytes())
}

fn ended() -> Error {
    anyhow!("the server closed the connection; see its log")
}

/// An error document as one line: its detail, as the end of a sentence.
fn error_of(status: StatusCode, document: &[u8]) -> Error {
    let error = serde_json::from_slice::<ErrorDocument>(document)
        .ok()
        .and_then(|document| document.errors.into_iter().next());
    let Some(ErrorObject { id, code, detail }) = error else {
        return anyhow!("the server responded with {status}");
    };
    if code == "internal" {
        return anyhow!("internal server error; the server's log has the cause, request id {id}");
    }
    let mut characters = detail.strip_suffix('.').unwrap_or(&detail).chars();
    let first = characters.next().map(|first| first.to_ascii_lowercase());
    anyhow!("{}", first.into_iter().chain(characters).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_document_is_one_line() {
        let document = |code: &str| {
            let detail = "There is no tenant. Choose another.";
            let error = serde_json::json!({ "id": "7", "code": code, "detail": detail });
            serde_json::json!({ "errors": [error] }).to_string().into_bytes()
        };
        let line = |body: &[u8]| error_of(StatusCode::NOT_FOUND, body).to_string();
        assert_eq!(line(&document("tenant_not_found")), "there is no tenant. Choose another");
        assert!(line(&document("internal")).ends_with("request id 7"));
        for other in [&b"{}"[..], b"", b"{\"errors\":[]}", b"<html>"] {
            assert_eq!(line(other), "the server responded with 404 Not Found");
        }
    }
}
