//! A proxy between a client and the server that loses requests and answers, each as the test says.
//!
//! Invariant: it shows the server's own certificate, so a client cannot tell it from the server;
//! what it notes of a request is what the client sent.
//! Must never: change a byte of what it passes on, or send a request twice.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::support::client::Endpoint;
use crate::support::raw_client::RawConnection;
use crate::support::server::TestServer;
use crate::support::workload::runtime;

/// What becomes of one request; `Passed` where no other fate is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passed,
    /// The connection ends, and the server has seen nothing of it.
    RequestLost,
    /// The server has answered; the connection ends before the client has any of it.
    AnswerLost,
    /// The server has answered; the connection ends in the middle of the answer's body.
    AnswerCut,
    /// The server has answered; the client waits for it in vain.
    AnswerHeld,
    /// The server has seen nothing of it; the client gets this status and `Retry-After`.
    Refused(u16, u64),
}

/// What the proxy noted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noted {
    /// Connections that were accepted, whatever came over them.
    pub(crate) connections: usize,
    pub(crate) requests: Vec<Request>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Method and path.
    pub(crate) line: String,
    pub(crate) idempotency_key: Option<String>,
}

/// A proxy with a port of its own, at which connections are refused until it listens.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    socket: Option<TcpSocket>,
    /// Ends the thread that carries, when the proxy goes.
    running: Option<oneshot::Sender<()>>,
    noted: Arc<Mutex<Noted>>,
}

impl Proxy {
    /// Takes the port.
    pub(crate) fn bind() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback has free ports");
        let address = socket.local_addr().expect("a bound socket has an address");
        Self { address, socket: Some(socket), running: None, noted: Arc::default() }
    }

    /// Stands in front of this server from now on.
    pub(crate) fn listen(&mut self, server: &TestServer, fates: &[Fate]) {
        let runtime = runtime();
        let entered = runtime.enter();
        let listener = self
            .socket
            .take()
            .expect("it listens once")
            .listen(64)
            .expect("a bound socket can listen");
        drop(entered);
        let between = Arc::new(Between {
            acceptor: acceptor(server),
            server: server.endpoint(),
            fates: Mutex::new(fates.iter().copied().collect()),
            noted: Arc::clone(&self.noted),
        });
        let (running, ended) = oneshot::channel();
        self.running = Some(running);
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = between.accept(listener) => {}
                    _ = ended => {}
                }
            });
        });
    }

    pub(crate) fn noted(&self) -> Noted {
        lock(&self.noted).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding the lock")
}

/// TLS as the server speaks it, without HTTP/2.
fn acceptor(server: &TestServer) -> TlsAcceptor {
    let file = |name: &str| server.data_dir().join("tls").join(name);
    let certificate =
        CertificateDer::from_pem_file(file("cert.pem")).expect("the server wrote its certificate");
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).expect("the server wrote its key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("aws-lc-rs has the default versions").with_no_client_auth();
    let config = builder.with_single_cert(vec![certificate], key).expect("they belong together");
    TlsAcceptor::from(Arc::new(config))
}

struct Between {
    acceptor: TlsAcceptor,
    server: Endpoint,
    fates: Mutex<VecDeque<Fate>>,
    noted: Arc<Mutex<Noted>>,
}

impl Between {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            lock(&self.noted).connections += 1;
            let between = Arc::clone(&self);
            // A connection that breaks is the client's to mend; that is what is tested.
            tokio::spawn(async move { between.carry(stream).await });
        }
    }

    /// One connection; returning ends it without a farewell, as a cable that is pulled out does not
    /// say one.
    async fn carry(&self, stream: TcpStream) -> io::Result<()> {
        let mut client = RawConnection::new(self.acceptor.accept(stream).await?);
        let mut server = RawConnection::over_tls(&self.server, &self.server.tls(&[])).await?;
        loop {
            let request = client.message().await?.to_vec();
            lock(&self.noted).requests.push(parsed(&request));
            let fate = lock(&self.fates).pop_front().unwrap_or(Fate::Passed);
            if let Fate::Refused(status, seconds) = fate {
                client.send(refusal(status, seconds).as_bytes()).await?;
                continue;
            }
            if fate == Fate::RequestLost {
                return Ok(());
            }
            server.send(&request).await?;
            let answer = server.message().await?;
            match fate {
                Fate::AnswerLost => return Ok(()),
                Fate::AnswerCut => return client.send(&answer[..answer.len() - 10]).await,
                // Until the client has enough of it.
                Fate::AnswerHeld => return client.read_more().await.map(drop),
                _ => client.send(answer).await?,
            }
        }
    }
}

fn header(head: &[u8], wanted: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let mut pairs = head.lines().filter_map(|line| line.split_once(':'));
    pairs
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.trim().to_owned())
}

fn parsed(request: &[u8]) -> Request {
    let text = String::from_utf8_lossy(request);
    let line = text.split(" HTTP/1.1").next().unwrap_or_default().to_owned();
    Request { line, idempotency_key: header(request, "idempotency-key") }
}

/// A refusal as the server words them.
fn refusal(status: u16, seconds: u64) -> String {
    let code = if status == 429 { "rate_limited" } else { "outcome_unknown" };
    let body = format!(
        r#"{{"errors":[{{"code":"{code}","status":"{status}"}}],"jsonapi":{{"version":"1.0"}}}}"#
    );
    let head = format!(
        "HTTP/1.1 {status} Refused\r\nContent-Type: application/vnd.api+json\r\nRetry-After: {seconds}"
    );
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
