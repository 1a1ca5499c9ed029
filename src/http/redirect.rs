//! The plain HTTP port: redirects to HTTPS.
//!
//! Job: `GET` without a credential → 308 to the same path over HTTPS; any request with a credential
//! or a body → 403.
//! Invariant: no request on this port reaches the API or the store.
//! Must never: process a request whose key was sent in clear text.

use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use actix_web::http::uri::Authority;
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, Responder, web};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::error::ApiError;
use super::target::as_sent;

/// What a URI may not contain, although hyper accepts it in a path: percent-encoded in `Location`.
/// A `%` is left alone, since it begins an encoded character already.
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

/// Responds to any request on the plain HTTP port.
///
/// # Errors
/// [`ApiError::HttpsRequired`] unless it is a `GET` or `HEAD` without credential and body.
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
    Ok(response.body("This service requires HTTPS: see Location.\n"))
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
