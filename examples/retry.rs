//! Takes the next number of a counter for one order, once, however often the network or the server
//! fails on the way.
//!
//! `cargo run --example retry -- [COUNTER] [ORDER]`; README.md beside this file names the settings.
//! Invariant: an order has one Idempotency-Key, which is stored before the first try and sent with
//! every try.
//! Must never: make a second key for an order, leave the certificate unchecked, or repeat what was
//! refused.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of its own"
)]

use std::time::{Duration, Instant};
use std::{env, fs, io, io::Write, sync::Arc};

use anyhow::{Context, Error, Result, ensure};
use aws_lc_rs::rand::{self, SystemRandom};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Uri, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time};

const TRY: Duration = Duration::from_secs(5); // one try, from connecting to the last byte of the answer
const LIMIT: Duration = Duration::from_secs(60); // all of them: no later try is begun

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let counter = env::args().nth(1).unwrap_or_else(|| "invoices".to_owned());
    let key = key_of(&env::args().nth(2).unwrap_or_else(|| "order-4711.txt".to_owned()))?;
    let (increment, until) =
        (format!("/api/v1/counters/{counter}/increment"), Instant::now() + LIMIT);
    let (mut status, mut headers, mut document) =
        ask(&increment, Some(&key), &json!({}), until).await?;
    if document["errors"][0]["code"] == "counter_not_found" {
        // Created without the key, which stands for one request: the increment. If the answer to
        // this is lost, or somebody else was faster, the next try is told counter_exists, and that
        // is as good.
        let (made, _, told) =
            ask("/api/v1/counters", None, &json!({ "name": counter, "start": 0 }), until).await?;
        ensure!(
            made == 201 || told["errors"][0]["code"] == "counter_exists",
            "refused: {made} {told}"
        );
        (status, headers, document) = ask(&increment, Some(&key), &json!({}), until).await?; // a refusal uses no key up
    }
    // 409 counter_exhausted: the last number is issued, and a person has to decide. 422
    // idempotency_key_reused: the key went with another request before. A new key would hide that
    // mistake, and could take this order a second number.
    ensure!(status == 200, "refused: {status} {document}");
    let value =
        document["data"]["attributes"]["value"].as_u64().context("an answer without a value")?;
    let replayed = headers.get("idempotency-replayed").is_some_and(|value| value == "true");
    println!("{counter}: {value}, {}", if replayed { "replayed" } else { "new" });
    Ok(())
}

/// The order's key, made before the first try. The file stands for your database, where the key is
/// committed with the order: so it outlives this process, and the process that goes on after a
/// crash asks for the same number.
fn key_of(order: &str) -> Result<String> {
    if let Ok(mut file) = fs::File::create_new(order) {
        write!(
            file,
            "{:032x}",
            u128::from_ne_bytes(rand::generate(&SystemRandom::new())?.expose())
        )?;
    }
    fs::read_to_string(order).context(order.to_owned())
}

/// Sends one request until it is answered for good: the same bytes, and so the same key, with every
/// try.
async fn ask(
    path: &str,
    key: Option<&str>,
    body: &Value,
    until: Instant,
) -> Result<(u16, HeaderMap, Value)> {
    for backoff in (0..).map(|tries| 100 << tries.min(5)) {
        let (why, wait) = match time::timeout(TRY, send(path, key, body)).await {
            // Not for good. Nor is outcome_unknown: the same key gets the number that was taken, or
            // takes it now.
            Ok(Ok((status @ (408 | 429 | 500..), headers, document))) => {
                let seconds = headers
                    .get("retry-after")
                    .and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
                (format!("{status} {}", document["errors"][0]["code"]), seconds.unwrap_or(0))
            }
            Ok(Err(error)) if error.is::<io::Error>() => (format!("no answer: {error}"), 0),
            Ok(outcome) => return outcome, // answered; or a wrong certificate or setting, which waiting does not mend
            Err(_) => ("no answer in time".to_owned(), 0),
        };
        // At least as long as the server asks for. The random part keeps those apart who failed
        // together.
        let jitter = u64::from_ne_bytes(rand::generate(&SystemRandom::new())?.expose()) % backoff;
        let pause = Duration::from_secs(wait.into()) + Duration::from_millis(jitter);
        ensure!(
            Instant::now() + pause < until,
            "gave up: {why}; a number may be taken, so run it again, same order"
        );
        eprintln!("{why}; the same request again in {pause:?}");
        time::sleep(pause).await;
    }
    unreachable!("the limit ends it")
}

/// One try, on a connection of its own. An `io::Error` is the network's; any other one would be the
/// same the next time.
async fn send(path: &str, key: Option<&str>, body: &Value) -> Result<(u16, HeaderMap, Value)> {
    let setting = |name: &str| env::var(name).context(name.to_owned());
    let (url, bearer) =
        (setting("ODOMETER_URL")?.parse::<Uri>()?, format!("Bearer {}", setting("ODOMETER_KEY")?));
    let (host, port) =
        (url.host().context("ODOMETER_URL has no host")?, url.port_u16().unwrap_or(443));
    let mut trusted = rustls::RootCertStore::empty(); // nobody but this certificate, and whom it vouches for
    trusted.add(CertificateDer::from_pem_file(setting("ODOMETER_CACERT")?)?)?;
    let tls = rustls::ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
    let (tls, stream) =
        (tokio_rustls::TlsConnector::from(Arc::new(tls)), TcpStream::connect((host, port)).await?);
    let stream = tls.connect(host.to_owned().try_into()?, stream).await;
    let stream = stream
        .map_err(|error| error.downcast::<rustls::Error>().map_or_else(Error::from, Error::from))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = Request::post(path)
        .header("host", format!("{host}:{port}"))
        .header("authorization", bearer);
    let mut request = request.header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Full::<Bytes>::from(body.to_string()))?;
    let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok((head.status.as_u16(), head.headers, serde_json::from_slice(&body).unwrap_or_default()))
}
