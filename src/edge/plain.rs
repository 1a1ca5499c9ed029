//! The plain HTTP port: it sends people to HTTPS, and honours nothing that should have come by it.
//!
//! Job: `GET` without a credential → 308 to the same path over HTTPS; whatever carries a key or a body → 403.
//! Invariant: nothing here reaches the API or the store. Must never: honour a key that was sent in clear.

use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, LOCATION};
use hyper::{Method, Request, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::api::document::{self, Answer};
use crate::api::error::ApiError;

/// What goes into `Location` has to be a URI, but the HTTP library takes paths that are none. A `%`
/// stays as it is: it has encoded something already.
const NO_URI: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// The answer to a request of the plain port; `https_port` is where HTTPS is.
///
/// # Errors
/// [`ApiError::HttpsRequired`] for whatever is no bare read.
pub(super) fn answer(request: &Request<Incoming>, https_port: u16) -> Result<Answer, ApiError> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_bare = !request.headers().contains_key(AUTHORIZATION) && request.body().is_end_stream();
    let location = location(request, https_port).filter(|_| reads && is_bare).ok_or(ApiError::HttpsRequired)?;
    let text = "This service speaks HTTPS: see Location.\n".to_owned();
    let mut answer = document::text(StatusCode::PERMANENT_REDIRECT, "text/plain; charset=utf-8", text);
    answer.headers_mut().insert(LOCATION, location);
    Ok(answer)
}

fn location(request: &Request<Incoming>, https_port: u16) -> Option<HeaderValue> {
    let host = request.headers().get(HOST)?.to_str().ok()?;
    let authority: hyper::http::uri::Authority = host.parse().ok()?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let port = if https_port == 443 { String::new() } else { format!(":{https_port}") };
    let path = utf8_percent_encode(path, NO_URI);
    HeaderValue::try_from(format!("https://{}{port}{path}", authority.host())).ok()
}
