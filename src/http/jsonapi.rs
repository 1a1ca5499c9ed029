//! JSON:API responses.
//!
//! Job: [`Reply`] and [`Page`] make a handler's response from the attributes of resources, and
//! [`error()`] makes an error response.
//! Invariant: a response is complete JSON:API and has the headers that belong to it (`ETag`,
//! `Location`, `Idempotency-Replayed`).
//! Must never: decide a status; the handler or the table of errors does.

use std::fmt::Display;
use std::io::{self, Write};

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ALLOW, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use actix_web::{HttpRequest, HttpResponse, Responder};
use serde::Serialize;

use super::error::{ApiError, Source};
use super::extract::idempotency::IDEMPOTENCY_REPLAYED;
use super::extract::preconditions::etag;
use crate::auth::rate_limit::RateLimitDecision;
use crate::auth::{AuthFailure, AuthRequirement};
use crate::store::Version;

/// JSON:API's media type.
pub const JSON_API: HeaderValue = HeaderValue::from_static("application/vnd.api+json");

/// The attributes of a resource.
pub trait Attributes: Serialize {
    /// The resource's type, JSON:API's `type`.
    const TYPE: &'static str;
}

/// A response with one resource. Its id must need no escape in JSON; no id of this API does.
pub struct Reply<I, A> {
    status: StatusCode,
    id: I,
    attributes: A,
    version: Option<Version>,
    location: Option<String>,
    is_replayed: bool,
}

impl<I: Display, A: Attributes> Reply<I, A> {
    /// 200 with this resource.
    pub fn ok(id: I, attributes: A) -> Self {
        Self {
            status: StatusCode::OK,
            id,
            attributes,
            version: None,
            location: None,
            is_replayed: false,
        }
    }

    /// 201 with this resource, whose path is `location`.
    pub fn created(id: I, attributes: A, location: String) -> Self {
        Self { status: StatusCode::CREATED, location: Some(location), ..Self::ok(id, attributes) }
    }

    /// Adds the `ETag` of this version.
    #[must_use]
    pub fn version(self, version: Version) -> Self {
        Self { version: Some(version), ..self }
    }

    /// Adds `Idempotency-Replayed: true` if the response is that of an earlier request.
    #[must_use]
    pub fn replayed(self, is_replayed: bool) -> Self {
        Self { is_replayed, ..self }
    }
}

impl<I: Display, A: Attributes> Responder for Reply<I, A> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        let mut response =
            document(self.status, "", |body| write_resource(body, &self.id, &self.attributes));
        let headers = response.headers_mut();
        if let Some(version) = self.version {
            insert(headers, ETAG, etag(version));
        }
        if let Some(location) = self.location {
            insert(headers, LOCATION, location);
        }
        if self.is_replayed {
            headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// A response with a page of a list.
pub struct Page<A> {
    /// The resources, each with its id.
    pub resources: Vec<(String, A)>,
    /// The path of the next page; `None` if this is the last one.
    pub next: Option<String>,
}

impl<A: Attributes> Responder for Page<A> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        let next = self.next.map_or_else(|| "null".to_owned(), |next| format!("\"{next}\""));
        document(StatusCode::OK, &format!(r#","links":{{"next":{next}}}"#), |body| {
            for (number, (id, attributes)) in self.resources.iter().enumerate() {
                body.push(if number == 0 { b'[' } else { b',' });
                write_resource(body, id, attributes)?;
            }
            body.extend_from_slice(if self.resources.is_empty() { b"[]" } else { b"]" });
            Ok(())
        })
    }
}

