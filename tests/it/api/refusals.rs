//! What is refused, and how: names, passwords, keys, paths, methods, media types, bodies.
//!
//! Invariant: after each refusal the counter stands where it stood, and no tenant was made.
//! Must never: name a case without its exact status and code.

use serde_json::json;

use super::{Api, BOTH, CREATE, FORM, INCREMENT, INTEGER, JSON, JSON_API, Tenant, assert_refusal};
use crate::support::client::{Answer, Protocol};
use crate::support::workload::PASSWORD;

#[test]
fn bad_names_and_passwords_register_nobody() {
    let api = Api::start();
    let first = api.register("Alice.Example");
    let long_name = "x".repeat(129);
    let long_password = "p".repeat(257);
    for (protocol, seventh) in BOTH.into_iter().zip(["pass7ch", "kürzer"]) {
        let refused = |name: &str, password: &str, parameter: &str, code: &str, says: &str| {
            let body = json!({ "username": name, "password": password }).to_string();
            let answer = api.ask(protocol, "POST", CREATE, &[JSON], body);
            assert_invalid(&answer, parameter, code, says, &format!("{name:?}"));
            let is_a_word = password.is_empty() || password == "password";
            assert!(is_a_word || !answer.text().contains(password), "the password came back");
        };
        for (name, says) in [
            ("", "blank"),
            (" \t", "blank"),
            (&*long_name, "too long"),
            ("a b", "characters"),
            ("ä", "characters"),
            ("nul\0", "characters"),
            ("line\nbreak", "characters"),
            ("semi;colon", "characters"),
        ] {
            refused(name, PASSWORD, "username", "invalid_username", says);
        }
        for name in ["Alice.Example", "alice.example", "ALICE.EXAMPLE"] {
            refused(name, PASSWORD, "username", "username_taken", "taken");
        }
        for (password, says) in [
            ("", "blank"),
            (seventh, "short"),
            (&*long_password, "too long"),
            ("password", "common"),
            ("PassWord123", "common"),
        ] {
            refused("bob", password, "password", "invalid_password", says);
        }
        for (body, parameter) in [
            (r#"{"password":"correct horse"}"#, "username"),
            (r#"{"username":"bob"}"#, "password"),
            (r#"{"username":null,"password":"correct horse"}"#, "username"),
            ("{}", "username"),
        ] {
            let answer = api.ask(protocol, "POST", CREATE, &[JSON], body);
            assert_invalid(&answer, parameter, &format!("invalid_{parameter}"), "blank", body);
        }
        for (body, parameter) in [
            (r#"{"username":7,"password":"correct horse"}"#, "username"),
            (r#"{"username":"bob","password":12345678}"#, "password"),
            (r#"{"username":["bob"],"password":"correct horse"}"#, "username"),
            (r#"{"username":"bob","password":{"a":1}}"#, "password"),
        ] {
            let answer = api.ask(protocol, "POST", CREATE, &[JSON], body);
            assert_invalid(&answer, parameter, "invalid_parameter", "string", body);
        }
        assert_refusal(
            &api.ask(protocol, "POST", CREATE, &[], ""),
            422,
            "invalid_username",
            "no body",
        );
    }
    let next = api.register("bob");
    assert_eq!(next.id, first.id + 1, "a refusal registered somebody");
    the_longest_ones_will_do(&api);
    api.stop();
}

#[track_caller]
fn assert_invalid(answer: &Answer, parameter: &str, code: &str, says: &str, case: &str) {
    assert_refusal(answer, 422, code, case);
    let error = &answer.json()["errors"][0];
    assert_eq!(error["source"], json!({ "parameter": parameter }), "{case}");
    assert!(error["detail"].as_str().unwrap_or_default().contains(says), "{case}: {error}");
}

fn the_longest_ones_will_do(api: &Api) {
    let (name, password) = ("N".repeat(128), "p".repeat(256));
    for (name, password) in
        [(&*name, &*password), ("a.b_c%d+e@f-g", "eight  8"), ("9", "nul\0\u{1}é日本")]
    {
        let body = json!({ "username": name, "password": password }).to_string();
        let answer = api.ask(Protocol::Http2, "POST", CREATE, &[JSON], body);
        assert_eq!(answer.status, 200, "{name:?} {password:?}: {}", answer.text());
    }
}

#[test]
fn nobody_counts_without_a_good_key() {
    let api = Api::start();
    let (tenant, other) = (api.register("owner"), api.register("other"));
    let before = api.increment(&tenant);
    let keys = Keys::of(&tenant, &other);
    let huge = format!("Bearer {}", "a".repeat(10 * 1024));
    let bearer = |key: &str| format!("Bearer {key}");
    let cases = [
        ("garbage", "garbage".to_owned(), "malformed"),
        ("empty", String::new(), "malformed"),
        ("scheme alone", "Bearer".to_owned(), "malformed"),
        ("no key", "Bearer ".to_owned(), "malformed"),
        ("no space", format!("Bearer{}", tenant.key), "malformed"),
        ("key alone", tenant.key.clone(), "malformed"),
        ("two keys", format!("{} {}", tenant.bearer, other.key), "malformed"),
        ("Basic", "Basic b3duZXI6Y29ycmVjdC1ob3JzZQ==".to_owned(), "malformed"),
        ("10 KiB", huge, "malformed"),
        ("mistyped", bearer(&keys.mistyped), "malformed"),
        ("upper case", bearer(&tenant.key.to_ascii_uppercase()), "malformed"),
        ("one short", bearer(&tenant.key[..92]), "malformed"),
        ("one long", bearer(&format!("{}0", tenant.key)), "malformed"),
        ("unknown id", bearer(&keys.unknown), "unknown"),
        ("id of one, secret of another", bearer(&keys.crossed), "unknown"),
    ];
    for protocol in BOTH {
        for (case, credential, reason) in &cases {
            let counted = || auth_failures(&api, reason);
            let earlier = counted();
            let challenge = r#"Bearer realm="odometer", error="invalid_token""#;
            refused_everywhere(&api, protocol, &[("authorization", credential)], challenge, case);
            assert_eq!(counted(), earlier + 3.0, "{case} is not counted as {reason}");
            assert_eq!(api.read(&tenant), before, "{case}");
        }
        refused_everywhere(&api, protocol, &[], r#"Bearer realm="odometer""#, "missing");
        let twice = [tenant.auth(), tenant.auth()];
        refused_everywhere(
            &api,
            protocol,
            &twice,
            r#"Bearer realm="odometer", error="invalid_token""#,
            "two headers",
        );
        let twice = [("authorization", "Basic x"), tenant.auth()];
        refused_everywhere(
            &api,
            protocol,
            &twice,
            r#"Bearer realm="odometer", error="invalid_token""#,
            "two schemes",
        );
        assert_eq!(api.read(&tenant), before);
    }
    assert_eq!((auth_failures(&api, "missing"), auth_failures(&api, "ambiguous")), (6.0, 12.0));
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let credential = format!("{scheme} {}", tenant.key);
        assert_eq!(
            api.ask(Protocol::Http1, "GET", INTEGER, &[("authorization", &credential)], "").status,
            200
        );
    }
    assert_eq!(api.read(&other), 1);
    api.stop();
}

fn auth_failures(api: &Api, reason: &str) -> f64 {
    super::observability::sample(
        api,
        &format!("odometer_auth_failures_total{{reason=\"{reason}\"}}"),
    )
}

#[track_caller]
fn refused_everywhere(
    api: &Api,
    protocol: Protocol,
    headers: &[(&str, &str)],
    challenge: &str,
    case: &str,
) {
    for (method, path) in
        [("GET", INTEGER), ("PUT", "/api/v1/integer?value=99"), ("PUT", INCREMENT)]
    {
        let answer = api.ask(protocol, method, path, headers, "");
        assert_refusal(&answer, 401, "unauthorized", &format!("{case}, {method} {path}"));
        assert_eq!(answer.header("www-authenticate"), challenge, "{case}");
        assert_eq!(
            answer.json()["errors"][0]["source"],
            json!({ "header": "Authorization" }),
            "{case}"
        );
    }
}

/// Keys that look right; `mistyped` alone has a wrong checksum.
struct Keys {
    mistyped: String,
    unknown: String,
    crossed: String,
}

impl Keys {
    fn of(tenant: &Tenant, other: &Tenant) -> Self {
        let with_crc = |body: String| format!("{body}{:08x}", crc32c::crc32c(body.as_bytes()));
        let swapped = if tenant.key.as_bytes()[30] == b'0' { "1" } else { "0" };
        let crossed = with_crc(format!("{}{}", &tenant.key[..21], &other.key[21..85]));
        assert_eq!(
            with_crc(tenant.key[..85].to_owned()),
            tenant.key,
            "a key's checksum is not where this test thinks"
        );
        Self {
            mistyped: format!("{}{swapped}{}", &tenant.key[..30], &tenant.key[31..]),
            unknown: with_crc(format!("odo_{}{}", "0".repeat(16), &tenant.key[20..85])),
            crossed,
        }
    }
}

#[test]
fn unknown_paths_and_wrong_methods() {
    let api = Api::start();
    let tenant = api.register("paths");
    for protocol in BOTH {
        for path in [
            "/",
            "/api",
            "/api/v1/integer/",
            "/api/v1/integers",
            "/API/v1/integer",
            "/api//v1/integer",
            "/api/v1/../v1/integer",
            "/api/v1/integer%00",
            "/api/v1/integer%2Fincrement",
            "/%61pi/v1/integer",
            "/metrics",
            "/favicon.ico",
        ] {
            for method in ["GET", "PUT", "POST", "DELETE"] {
                let answer = api.ask(protocol, method, path, &[tenant.auth()], "");
                assert_refusal(&answer, 404, "not_found", &format!("{method} {path}"));
            }
        }
        for (path, allow, wrong) in [
            (CREATE, "POST", &["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"][..]),
            (
                INTEGER,
                "GET, HEAD, PUT",
                &["POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "put"],
            ),
            (INCREMENT, "PUT", &["GET", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"]),
            ("/livez", "GET, HEAD", &["POST", "PUT", "DELETE", "OPTIONS"]),
            ("/readyz", "GET, HEAD", &["POST", "PUT", "DELETE", "OPTIONS"]),
        ] {
            for method in wrong {
                let case = format!("{protocol:?} {method} {path}");
                let answer = api.ask(protocol, method, path, &[tenant.auth()], "");
                assert_eq!((answer.status, answer.header("allow")), (405, allow), "{case}");
                assert_refusal(&answer, 405, "method_not_allowed", &case);
                assert_eq!(api.read(&tenant), 1, "{case}");
            }
        }
    }
    api.stop();
}

#[test]
fn bodies_that_can_not_be_read_change_nothing() {
    let api = Api::start();
    let tenant = api.register("bodies");
    let before = api.increment(&tenant);
    for protocol in BOTH {
        for (case, headers, body) in malformed_bodies() {
            for (path, method) in [(INTEGER, "PUT"), (INCREMENT, "PUT"), (CREATE, "POST")] {
                let headers: Vec<_> = headers.iter().copied().chain([tenant.auth()]).collect();
                let answer = api.ask(protocol, method, path, &headers, body.clone());
                assert_refusal(&answer, 400, "malformed_body", &format!("{case}, {path}"));
                assert_eq!(api.read(&tenant), before, "{case}, {path}");
            }
        }
        for (case, headers) in unsupported_types() {
            for (path, method) in [(INTEGER, "PUT"), (INCREMENT, "PUT"), (CREATE, "POST")] {
                let headers: Vec<_> = headers.iter().copied().chain([tenant.auth()]).collect();
                let answer = api.ask(protocol, method, path, &headers, r#"{"value":5}"#);
                assert_refusal(&answer, 415, "unsupported_media_type", &format!("{case}, {path}"));
                assert_eq!(api.read(&tenant), before, "{case}, {path}");
            }
        }
        let both = api.ask(
            protocol,
            "PUT",
            "/api/v1/integer?value=5",
            &[tenant.auth(), JSON],
            r#"{"value":6}"#,
        );
        assert_refusal(&both, 400, "malformed_body", "a value in query and body");
        for query in ["value=5&value=5", "value=%FF", "value=5&%76alue=6"] {
            let answer =
                api.ask(protocol, "PUT", &format!("{INTEGER}?{query}"), &[tenant.auth()], "");
            assert_refusal(&answer, 400, "malformed_body", query);
        }
        assert_eq!(api.read(&tenant), before);
    }
    api.stop();
}

type Case = (&'static str, Vec<(&'static str, &'static str)>, Vec<u8>);

fn malformed_bodies() -> Vec<Case> {
    let json = |case, body: &[u8]| (case, vec![JSON], body.to_vec());
    vec![
        json("not JSON", b"{"),
        json("JSON and more", br#"{"value":5} x"#),
        json("an array", b"[5]"),
        json("a number", b"5"),
        json("a text", br#""value""#),
        json("null", b"null"),
        json("duplicate keys", br#"{"value":5,"value":6}"#),
        json("duplicate keys, escaped", br#"{"value":5,"\u0076alue":6}"#),
        json("duplicate keys inside", br#"{"a":{"b":1,"b":2}}"#),
        json("not UTF-8", b"{\"value\":\"\xff\xfe\"}"),
        json("half a surrogate", br#"{"value":"\ud800"}"#),
        json("overlong UTF-8", b"{\"value\":\"\xc0\xaf\"}"),
        json("UTF-16", b"{\0\"\0v\0\"\0:\x005\0}\0"),
        json("a bare NUL", b"{\"value\":\"a\0b\"}"),
        json("a bare control character", b"{\"value\":\"a\x01b\"}"),
        json("NULs only", &[0; 64]),
        json("a byte order mark", b"\xef\xbb\xbf{\"value\":5}"),
        json("nesting", &[b'['; 4096]),
        json("a leading zero", br#"{"value":007}"#),
        json("a hexadecimal number", br#"{"value":0x10}"#),
        json("NaN", br#"{"value":NaN}"#),
        json("a number beyond any", br#"{"value":1e999}"#),
        json("single quotes", b"{'value':5}"),
        json("a comment", b"{/**/\"value\":5}"),
        json("a comma too many", br#"{"value":5,}"#),
        (
            "JSON:API without attributes",
            vec![JSON_API],
            br#"{"data":{"type":"user_integer"}}"#.to_vec(),
        ),
        (
            "JSON:API with a list",
            vec![JSON_API],
            br#"{"data":[{"attributes":{"value":5}}]}"#.to_vec(),
        ),
        (
            "duplicate attributes",
            vec![JSON_API],
            br#"{"data":{"attributes":{"value":5,"value":6}}}"#.to_vec(),
        ),
        ("a form with duplicates", vec![FORM], b"value=5&value=6".to_vec()),
        ("a form that is not UTF-8", vec![FORM], b"value=%ff".to_vec()),
        ("a form of raw bytes", vec![FORM], b"value=\xff\xfe".to_vec()),
    ]
}

fn unsupported_types() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let content_type = |text| vec![("content-type", text)];
    vec![
        ("no type", vec![]),
        ("text", content_type("text/plain")),
        ("XML", content_type("application/xml")),
        ("multipart", content_type("multipart/form-data; boundary=x")),
        ("an empty type", content_type("")),
        ("JSON:API with a parameter", content_type("application/vnd.api+json; version=1")),
        (
            "JSON:API with an extension",
            content_type("application/vnd.api+json; ext=\"https://jsonapi.org/ext/atomic\""),
        ),
        ("two types", vec![JSON, FORM]),
        ("compressed", vec![JSON, ("content-encoding", "gzip")]),
    ]
}

#[test]
fn a_body_has_4096_bytes_at_most() {
    let api = Api::start();
    let tenant = api.register("large");
    let padded = |value: u64, length: usize| {
        let text = format!("{{\"value\":{value},\"pad\":\"");
        format!("{text}{}\"}}", "x".repeat(length - text.len() - 2))
    };
    for (protocol, value) in BOTH.into_iter().zip([7, 8]) {
        let fits = api.ask(protocol, "PUT", INTEGER, &[tenant.auth(), JSON], padded(value, 4096));
        assert_eq!(super::value_of(&fits), value);
        for length in [4097, 5000, 16_384] {
            for (path, method) in [(INTEGER, "PUT"), (INCREMENT, "PUT"), (CREATE, "POST")] {
                let answer =
                    api.ask(protocol, method, path, &[tenant.auth(), JSON], padded(99, length));
                assert_refusal(
                    &answer,
                    413,
                    "body_too_large",
                    &format!("{protocol:?} {path} {length}"),
                );
                assert_eq!(api.read(&tenant), value);
            }
        }
    }
    // A chunked body announces no length.
    for (length, status) in [(4096, 200), (4097, 413), (16_384, 413)] {
        let body = padded(9, length);
        let request = format!(
            "PUT {INTEGER} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: {}\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n",
            tenant.bearer
        );
        let reply = super::hostile::send(&api, request.as_bytes());
        assert_eq!(super::answer_of(&reply, "chunked").status, status, "{length} bytes");
        assert_eq!(api.read(&tenant), 9, "{length} bytes");
    }
    api.stop();
}
