//! `/docs`: the API documentation as a web page (Swagger UI).
//!
//! Job: one handler per file. A file has an entity tag, so a revisit costs a 304.
//! Invariant: all files of the page are part of the binary, and the content security policy lets a
//! browser load nothing else and run no inline script; `docs/README.md` says where the files come
//! from.
//! Must never: include any part of a request in a page.

use std::sync::OnceLock;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, Responder, get};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use crate::http::openapi::error_responses::{Always, Refused};

/// The content security policy. Swagger UI sets styles through the CSSOM, which needs no
/// `'unsafe-inline'`, and has icons in its script, which are loaded as `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// A static file of the page.
struct Asset {
    content_type: &'static str,
    bytes: &'static [u8],
    is_compressed: bool,
    /// The entity tag, a hash of the bytes; computed at the first request.
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

    /// The response with the file, or 304 if the client has it already.
    fn respond(&self, req: &HttpRequest) -> HttpResponse {
        let etag = self.etag();
        let known = req.headers().get_all(IF_NONE_MATCH).filter_map(|tags| tags.to_str().ok());
        let mut tags =
            known.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
        let is_known = tags.any(|tag| tag == etag || tag == "*");
        let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        // `no-cache`: the browser stores the file and revalidates it at each use.
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
            // The file exists only compressed: every browser that can show the page accepts gzip.
            response.insert_header((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        }
        response.body(self.bytes)
    }
}

/// Read the documentation.
///
/// A page to read and to try every operation. It loads files of this server only.
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

/// The script that starts Swagger UI.
#[utoipa::path(tag = "internal")]
#[get("/docs/start.js")]
pub(crate) async fn docs_start(req: HttpRequest) -> impl Responder {
    START.respond(&req)
}

/// The style sheet of Swagger UI.
#[utoipa::path(tag = "internal")]
#[get("/docs/swagger-ui.css")]
pub(crate) async fn docs_style(req: HttpRequest) -> impl Responder {
    STYLE.respond(&req)
}

/// The script of Swagger UI.
#[utoipa::path(tag = "internal")]
#[get("/docs/swagger-ui-bundle.js")]
pub(crate) async fn docs_bundle(req: HttpRequest) -> impl Responder {
    BUNDLE.respond(&req)
}
