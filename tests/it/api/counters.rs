//! Named counters: created, read, set, incremented, deleted, and refused.
//!
//! Invariant: documents are compared whole; after each refusal the counter is read and stands where
//! it stood.
//! Must never: count on a name that another test uses.

use serde_json::{Value, json};

use super::{
    Api, BOTH, COUNTERS, FORM, INCREMENT, INTEGER, JSON_API, Tenant, assert_refusal, assert_status,
    value_of,
};
use crate::support::client::Protocol;

const MAX: u64 = 9_007_199_254_740_991;
const LARGEST: u64 = 9_223_372_036_854_775_807;
/// The parameters of a counter whose bounds are met soon.
const NONE: Value = Value::Null;

#[test]
fn a_counters_day() {
    let api = Api::start();
    for (protocol, name) in BOTH.into_iter().zip(["invoices", "orders"]) {
        let tenant = api.register(name);
        let path = format!("{COUNTERS}/{name}");
        let document = |value: u64, created: &Value| {
            let attributes = json!({ "value": value, "start": 0, "step": 1, "min": 0, "max": MAX, "rewindable": false, "created_at": created });
            json!({ "data": { "id": name, "type": "counter", "attributes": attributes }, "jsonapi": { "version": "1.0" } })
        };
        let made = api.call(
            protocol,
            &tenant,
            ("POST", COUNTERS),
            &[],
            &json!({ "name": name, "start": 0 }),
        );
        assert_status(&made, 201, name);
        let created = made.json()["data"]["attributes"]["created_at"].clone();
        assert!(
            created.as_str().is_some_and(|text| text.len() == 20 && text.ends_with('Z')),
            "{created}"
        );
        assert_eq!((made.json(), made.header("location")), (document(0, &created), &*path));
        assert_eq!(made.header("content-type"), JSON_API.1);
        let read = api.call(protocol, &tenant, ("GET", &path), &[], &NONE);
        assert_eq!((read.status, read.json()), (200, document(0, &created)));
        for (parameters, first, last, count) in [
            (NONE, 1, 1, 1),
            (json!({}), 2, 2, 1),
            (json!({ "count": 5 }), 3, 7, 5),
            (json!({ "count": "3" }), 8, 10, 3),
        ] {
            let answer = api.call(
                protocol,
                &tenant,
                ("POST", &format!("{path}/increment")),
                &[],
                &parameters,
            );
            assert_status(&answer, 200, name);
            let attributes = json!({ "value": last, "first": first, "last": last, "count": count });
            let data = json!({ "id": name, "type": "counter", "attributes": attributes });
            assert_eq!(answer.json(), json!({ "data": data, "jsonapi": { "version": "1.0" } }));
        }
        let set = api.call(protocol, &tenant, ("PUT", &path), &[], &json!({ "value": 40 }));
        assert_eq!((set.status, set.json()), (200, document(40, &created)));
        let lower = api.call(protocol, &tenant, ("PUT", &path), &[], &json!({ "value": 39 }));
        assert_refusal(&lower, 409, "rewind_required", "lower");
        assert_eq!(lower.json()["errors"][0]["source"], json!({ "parameter": "value" }));
        assert_eq!(api.value(&tenant, name), 40);
        let rewound = api.call(
            protocol,
            &tenant,
            ("PUT", &path),
            &[],
            &json!({ "value": 39, "rewind": true }),
        );
        assert_eq!((rewound.status, rewound.json()), (200, document(39, &created)));
        let gone = api.call(protocol, &tenant, ("DELETE", &path), &[], &NONE);
        assert_status(&gone, 204, "delete");
        assert_eq!((gone.text(), gone.header("content-type")), (String::new(), ""));
        for (method, path) in [
            ("GET", &*path),
            ("PUT", &format!("{path}?value=1")),
            ("DELETE", &path),
            ("POST", &format!("{path}/increment")),
        ] {
            assert_refusal(
                &api.call(protocol, &tenant, (method, path), &[], &NONE),
                404,
                "counter_not_found",
                method,
            );
        }
    }
    api.stop();
}

