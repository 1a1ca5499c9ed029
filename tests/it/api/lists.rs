//! Lists, page by page, and names that need care.
//!
//! Invariant: following `links.next` to its end shows everything once, in order.
//! Must never: build the address of a page; it is taken from the page before.

use serde_json::{Value, json};

use super::{Api, BOTH, COUNTERS, KEYS, Tenant, assert_refusal, assert_status};
use crate::support::client::Protocol;

const NONE: Value = Value::Null;

/// The ids on all pages from `path` on, and how many pages there were.
#[track_caller]
fn follow(api: &Api, protocol: Protocol, tenant: &Tenant, path: &str) -> (Vec<String>, usize) {
    let (mut ids, mut pages, mut next) = (Vec::new(), 0, Some(path.to_owned()));
    while let Some(path) = next {
        assert!(pages < 200, "the list has no end");
        let answer = api.call(protocol, tenant, ("GET", &path), &[], &NONE);
        assert_status(&answer, 200, &path);
        let document = answer.json();
        let page = document["data"].as_array().expect("a list");
        ids.extend(page.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
        assert!(
            document["links"].as_object().is_some_and(|links| links.contains_key("next")),
            "{document}"
        );
        next = document["links"]["next"].as_str().map(str::to_owned);
        pages += 1;
    }
    (ids, pages)
}

#[test]
fn counters_are_listed_once_each_in_the_order_of_their_names() {
    let api = Api::start();
    let (tenant, empty) = (api.register("lists"), api.register("empty"));
    let mut expected: Vec<String> = (0..119).map(|number| format!("counter-{number}")).collect();
    api.runtime.block_on(async {
        let mut client = api.endpoint.connect(Protocol::Http2).await.expect("a connection");
        for name in &expected {
            let body = json!({ "name": name }).to_string();
            let answer = client
                .request("POST", COUNTERS, &[tenant.auth(), super::JSON], body)
                .await
                .expect("an answer");
            assert_eq!(answer.status, 201);
        }
    });
    expected.push("default".to_owned());
    expected.sort_unstable();
    for (protocol, path, pages) in [
        (Protocol::Http1, COUNTERS.to_owned(), 6),
        (Protocol::Http2, format!("{COUNTERS}?page[size]=100"), 2),
        (Protocol::Http1, format!("{COUNTERS}?page%5Bsize%5D=60"), 2),
        (Protocol::Http2, format!("{COUNTERS}?page[size]=7"), 18),
    ] {
        assert_eq!(follow(&api, protocol, &tenant, &path), (expected.clone(), pages), "{path}");
    }
    assert_eq!(follow(&api, Protocol::Http1, &empty, COUNTERS), (vec!["default".to_owned()], 1));
    let first =
        api.call(Protocol::Http1, &tenant, ("GET", "/api/v1/counters?page[size]=1"), &[], &NONE);
    let alone =
        api.call(Protocol::Http1, &tenant, ("GET", "/api/v1/counters/counter-0"), &[], &NONE);
    assert_eq!(first.json()["data"][0], alone.json()["data"], "an entry is the counter");
    assert_eq!(
        first.json()["links"]["next"],
        "/api/v1/counters?page[size]=1&page[after]=counter-0"
    );
    // A cursor need not exist any more.
    let behind =
        follow(&api, Protocol::Http1, &tenant, "/api/v1/counters?page[after]=counter-98zz");
    assert_eq!(behind.0, ["counter-99", "default"]);
    // A deleted counter takes no place in a page.
    let gone = "/api/v1/counters/counter-99";
    assert_status(&api.call(Protocol::Http1, &tenant, ("DELETE", gone), &[], &NONE), 204, gone);
    let behind = "/api/v1/counters?page[size]=1&page[after]=counter-98zz";
    let listed = follow(&api, Protocol::Http2, &tenant, behind);
    assert_eq!(listed, (vec!["default".to_owned()], 1), "a deleted counter is listed");
    api.stop();
}

#[test]
fn keys_are_listed_without_their_secrets() {
    let api = Api::start();
    let tenant = api.register("keyring");
    let mut ids = vec![tenant.key_id().to_owned()];
    let mut secrets = vec![tenant.key.clone()];
    for _ in 0..24 {
        let key = api.key(&tenant, "read");
        ids.push(key.key_id().to_owned());
        secrets.push(key.key);
    }
    ids.sort_unstable();
    for (path, pages) in
        [(KEYS, 2), ("/api/v1/keys?page[size]=25", 1), ("/api/v1/keys?page[size]=3", 9)]
    {
        assert_eq!(follow(&api, Protocol::Http2, &tenant, path), (ids.clone(), pages), "{path}");
    }
    let all = api
        .call(Protocol::Http1, &tenant, ("GET", "/api/v1/keys?page[size]=100"), &[], &NONE)
        .text();
    for secret in secrets {
        assert!(!all.contains(&secret[20..]) && !all.contains("api_key"), "{all}");
    }
    api.stop();
}

#[test]
fn a_page_that_can_not_be_is_refused() {
    let api = Api::start();
    let tenant = api.register("pages");
    for protocol in BOTH {
        for path in [COUNTERS, KEYS] {
            for (query, parameter, code) in [
                ("page[size]=0", "page[size]", "invalid_value"),
                ("page[size]=101", "page[size]", "invalid_value"),
                ("page[size]=ten", "page[size]", "invalid_value"),
                ("page[after]=", "page[after]", "invalid_parameter"),
                ("page[after]=a%2Fb", "page[after]", "invalid_parameter"),
                ("page[before]=a", "page[before]", "unknown_parameter"),
                ("page=1", "page", "unknown_parameter"),
                ("limit=1", "limit", "unknown_parameter"),
            ] {
                let answer =
                    api.call(protocol, &tenant, ("GET", &format!("{path}?{query}")), &[], &NONE);
                assert_refusal(&answer, 422, code, query);
                assert_eq!(
                    answer.json()["errors"][0]["source"],
                    json!({ "parameter": parameter }),
                    "{query}"
                );
            }
        }
    }
    api.stop();
}

#[test]
fn names_that_need_care() {
    let api = Api::start();
    let tenant = api.register("names");
    let longest = "n".repeat(128);
    for name in
        [".", "..", "...", "-", "_", "increment", "A", "a", "Default", "0", "a.b_c-9", &longest]
    {
        api.create(&tenant, name, json!({}));
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for (protocol, (path, value)) in BOTH.into_iter().zip([(name, 1), (&*encoded, 2)]) {
            let increment = format!("{COUNTERS}/{path}/increment");
            let answer = api.call(protocol, &tenant, ("POST", &increment), &[], &NONE);
            assert_status(&answer, 200, &increment);
            assert_eq!(
                (super::value_of(&answer), &answer.json()["data"]["id"]),
                (value, &json!(name))
            );
            assert_eq!(api.value(&tenant, path), value);
        }
    }
    // What is decoded once more, or can be no name, is no counter.
    for bad in [
        "%2561",
        "a%2Fb",
        "%",
        "%4",
        "%zz",
        "a%20b",
        "a b".trim(),
        "%C3%A4",
        "a+b",
        &"n".repeat(129),
        "a%00",
    ] {
        let path = format!("{COUNTERS}/{}", bad.replace(' ', "%20"));
        for protocol in BOTH {
            let answer = api.call(protocol, &tenant, ("GET", &path), &[], &NONE);
            assert_refusal(&answer, 404, "counter_not_found", bad);
            let answer = api.ask(protocol, "GET", &path, &[], "");
            assert_refusal(&answer, 401, "unauthorized", bad);
        }
    }
    api.stop();
}
