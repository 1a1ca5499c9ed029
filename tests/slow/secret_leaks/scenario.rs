//! Everything that secrets can be sent by, right and wrong, and all that was answered.
//!
//! Invariant: every answer is kept, head and body, but for the one value of `api_key` that a
//! creation shows. Each secret is sent in its own words, so a hit names the request.
//! Must never: send a secret where the contract shows it: as a name, a label, or a request's id.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::byte_serialize;
use futures_util::future::join_all;
use serde_json::json;

use super::secret::Secrets;
use crate::support::Random;
use crate::support::client::{Answer, Client, Endpoint, Protocol};
use crate::support::raw_client::{over_tcp, over_tls};
use crate::support::server::TestServer;
use crate::support::workload::runtime;
use tokio::runtime::Runtime;

pub(crate) const FORM: &str = "application/x-www-form-urlencoded";
pub(crate) const JSON: &str = "application/json";
/// How long a connection may stay open after a request that is none; these are not waited for
/// longer.
const DEADLINE: Duration = Duration::from_millis(600);
/// How long the admin socket may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The running server, its secrets, and what it said.
pub(crate) struct Scenario {
    pub(crate) secrets: Secrets,
    pub(crate) random: Random,
    pub(crate) told: Vec<(String, Vec<u8>)>,
    runtime: Runtime,
    endpoint: Endpoint,
    /// The connection that was used last, if its protocol is the wanted one.
    client: Option<(Protocol, Client)>,
    http: SocketAddr,
    ops: SocketAddr,
    admin: std::path::PathBuf,
}

/// A tenant: name, password and key.
pub(crate) struct Tenant {
    name: String,
    password: String,
    pub(crate) api_key: String,
}

