//! TLS as clients meet it: the certificate of a first run, the operator's own, its exchange under
//! way, and the versions spoken.
//!
//! Job: files and modes, key kinds, one-line refusals, SIGHUP, protocol versions and ALPN.
//! Invariant: every client here trusts one certificate, so a handshake that succeeds proves which
//! one was shown.
//! Must never: turn verification off; fall back to self-signed itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::client::{Endpoint, Protocol};
use crate::support::raw_client::over_tcp;
use crate::support::server::{Builder, TestServer};
use crate::support::workload::{PASSWORD, runtime};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

const DEADLINE: Duration = Duration::from_secs(9);

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

/// A certificate and its key in files, as an operator would have them.
struct Identity {
    cert: PathBuf,
    key: PathBuf,
}

impl Identity {
    fn at(folder: &Path, name: &str) -> Self {
        Self {
            cert: folder.join(format!("{name}.cert.pem")),
            key: folder.join(format!("{name}.key.pem")),
        }
    }

    fn self_signed(folder: &Path, name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let identity = Self::at(folder, name);
        identity.replace(algorithm);
        identity
    }

    /// Writes a new self-signed pair into the same files.
    fn replace(&self, algorithm: &'static SignatureAlgorithm) {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let cert = localhost().self_signed(&key).expect("a certificate");
        fs::write(&self.cert, cert.pem()).expect("the certificate's file");
        fs::write(&self.key, key.serialize_pem()).expect("the key's file");
    }

    fn builder(&self) -> Builder {
        TestServer::builder().flag("--tls-cert", &self.cert).flag("--tls-key", &self.key)
    }
}

fn localhost() -> CertificateParams {
    CertificateParams::new(["localhost".to_owned()]).expect("a name")
}

fn is_alive(endpoint: &Endpoint, protocol: Protocol) -> bool {
    runtime().block_on(async {
        let Ok(mut client) = endpoint.connect(protocol).await else { return false };
        client.request("GET", "/livez", &[], "").await.is_ok_and(|answer| answer.status == 200)
    })
}

#[test]
fn a_first_run_makes_a_certificate_and_a_restart_keeps_it() {
    let folder = folder();
    let data_dir = folder.path().join("new/data");
    let server = TestServer::builder().data_dir(&data_dir).start();
    let mode = |name: &str| fs::metadata(data_dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("tls"), mode("tls/key.pem")), (0o700, 0o700, 0o600));
    let files =
        || ["tls/cert.pem", "tls/key.pem"].map(|name| fs::read(data_dir.join(name)).unwrap());
    let first = files();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        assert!(is_alive(&server.endpoint(), protocol));
    }
    let written = server.stop();
    let key = String::from_utf8(first[1].clone()).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!written.log.join("\n").contains(secret), "the key was logged");
    let endpoint_of_first = TestServer::builder().data_dir(&data_dir).start();
    assert_eq!(files(), first, "a restart made another certificate");
    assert!(is_alive(&endpoint_of_first.endpoint(), Protocol::Http1));
    endpoint_of_first.stop();
    fs::remove_file(data_dir.join("tls/key.pem")).unwrap();
    let server = TestServer::builder().data_dir(&data_dir).start();
    assert_ne!(files()[0], first[0], "a certificate without its key was kept");
    assert!(is_alive(&server.endpoint(), Protocol::Http1));
    assert_eq!(mode("tls/key.pem"), 0o600);
    server.stop();
}

#[test]
fn own_certificates_of_every_kind_are_shown() {
    let folder = folder();
    for (name, algorithm) in [
        ("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("ed25519", &rcgen::PKCS_ED25519),
        ("rsa", &rcgen::PKCS_RSA_SHA256),
    ] {
        let identity = Identity::self_signed(folder.path(), name, algorithm);
        let server = identity.builder().start();
        let endpoint = Endpoint::trusting(server.public(), &identity.cert);
        for protocol in [Protocol::Http1, Protocol::Http2] {
            assert!(is_alive(&endpoint, protocol), "{name}");
        }
        assert!(
            !server.data_dir().join("tls").exists(),
            "{name}: a self-signed certificate was made besides"
        );
        server.stop();
    }
}

#[test]
fn a_chain_is_sent_whole() {
    let folder = folder();
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "root");
    let root_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&root_key).unwrap();
    let root_issuer = Issuer::from_params(&authority, &root_key);
    let mut between = CertificateParams::new([]).unwrap();
    between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    between.distinguished_name.push(rcgen::DnType::CommonName, "between");
    let between_key = KeyPair::generate().unwrap();
    let between_cert = between.signed_by(&between_key, &root_issuer).unwrap();
    let leaf_key = KeyPair::generate().unwrap();
    let leaf =
        localhost().signed_by(&leaf_key, &Issuer::from_params(&between, &between_key)).unwrap();
    let identity = Identity::at(folder.path(), "chain");
    fs::write(&identity.cert, format!("{}{}", leaf.pem(), between_cert.pem())).unwrap();
    fs::write(&identity.key, leaf_key.serialize_pem()).unwrap();
    let root_file = folder.path().join("root.pem");
    fs::write(&root_file, root.pem()).unwrap();
    let server = identity.builder().start();
    assert!(
        is_alive(&Endpoint::trusting(server.public(), &root_file), Protocol::Http2),
        "the chain was not sent"
    );
    server.stop();
}

