//! `odometer healthcheck`: checks whether the server of the same configuration is ready.
//!
//! Job: one `GET /readyz`, on the ops listener or, if that is off, on the public one.
//! Invariant: no wait is longer than [`TIMEOUT`]. On the public listener, the only certificate that
//! is trusted is the one in the configured file.
//! Must never: send a credential.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::config::Config;

/// How long connecting, or one read or write, may take.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// Sends the request; returns the body of the response, `ready`.
///
/// # Errors
/// The server is not ready, cannot be reached, or has another certificate than the configured one.
pub fn run(config: &Config) -> Result<String> {
    let response = match config.listen.ops {
        Some(address) => send_request(connect(address)?)?,
        None => {
            let stream = connect(config.listen.public)?;
            let client = ClientConnection::new(
                Arc::new(pinned(config)?),
                ServerName::try_from("localhost")?,
            )?;
            send_request(StreamOwned::new(client, stream))?
        }
    };
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let word = body.trim();
    if head.split(' ').nth(1) == Some("200") {
        Ok(word.to_owned())
    } else {
        Err(anyhow!("not ready: {word}"))
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let address = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port())
        }
        _ => address,
    };
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("no server at {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn send_request(mut stream: impl Read + Write) -> Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    let read = stream.take(64 * 1024).read_to_end(&mut response);
    if response.is_empty() {
        read.context("the server sent no response")?;
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}

fn pinned(config: &Config) -> Result<ClientConfig> {
    let file = config.tls.cert_file();
    let Some(leaf) =
        CertificateDer::pem_file_iter(&file).with_context(|| file.display().to_string())?.next()
    else {
        bail!("{}: the file has no certificate", file.display());
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(PinnedCertVerifier { leaf: leaf?, provider: Arc::clone(&provider) });
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// A certificate verifier that trusts exactly one certificate, whatever its names and dates.
#[derive(Debug)]
struct PinnedCertVerifier {
    leaf: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.leaf {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("the server's certificate is not the configured one".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
