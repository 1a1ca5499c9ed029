//! A request's target, as the router sees it and as it was sent.
//!
//! Job: [`for_router`] and its inverse [`as_sent`]. Invariant: a route is matched by the bytes that
//! were sent. actix's router would decode `%61` before it matches, and then two spellings of a path
//! would be one route here and two for a proxy that filters by path; so each `%` is encoded once
//! more, which the router leaves alone. Must never: change a query.

use std::borrow::Cow;

use actix_web::http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What no URI has; hyper takes some of it.
const NO_URI: &AsciiSet = CONTROLS;
const PERCENT: &AsciiSet = &CONTROLS.add(b'%');

/// The target for the router. Forms of a target that name no path get one that has no route.
#[must_use]
pub fn for_router(target: &str) -> Uri {
    let (path, query) =
        target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let parsed = if path.contains('%') { Err(()) } else { Uri::try_from(target).map_err(drop) };
    let encoded = || {
        let mut encoded = utf8_percent_encode(path, PERCENT).to_string();
        if let Some(query) = query {
            encoded.push('?');
            encoded.extend(utf8_percent_encode(query, NO_URI));
        }
        Uri::try_from(encoded)
    };
    parsed.or_else(|()| encoded()).unwrap_or_else(|_| Uri::from_static("/"))
}

/// A path, or a part of one, as it was sent.
#[must_use]
pub fn as_sent(path: &str) -> Cow<'_, str> {
    if path.contains('%') { Cow::Owned(path.replace("%25", "%")) } else { Cow::Borrowed(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_comes_back_as_it_was_sent_and_a_query_unchanged() {
        for path in ["/", "/api/v1/counters/a%2eb", "/%61pi", "/a%252e", "/%", "/%zz", "/a%2Fb%25"]
        {
            for query in ["", "?", "?a=%61&b=%25", "?page[size]=2"] {
                let uri = for_router(&format!("{path}{query}"));
                assert_eq!(as_sent(uri.path()), path);
                assert_eq!(uri.query(), query.strip_prefix('?'), "{path}{query}");
            }
        }
        assert_eq!(for_router("*").path(), "*");
        assert_eq!(for_router("").path(), "/");
        assert_eq!(as_sent(for_router("/ä").path()), "/%C3%A4");
    }
}
