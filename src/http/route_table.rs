//! The labels of routes, for metrics, logs and `Allow`.
//!
//! Job: [`RouteTable`], made once from the OpenAPI description of the routes.
//! Invariant: a label is a route's pattern or [`UNMATCHED`], so an unknown path never makes a new
//! label. actix-web matches the request; the label is looked up by the handler's name.
//! Must never: match a path itself.

use actix_web::HttpRequest;
use utoipa::openapi::{HttpMethod, OpenApi};

use super::context::UNMATCHED;
use super::openapi::operations::operations;

/// See the module's documentation.
#[derive(Debug)]
pub struct RouteTable {
    /// The patterns, by the index of the label.
    pub patterns: &'static [&'static str],
    /// The values of `Allow`, by the index of the label.
    allow: Vec<String>,
    /// The names of the handlers and the indexes of their labels.
    handlers: Vec<(String, usize)>,
}

impl RouteTable {
    /// The table of these routes; an operation's id is its handler's name.
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
            // The metrics keep their labels until the process ends, so leaking is fine.
            patterns.push(Box::leak(path.clone().into_boxed_str()));
            allow.push(methods.join(", "));
        }
        Self { patterns: patterns.leak(), allow, handlers }
    }

    /// The index of the label of the route that a request matched.
    pub fn label(&self, req: &HttpRequest) -> usize {
        let found = req
            .match_name()
            .and_then(|name| self.handlers.iter().find(|(handler, _)| handler == name));
        found.map_or(UNMATCHED, |(_, label)| *label)
    }

    /// The value of `Allow` of a route; empty for [`UNMATCHED`].
    pub fn allow(&self, label: usize) -> &str {
        self.allow.get(label).map_or("", String::as_str)
    }
}
