//! The routes as labels: what metrics, logs and `Allow` call them.
//!
//! Job: [`RouteTable`], made once from the description of the routes. Invariant: a label is a route's
//! pattern or [`UNMATCHED`], so an unknown path can never make a new one; the pattern comes from
//! actix, which matched the request, and is looked up by the handler's name.
//! Must never: match a path itself.

use actix_web::HttpRequest;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{HttpMethod, OpenApi, PathItem};

/// The index of the label that all unmatched paths share.
pub const UNMATCHED: usize = 0;

/// See the module's text.
#[derive(Debug)]
pub struct RouteTable {
    /// Patterns by the index of their label.
    pub patterns: &'static [&'static str],
    /// The value of `Allow`, by the same index.
    allow: Vec<String>,
    /// The label of each handler, by its name.
    handlers: Vec<(String, usize)>,
}

impl RouteTable {
    /// The table of these routes, whose handlers' names are their operations' ids.
    #[must_use]
    pub fn new(routes: &mut OpenApi) -> Self {
        let (mut patterns, mut allow, mut handlers) =
            (vec!["other"], vec![String::new()], Vec::new());
        for (path, item) in &mut routes.paths.paths {
            let mut methods = Vec::new();
            for (method, operation) in operations(item) {
                methods.push(match method {
                    HttpMethod::Get => "GET, HEAD",
                    HttpMethod::Post => "POST",
                    HttpMethod::Put => "PUT",
                    _ => "DELETE",
                });
                handlers.extend(operation.operation_id.clone().map(|name| (name, patterns.len())));
            }
            // A label lives as long as the metrics that have it, which is as long as the process.
            patterns.push(Box::leak(path.clone().into_boxed_str()));
            allow.push(methods.join(", "));
        }
        Self { patterns: patterns.leak(), allow, handlers }
    }

    /// The label of the route that a request matched, whatever its method.
    #[must_use]
    pub fn label(&self, req: &HttpRequest) -> usize {
        let found = req
            .match_name()
            .and_then(|name| self.handlers.iter().find(|(handler, _)| handler == name));
        found.map_or(UNMATCHED, |(_, label)| *label)
    }

    /// The methods of a route.
    #[must_use]
    pub fn allow(&self, label: usize) -> &str {
        self.allow.get(label).map_or("", String::as_str)
    }
}

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
