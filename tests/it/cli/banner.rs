//! What a first run shows to a person: all of it true, and the commands work when pasted.
//!
//! Invariant: the commands run in a real shell, exactly as printed.
//! Must never: show a key.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{DEADLINE, Place, ended};
use crate::support::server::TestServer;
use crate::support::{has_program, require};

/// The text of the banner, once it is there.
fn banner(server: &TestServer) -> String {
    let until = Instant::now() + DEADLINE;
    loop {
        let transcript = server.transcript();
        let (_, stderr) =
            transcript.split_once("--- stderr\n").expect("the transcript shows stderr");
        if stderr.contains("/increment\n") {
            return stderr.to_owned();
        }
        assert!(Instant::now() < until, "no banner: {transcript}");
        std::thread::yield_now();
    }
}

#[test]
fn the_banner_is_true_and_its_commands_work() {
    let place = Place::new();
    let here =
        require("curl, grep and bash", ["curl", "grep", "bash"].into_iter().all(has_program));
    for (format, folder, listen) in [
        ("auto", "data", "127.0.0.1:0"),
        ("text", "it's a \"folder\" $HOME", "127.0.0.1:0"),
        ("auto", "six", "[::1]:0"),
        ("auto", "any", "0.0.0.0:0"),
    ] {
        let builder = TestServer::builder()
            .flag("--log-format", format)
            .flag("--listen", listen)
            .data_dir(place.path(folder));
        let server =
            if format == "text" { builder.chosen_ports().start() } else { builder.start() };
        let text = banner(&server);
        let (port, certificate) = (server.public().port(), server.data_dir().join("tls/cert.pem"));
        assert!(text.contains(&format!("https://localhost:{port}\n")), "{text}");
        assert!(text.contains(&certificate.display().to_string()), "{text}");
        assert!(text.contains(&format!("http://{}/metrics", server.ops())), "{text}");
        assert!(text.contains(&fingerprint(&certificate)), "{text}");
        if here {
            assert_eq!(pasted(&place, &text), 2, "{text}");
        }
        let written = server.stop();
        assert!(
            !written.stderr.contains("odo_") || written.stderr.contains("'odo_["),
            "a key in the banner"
        );
    }
    let quiet = TestServer::start();
    assert_eq!(quiet.stop().stderr, "", "--log-format json is for machines: no banner");
}

/// The commands as pasted into a shell; the value that the second one shows.
#[track_caller]
fn pasted(place: &Place, banner: &str) -> u64 {
    let lines: Vec<_> =
        banner.lines().map(str::trim).filter(|line| line.contains("curl -sS")).collect();
    assert_eq!(lines.len(), 2, "{banner}");
    let shell =
        ended(Command::new("bash").args(["-c", &lines.join("\n")]).current_dir(place.0.path()));
    let document: serde_json::Value = serde_json::from_str(&shell.stdout).unwrap_or_default();
    document["data"]["attributes"]["value"]
        .as_u64()
        .unwrap_or_else(|| panic!("{lines:#?}\n{shell:?}"))
}

/// A banner for an address that is neither `localhost` nor everything: its URL and its certificate
/// fit as well.
#[test]
fn the_banner_works_on_another_address() {
    let place = Place::new();
    if !require("curl, grep and bash", ["curl", "grep", "bash"].into_iter().all(has_program)) {
        return;
    }
    for listen in ["127.0.0.2:0", "[::ffff:127.0.0.1]:0"] {
        let server =
            TestServer::builder().flag("--log-format", "auto").flag("--listen", listen).start();
        assert_eq!(pasted(&place, &banner(&server)), 2, "{listen}");
        server.stop();
    }
}

fn fingerprint(certificate: &Path) -> String {
    let der = CertificateDer::from_pem_file(certificate).expect("a certificate");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