/// A document around `data`. It is written as a string instead of through a tree of types, which
/// takes a third of the time: serialization is the largest part of an increment's response.
fn document(
    status: StatusCode,
    links: &str,
    data: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
) -> HttpResponse {
    let mut body = Vec::with_capacity(256);
    body.extend_from_slice(br#"{"data":"#);
    if let Err(error) = data(&mut body) {
        return HttpResponse::from_error(ApiError::Internal(error.to_string().into()));
    }
    body.extend_from_slice(links.as_bytes());
    body.extend_from_slice(br#","jsonapi":{"version":"1.0"}}"#);
    json_api(status, body)
}

fn write_resource<A: Attributes>(
    body: &mut Vec<u8>,
    id: &impl Display,
    attributes: &A,
) -> io::Result<()> {
    write!(body, r#"{{"id":"{id}","type":"{}","attributes":"#, A::TYPE)?;
    serde_json::to_writer(&mut *body, attributes)?;
    body.push(b'}');
    Ok(())
}

fn json_api(status: StatusCode, body: Vec<u8>) -> HttpResponse {
    let mut response = HttpResponse::with_body(status, BoxBody::new(body));
    response.headers_mut().insert(CONTENT_TYPE, JSON_API);
    response
}

/// The response to an error; `requirement` is the route's, if known.
pub fn error(
    error: &ApiError,
    request_id: &str,
    requirement: Option<AuthRequirement>,
) -> HttpResponse {
    let spec = error.spec();
    let mut member = serde_json::json!({
        "id": request_id,
        "status": spec.status.as_str(),
        "code": spec.code,
        "title": spec.title,
        "detail": error.detail(requirement),
    });
    match error.source() {
        Some(Source::Parameter(name)) => {
            member["source"] = serde_json::json!({ "parameter": name })
        }
        Some(Source::Header(name)) => member["source"] = serde_json::json!({ "header": name }),
        None => {}
    }
    if let ApiError::PreconditionFailed(state) = error {
        member["meta"] = serde_json::json!({ "value": state.counter.value().get() });
    }
    let document = serde_json::json!({ "errors": [member], "jsonapi": { "version": "1.0" } });
    let mut response = json_api(spec.status, document.to_string().into_bytes());
    set_error_headers(error, requirement, response.headers_mut());
    response
}

fn set_error_headers(
    error: &ApiError,
    requirement: Option<AuthRequirement>,
    headers: &mut HeaderMap,
) {
    match error {
        ApiError::MethodNotAllowed(allow) => insert(headers, ALLOW, allow.clone()),
        ApiError::Unauthenticated(failure) => {
            challenge(headers, failure, requirement.unwrap_or(AuthRequirement::ANY_CREDENTIAL))
        }
        ApiError::InsufficientScope(scopes) => {
            insert(
                headers,
                WWW_AUTHENTICATE,
                format!("Bearer error=\"insufficient_scope\", scope=\"{scopes}\""),
            );
        }
        ApiError::PreconditionFailed(state) => insert(headers, ETAG, etag(state.version)),
        _ => {}
    }
    if let Some(wait) = error.retry_after() {
        // Rounded up, so that a client that retries at that second is served.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
}

fn challenge(headers: &mut HeaderMap, failure: &AuthFailure, requirement: AuthRequirement) {
    if requirement.accepts_key() {
        let bearer = match failure {
            AuthFailure::Missing => "Bearer realm=\"odometer\"",
            _ => "Bearer realm=\"odometer\", error=\"invalid_token\"",
        };
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(bearer));
    }
    if requirement.accepts_password() {
        let basic = HeaderValue::from_static("Basic realm=\"odometer\", charset=\"UTF-8\"");
        headers.append(WWW_AUTHENTICATE, basic);
    }
}

/// Adds the `RateLimit` headers of draft-ietf-httpapi-ratelimit-headers.
pub fn set_rate_limit(headers: &mut HeaderMap, scope: &str, decision: &RateLimitDecision) {
    let policy = format!("\"{scope}\";q={};w={}", decision.limit.burst, decision.window_s());
    let state = format!("\"{scope}\";r={};t={}", decision.remaining, decision.reset_s());
    insert(headers, HeaderName::from_static("ratelimit-policy"), policy);
    insert(headers, HeaderName::from_static("ratelimit"), state);
}

/// Inserts a header. All values passed here are visible ASCII, so the conversion succeeds.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}
