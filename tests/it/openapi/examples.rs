//! The commands in the document, run as they stand there.
//!
//! Invariant: only the address and the certificate's place are changed, since a test has its own.
//! Each operation has a command.
//! Must never: run a command that could reach anything but the test's server.

use std::process::Command;

use hyper::Method;

use super::{Operation, operations};
use crate::support::client::Protocol;
use crate::support::server::TestServer;
use crate::support::workload::{PASSWORD, runtime};
use crate::support::{has_program, require};

#[test]
fn every_command_of_the_document_succeeds() {
    if !require("curl", has_program("curl")) {
        return;
    }
    let server = TestServer::start();
    let place = format!("https://localhost:{}", server.public().port());
    let certificate = server.data_dir().join("tls/cert.pem").display().to_string();
    let (key, key_id) = key_and_another(&server);
    let mut operations = operations();
    // What makes something comes first, and what removes it last.
    operations.sort_by_key(|operation| match operation.method {
        Method::POST if !operation.path.contains('{') => 0,
        Method::DELETE => 2,
        _ => 1,
    });
    for Operation { method, path, description } in &operations {
        let command =
            description.split("```sh\n").nth(1).and_then(|rest| rest.split("\n```").next());
        let command =
            command.unwrap_or_else(|| panic!("{method} {path} has no command: {description}"));
        assert!(
            command.contains("https://localhost:8443/")
                && command.contains("--cacert data/tls/cert.pem"),
            "{command}"
        );
        let own = command
            .replace("https://localhost:8443", &place)
            .replace("data/tls/cert.pem", &certificate);
        let own = own.replace("curl -sS", "curl -sS --fail-with-body --noproxy '*' --max-time 30");
        let ran = Command::new("bash")
            .args(["-c", &own])
            .env("KEY", &key)
            .env("KEY_ID", &key_id)
            .output();
        let ran = ran.expect("bash starts");
        let [told, complained] =
            [&ran.stdout, &ran.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(ran.status.success(), "{method} {path}\n{command}\n{told}\n{complained}");
    }
    server.stop();
}

/// The key of a tenant, and the id of another one of it, which may be revoked.
fn key_and_another(server: &TestServer) -> (String, String) {
    let endpoint = server.endpoint();
    runtime().block_on(async {
        let mut client = endpoint.connect(Protocol::Http1).await.expect("a connection");
        let key = client.register("examples", PASSWORD).await.expect("a tenant");
        let authorization = format!("Bearer {key}");
        let made =
            client.request("POST", "/api/v1/keys", &[("authorization", &authorization)], "").await;
        let id =
            made.expect("an answer").json()["data"]["id"].as_str().unwrap_or_default().to_owned();
        (key, id)
    })
}
