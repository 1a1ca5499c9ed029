//! A client of the API over one keep-alive TLS connection, HTTP/1.1 or HTTP/2.
//!
//! Invariant: every failure says what is known about the request: `Refused` and `NotSent` are
//! certainly not done, `Unknown` may be. A connection that broke or timed out after sending is
//! `Unknown`. It must never retry by itself and never trust another certificate than the server's
//! own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::history::Outcome;

/// How long one request may take before its outcome counts as unknown.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Where and how to connect.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    roots: Arc<RootCertStore>,
}

impl Endpoint {
    /// The server at this address, which must show this certificate.
    pub(crate) fn trusting(address: SocketAddr, certificate: &Path) -> Self {
        let certificate =
            CertificateDer::from_pem_file(certificate).expect("the server wrote its certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("the certificate can be a trust anchor");
        Self { address, roots: Arc::new(roots) }
    }

    /// A TLS configuration that offers these protocols, and nothing by ALPN when there are none.
    pub(crate) fn tls(&self, protocols: &[&[u8]]) -> TlsConnector {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has the default versions");
        let mut config =
            builder.with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// One TLS connection.
    pub(crate) async fn open(
        &self,
        connector: &TlsConnector,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        self.shake_hands(connector, stream).await
    }

    /// TLS over a connection that the caller made.
    pub(crate) async fn shake_hands(
        &self,
        connector: &TlsConnector,
        stream: TcpStream,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").expect("localhost is a name");
        connector.connect(name, stream).await
    }

    pub(crate) async fn connect(&self, protocol: Protocol) -> std::io::Result<Client> {
        let offered: &[u8] = if protocol == Protocol::Http2 { b"h2" } else { b"http/1.1" };
        let stream = TokioIo::new(self.open(&self.tls(&[offered])).await?);
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) =
                    http1::handshake(stream).await.map_err(std::io::Error::other)?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) =
                    http2::handshake(executor, stream).await.map_err(std::io::Error::other)?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Client { sender, authority: format!("localhost:{}", self.address.port()) })
    }
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    sender: Sender,
    authority: String,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header as text; empty when absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("answer headers are ASCII"))
    }

    /// The stable code of the first error of the document.
    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Why there is no value, split by what is known about the request.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Refused { status: u16, code: String },
    NotSent(String),
    Unknown(String),
}

impl Failure {
    /// Whether the connection can still be used.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::NotSent(_) => false,
            Self::Unknown(reason) => reason.starts_with("answered"),
        }
    }
}

impl From<&Result<u64, Failure>> for Outcome {
    fn from(result: &Result<u64, Failure>) -> Self {
        match result {
            Ok(value) => Self::Ok(*value),
            Err(Failure::Refused { .. } | Failure::NotSent(_)) => Self::Refused,
            Err(Failure::Unknown(_)) => Self::Unknown,
        }
    }
}

impl Client {
    /// One request with exactly these headers (and Host). Only the transport can fail.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method);
        request = match self.sender {
            Sender::Http1(_) => request.uri(path).header(HOST, &self.authority),
            Sender::Http2(_) => request.uri(format!("https://{}{path}", self.authority)),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("the test makes a valid request");
        self.ready().await.map_err(|error| Failure::NotSent(error.to_string()))?;
        match tokio::time::timeout(REQUEST_DEADLINE, self.exchange(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::Unknown(format!("connection: {error}"))),
            Err(_) => Err(Failure::Unknown(format!("no answer within {REQUEST_DEADLINE:?}"))),
        }
    }

    async fn ready(&mut self) -> hyper::Result<()> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender) => sender.ready().await,
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
        let response: Response<Incoming> = match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await?,
            Sender::Http2(sender) => sender.send_request(request).await?,
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Registers a tenant and returns its key.
    pub(crate) async fn register(
        &mut self,
        username: &str,
        password: &str,
    ) -> Result<String, Failure> {
        let body = json!({ "username": username, "password": password }).to_string();
        let headers = [(CONTENT_TYPE.as_str(), "application/json")];
        let answer = self.request("POST", "/users/create", &headers, body).await?;
        let document = accepted(&answer)?;
        let key = document["data"]["attributes"]["api_key"].as_str();
        key.map(str::to_owned)
            .ok_or_else(|| Failure::Unknown(format!("answered without a key: {}", answer.text())))
    }

    pub(crate) async fn increment(&mut self, key: &str) -> Result<u64, Failure> {
        self.value("PUT", "/api/v1/integer/increment", key, None).await
    }

    pub(crate) async fn read(&mut self, key: &str) -> Result<u64, Failure> {
        self.value("GET", "/api/v1/integer", key, None).await
    }

    pub(crate) async fn set(&mut self, key: &str, value: u64) -> Result<u64, Failure> {
        self.value("PUT", "/api/v1/integer", key, Some(json!({ "value": value }))).await
    }

    async fn value(
        &mut self,
        method: &str,
        path: &str,
        key: &str,
        body: Option<Value>,
    ) -> Result<u64, Failure> {
        let bearer = format!("Bearer {key}");
        let mut headers = vec![(AUTHORIZATION.as_str(), bearer.as_str())];
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        if !body.is_empty() {
            headers.push((CONTENT_TYPE.as_str(), "application/json"));
        }
        let answer = self.request(method, path, &headers, body).await?;
        let value = accepted(&answer)?["data"]["attributes"]["value"].as_u64();
        value
            .ok_or_else(|| Failure::Unknown(format!("answered without a value: {}", answer.text())))
    }
}

/// The document of a success; otherwise what the answer says about the request.
fn accepted(answer: &Answer) -> Result<Value, Failure> {
    match (answer.status, answer.code()) {
        (200..=299, _) => Ok(answer.json()),
        (503, code) if code == "outcome_unknown" => {
            Err(Failure::Unknown("answered outcome_unknown".to_owned()))
        }
        (status @ (400..=499 | 503 | 507), code) => Err(Failure::Refused { status, code }),
        (status, code) => Err(Failure::Unknown(format!("answered {status} {code}"))),
    }
}