#[test]
fn what_can_not_be_used_is_one_line_and_the_end() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let good = Identity::self_signed(folder.path(), "good", &rcgen::PKCS_ECDSA_P256_SHA256);
    let other = Identity::self_signed(folder.path(), "other", &rcgen::PKCS_ECDSA_P256_SHA256);
    fs::write(path("empty.pem"), "").unwrap();
    fs::write(path("text.pem"), "no PEM at all\n").unwrap();
    fs::write(path("half.pem"), "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
    fs::write(
        path("junk.pem"),
        "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    for (case, cert, key, named) in [
        ("no certificate", &path("none.pem"), &good.key, "none.pem"),
        ("no key", &good.cert, &path("none.pem"), "none.pem"),
        ("a stranger's key", &good.cert, &other.key, "other.key.pem"),
        ("an empty certificate", &path("empty.pem"), &good.key, "empty.pem"),
        ("an empty key", &good.cert, &path("empty.pem"), "empty.pem"),
        ("text", &path("text.pem"), &good.key, "text.pem"),
        ("half a certificate", &path("half.pem"), &good.key, "half.pem"),
        ("a junk certificate", &path("junk.pem"), &good.key, "junk.pem"),
        ("exchanged", &good.key, &good.cert, "good.key.pem"),
        ("a folder", &path(""), &good.key, &folder.path().display().to_string()),
    ] {
        let mut server =
            TestServer::builder().flag("--tls-cert", cert).flag("--tls-key", key).spawn();
        let status = server
            .wait_exit(DEADLINE)
            .unwrap_or_else(|| panic!("{case}: it serves\n{}", server.transcript()));
        let written = server.written();
        assert!(matches!(status.code(), Some(1 | 64)), "{case}: {status}");
        assert_eq!(written.stderr.lines().count(), 1, "{case}: {}", written.stderr);
        assert!(
            written.stderr.starts_with("odometer: ") && written.stderr.contains(named),
            "{case}: {}",
            written.stderr
        );
        assert!(
            !server.data_dir().join("tls").exists(),
            "{case}: fell back to a certificate of its own"
        );
    }
}

/// Configuration is checked before anything is made: a typing error in a path leaves no store
/// behind.
#[test]
fn a_missing_certificate_leaves_no_data_folder() {
    let folder = folder();
    let data_dir = folder.path().join("data");
    let none = folder.path().join("none.pem");
    let mut server = TestServer::builder()
        .flag("--tls-cert", &none)
        .flag("--tls-key", &none)
        .data_dir(&data_dir)
        .spawn();
    assert!(server.wait_exit(DEADLINE).is_some_and(|status| !status.success()));
    assert!(!data_dir.join("FORMAT").exists(), "a store was made for a server that cannot start");
}

