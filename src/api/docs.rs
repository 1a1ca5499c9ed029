//! `/docs`: the API as a page, and the files that the page loads.
//!
//! Job: `answer`. Invariant: whatever the page needs comes from this binary, and the policy that is sent with it lets a browser load nothing else and run no
//! script that stands in the page; `docs/README.md` says where the files come from.
//! Must never: put anything of a request into a page.

use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

use super::document::{Answer, text};

/// Swagger UI sets styles by script, which needs no leave, and has some icons in its script, which are loaded as `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &[u8] = include_bytes!("docs/page.html");
const START: &[u8] = include_bytes!("docs/start.js");
const STYLE: &[u8] = include_bytes!("docs/swagger-ui.css.gz");
const BUNDLE: &[u8] = include_bytes!("docs/swagger-ui-bundle.js.gz");

/// What there is to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The page itself.
    Page,
    /// What starts Swagger UI on it.
    Start,
    /// How it looks.
    Style,
    /// Swagger UI.
    Bundle,
}

/// One of the files, with the policy.
pub(super) fn answer(file: File) -> Answer {
    let (content_type, bytes, is_compressed) = match file {
        File::Page => ("text/html; charset=utf-8", PAGE, false),
        File::Start => ("text/javascript; charset=utf-8", START, false),
        File::Style => ("text/css; charset=utf-8", STYLE, true),
        File::Bundle => ("text/javascript; charset=utf-8", BUNDLE, true),
    };
    let mut answer = text(StatusCode::OK, content_type, bytes);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if is_compressed {
        // There is no other form: whoever shows a page takes gzip.
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}
