//! Numbers: what is a value and what is not, however it is written, and what happens at a counter's
//! maximum.
//!
//! Invariant: a value is taken exactly as it was written or refused; a refused one changes nothing.
//! Must never: round, truncate or wrap, so each case reads the counter afterwards.

use serde_json::json;

use super::{Api, BOTH, FORM, INCREMENT, INTEGER, JSON, Tenant, assert_refusal, value_of};
use crate::support::client::Protocol;

const MAX: u64 = 9_007_199_254_740_991;

#[test]
fn a_number_is_taken_as_written_or_refused() {
    let api = Api::start();
    let tenant = api.register("numbers");
    api.set(&tenant, 41);
    for protocol in BOTH {
        for raw in [
            "-0",
            "-1",
            "1.0",
            "1.5",
            "1e3",
            "1E0",
            "0.1e1",
            "9223372036854775808",
            "18446744073709551615",
        ] {
            refused_number(&api, protocol, &tenant, raw, "invalid_value");
        }
        for raw in [
            "18446744073709551616",
            "100000000000000000000000000000",
            "true",
            "null",
            "[]",
            "{}",
            "[5]",
        ] {
            refused_number(&api, protocol, &tenant, raw, "invalid_value");
        }
        for raw in ["0", "9007199254740992", "9007199254740993", "9223372036854775807"] {
            refused_number(&api, protocol, &tenant, raw, "value_out_of_range");
            refused_text(&api, protocol, &tenant, raw, "value_out_of_range");
        }
        for text in [
            "",
            " ",
            "00",
            "-0",
            "-1",
            "+5",
            "1.0",
            "1.5",
            "1e3",
            "007",
            "0x10",
            "5 ",
            " 5",
            "1_000",
            "1,000",
            "five",
            "٣",
            "5\0",
            "\u{1}5",
            "9223372036854775808",
            "18446744073709551617",
            "NaN",
            "Infinity",
        ] {
            refused_text(&api, protocol, &tenant, text, "invalid_value");
        }
        for body in ["{}", r#"{"Value":5}"#, r#"{"value ":5}"#] {
            let answer = api.ask(protocol, "PUT", INTEGER, &[tenant.auth(), JSON], body);
            assert_refusal(&answer, 422, "invalid_value", body);
        }
        assert_refusal(
            &api.ask(protocol, "PUT", INTEGER, &[tenant.auth()], ""),
            422,
            "invalid_value",
            "no value",
        );
        assert_eq!(api.read(&tenant), 41);
    }
    for value in [1, 42, 2_147_483_648, 4_294_967_296, MAX - 1, MAX, 41] {
        api.set(&tenant, value);
        assert_eq!(api.read(&tenant), value);
    }
    api.stop();
}

#[track_caller]
fn refused_number(api: &Api, protocol: Protocol, tenant: &Tenant, raw: &str, code: &str) {
    let answer =
        api.ask(protocol, "PUT", INTEGER, &[tenant.auth(), JSON], format!("{{\"value\":{raw}}}"));
    assert_refusal(&answer, 422, code, raw);
    assert_eq!(answer.json()["errors"][0]["source"], json!({ "parameter": "value" }), "{raw}");
    assert_eq!(api.read(tenant), 41, "{raw}");
}

/// The same as a JSON text, in a form and in the query.
#[track_caller]
fn refused_text(api: &Api, protocol: Protocol, tenant: &Tenant, text: &str, code: &str) {
    let form: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let query = format!("{INTEGER}?value={form}");
    for (path, headers, body) in [
        (INTEGER, &[tenant.auth(), JSON][..], json!({ "value": text }).to_string()),
        (INTEGER, &[tenant.auth(), FORM], format!("value={form}")),
        (&*query, &[tenant.auth()], String::new()),
    ] {
        let answer = api.ask(protocol, "PUT", path, headers, body);
        assert_refusal(&answer, 422, code, &format!("{text:?}"));
        assert_eq!(api.read(tenant), 41, "{text:?}");
    }
}

#[test]
fn a_counter_at_its_maximum_says_so_and_stays() {
    let api = Api::start();
    let tenant = api.register("maximum");
    api.set(&tenant, MAX - 1);
    assert_eq!(api.increment(&tenant), MAX);
    for protocol in BOTH {
        for _ in 0..2 {
            let answer = api.ask(protocol, "PUT", INCREMENT, &[tenant.auth()], "");
            assert_refusal(&answer, 409, "counter_exhausted", "the maximum");
            assert!(answer.text().contains("9007199254740991"), "{}", answer.text());
            assert_eq!(api.read(&tenant), MAX);
        }
    }
    assert_eq!(
        api.server.metric("odometer_increments_total"),
        Some(1.0),
        "a refused increment was counted"
    );
    let folder = tempfile::tempdir().unwrap();
    api.stop();
    let api = Api::on(super::TestServer::builder().data_dir(folder.path().join("data")));
    let tenant = api.register("maximum");
    api.set(&tenant, MAX);
    let Api { server, .. } = api;
    server.kill();
    let api = Api::on(super::TestServer::builder().data_dir(folder.path().join("data")));
    assert_eq!(api.read(&tenant), MAX, "after a kill");
    assert_refusal(
        &api.ask(Protocol::Http1, "PUT", INCREMENT, &[tenant.auth()], ""),
        409,
        "counter_exhausted",
        "again",
    );
    api.set(&tenant, 5);
    assert_eq!(value_of(&api.ask(Protocol::Http1, "PUT", INCREMENT, &[tenant.auth()], "")), 6);
    api.stop();
}