impl Tenant {
    pub(crate) fn basic(&self) -> String {
        basic(&self.name, &self.password)
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.api_key)
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn quoted(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

impl Scenario {
    pub(crate) fn of(server: &TestServer, http: SocketAddr, random: Random) -> Self {
        Self {
            secrets: Secrets::none(),
            random,
            told: Vec::new(),
            runtime: runtime(),
            endpoint: server.endpoint(),
            client: None,
            http,
            ops: server.ops(),
            admin: server.data_dir().join("admin.sock"),
        }
    }

    /// All of it, by this protocol; `number` makes names that are new.
    pub(crate) fn tell(&mut self, protocol: Protocol, number: usize) {
        let tenant = self.register(protocol, number);
        self.refuse_registrations(protocol, &tenant);
        self.keys_in_right_places(protocol, &tenant);
        self.keys_in_wrong_places(protocol, &tenant);
        self.keys_as_parameters(protocol, &tenant);
        self.passwords(protocol, tenant);
    }

    /// Closes what is open, so that the server need not wait for it when it ends.
    pub(crate) fn hang_up(&mut self) {
        self.client = None;
        self.runtime = runtime();
    }

    pub(crate) fn ask(
        &mut self,
        protocol: Protocol,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let (endpoint, known) =
            (self.endpoint.clone(), self.client.take().filter(|(known, _)| *known == protocol));
        let (answer, client) = self.runtime.block_on(async {
            // A connection that the server has closed is known only by its failure.
            if let Some((_, mut client)) = known
                && let Ok(answer) = client.request(method, path, headers, body.to_owned()).await
            {
                return (answer, client);
            }
            let mut client =
                endpoint.connect(protocol).await.expect("the server accepts a connection");
            let answer = client.request(method, path, headers, body.to_owned()).await;
            (answer.expect("every request is answered"), client)
        });
        self.client = Some((protocol, client));
        let text = format!("{:?}\n{}", answer.headers, answer.text());
        // The one place where a key is shown, and only what is shown there.
        let shown = answer.json()["data"]["attributes"]["api_key"].as_str().map(str::to_owned);
        let text = match shown.filter(|_| method == "POST" && answer.status < 300) {
            Some(key) => text.replacen(&key, "", 1),
            None => text,
        };
        let head = path.split('?').next().unwrap_or_default();
        self.told.push((
            format!("the answer to {protocol:?} {method} {}", &head[..head.len().min(24)]),
            text.into_bytes(),
        ));
        answer
    }

    /// Registers by each route and way to send parameters; the last tenant is returned.
    fn register(&mut self, protocol: Protocol, number: usize) -> Tenant {
        let mut last = None;
        for (way, path) in ["form", "json", "query", "document"]
            .into_iter()
            .zip(["/users/create", "/api/v1/tenants"].into_iter().cycle())
        {
            let name = format!("canary-{number}-{way}");
            let password =
                self.secrets.password(&format!("the password by {way}"), &mut self.random);
            let attributes = json!({ "username": name, "password": password });
            let pairs = format!("username={name}&password={}", quoted(&password));
            let query = format!("{path}?{pairs}");
            let document =
                json!({ "data": { "type": "tenant", "attributes": attributes } }).to_string();
            let answer = match way {
                "form" => self.ask(protocol, ("POST", path), &[("content-type", FORM)], &pairs),
                "json" => self.ask(
                    protocol,
                    ("POST", path),
                    &[("content-type", JSON)],
                    &attributes.to_string(),
                ),
                "query" => self.ask(protocol, ("POST", &query), &[], ""),
                _ => self.ask(
                    protocol,
                    ("POST", path),
                    &[("content-type", "application/vnd.api+json")],
                    &document,
                ),
            };
            let api_key = self.new_key(&format!("the key by {way}"), &answer);
            last = Some(Tenant { name, password, api_key });
        }
        last.expect("there are four ways")
    }

    pub(crate) fn new_key(&mut self, what: &str, answer: &Answer) -> String {
        let key = answer.json()["data"]["attributes"]["api_key"].as_str().map(str::to_owned);
        let key = key.unwrap_or_else(|| panic!("{what}: {} {}", answer.status, answer.text()));
        self.secrets.key(what, &key);
        key
    }

    fn refuse_registrations(&mut self, protocol: Protocol, tenant: &Tenant) {
        for path in ["/users/create", "/api/v1/tenants"] {
            let password = self.secrets.password("a refused password", &mut self.random);
            let pair = format!("password={}", quoted(&password));
            let name = &tenant.name;
            let bodies = [
                (FORM, format!("username={name}&{pair}")),
                (FORM, format!("username=no+name&{pair}")),
                (FORM, format!("username={}&password=", quoted(&password))),
                (FORM, format!("username=new&{pair}&{pair}")),
                (FORM, format!("username=new&pass%zz{pair}")),
                (FORM, quoted(&password)),
                (FORM, format!("{}=x", quoted(&password))),
                (JSON, json!({ "username": "new", "password": [password] }).to_string()),
                (JSON, json!({ "username": password, "password": "short" }).to_string()),
                (JSON, json!({ "username": "new", "password": password.repeat(9) }).to_string()),
                (JSON, json!([password]).to_string()),
                (JSON, json!(password).to_string()),
                (JSON, format!("{{\"username\":\"new\",\"password\":{}", json!(password))),
                (
                    JSON,
                    json!({ "username": "new", "password": { &*password: password } }).to_string(),
                ),
                (JSON, json!({ &*password: "x", "username": "a b", "password": "y" }).to_string()),
                (
                    JSON,
                    json!({ "username": "new", "password": password, "x": "y".repeat(5000) })
                        .to_string(),
                ),
                ("text/plain", password.clone()),
                ("multipart/form-data; boundary=x", format!("--x\r\n\r\n{password}\r\n--x--\r\n")),
            ];
            for (content_type, body) in bodies {
                let answer =
                    self.ask(protocol, ("POST", path), &[("content-type", content_type)], &body);
                assert!(
                    (400..500).contains(&answer.status),
                    "{content_type}: {} {}",
                    answer.status,
                    answer.text()
                );
            }
            let headers = [("content-type", JSON), ("content-encoding", "gzip")];
            self.ask(
                protocol,
                ("POST", path),
                &headers,
                &json!({ "username": "new", "password": password }).to_string(),
            );
        }
    }

    /// The tenant's password, an old one, wrong ones, none at all; at the end the tenant is gone.
    fn passwords(&mut self, protocol: Protocol, mut tenant: Tenant) {
        let json = ("content-type", JSON);
        let route = ("PUT", "/api/v1/tenant/password");
        let wrong = self.secrets.password("a wrong password", &mut self.random);
        let plain = format!("Basic {}", wrong.replace(' ', "_"));
        let no_colon = format!("Basic {}", STANDARD.encode(&wrong));
        let nobody = basic("canary-nobody", &wrong);
        let as_name = basic(&wrong, "x");
        for authorization in [&basic(&tenant.name, &wrong), &plain, &no_colon, &nobody, &as_name] {
            for (method, path) in [("GET", "/api/v1/counters"), route] {
                let answer = self.ask(
                    protocol,
                    (method, path),
                    &[("authorization", authorization), json],
                    "",
                );
                assert_eq!(answer.status, 401, "{}", answer.text());
            }
        }
        let next = self.secrets.password("the new password", &mut self.random);
        for (body, status) in [
            (json!({ "new_password": next, "old_password": tenant.password }), 422),
            (json!({ "new_password": next, "revoke_keys": tenant.password }), 422),
            (json!({ "new_password": next.repeat(9) }), 422),
            (json!({ "new_password": { "is": next } }), 422),
            (json!({ "new_password": next, "revoke_keys": true }), 204),
        ] {
            let answer = self.ask(
                protocol,
                route,
                &[("authorization", &tenant.basic()), json],
                &body.to_string(),
            );
            assert_eq!(answer.status, status, "{}", answer.text());
        }
        let answer = self.ask(
            protocol,
            ("GET", "/api/v1/tenant"),
            &[("authorization", &tenant.basic())],
            "",
        );
        assert_eq!(answer.status, 401, "the old password is still taken");
        tenant.password = next;
        let made =
            self.ask(protocol, ("POST", "/api/v1/keys"), &[("authorization", &tenant.basic())], "");
        tenant.api_key = self.new_key("the last key", &made);
        // These know nothing of the protocol.
        if protocol == Protocol::Http1 {
            self.malformed(&tenant);
            self.other_listeners(&tenant);
            self.admin_socket(&tenant);
        }
        let gone = self.ask(
            protocol,
            ("DELETE", "/api/v1/tenant"),
            &[("authorization", &tenant.basic())],
            "",
        );
        assert_eq!(gone.status, 204);
        self.ask(protocol, ("GET", "/api/v1/tenant"), &[("authorization", &tenant.bearer())], "");
    }

    /// Bytes that are no request, with secrets in them.
    fn malformed(&mut self, tenant: &Tenant) {
        let (bearer, basic) = (tenant.bearer(), tenant.basic());
        let password = self.secrets.password("a password in a malformed request", &mut self.random);
        let head = format!(
            "PUT /api/v1/integer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {bearer}\r\n"
        );
        let key = &tenant.api_key;
        let cases = [
            ("NUL in the key", format!("{}\0\r\n\r\n", head.trim_end())),
            ("NUL beside it", format!("{head}X: {password}\0\r\n\r\n")),
            ("a folded header", format!("{head}X: a\r\n {password}\r\n\r\n")),
            ("a header without a colon", format!("{head}{password}\r\n\r\n")),
            ("a name that is none", format!("{head}{password}: x\r\n\r\n")),
            ("a version of its own", format!("GET / HTTP/1.9{key}\r\n\r\n")),
            ("a path that is none", format!("GET {password} HTTP/1.1\r\nHost: x\r\n\r\n")),
            ("a host that is none", format!("GET / HTTP/1.1\r\nHost: {key}\r\nX: {basic}\r\n\r\n")),
            ("only a key", format!("{bearer}\r\n\r\n")),
            (
                "lengths that differ",
                format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\n{password}"),
            ),
            ("a length that is a key", format!("{head}Content-Length: {key}\r\n\r\n")),
            (
                "chunks that are none",
                format!("{head}Transfer-Encoding: chunked\r\n\r\n{password}\r\n{key}\r\n"),
            ),
            (
                "a chunk's extension",
                format!(
                    "{head}Transfer-Encoding: chunked\r\n\r\n1;{key}\r\nx\r\n0\r\nT: {password}\r\n\r\n"
                ),
            ),
            ("HTTP/2 by name only", format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{bearer}{password}")),
            ("a head without an end", format!("{head}X: {}", password.repeat(3000))),
        ];
        let (endpoint, ways) = (&self.endpoint, [true, false]);
        // All at once, since some of them are not answered. Without TLS they are sent where TLS is
        // expected.
        let sending = cases
            .iter()
            .flat_map(|(case, bytes)| ways.map(|over_it| (*case, bytes.as_bytes(), over_it)));
        let sending = sending.map(async |(case, bytes, over_it)| {
            let reply = if over_it {
                over_tls(endpoint, &[bytes], DEADLINE).await
            } else {
                over_tcp(endpoint.address, &[bytes], DEADLINE).await
            };
            (format!("the answer to {case}, with TLS: {over_it}"), reply.bytes)
        });
        self.told.extend(self.runtime.block_on(join_all(sending)));
    }

    /// The plain port and the operators' one.
    fn other_listeners(&mut self, tenant: &Tenant) {
        let (key, bearer, basic) = (&tenant.api_key, tenant.bearer(), tenant.basic());
        let end = "Host: localhost\r\nConnection: close\r\n";
        for address in [self.http, self.ops] {
            for bytes in [
                format!("GET /api/v1/integer HTTP/1.1\r\n{end}Authorization: {bearer}\r\n\r\n"),
                format!("GET /api/v1/tenant HTTP/1.1\r\n{end}Authorization: {basic}\r\n\r\n"),
                format!("POST /users/create HTTP/1.1\r\n{end}Content-Length: 93\r\n\r\n{key}"),
                format!("PUT /metrics?{key} HTTP/1.1\r\n{end}Cookie: {key}\r\n\r\n"),
                format!("{key} /metrics HTTP/1.1\r\n{end}\r\n"),
                format!("BREW /{key} HTTP/1.1\r\n{end}\r\n"),
                format!("GET /\0 HTTP/1.1\r\n{end}Authorization: {bearer}\r\n\r\n"),
            ] {
                let reply = self.runtime.block_on(over_tcp(address, &[bytes.as_bytes()], DEADLINE));
                self.told.push((format!("the answer of {address}"), reply.bytes));
            }
        }
        for bytes in [
            format!("GET /{key} HTTP/1.1\r\n{end}\r\n"),
            format!("GET /metrics?{key} HTTP/1.1\r\n{end}\r\n"),
        ] {
            let reply = self.runtime.block_on(over_tcp(self.ops, &[bytes.as_bytes()], DEADLINE));
            self.told.push(("the answer of the ops listener".to_owned(), reply.bytes));
        }
    }

    /// What a person may send by mistake to the socket in the data directory.
    fn admin_socket(&mut self, tenant: &Tenant) {
        let (key, password) = (&tenant.api_key, &tenant.password);
        let (id, end) = (&key[4..20], "Host: localhost\r\nConnection: close\r\n");
        let put = |body: &str| {
            let head = format!(
                "PUT /tenants/{}/limit HTTP/1.1\r\n{end}Content-Type: {JSON}\r\n",
                tenant.name
            );
            format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
        };
        for request in [
            format!("{key} {password}\r\n\r\n"),
            format!("GET /{key} HTTP/1.1\r\n{end}\r\n"),
            format!("GET /tenants?{key}={password} HTTP/1.1\r\n{end}\r\n"),
            format!("GET /tenants?after={key} HTTP/1.1\r\n{end}\r\n"),
            format!("GET /tenants/{}/keys?after={key} HTTP/1.1\r\n{end}\r\n", tenant.name),
            format!(
                "GET /stats HTTP/1.1\r\n{end}X-Request-Id: {key}\r\nAuthorization: Bearer {key}\r\n\r\n"
            ),
            format!("DELETE /tenants/{}/keys/{id}{password} HTTP/1.1\r\n{end}\r\n", tenant.name),
            format!("DELETE /tenants/{}/keys/{key}0 HTTP/1.1\r\n{end}\r\n", tenant.name),
            format!("POST /backup?{password} HTTP/1.1\r\n{end}\r\n"),
            put(&json!({ "limit": password }).to_string()),
            put(&json!({ &**key: password }).to_string()),
            put(&format!("{{\"limit\":{key}")),
        ] {
            let mut stream = UnixStream::connect(&self.admin).expect("the admin socket is there");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket has time-outs");
            stream.write_all(request.as_bytes()).expect("the server listens");
            let mut reply = Vec::new();
            // A connection that is cut has said what it had to say.
            let _ = stream.read_to_end(&mut reply);
            self.told.push(("the reply of the admin socket".to_owned(), reply));
        }
    }
}
