//! The client's end of the admin socket.
//!
//! Job: [`Client`], one HTTP/1.1 connection to the server that runs on a data folder, for commands
//! that wait for each answer. Invariant: an error of the server's table is one line for people; an
//! answer that ends early is an error. Must never: wait for ever for a server that is stopped,
//! except for what takes as long as it takes: a backup, a deletion.

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

use super::Address;
use crate::telemetry::Snapshot;

/// How long an answer may take to begin. A server that is stopped takes connections and answers
/// nothing.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a command waits for an answer to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A few seconds.
    Briefly,
    /// As long as it takes.
    AsLongAsItTakes,
}

/// See the module's text.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

/// A document of errors, as far as people are told.
#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    id: String,
    code: String,
    detail: String,
}

/// What is said where no server runs.
#[must_use]
pub fn no_server(data_dir: &Path) -> Error {
    anyhow!("no server runs on {}; this command asks the running one", data_dir.display())
}

/// The metrics of the server that runs on `data_dir`; `None` if none does.
///
/// # Errors
/// One sentence: the socket can not be used, or there was no answer.
pub fn metrics_of(data_dir: &Path) -> Result<Option<Snapshot>> {
    let Some(mut client) = Client::connect(data_dir)? else { return Ok(None) };
    client.ask(Method::GET, "/stats", None, Wait::Briefly).map(Some)
}

impl Client {
    /// Connects to the server that runs on `data_dir`; `None` if none does.
    ///
    /// # Errors
    /// One sentence: the socket is there and can not be used.
    pub fn connect(data_dir: &Path) -> Result<Option<Self>> {
        let unusable =
            || format!("the server's admin socket in {} can not be used", data_dir.display());
        let stream =
            match Address::of(data_dir).and_then(|address| UnixStream::connect(address.path())) {
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
            // It runs while this thread waits for an answer; its errors are those of the answer.
            tokio::spawn(connection);
            Ok::<_, Error>(sender)
        });
        Ok(Some(Self { sender: sender.with_context(unusable)?, runtime }))
    }

    /// Sends a request, and reads the JSON that is answered.
    ///
    /// # Errors
    /// One sentence: what the server said, or that it said nothing.
    pub fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        target: &str,
        body: Option<Vec<u8>>,
        wait: Wait,
    ) -> Result<T> {
        let body = self.exchange(method, target, body, wait)?;
        serde_json::from_slice(&body).map_err(|_| anyhow!("the server answered something else"))
    }

    /// Sends a request whose answer has no content.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn tell(&mut self, method: Method, target: &str, wait: Wait) -> Result<()> {
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

    /// Asks for a backup, and hands it on piece by piece, each with the length of the whole.
    ///
    /// # Errors
    /// As [`Client::ask`]; what `take` returned; the backup ended early.
    pub fn backup(&mut self, take: &mut dyn FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        let Self { runtime, sender } = self;
        runtime.block_on(async {
            let response = send(sender, Method::POST, "/backup", None, Wait::AsLongAsItTakes).await;
            let mut response = response.context("the server made no backup")?;
            let length = response
                .body()
                .size_hint()
                .exact()
                .context("the server answered something else")?;
            let mut received = 0;
            while let Some(frame) = response.body_mut().frame().await {
                let Some(piece) = frame.ok().and_then(|frame| frame.into_data().ok()) else {
                    break;
                };
                received += piece.len() as u64;
                take(&piece, length)?;
            }
            if received != length {
                bail!(
                    "the server ended the connection with {} of {length} bytes to come",
                    length - received
                );
            }
            Ok(())
        })
    }
}

/// Sends a request and waits for the head of its answer, which is no error.
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
    let answer = async {
        sender.ready().await?;
        sender.send_request(request).await
    };
    let response = match wait {
        Wait::AsLongAsItTakes => answer.await,
        Wait::Briefly => match tokio::time::timeout(RESPONSE_TIMEOUT, answer).await {
            Ok(response) => response,
            Err(_) => bail!("the server does not answer"),
        },
    };
    let response = response.map_err(|_| ended())?;
    let status = response.status();
    if status.is_success() { Ok(response) } else { Err(refusal(status, &collect(response).await?)) }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes> {
    Ok(response.into_body().collect().await.map_err(|_| ended())?.to_bytes())
}

fn ended() -> Error {
    anyhow!("the server ended the connection; see its log")
}

/// A document of errors as one line: the detail, as the end of a sentence.
fn refusal(status: StatusCode, document: &[u8]) -> Error {
    let problem = serde_json::from_slice::<Refusal>(document)
        .ok()
        .and_then(|refusal| refusal.errors.into_iter().next());
    let Some(Problem { id, code, detail }) = problem else {
        return anyhow!("the server answered {status}");
    };
    if code == "internal" {
        return anyhow!("the server failed; its log says why, of the request {id}");
    }
    let mut characters = detail.strip_suffix('.').unwrap_or(&detail).chars();
    let first = characters.next().map(|first| first.to_ascii_lowercase());
    anyhow!("{}", first.into_iter().chain(characters).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_errors_is_one_line() {
        let document = |code: &str| {
            let error = serde_json::json!({ "id": "7", "code": code, "detail": "There is no tenant. Choose another." });
            serde_json::json!({ "errors": [error] }).to_string().into_bytes()
        };
        let line = |body: &[u8]| refusal(StatusCode::NOT_FOUND, body).to_string();
        assert_eq!(line(&document("tenant_not_found")), "there is no tenant. Choose another");
        assert!(line(&document("internal")).ends_with("of the request 7"));
        for other in [&b"{}"[..], b"", b"{\"errors\":[]}", b"<html>"] {
            assert_eq!(line(other), "the server answered 404 Not Found");
        }
    }
}
