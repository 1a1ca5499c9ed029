//! Every route and every refusal, asked of the running server over TLS, HTTP/1.1 and HTTP/2.
//!
//! Job: the HTTP contract. `routes` what is answered on the old routes, `refusals` and `values`
//! what is not, `hostile` and `partial_requests` requests that no library sends, `limits` the rate
//! limits, `plain` the port without TLS, `observability` and `audit` what logs and metrics say of
//! it all. The new routes: `counters`, `lists`, `preconditions` (entity tags), `idempotency`
//! (idempotency keys), `keys`, `credentials`, `scopes`, `tenants`, `passwords`, `isolation`.
//! Invariant: after each refusal the counter is read, and it has not moved; every refusal is a
//! JSON:API document whose id is the request's.
//! Must never: depend on speed, share a server between two tests, or take a number from anything
//! but an answer.

mod audit;
mod counters;
mod credentials;
mod hostile;
mod idempotency;
mod isolation;
mod keys;
mod limits;
mod lists;
mod observability;
mod partial_requests;
mod passwords;
mod plain;
mod preconditions;
mod refusals;
mod routes;
mod scopes;
mod tenants;
mod values;

use crate::contract;
use crate::support::client::{Answer, Endpoint, Failure, Protocol};
use crate::support::raw_client::Reply;
use crate::support::server::{Builder, TestServer, Written};
use crate::support::strict_http1::{Asked, next_answer};
use crate::support::workload::{PASSWORD, runtime};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const CREATE: &str = "/users/create";
const INTEGER: &str = "/api/v1/integer";
const INCREMENT: &str = "/api/v1/integer/increment";
const COUNTERS: &str = "/api/v1/counters";
const KEYS: &str = "/api/v1/keys";
const TENANT: &str = "/api/v1/tenant";
const TENANTS: &str = "/api/v1/tenants";
const PASSWORD_ROUTE: &str = "/api/v1/tenant/password";
const JSON: (&str, &str) = ("content-type", "application/json");
const JSON_API: (&str, &str) = ("content-type", "application/vnd.api+json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A running server and the means to ask it.
struct Api {
    server: TestServer,
    endpoint: Endpoint,
    runtime: Runtime,
}

/// A tenant as a test knows it.
struct Tenant {
    id: u64,
    key: String,
    bearer: String,
}

impl Api {
    fn start() -> Self {
        Self::on(TestServer::builder())
    }

    fn on(builder: Builder) -> Self {
        let server = builder.start();
        Self { endpoint: server.endpoint(), server, runtime: runtime() }
    }

    /// One request on a connection of its own; the transport must not fail.
    #[track_caller]
    fn ask(
        &self,
        protocol: Protocol,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let asking = async {
            let mut client = self
                .endpoint
                .connect(protocol)
                .await
                .map_err(|e| Failure::NotSent(e.to_string()))?;
            client.request(method, path, headers, body).await
        };
        match self.runtime.block_on(asking) {
            Ok(answer) => {
                contract::assert_described(method, path, &answer);
                answer
            }
            Err(failure) => {
                panic!("{protocol:?} {method} {path}: {failure:?}\n{}", self.server.transcript())
            }
        }
    }

    #[track_caller]
    fn register(&self, name: &str) -> Tenant {
        let body = json!({ "username": name, "password": PASSWORD }).to_string();
        let answer = self.ask(Protocol::Http1, "POST", CREATE, &[JSON], body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        Tenant::of(&answer)
    }

    #[track_caller]
    fn read(&self, tenant: &Tenant) -> u64 {
        let answer = self.ask(Protocol::Http1, "GET", INTEGER, &[tenant.auth()], "");
        value_of(&answer)
    }

    #[track_caller]
    fn increment(&self, tenant: &Tenant) -> u64 {
        let answer = self.ask(Protocol::Http1, "PUT", INCREMENT, &[tenant.auth()], "");
        value_of(&answer)
    }

    #[track_caller]
    fn set(&self, tenant: &Tenant, value: u64) {
        let answer = self.ask(
            Protocol::Http1,
            "PUT",
            INTEGER,
            &[tenant.auth(), FORM],
            format!("value={value}"),
        );
        assert_eq!(value_of(&answer), value);
    }

    /// One request of this tenant with JSON parameters, or none where they are null, and these
    /// headers besides.
    #[track_caller]
    fn call(
        &self,
        protocol: Protocol,
        tenant: &Tenant,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        parameters: &Value,
    ) -> Answer {
        let mut all = vec![tenant.auth()];
        all.extend(headers);
        let body = if parameters.is_null() { String::new() } else { parameters.to_string() };
        if !body.is_empty() {
            all.push(JSON);
        }
        self.ask(protocol, method, path, &all, body)
    }

    /// Creates a counter that starts at 0 and has these parameters besides.
    #[track_caller]
    fn create(&self, tenant: &Tenant, name: &str, mut parameters: Value) -> Answer {
        parameters["name"] = json!(name);
        parameters["start"] = parameters.get("start").cloned().unwrap_or(json!(0));
        let answer = self.call(Protocol::Http2, tenant, ("POST", COUNTERS), &[], &parameters);
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer
    }

    /// The value of a counter by name.
    #[track_caller]
    fn value(&self, tenant: &Tenant, name: &str) -> u64 {
        value_of(&self.call(
            Protocol::Http1,
            tenant,
            ("GET", &format!("{COUNTERS}/{name}")),
            &[],
            &Value::Null,
        ))
    }

    /// A new key of the tenant with these scopes, as somebody who has only that.
    #[track_caller]
    fn key(&self, tenant: &Tenant, scopes: &str) -> Tenant {
        let answer =
            self.call(Protocol::Http1, tenant, ("POST", KEYS), &[], &json!({ "scopes": scopes }));
        assert_eq!(answer.status, 201, "{}", answer.text());
        Tenant::with_key(
            tenant.id,
            answer.json()["data"]["attributes"]["api_key"].as_str().unwrap_or_default(),
        )
    }

    /// SIGTERM; what the server had written when it ended, well.
    #[track_caller]
    fn stop(self) -> Written {
        // Its connections end with the runtime; whether peers that stay can hold up the end is
        // asked in tests/it/cli.
        drop(self.runtime);
        self.server.stop()
    }
}

impl Tenant {
    /// Takes the tenant from the answer to its registration, which must have exactly the old shape.
    #[track_caller]
    fn of(answer: &Answer) -> Self {
        let document = answer.json();
        let key = document["data"]["attributes"]["api_key"].as_str().unwrap_or_default().to_owned();
        let id = document["data"]["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or(0);
        let exact = json!({
            "data": { "id": id.to_string(), "type": "user", "attributes": { "api_key": key } },
            "jsonapi": { "version": "1.0" },
        });
        assert_eq!(document, exact, "{}", answer.text());
        assert!(id > 0 && key.starts_with("odo_") && key.len() == 93, "{}", answer.text());
        let bearer = format!("Bearer {key}");
        Self { id, key, bearer }
    }

    fn with_key(id: u64, key: &str) -> Self {
        Self { id, key: key.to_owned(), bearer: format!("Bearer {key}") }
    }

    /// The public half of the key.
    fn key_id(&self) -> &str {
        &self.key[4..20]
    }

    fn auth(&self) -> (&str, &str) {
        ("authorization", &self.bearer)
    }

    /// The document of this tenant's counter.
    fn integer(&self, value: u64) -> Value {
        let data = json!({ "id": self.id.to_string(), "type": "user_integer", "attributes": { "value": value } });
        json!({ "data": data, "jsonapi": { "version": "1.0" } })
    }
}

#[track_caller]
fn value_of(answer: &Answer) -> u64 {
    let value = answer.json()["data"]["attributes"]["value"].as_u64();
    value.unwrap_or_else(|| panic!("{} {}", answer.status, answer.text()))
}

/// The answer is this refusal, as the contract draws it, with everything that every answer has.
#[track_caller]
fn assert_refusal(answer: &Answer, status: u16, code: &str, case: &str) {
    assert_error_document(answer, case);
    assert_eq!(
        (answer.status, answer.code()),
        (status, code.to_owned()),
        "{case}: {}",
        answer.text()
    );
    assert_eq!(answer.header("x-request-id"), answer.json()["errors"][0]["id"], "{case}");
    assert_common_headers(answer, case);
}

/// The answer is some 4xx document of one error.
#[track_caller]
fn assert_error_document(answer: &Answer, case: &str) {
    let document = answer.json();
    let told = || format!("{case}: {} {:?} {}", answer.status, answer.headers, answer.text());
    assert!((400..500).contains(&answer.status), "{}", told());
    assert_eq!(answer.header("content-type"), JSON_API.1, "{}", told());
    assert_eq!(answer.header("cache-control"), "no-store", "{}", told());
    assert_eq!(document["jsonapi"], json!({ "version": "1.0" }), "{}", told());
    assert_eq!(document["errors"].as_array().map(Vec::len), Some(1), "{}", told());
    let error = &document["errors"][0];
    assert_eq!(error["status"], answer.status.to_string(), "{}", told());
    assert!(error["id"].is_string(), "{}", told());
    for member in ["code", "title", "detail"] {
        assert!(
            error[member].as_str().is_some_and(|text| !text.is_empty()),
            "{member}: {}",
            told()
        );
    }
    let detail = error["detail"].as_str().unwrap_or_default();
    assert!(
        detail.ends_with('.') && detail.starts_with(|c: char| !c.is_lowercase()),
        "no sentence: {}",
        told()
    );
}

/// The answer is this success.
#[track_caller]
fn assert_status(answer: &Answer, status: u16, case: &str) {
    assert_eq!(answer.status, status, "{case}: {}", answer.text());
    assert_common_headers(answer, case);
}

/// The header of Basic credentials.
fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// What every answer of the public listener has.
#[track_caller]
fn assert_common_headers(answer: &Answer, case: &str) {
    assert_eq!(answer.header("cache-control"), "no-store", "{case}");
    assert!(!answer.header("x-request-id").is_empty(), "{case}: {:?}", answer.headers);
    assert!(
        answer.header("strict-transport-security").starts_with("max-age="),
        "{case}: {:?}",
        answer.headers
    );
}

/// The answers in what came back raw, interim ones left out.
#[track_caller]
fn answers_of(reply: &Reply) -> Vec<Answer> {
    let (mut rest, mut answers) = (&reply.bytes[..], Vec::new());
    let asked = Asked { maybe_head: false, ended: true };
    while !rest.is_empty() {
        let next = next_answer(rest, asked)
            .unwrap_or_else(|what| panic!("{what}: {:?}", String::from_utf8_lossy(rest)));
        let (answer, length) =
            next.unwrap_or_else(|| panic!("a cut answer: {:?}", String::from_utf8_lossy(rest)));
        if answer.status >= 200 {
            answers.push(answer);
        }
        rest = &rest[length..];
    }
    answers
}

/// The only answer in what came back raw.
#[track_caller]
fn answer_of(reply: &Reply, case: &str) -> Answer {
    let mut answers = answers_of(reply);
    assert_eq!(answers.len(), 1, "{case}: {:?}", reply.text());
    answers.remove(0)
}