#[test]
fn sighup_shows_the_new_certificate_and_breaks_nothing() {
    let folder = folder();
    let identity = Identity::self_signed(folder.path(), "served", &rcgen::PKCS_ECDSA_P256_SHA256);
    let server = identity.builder().start();
    let old = Endpoint::trusting(server.public(), &identity.cert);
    let runtime = runtime();
    let (mut kept, key) = runtime.block_on(async {
        let mut client = old.connect(Protocol::Http1).await.unwrap();
        let key = client.register("kept", PASSWORD).await.unwrap();
        assert_eq!(client.increment(&key).await.unwrap(), 2);
        (client, key)
    });
    let mut kept2 = runtime.block_on(old.connect(Protocol::Http2)).unwrap();
    assert_eq!(runtime.block_on(kept2.increment(&key)).unwrap(), 3);

    identity.replace(&rcgen::PKCS_ED25519);
    server.signal(Signal::HUP);
    let new = Endpoint::trusting(server.public(), &identity.cert);
    wait_for("the new certificate", || is_alive(&new, Protocol::Http2));
    assert!(
        !is_alive(&old, Protocol::Http1),
        "the old certificate is still shown to new connections"
    );
    assert_eq!(runtime.block_on(kept.increment(&key)).unwrap(), 4, "the open connection");
    assert_eq!(runtime.block_on(kept2.increment(&key)).unwrap(), 5, "the open HTTP/2 connection");

    // A reload that fails leaves all as it is.
    fs::write(&identity.cert, "half a file").unwrap();
    server.signal(Signal::HUP);
    let failures =
        || server.log().iter().filter(|line| line.contains(r#""event.outcome":"failure""#)).count();
    wait_for("the failure in the log", || failures() == 1);
    assert!(is_alive(&new, Protocol::Http1), "a failed reload lost the certificate");
    assert_eq!(runtime.block_on(kept.increment(&key)).unwrap(), 6);
    drop(((kept, kept2), runtime));
    let written = server.stop();
    assert_eq!(written.actions("certificate-reload").len(), 2, "{:#?}", written.log);
}

/// Asks until it is so; the server's own work is the wait.
#[track_caller]
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < until, "{what} did not come within {DEADLINE:?}");
        std::thread::yield_now();
    }
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let server = TestServer::start();
    for (version, name) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        for (offered, agreed) in [
            (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
            (&[b"http/1.1", b"h2"], Some(b"h2")),
            (&[b"http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let connector = connector(&server, version, offered);
            let (spoken, protocol) = runtime().block_on(async {
                let stream = server.endpoint().open(&connector).await.unwrap();
                let session = stream.get_ref().1;
                (session.protocol_version(), session.alpn_protocol().map(<[u8]>::to_vec))
            });
            assert_eq!((spoken, protocol.as_deref()), (Some(name), agreed), "{offered:?}");
        }
        let connector = connector(&server, version, &[b"spdy/3"]);
        assert!(
            runtime().block_on(server.endpoint().open(&connector)).is_err(),
            "agreed to speak SPDY"
        );
    }
    for minor in [0, 1, 2] {
        let reply = runtime().block_on(over_tcp(server.public(), &[&old_hello(minor)], DEADLINE));
        assert!(reply.closed, "TLS 1.{minor} is waited for");
        // An alert record, fatal: nothing that could be a ServerHello.
        assert_eq!(
            (reply.bytes.first(), reply.bytes.get(5)),
            (Some(&0x15), Some(&2)),
            "3.{minor}: {:?}",
            reply.bytes
        );
    }
    server.stop();
}

fn connector(
    server: &TestServer,
    version: &'static SupportedProtocolVersion,
    offered: &[&[u8]],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let file = server.data_dir().join("tls/cert.pem");
    roots.add(CertificateDer::from_pem_file(file).expect("a certificate")).expect("an anchor");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
    let mut config =
        builder.expect("a version").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// The first message of a client that knows nothing above SSL 3.0 (0), TLS 1.0 (1) or TLS 1.1 (2).
fn old_hello(minor: u8) -> Vec<u8> {
    let suites = [0xc0, 0x09, 0xc0, 0x0a, 0xc0, 0x13, 0xc0, 0x14, 0x00, 0x2f];
    let name = b"localhost";
    let length = |bytes: usize| u16::try_from(bytes).expect("short").to_be_bytes();
    let mut list = vec![0];
    list.extend(length(name.len()));
    list.extend(name);
    let mut extension = vec![0, 0];
    extension.extend(length(list.len() + 2));
    extension.extend(length(list.len()));
    extension.extend(list);
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend(length(suites.len()));
    hello.extend(suites);
    hello.extend([1, 0]);
    hello.extend(length(extension.len()));
    hello.extend(extension);
    let mut record = vec![0x16, 3, 1];
    record.extend(length(hello.len() + 4));
    record.extend([1, 0]);
    record.extend(length(hello.len()));
    record.extend(hello);
    record
}

#[test]
fn another_name_or_another_authority_is_not_trusted() {
    let (server, stranger) = (TestServer::start(), TestServer::start());
    let crossed = Endpoint::trusting(server.public(), &stranger.data_dir().join("tls/cert.pem"));
    assert!(!is_alive(&crossed, Protocol::Http1), "two first runs made the same certificate");
    let connector = server.endpoint().tls(&[b"http/1.1"]);
    let connect = |name: &'static str| {
        runtime().block_on(async {
            let stream = tokio::net::TcpStream::connect(server.public()).await.unwrap();
            connector.connect(ServerName::try_from(name).unwrap(), stream).await.is_ok()
        })
    };
    assert!(connect("localhost") && connect("127.0.0.1") && connect("::1"));
    assert!(!connect("odometer.example"), "the certificate is for any name");
    server.stop();
    stranger.stop();
}