#[test]
fn every_parameter_of_a_new_counter_is_kept() {
    let api = Api::start();
    let tenant = api.register("shapes");
    for (number, (parameters, expected)) in [
        (json!({}), (1, 1, 1, MAX, false)),
        (json!({ "start": 0 }), (0, 1, 0, MAX, false)),
        (json!({ "min": 5 }), (5, 1, 5, MAX, false)),
        (
            json!({ "start": 7, "step": 3, "min": 2, "max": 20, "rewindable": true }),
            (7, 3, 2, 20, true),
        ),
        (
            json!({ "max": LARGEST, "step": MAX, "start": LARGEST }),
            (LARGEST, MAX, 1, LARGEST, false),
        ),
        (
            json!({ "start": "0", "max": "0", "rewindable": "false", "min": null }),
            (0, 1, 0, 0, false),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut all = parameters;
        all["name"] = json!(format!("c{number}"));
        let answer = api.call(Protocol::Http2, &tenant, ("POST", COUNTERS), &[], &all);
        assert_status(&answer, 201, &all.to_string());
        let (start, step, min, max, rewindable) = expected;
        let mut attributes = answer.json()["data"]["attributes"].clone();
        attributes["created_at"].take();
        let all = json!({ "value": start, "start": start, "step": step, "min": min, "max": max, "rewindable": rewindable, "created_at": null });
        assert_eq!(attributes, all);
    }
    let form = api.ask(
        Protocol::Http1,
        "POST",
        COUNTERS,
        &[tenant.auth(), FORM],
        "name=form&start=0&rewindable=true&step=2",
    );
    assert_status(&form, 201, "a form");
    let incremented = api.call(
        Protocol::Http1,
        &tenant,
        ("POST", "/api/v1/counters/form/increment"),
        &[],
        &json!({ "count": 2 }),
    );
    assert_eq!(
        incremented.json()["data"]["attributes"],
        json!({ "value": 4, "first": 2, "last": 4, "count": 2 })
    );
    let lower = api.call(
        Protocol::Http1,
        &tenant,
        ("PUT", "/api/v1/counters/form"),
        &[],
        &json!({ "value": 0 }),
    );
    assert_status(&lower, 200, "a rewindable counter goes down without a word");
    api.stop();
}

#[test]
fn what_is_no_new_counter_creates_nothing() {
    let api = Api::start();
    let tenant = api.register("nothing");
    api.create(&tenant, "there", json!({}));
    for protocol in BOTH {
        for (name, status, code) in [
            ("", 422, "invalid_name"),
            (" ", 422, "invalid_name"),
            ("a b", 422, "invalid_name"),
            ("a/b", 422, "invalid_name"),
            ("ä", 422, "invalid_name"),
            (&*"x".repeat(129), 422, "invalid_name"),
            ("there", 409, "counter_exists"),
            ("default", 409, "default_counter"),
        ] {
            let answer =
                api.call(protocol, &tenant, ("POST", COUNTERS), &[], &json!({ "name": name }));
            assert_refusal(&answer, status, code, name);
            if code != "default_counter" {
                assert_eq!(
                    answer.json()["errors"][0]["source"],
                    json!({ "parameter": "name" }),
                    "{name}"
                );
            }
        }
        for (parameters, parameter, code) in [
            (json!({ "step": 0 }), "step", "invalid_value"),
            (json!({ "step": MAX + 1 }), "step", "invalid_value"),
            (json!({ "start": -1 }), "start", "invalid_value"),
            (json!({ "start": 1.5 }), "start", "invalid_value"),
            (json!({ "max": LARGEST + 1 }), "max", "invalid_value"),
            (json!({ "min": "01" }), "min", "invalid_value"),
            (json!({ "min": 5, "start": 4 }), "start", "value_out_of_range"),
            (json!({ "start": 5, "max": 4 }), "start", "value_out_of_range"),
            (json!({ "start": LARGEST }), "start", "value_out_of_range"),
            (json!({ "rewindable": "yes" }), "rewindable", "invalid_parameter"),
            (json!({ "rewindable": 1 }), "rewindable", "invalid_parameter"),
            (json!({ "value": 5 }), "value", "unknown_parameter"),
            (json!({ "Step": 5 }), "Step", "unknown_parameter"),
        ] {
            let mut all = parameters;
            all["name"] = json!("new");
            let answer = api.call(protocol, &tenant, ("POST", COUNTERS), &[], &all);
            assert_refusal(&answer, 422, code, &all.to_string());
            assert_eq!(
                answer.json()["errors"][0]["source"],
                json!({ "parameter": parameter }),
                "{all}"
            );
        }
        let refused = api.call(protocol, &tenant, ("GET", "/api/v1/counters/new"), &[], &NONE);
        assert_refusal(&refused, 404, "counter_not_found", "new");
    }
    api.stop();
}

#[test]
fn refused_changes_leave_the_counter_where_it_was() {
    let api = Api::start();
    let tenant = api.register("refused");
    api.create(&tenant, "small", json!({ "step": 3, "max": 10, "min": 2, "start": 2 }));
    let path = "/api/v1/counters/small";
    let increment = "/api/v1/counters/small/increment";
    for protocol in BOTH {
        for (method, path, parameters, status, code) in [
            ("PUT", path, json!({}), 422, "invalid_value"),
            ("PUT", path, json!({ "value": "x" }), 422, "invalid_value"),
            ("PUT", path, json!({ "value": -1 }), 422, "invalid_value"),
            ("PUT", path, json!({ "value": 1 }), 422, "value_out_of_range"),
            ("PUT", path, json!({ "value": 1, "rewind": true }), 422, "value_out_of_range"),
            ("PUT", path, json!({ "value": 11 }), 422, "value_out_of_range"),
            ("PUT", path, json!({ "value": 5, "rewind": 1 }), 422, "invalid_parameter"),
            ("PUT", path, json!({ "value": 5, "rewnid": true }), 422, "unknown_parameter"),
            ("DELETE", path, json!({ "value": 5 }), 422, "unknown_parameter"),
            ("GET", "/api/v1/counters/small?value=5", NONE, 422, "unknown_parameter"),
            ("POST", increment, json!({ "count": 0 }), 422, "invalid_value"),
            ("POST", increment, json!({ "count": 1_000_001 }), 422, "invalid_value"),
            ("POST", increment, json!({ "count": 1.0 }), 422, "invalid_value"),
            ("POST", increment, json!({ "count": "" }), 422, "invalid_value"),
            ("POST", increment, json!({ "step": 1 }), 422, "unknown_parameter"),
            ("POST", increment, json!({ "count": 3 }), 409, "counter_exhausted"),
            ("POST", increment, json!({ "count": 1_000_000 }), 409, "counter_exhausted"),
            ("PUT", increment, json!({}), 405, "method_not_allowed"),
            ("POST", path, json!({}), 405, "method_not_allowed"),
        ] {
            let answer = api.call(protocol, &tenant, (method, path), &[], &parameters);
            assert_refusal(&answer, status, code, &format!("{method} {path} {parameters}"));
            assert_eq!(api.value(&tenant, "small"), 2, "{method} {path} {parameters}");
        }
    }
    let answer =
        api.call(Protocol::Http1, &tenant, ("POST", increment), &[], &json!({ "count": 2 }));
    assert_eq!(value_of(&answer), 8);
    api.stop();
}

#[test]
fn the_old_routes_are_the_counter_default() {
    let api = Api::start();
    let tenant = api.register("default");
    let path = "/api/v1/counters/default";
    for (protocol, base) in BOTH.into_iter().zip([1, 11]) {
        api.set(&tenant, base);
        assert_eq!(api.value(&tenant, "default"), base);
        let answer =
            api.call(protocol, &tenant, ("POST", &format!("{path}/increment")), &[], &NONE);
        assert_eq!((value_of(&answer), api.read(&tenant)), (base + 1, base + 1));
        // The old document, unless a count says that the new members are known.
        let answer = api.call(
            protocol,
            &tenant,
            ("PUT", INCREMENT),
            &[],
            &json!({ "ignored": "as before" }),
        );
        assert_eq!(answer.json(), tenant.integer(base + 2));
        let answer = api.call(protocol, &tenant, ("PUT", INCREMENT), &[], &json!({ "count": 3 }));
        let mut document = tenant.integer(base + 5);
        document["data"]["attributes"] =
            json!({ "value": base + 5, "first": base + 3, "last": base + 5, "count": 3 });
        assert_eq!(answer.json(), document);
        for bad in ["0", "1000001", "x", ""] {
            let answer = api.call(
                protocol,
                &tenant,
                ("PUT", &format!("{INCREMENT}?count={bad}")),
                &[],
                &NONE,
            );
            assert_refusal(&answer, 422, "invalid_value", bad);
        }
        assert_eq!(api.read(&tenant), base + 5);
        let read = api.call(protocol, &tenant, ("GET", path), &[], &NONE);
        let attributes = json!({ "value": base + 5, "start": 1, "step": 1, "min": 1, "max": MAX, "rewindable": true, "created_at": null });
        assert_eq!(read.json()["data"]["attributes"], attributes);
        let answer = api.call(protocol, &tenant, ("DELETE", path), &[], &NONE);
        assert_refusal(&answer, 409, "default_counter", "delete default");
    }
    api.stop();
}

#[test]
fn no_more_counters_than_the_quota() {
    let api = Api::on(super::TestServer::builder().flag("--counters-per-tenant", "2"));
    let (tenant, other) = (api.register("many"), api.register("few"));
    api.create(&tenant, "a", json!({}));
    api.create(&tenant, "b", json!({}));
    let create = |tenant: &Tenant, name| {
        api.call(Protocol::Http2, tenant, ("POST", COUNTERS), &[], &json!({ "name": name }))
    };
    let refused = create(&tenant, "c");
    assert_refusal(&refused, 409, "quota_exceeded", "a third");
    assert!(refused.text().contains("quota of 2 is used up"), "{}", refused.text());
    assert_status(&create(&other, "c"), 201, "another tenant's");
    assert_status(
        &api.call(Protocol::Http2, &tenant, ("DELETE", "/api/v1/counters/a"), &[], &NONE),
        204,
        "room",
    );
    assert_status(&create(&tenant, "c"), 201, "after a deletion");
    assert_eq!(api.call(Protocol::Http1, &tenant, ("GET", INTEGER), &[], &NONE).status, 200);
    api.stop();
}
