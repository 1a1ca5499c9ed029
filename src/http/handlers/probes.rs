//! Probes for supervisors and load balancers, metrics, and the OpenAPI document.
//!
//! Job: `/livez`, `/readyz`, `/metrics`, `/openapi.json`.
//! Invariant: *ready* means that the store accepts increments now.
//! Must never: require a key, or reveal more than one word of internal state.

use std::sync::atomic::Ordering;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::{HttpResponse, Responder, get, web};
use bytes::Bytes;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::http::openapi::error_responses::{Always, Refused};
use crate::http::openapi::schema::string;
use crate::http::state::State;
use crate::store::{Health, Unavailable};

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The OpenAPI document as bytes, as data of the App.
#[derive(Clone)]
pub(crate) struct OpenApiJson(pub Bytes);

macro_rules! words {
    ($($name:ident: $($word:literal),+;)+) => {$(
        struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                string().enum_values(Some([$($word),+])).into()
            }
        }

        impl ToSchema for $name {}
    )+};
}

words! {
    Alive: "alive\n";
    Ready: "ready\n";
    NotReady: "draining\n", "disk_low\n", "overloaded\n", "poisoned\n";
}

/// The schema of an OpenAPI document.
pub(crate) struct OpenApiDocument;

impl PartialSchema for OpenApiDocument {
    fn schema() -> RefOr<Schema> {
        let schema = ObjectBuilder::new()
            .property("openapi", string().pattern(Some("^3\\.1\\.")))
            .required("openapi");
        let schema = schema.property("info", ObjectBuilder::new()).required("info");
        schema.property("paths", ObjectBuilder::new()).required("paths").into()
    }
}

impl ToSchema for OpenApiDocument {}

fn text(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> HttpResponse {
    HttpResponse::build(status).insert_header((CONTENT_TYPE, content_type)).body(body.into())
}

/// Check whether the process is alive.
///
/// Responds at once, without access to the store. For a supervisor's liveness probe.
#[utoipa::path(
    tag = "service",
    responses((status = 200, description = "The process is alive.", body = inline(Alive),
     content_type = "text/plain", example = json!("alive\n")),
              Refused<Always>)
)]
#[get("/livez")]
pub(crate) async fn is_alive() -> impl Responder {
    text(StatusCode::OK, PLAIN, "alive\n")
}

/// Check whether the server accepts increments.
///
/// The response is one word. For a load balancer: 503 means that changes would be refused now;
/// reads may still work.
#[utoipa::path(
    tag = "service",
    responses(
        (status = 200, description = "The server accepts increments.", body = inline(Ready),
         content_type = "text/plain", example = json!("ready\n")),
        (status = 503, description = "The server refuses changes; the word is the reason.",
         body = inline(NotReady), content_type = "text/plain",
         example = json!("draining\n")),
        Refused<Always>,
    )
)]
#[get("/readyz")]
pub(crate) async fn is_ready(state: State) -> impl Responder {
    let (status, word) = match state.store.health() {
        _ if state.shared.draining.load(Ordering::Relaxed) => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
        Health::Ready => (StatusCode::OK, "ready\n"),
        Health::Unavailable(Unavailable::DiskLow) => {
            (StatusCode::SERVICE_UNAVAILABLE, "disk_low\n")
        }
        Health::Unavailable(Unavailable::Overloaded) => {
            (StatusCode::SERVICE_UNAVAILABLE, "overloaded\n")
        }
        Health::Unavailable(Unavailable::Closing) => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
        Health::Poisoned => (StatusCode::SERVICE_UNAVAILABLE, "poisoned\n"),
    };
    text(status, PLAIN, word)
}

/// The metrics in the Prometheus text format.
#[utoipa::path(tag = "internal")]
#[get("/metrics")]
pub(crate) async fn metrics(state: State) -> impl Responder {
    let prometheus = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    text(StatusCode::OK, prometheus, state.shared.metrics.render())
}

/// Read the OpenAPI document.
///
/// This document: the whole API of this version, for client generators and test tools.
#[utoipa::path(
    tag = "service",
    responses((status = 200, description = "OpenAPI 3.1.", body = inline(OpenApiDocument),
     content_type = "application/json"),
              Refused<Always>)
)]
#[get("/openapi.json")]
pub(crate) async fn read_openapi(document: web::ThinData<OpenApiJson>) -> impl Responder {
    text(StatusCode::OK, HeaderValue::from_static("application/json"), document.0.0.clone())
}
