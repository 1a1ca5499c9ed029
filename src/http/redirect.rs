//! The plain HTTP port: it redirects to HTTPS, and processes nothing that should have come by it.
//!
//! Job: `GET` without a credential → 308 to the same path over HTTPS; whatever carries a key or a
//! body → 403. Invariant: nothing here reaches the API or the store.
//! Must never: process a request whose key was sent in clear.

use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use actix_web::http::uri::Authority;
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, Responder, web};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::error::ApiError;
use super::target::as_sent;

/// What goes into `Location` has to be a URI, but the HTTP library takes paths that are none. A `%`
/// stays as it is: it has encoded something already.
const NO_URI: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The port at which clients reach HTTPS.
#[derive(Clone, Copy, Debug)]
pub struct HttpsPort(pub u16);

/// Answers any request of the plain port.
///
/// # Errors
/// [`ApiError::HttpsRequired`] for whatever is no bare read.
pub(super) async fn redirect(
    req: HttpRequest,
    payload: web::Payload,
    port: web::ThinData<HttpsPort>,
) -> Result<impl Responder, ApiError> {
    let reads = matches!(*req.method(), Method::GET | Method::HEAD);
    let has_body = !matches!(payload.into_inner(), actix_web::dev::Payload::None);
    let is_bare = !req.headers().contains_key(AUTHORIZATION) && !has_body;
    let location =
        location(&req, port.0.0).filter(|_| reads && is_bare).ok_or(ApiError::HttpsRequired)?;
    let mut response = HttpResponse::build(StatusCode::PERMANENT_REDIRECT);
    response.insert_header((LOCATION, location));
    response.insert_header((CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")));
    Ok(response.body("This service speaks HTTPS: see Location.\n"))
}

fn location(req: &HttpRequest, https_port: u16) -> Option<HeaderValue> {
    let host = req.headers().get(HOST)?.to_str().ok()?;
    let authority: Authority = host.parse().ok()?;
    let query = req.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{}{query}", as_sent(req.uri().path()));
    let port = if https_port == 443 { String::new() } else { format!(":{https_port}") };
    let path = utf8_percent_encode(&target, NO_URI);
    HeaderValue::try_from(format!("https://{}{port}{path}", authority.host())).ok()
}
