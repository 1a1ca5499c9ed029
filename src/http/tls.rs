//! TLS: the server's certificate and key, reloadable while connections are open.
//!
//! Job: [`ServerCertificate::load`] loads PEM files, or makes a self-signed certificate once, and
//! checks that certificate and key belong together; [`ServerCertificate::reload`] replaces them.
//! TLS 1.2 and 1.3 by aws-lc-rs, HTTP/2 and 1.1 by ALPN.
//! Invariant: a failed reload leaves the old certificate in use.
//! Must never: fall back to a self-signed certificate if files are configured; log a key.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use arc_swap::ArcSwap;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;

/// How long a self-signed certificate is valid; browsers reject a longer validity.
const SELF_SIGNED_VALIDITY: Duration = Duration::days(397);
/// A start replaces a self-signed certificate that expires within this time.
const RENEW_BEFORE: Duration = Duration::days(30);

/// The source of certificate and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSource {
    /// Configured files.
    Files {
        /// The certificate chain, PEM, leaf first.
        cert: PathBuf,
        /// Its private key, PEM.
        key: PathBuf,
    },
    /// A self-signed certificate, made if there is none that is valid for long enough and covers
    /// the address.
    SelfSigned {
        /// The folder of certificate and key.
        folder: PathBuf,
        /// The address of the listener, which the certificate must cover.
        address: IpAddr,
    },
}

impl TlsSource {
    /// The certificate's file.
    #[must_use]
    pub fn cert_file(&self) -> PathBuf {
        self.files().0
    }

    fn files(&self) -> (PathBuf, PathBuf) {
        match self {
            Self::Files { cert, key } => (cert.clone(), key.clone()),
            Self::SelfSigned { folder, .. } => (folder.join("cert.pem"), folder.join("key.pem")),
        }
    }
}

/// The server's certificate and key, reloadable.
#[derive(Debug)]
pub struct ServerCertificate {
    source: TlsSource,
    current: ArcSwap<CertifiedKey>,
}

impl ServerCertificate {
    /// Loads certificate and key.
    ///
    /// # Errors
    /// A file is missing, unreadable or not PEM, or the key does not belong to the certificate; the
    /// message names the file.
    pub fn load(source: TlsSource) -> Result<Arc<Self>> {
        let current = ArcSwap::from_pointee(load(&source)?);
        Ok(Arc::new(Self { source, current }))
    }

    /// Loads the files again. New connections use the new certificate, open ones are not affected.
    ///
    /// # Errors
    /// As [`ServerCertificate::load`]; the old certificate stays in use.
    pub fn reload(&self) -> Result<()> {
        self.current.store(Arc::new(load(&self.source)?));
        Ok(())
    }

    /// rustls' configuration; it resolves the certificate at every handshake.
    ///
    /// # Errors
    /// rustls rejects its own protocol versions, which would be a bug in the build.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>> {
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// SHA-256 fingerprint of the certificate, in the form that browsers and openssl show.
    pub fn fingerprint(&self) -> String {
        let current = self.current.load();
        let leaf: &[u8] = current.cert.first().map_or(&[], |cert| cert.as_ref());
        let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, leaf);
        digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    /// Expiry of the certificate in Unix seconds.
    pub fn expires_unix_s(&self) -> Option<i64> {
        self.current.load().cert.first().and_then(|cert| expiry(cert))
    }

    /// The path of the certificate.
    pub fn cert_file(&self) -> PathBuf {
        self.source.cert_file()
    }

    /// Whether the certificate is self-signed.
    pub fn is_self_signed(&self) -> bool {
        matches!(self.source, TlsSource::SelfSigned { .. })
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn load(source: &TlsSource) -> Result<CertifiedKey> {
    let (cert_file, key_file) = source.files();
    if let TlsSource::SelfSigned { folder, address } = source {
        let now = OffsetDateTime::now_utc();
        let address = address.to_canonical();
        // A corrupt certificate is replaced. One that cannot be read for another reason, such as
        // its permissions, may belong to another user, so it is an error.
        let chain = match std::fs::read(&cert_file) {
            Ok(_) => read_chain(&cert_file).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(anyhow!("TLS certificate {}: {error}", cert_file.display())),
        };
        let is_usable = chain.first().is_some_and(|cert| {
            expiry(cert).is_some_and(|expiry| expiry > (now + RENEW_BEFORE).unix_timestamp())
                && covers_address(cert, address)
        });
        if !is_usable || !key_file.is_file() {
            make_self_signed(folder, address, now)?;
        }
    }
    let chain = read_chain(&cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&key_file)
        .map_err(|error| anyhow!("TLS key {}: {error}", key_file.display()))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
        anyhow!("TLS certificate {} and key {}: {error}", cert_file.display(), key_file.display())
    })
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let chain = chain.map_err(|error| anyhow!("TLS certificate {}: {error}", file.display()))?;
    if chain.is_empty() {
        return Err(anyhow!("TLS certificate {}: the file has no certificate", file.display()));
    }
    Ok(chain)
}

