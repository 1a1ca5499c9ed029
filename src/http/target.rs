//! The target of a request, as the router gets it and as the client sent it.
//!
//! Job: [`for_router`] and its inverse [`as_sent`].
//! Invariant: a route is matched by the bytes that the client sent. actix-web's router decodes
//! `%61` before it matches, so a path would have several spellings, and a proxy that filters by
//! path could be bypassed. Therefore each `%` is encoded once more, which the router does not
//! decode.
//! Must never: change a query.

use std::borrow::Cow;

use actix_web::http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What a URI may not contain, although hyper accepts some of it.
const NO_URI: &AsciiSet = CONTROLS;
const PERCENT: &AsciiSet = &CONTROLS.add(b'%');

/// The target for the router. A target without a path gets one that no route matches.
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

/// A path or a part of it, as the client sent it.
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
