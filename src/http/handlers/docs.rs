//! `/docs`: the API as a page, and the files that the page loads.
//!
//! Job: one handler a file. Invariant: whatever the page needs comes from this binary, and the policy
//! that is sent with it lets a browser load nothing else and run no script that stands in the page;
//! `docs/README.md` says where the files come from. A file has an entity tag, so a revisit costs a
//! 304. Must never: put anything of a request into a page.

use std::sync::OnceLock;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, Responder, get};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use crate::http::openapi::error_responses::{Always, Refused};

/// Swagger UI sets styles by script, which needs no leave, and has some icons in its script, which are loaded as `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct Asset {
    content_type: &'static str,
    bytes: &'static [u8],
    is_compressed: bool,
    /// Of its bytes: made once, when it is first asked for.
    etag: OnceLock<String>,
}

static PAGE: Asset =
    Asset::new("text/html; charset=utf-8", include_bytes!("docs/page.html"), false);
static START: Asset =
    Asset::new("text/javascript; charset=utf-8", include_bytes!("docs/start.js"), false);
static STYLE: Asset =
    Asset::new("text/css; charset=utf-8", include_bytes!("docs/swagger-ui.css.gz"), true);
static BUNDLE: Asset = Asset::new(
    "text/javascript; charset=utf-8",
    include_bytes!("docs/swagger-ui-bundle.js.gz"),
    true,
);

impl Asset {
    const fn new(content_type: &'static str, bytes: &'static [u8], is_compressed: bool) -> Self {
        Self { content_type, bytes, is_compressed, etag: OnceLock::new() }
    }

    fn etag(&self) -> &str {
        self.etag.get_or_init(|| {
            format!("\"{}\"", &HEXLOWER.encode(digest(&SHA256, self.bytes).as_ref())[..32])
        })
    }

    /// The file with the policy, or that the client has it already.
    fn respond(&self, req: &HttpRequest) -> HttpResponse {
        let etag = self.etag();
        let known = req.headers().get_all(IF_NONE_MATCH).filter_map(|tags| tags.to_str().ok());
        let mut tags =
            known.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
        let is_known = tags.any(|tag| tag == etag || tag == "*");
        let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        // A browser keeps the file, and asks each time whether it is still the same.
        response
            .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-cache")))
            .insert_header((ETAG, etag));
        if is_known {
            return response.finish();
        }
        response
            .insert_header((CONTENT_TYPE, HeaderValue::from_static(self.content_type)))
            .insert_header((CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)))
            .insert_header((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
            .insert_header((REFERRER_POLICY, HeaderValue::from_static("no-referrer")));
        if self.is_compressed {
            // There is no other form: every browser that shows the page takes gzip.
            response.insert_header((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        }
        response.body(self.bytes)
    }
}

/// This document for people.
///
/// A page to read and to try every operation. Whatever it loads comes from this server.
#[utoipa::path(
    tag = "service",
    responses(
        (status = 200, description = "HTML.", body = String, content_type = "text/html"),
        (status = 304, description = "The client has it already."),
        Refused<Always>,
    )
)]
#[get("/docs")]
pub(crate) async fn read_docs(req: HttpRequest) -> impl Responder {
    PAGE.respond(&req)
}

/// What starts Swagger UI on the page.
#[utoipa::path(tag = "internal")]
#[get("/docs/start.js")]
pub(crate) async fn docs_start(req: HttpRequest) -> impl Responder {
    START.respond(&req)
}

/// How it looks.
#[utoipa::path(tag = "internal")]
#[get("/docs/swagger-ui.css")]
pub(crate) async fn docs_style(req: HttpRequest) -> impl Responder {
    STYLE.respond(&req)
}

/// Swagger UI.
#[utoipa::path(tag = "internal")]
#[get("/docs/swagger-ui-bundle.js")]
pub(crate) async fn docs_bundle(req: HttpRequest) -> impl Responder {
    BUNDLE.respond(&req)
}
