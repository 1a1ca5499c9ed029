//! The handlers: one function a route, with its description for the OpenAPI document above it.
//!
//! ```text
//! integer.rs  the old routes of the counter `default`     counters.rs  counters by name      api_keys.rs  tenants.rs
//! probes.rs   /livez /readyz /metrics /openapi.json       docs.rs      the page /docs
//! admin.rs  backup.rs   operators', on the admin socket   dto.rs       the attributes that are answered
//! ```
//! Job: from extracted arguments to one call of the store to a response.
//! Invariant: a handler whose route needs a caller takes a `Caller`. Must never: compute a counter's
//! value, or import a router.

pub(crate) mod admin;
pub(crate) mod api_keys;
pub(crate) mod backup;
pub(crate) mod counters;
pub(crate) mod docs;
pub(crate) mod dto;
pub(crate) mod integer;
pub(crate) mod probes;
pub(crate) mod tenants;

use super::error::ApiError;
use crate::store::{Page, StoreFuture};

/// How often a page of a list is asked for whose entries were all removed meanwhile.
const MAX_PAGE_RETRIES: usize = 4;

/// A page that has something on it, unless the list ends there: the store leaves out entries that
/// were removed between its list and its look.
async fn non_empty_page<'a, T>(
    ask: impl Fn() -> StoreFuture<'a, Page<T>>,
) -> Result<Page<T>, ApiError> {
    for _ in 0..MAX_PAGE_RETRIES {
        let page = ask().await?;
        if !page.items.is_empty() || !page.more {
            return Ok(page);
        }
    }
    Err(ApiError::Overloaded)
}

/// The path of the page behind `last`, which has no character that a query would not keep.
fn next_page(path: &str, size: u64, last: &str) -> String {
    format!("{path}?page[size]={size}&page[after]={last}")
}

/// A parameter whose text is not what it must be.
fn invalid_parameter(parameter: &'static str, detail: impl ToString) -> ApiError {
    ApiError::Invalid { parameter, code: "invalid_parameter", detail: detail.to_string() }
}
