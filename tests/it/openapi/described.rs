//! The document beside what it describes.
//!
//! Invariant: sets are compared whole, both ways.
//! Must never: mend what it compares, unless it is told to (`ODOMETER_WRITE_OPENAPI=1`).

use std::collections::BTreeSet;
use std::path::Path;

use odometer::http::routes::{json, table};

use super::{document, operations};
use crate::support::client::Protocol;
use crate::support::server::TestServer;
use crate::support::workload::runtime;
use crate::support::{say, setting};

#[test]
fn the_operations_are_the_routes() {
    // The files of the page /docs are no operations of the API, and /metrics is not public.
    let is_described =
        |pattern: &str| !["other", "/metrics"].contains(&pattern) && !pattern.starts_with("/docs/");
    let routed: BTreeSet<String> = (0..table().patterns.len())
        .map(|label| (table().patterns[label], table().allow(label)))
        .filter(|(pattern, _)| is_described(pattern))
        .flat_map(|(pattern, allow)| {
            allow.split(", ").map(move |method| format!("{method} {pattern}"))
        })
        .filter(|route| !route.starts_with("HEAD "))
        .collect();
    let described: BTreeSet<String> = operations()
        .iter()
        .map(|operation| format!("{} {}", operation.method, operation.path))
        .collect();
    let [missing, unrouted] =
        [routed.difference(&described), described.difference(&routed)].map(Vec::from_iter);
    assert!(
        missing.is_empty() && unrouted.is_empty(),
        "not described: {missing:?}; described without a route: {unrouted:?}"
    );
}

/// `docs/errors.md` is what people read; a code is in both or in neither.
#[test]
fn the_codes_are_those_of_the_page_of_errors() {
    let page = read("docs/errors.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let told: BTreeSet<(String, String)> = rows
        .filter(|(status, _)| status.parse::<u16>().is_ok())
        .flat_map(|(status, rest)| {
            let codes = rest.split(" | ").next().unwrap_or_default().split('`').skip(1).step_by(2);
            codes.map(move |code| (status.to_owned(), code.to_owned()))
        })
        // The port without TLS and the admin socket answer these, and the document is about
        // neither.
        .filter(|(_, code)| {
            !["https_required", "tenant_not_found", "backup_failed"].contains(&code.as_str())
        })
        .collect();
    let responses =
        document()["components"]["responses"].as_object().expect("an object of responses");
    let described: BTreeSet<(String, String)> = responses
        .iter()
        .flat_map(|(name, response)| {
            let status = name.split('-').next().unwrap_or_default();
            let schema = &response["content"]["application/vnd.api+json"]["schema"];
            let codes =
                &schema["allOf"][1]["properties"]["errors"]["items"]["properties"]["code"]["enum"];
            let codes = codes.as_array().unwrap_or_else(|| panic!("no codes in {name}")).clone();
            codes
                .into_iter()
                .map(move |code| (status.to_owned(), code.as_str().unwrap_or_default().to_owned()))
        })
        .collect();
    let [undescribed, untold] =
        [told.difference(&described), described.difference(&told)].map(Vec::from_iter);
    assert!(
        undescribed.is_empty() && untold.is_empty(),
        "only in docs/errors.md: {undescribed:?}; only in the document: {untold:?}"
    );
}

/// What the metrics of a route are prepared for is what the document promises of it.
#[test]
fn each_operation_succeeds_with_the_status_that_its_metrics_expect() {
    let page = odometer::http::routes::metrics().render();
    let mut expected = 0;
    for (pattern, item) in document()["paths"].as_object().expect("an object of paths") {
        for (method, operation) in item.as_object().expect("an object of operations") {
            let responses = operation["responses"].as_object().expect("an operation has responses");
            let successes: Vec<_> = responses.keys().filter(|code| code.starts_with('2')).collect();
            let [success] = successes[..] else { panic!("one success: {method} {pattern}") };
            let is_tenants = pattern.starts_with("/api/") || pattern == "/users/create";
            for code in [success, "500", "503", "507"] {
                let method = method.to_uppercase();
                let labels = format!("{{code=\"{code}\",method=\"{method}\",path=\"{pattern}\"}}");
                let series = format!("http_server_requests_total{labels} 0\n");
                assert_eq!(page.contains(&series), is_tenants, "{series}");
                expected += usize::from(is_tenants);
            }
        }
    }
    assert_eq!(
        page.lines().filter(|line| line.starts_with("http_server_requests_total{")).count(),
        expected
    );
}

#[test]
fn the_committed_copy_is_the_document() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let made = json();
    if setting("ODOMETER_WRITE_OPENAPI").as_deref() == Some("1") {
        std::fs::write(&path, &made).expect("openapi.json can be written");
        say("openapi.json was written");
    }
    let committed = std::fs::read(&path).unwrap_or_default();
    let hint = "openapi.json is not what the code makes: run ODOMETER_WRITE_OPENAPI=1 cargo test --test it openapi::, and commit it";
    assert!(committed == made, "{hint}");
}