fn expiry(cert: &CertificateDer<'_>) -> Option<i64> {
    let (_, cert) = x509_parser::parse_x509_certificate(cert).ok()?;
    Some(cert.validity().not_after.timestamp())
}

/// Whether the certificate's subject alternative names include the address, or the address is
/// unspecified.
fn covers_address(cert: &CertificateDer<'_>, address: IpAddr) -> bool {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let Ok((_, cert)) = x509_parser::parse_x509_certificate(cert) else { return false };
    let Ok(Some(names)) = cert.subject_alternative_name() else { return false };
    let is_address =
        |name: &GeneralName<'_>| matches!(name, GeneralName::IPAddress(bytes) if *bytes == octets);
    address.is_unspecified() || names.value.general_names.iter().any(is_address)
}

fn make_self_signed(folder: &Path, address: IpAddr, now: OffsetDateTime) -> Result<()> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !address.is_unspecified() && !names.contains(&address.to_string()) {
        names.push(address.to_string());
    }
    let ip_names = names.len();
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if !hostname.is_empty() && !names.contains(&hostname) {
        names.push(hostname);
    }
    let make = || -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        // A host name that is not a valid DNS name must not prevent the start.
        let mut params = CertificateParams::new(names.clone())
            .or_else(|_| CertificateParams::new(&names[..ip_names]))?;
        params.not_before = now - Duration::days(1);
        params.not_after = now + SELF_SIGNED_VALIDITY;
        params.distinguished_name.push(DnType::CommonName, "odometer self-signed");
        Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
    };
    let (cert, key) = make().context("could not make a self-signed certificate")?;
    let at = |path: &Path| format!("TLS folder {}", path.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(|| at(folder))?;
    for (name, text, mode) in [("key.pem", key, 0o600), ("cert.pem", cert, 0o644)] {
        let path = folder.join(name);
        let temporary = folder.join(format!("{name}.new"));
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(mode)
                .open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().with_context(|| at(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_is_made_once_and_kept() {
        let temp = tempfile::tempdir().unwrap();
        let address = IpAddr::from([127, 0, 0, 1]);
        let source = TlsSource::SelfSigned { folder: temp.path().join("tls"), address };
        let first = ServerCertificate::load(source.clone()).unwrap();
        let second = ServerCertificate::load(source).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.fingerprint().len(), 32 * 3 - 1);
        let elsewhere = TlsSource::SelfSigned {
            folder: temp.path().join("tls"),
            address: IpAddr::from([127, 0, 0, 2]),
        };
        assert_ne!(ServerCertificate::load(elsewhere).unwrap().fingerprint(), first.fingerprint());
        let left = first.expires_unix_s().unwrap() - OffsetDateTime::now_utc().unix_timestamp();
        assert!(left > 390 * 86_400);
    }

    #[test]
    fn a_certificate_with_the_key_of_another_is_rejected() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let address = IpAddr::from([127, 0, 0, 1]);
            ServerCertificate::load(TlsSource::SelfSigned {
                folder: temp.path().join(name),
                address,
            })
            .unwrap();
        }
        let cert = temp.path().join("a/cert.pem");
        let mixed = TlsSource::Files { cert: cert.clone(), key: temp.path().join("b/key.pem") };
        assert!(ServerCertificate::load(mixed).is_err());
        let missing = TlsSource::Files { cert, key: temp.path().join("none.pem") };
        assert!(ServerCertificate::load(missing).unwrap_err().to_string().contains("none.pem"));
    }
}
