//! Access to the operations of an OpenAPI path.
//!
//! Job: [`operations`], which the document and the route table both need.
//! Invariant: it yields the methods that routes may have: GET, POST, PUT and DELETE.
//! Must never: know a particular route.

use utoipa::openapi::path::Operation;
use utoipa::openapi::{HttpMethod, PathItem};

/// The operations of a path, by method.
pub fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let PathItem { get, post, put, delete, .. } = item;
    let all = [
        (HttpMethod::Get, get),
        (HttpMethod::Post, post),
        (HttpMethod::Put, put),
        (HttpMethod::Delete, delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}
