//! Conversion of header names between hyper's and actix-web's types.
//!
//! Job: [`to_actix`], [`to_hyper`]. The names that the server reads or writes are constants in a
//! table, since parsing a name costs more than converting the rest of its header.
//! Invariant: a name that is not in the table is parsed, so the table affects speed only.
//! Must never: change a name.

use actix_web::http::header as actix;
use hyper::header as standard;

macro_rules! names {
    ($($text:literal = $name:ident),+; own: $($own:literal = $const:ident),+) => {
        $(
            const $const: (standard::HeaderName, actix::HeaderName) =
                (standard::HeaderName::from_static($own), actix::HeaderName::from_static($own));
        )+

        /// A request's header name for actix-web; `None` if actix-web rejects it.
        pub(super) fn to_actix(name: &standard::HeaderName) -> Option<actix::HeaderName> {
            match name.as_str() {
                $($text => Some(actix::$name),)+
                $($own => Some($const.1),)+
                other => actix::HeaderName::from_bytes(other.as_bytes()).ok(),
            }
        }

        /// A response's header name for hyper; `None` if hyper rejects it.
        pub(super) fn to_hyper(name: &actix::HeaderName) -> Option<standard::HeaderName> {
            match name.as_str() {
                $($text => Some(standard::$name),)+
                $($own => Some($const.0),)+
                other => standard::HeaderName::from_bytes(other.as_bytes()).ok(),
            }
        }
    };
}

names! {
    "host" = HOST, "authorization" = AUTHORIZATION, "content-type" = CONTENT_TYPE,
    "content-length" = CONTENT_LENGTH, "cache-control" = CACHE_CONTROL, "etag" = ETAG,
    "strict-transport-security" = STRICT_TRANSPORT_SECURITY, "if-match" = IF_MATCH,
    "if-none-match" = IF_NONE_MATCH, "retry-after" = RETRY_AFTER, "location" = LOCATION;
    own: "x-request-id" = X_REQUEST_ID, "ratelimit" = RATELIMIT,
    "ratelimit-policy" = RATELIMIT_POLICY, "idempotency-key" = IDEMPOTENCY_KEY,
    "idempotency-replayed" = IDEMPOTENCY_REPLAYED, "traceparent" = TRACEPARENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_both_conversions_in_the_table_or_not() {
        let known = [
            "host",
            "authorization",
            "content-type",
            "content-length",
            "cache-control",
            "etag",
            "if-match",
        ];
        let more = [
            "strict-transport-security",
            "if-none-match",
            "retry-after",
            "location",
            "x-request-id",
        ];
        let own = [
            "ratelimit",
            "ratelimit-policy",
            "idempotency-key",
            "idempotency-replayed",
            "traceparent",
        ];
        for name in [&known[..], &more, &own, &["accept", "allow", "x-unknown"]].concat() {
            let sent = standard::HeaderName::from_static(name);
            let read = to_actix(&sent).unwrap();
            assert_eq!((read.as_str(), to_hyper(&read)), (name, Some(sent)));
        }
    }
}
