//! The handlers: one function per route, each with its OpenAPI description.
//!
//! ```text
//! integer.rs   the counter `default`, compatible routes    counters.rs  counters by name
//! api_keys.rs  API keys                                    tenants.rs   registration, own tenant
//! probes.rs    /livez /readyz /metrics /openapi.json       docs.rs      the page /docs
//! admin.rs     operators: tenants, keys, stats             backup.rs    operators: backups
//! dto.rs       the attributes of responses
//! ```
//! Job: from extracted arguments to one call of the store to a response.
//! Invariant: the handler of a route that requires authentication takes an `Authorized`.
//! Must never: compute a counter's value, or import a router.

pub(crate) mod admin;
pub(crate) mod api_keys;
pub(crate) mod backup;
pub(crate) mod counters;
pub(crate) mod docs;
pub(crate) mod dto;
pub(crate) mod integer;
pub(crate) mod probes;
pub(crate) mod tenants;

use actix_web::HttpRequest;

use super::context::RequestContext;
use super::error::ApiError;
use super::extract::caller::auth_error;
use crate::auth::AuthFailure;
use crate::store::{Page, Refusal, StoreError, StoreFuture};

/// How often a page is read again if all its entries were removed in the meantime.
const MAX_PAGE_RETRIES: usize = 4;

/// Reads a page that has an entry, unless the list ends there. The store skips entries that are
/// removed between reading the index and reading the records, so a page may be empty.
async fn non_empty_page<'a, T>(
    read: impl Fn() -> StoreFuture<'a, Page<T>>,
) -> Result<Page<T>, ApiError> {
    for _ in 0..MAX_PAGE_RETRIES {
        let page = read().await?;
        if !page.items.is_empty() || !page.more {
            return Ok(page);
        }
    }
    Err(ApiError::Overloaded)
}

/// The error of a change of credentials. A credential that was replaced while the request was on its
/// way counts as a failed authentication, as if the request had come later.
fn credential_error(req: &HttpRequest, error: StoreError) -> ApiError {
    match error {
        StoreError::Refused(Refusal::CredentialReplaced) => {
            auth_error(&RequestContext::of(req), AuthFailure::Replaced)
        }
        error => error.into(),
    }
}

/// The path of the page after `last`, which needs no encoding in a query.
fn next_page(path: &str, size: u64, last: &str) -> String {
    format!("{path}?page[size]={size}&page[after]={last}")
}

/// The error of a parameter that violates a rule: `detail` follows the parameter's name.
fn invalid_parameter(parameter: &'static str, detail: impl ToString) -> ApiError {
    ApiError::Invalid { parameter, code: "invalid_parameter", detail: detail.to_string() }
}
