//! Keys where they belong and where they do not: other headers, other schemes, cookies, paths,
//! queries, parameters, methods.
//!
//! Invariant: what is refused is asked for with and without a right key beside it.
//! Must never: name a counter or a label after a key, which would be shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::scenario::{JSON, Scenario, Tenant};
use crate::support::client::Protocol;

impl Scenario {
    pub(crate) fn keys_in_right_places(&mut self, protocol: Protocol, tenant: &Tenant) {
        let (bearer, basic) = (tenant.bearer(), tenant.basic());
        let json = ("content-type", JSON);
        for authorization in [&bearer, &basic] {
            let body = json!({ "label": "planted here", "scopes": "read" }).to_string();
            let made = self.ask(
                protocol,
                ("POST", "/api/v1/keys"),
                &[("authorization", authorization), json],
                &body,
            );
            let key = self.new_key("a made key", &made);
            let made = format!("Bearer {key}");
            for route in [
                ("GET", "/api/v1/integer"),
                ("PUT", "/api/v1/integer/increment"),
                ("GET", "/api/v1/counters"),
                ("POST", "/api/v1/counters?name=refused"),
                ("GET", "/api/v1/tenant"),
                ("DELETE", "/api/v1/tenant"),
            ] {
                self.ask(protocol, route, &[("authorization", &made)], "");
            }
            self.ask(
                protocol,
                ("DELETE", &format!("/api/v1/keys/{}", &key[4..20])),
                &[("authorization", authorization)],
                "",
            );
            let revoked =
                self.ask(protocol, ("GET", "/api/v1/integer"), &[("authorization", &made)], "");
            assert_eq!(revoked.status, 401);
        }
        for (method, path, body) in [
            ("POST", "/api/v1/counters", json!({ "name": "c" })),
            ("POST", "/api/v1/counters", json!({ "name": "c" })),
            ("GET", "/api/v1/counters/c", Value::Null),
            ("PUT", "/api/v1/counters/c", json!({ "value": 9 })),
            ("PUT", "/api/v1/counters/c", json!({ "value": 2 })),
            ("POST", "/api/v1/counters/c/increment", json!({ "count": 3 })),
            ("DELETE", "/api/v1/counters/c", Value::Null),
            ("GET", "/api/v1/counters", Value::Null),
            ("GET", "/api/v1/integer", Value::Null),
            ("PUT", "/api/v1/integer", json!({ "value": 9 })),
            ("PUT", "/api/v1/integer/increment", Value::Null),
            ("GET", "/api/v1/keys", Value::Null),
            ("GET", "/api/v1/tenant", Value::Null),
            ("PUT", "/api/v1/tenant/password", json!({})),
            ("PATCH", "/api/v1/integer", Value::Null),
            ("GET", "/metrics", Value::Null),
            ("GET", "/livez", Value::Null),
        ] {
            for authorization in [&bearer, &basic] {
                let body = if body.is_null() { String::new() } else { body.to_string() };
                self.ask(
                    protocol,
                    (method, path),
                    &[("authorization", authorization), json],
                    &body,
                );
            }
        }
    }

    pub(crate) fn keys_in_wrong_places(&mut self, protocol: Protocol, tenant: &Tenant) {
        let (key, bearer) = (&*tenant.api_key, tenant.bearer());
        let bad_sum =
            format!("Bearer {}{}", &key[..92], if key.ends_with('0') { '1' } else { '0' });
        let (token, raw, lower) =
            (format!("Token {key}"), format!("Basic {key}"), format!("bearer  {key}"));
        let (coded, shouted) = (format!("Basic {}", STANDARD.encode(key)), bearer.to_uppercase());
        let (named, cookie) =
            (format!("Basic {}", STANDARD.encode(format!("{key}:{key}"))), format!("key={key}"));
        let url = format!("https://localhost/?key={key}");
        for id in [key, &format!("request-{key}")] {
            self.ask(
                protocol,
                ("GET", "/api/v1/integer"),
                &[("authorization", &bearer), ("x-request-id", id)],
                "",
            );
        }
        for authorization in [
            &bad_sum,
            &token,
            &raw,
            &lower,
            &coded,
            &shouted,
            &named,
            key,
            &format!("{bearer}, {bearer}"),
        ] {
            for route in
                [("GET", "/api/v1/integer"), ("GET", "/api/v1/keys"), ("DELETE", "/api/v1/tenant")]
            {
                self.ask(protocol, route, &[("authorization", authorization)], "");
            }
        }
        let increment = ("PUT", "/api/v1/integer/increment");
        for (name, value) in [
            ("cookie", &*cookie),
            ("x-api-key", key),
            ("proxy-authorization", &bearer),
            ("referer", &url),
            ("user-agent", key),
            ("x-forwarded-for", key),
            ("forwarded", key),
            ("tracestate", key),
            ("content-type", key),
            ("accept", key),
            ("origin", &url),
            ("if-none-match", key),
            ("idempotency-key", key),
            ("authorization", &bearer),
        ] {
            self.ask(protocol, increment, &[(name, value)], "x=y");
            self.ask(protocol, increment, &[("authorization", &bearer), (name, value)], "");
            self.ask(
                protocol,
                ("PUT", "/api/v1/integer?value=3"),
                &[("authorization", &bearer), (name, value)],
                "",
            );
        }
        self.ask(
            protocol,
            ("DELETE", "/api/v1/counters/c"),
            &[("authorization", &bearer), ("if-match", key)],
            "",
        );
        self.ask(
            protocol,
            ("PUT", "/api/v1/integer?value=3"),
            &[("authorization", &bearer), ("if-match", key)],
            "",
        );
        let half = &key[21..85];
        for path in [
            key,
            half,
            "api/v1/counters/KEY",
            "api/v1/keys/KEY",
            "api/v1/counters/KEY/increment",
            "api/v1/KEY/increment",
        ] {
            let path = format!("/{}", path.replace("KEY", key));
            for method in ["GET", "PUT", "POST", "DELETE", "BREW", key] {
                self.ask(protocol, (method, &path), &[("authorization", &bearer)], "");
                self.ask(protocol, (method, &path), &[], "");
            }
        }
    }

    pub(crate) fn keys_as_parameters(&mut self, protocol: Protocol, tenant: &Tenant) {
        let (key, bearer) = (&*tenant.api_key, tenant.bearer());
        for (method, path) in [
            ("GET", "/api/v1/integer"),
            ("PUT", "/api/v1/integer"),
            ("PUT", "/api/v1/integer/increment"),
            ("GET", "/api/v1/counters"),
            ("PUT", "/api/v1/counters/default"),
            ("POST", "/api/v1/counters/default/increment"),
            ("POST", "/api/v1/counters"),
            ("GET", "/api/v1/keys"),
            ("POST", "/api/v1/keys"),
            ("GET", "/api/v1/tenant"),
            ("GET", "/livez"),
        ] {
            for query in [
                "?KEY",
                "?KEY=KEY",
                "?api_key=KEY",
                "?key=KEY",
                "?value=KEY",
                "?count=KEY",
                "?page[size]=KEY",
            ] {
                let path = format!("{path}{}", query.replace("KEY", key));
                self.ask(protocol, (method, &path), &[("authorization", &bearer)], "");
                self.ask(protocol, (method, &path), &[], "");
            }
            for parameter in [
                "page[after]",
                "start",
                "rewind",
                "rewindable",
                "scopes",
                "expires_at",
                "expires_in",
                "step",
            ] {
                let path = format!("{path}?{parameter}={key}");
                self.ask(protocol, (method, &path), &[("authorization", &bearer)], "");
            }
        }
    }
}