#[test]
fn it_is_served_to_anybody() {
    let server = TestServer::start();
    let endpoint = server.endpoint();
    let runtime = runtime();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let answers = runtime.block_on(async {
            let mut client = endpoint.connect(protocol).await.expect("a connection");
            let mut answers = Vec::new();
            for path in [
                "/openapi.json",
                "/docs",
                "/docs/start.js",
                "/docs/swagger-ui.css",
                "/docs/swagger-ui-bundle.js",
            ] {
                let get = client.request("GET", path, &[], "").await.expect("an answer");
                let head = client.request("HEAD", path, &[], "").await.expect("an answer");
                assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
                assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
                let put = client.request("PUT", path, &[], "").await.expect("an answer");
                assert_eq!((put.status, put.header("allow")), (405, "GET, HEAD"), "{path}");
                answers.push((path, get));
            }
            let unknown =
                client.request("GET", "/docs/README.md", &[], "").await.expect("an answer");
            assert_eq!((unknown.status, unknown.code()), (404, "not_found".to_owned()));
            answers
        });
        for (path, answer) in &answers {
            assert_eq!(answer.status, 200, "{path}");
        }
        let [document, files @ ..] = &answers[..] else { panic!("there is a document") };
        assert_eq!(document.1.header("cache-control"), "no-store");
        assert_eq!(document.1.header("content-type"), "application/json");
        assert_eq!(document.1.body, json());
        for (path, file) in files {
            let policy = file.header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'; "), "{path}: {policy}");
            for lax in ["unsafe", "http", "*", "blob:", "strict-dynamic"] {
                assert!(!policy.contains(lax), "{path}: {policy}");
            }
            assert_eq!(file.header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(file.header("cache-control"), "no-cache", "{path}");
        }
        // A browser that has a file asks whether it is still the same, and is sent nothing.
        let revisited = runtime.block_on(async {
            let mut client = endpoint.connect(protocol).await.expect("a connection");
            let mut revisited = Vec::new();
            for (path, file) in files {
                for known in [file.header("etag"), "\"x\", W/\"y\"", "*"] {
                    let answer = client
                        .request("GET", path, &[("if-none-match", known)], "")
                        .await
                        .expect("an answer");
                    revisited.push((path, known == "\"x\", W/\"y\"", answer));
                }
            }
            revisited
        });
        for (path, is_other, answer) in revisited {
            assert_eq!(answer.status, if is_other { 200 } else { 304 }, "{path}");
            assert_eq!(answer.body.is_empty(), !is_other, "{path}");
            assert!(answer.header("etag").len() > 30, "{path}: {:?}", answer.headers);
        }
    }
    drop(runtime);
    server.stop();
}

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        .expect("it is in the repository")
}
