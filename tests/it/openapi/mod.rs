//! The OpenAPI document: it is the API, it is what is served and committed, and its page works.
//!
//! Job: `described` compares it with the route table, `docs/errors.md` and the committed copy,
//! `examples` runs its commands, `page` opens `/docs` in a browser.
//! Invariant: operations come from the document and routes from the table, so neither can be
//! forgotten here.
//! Must never: repeat a path.

mod browser;
mod described;
mod examples;
mod page;

use crate::contract::document;
use hyper::Method;

/// An operation of the document.
struct Operation {
    method: Method,
    path: String,
    description: String,
}

/// All its operations, by path.
fn operations() -> Vec<Operation> {
    let paths = document()["paths"].as_object().expect("an object of paths").clone();
    let operations = paths.into_iter().flat_map(|(path, item)| {
        let operations = item.as_object().expect("an object of operations").clone();
        operations.into_iter().map(move |(method, operation)| {
            let method = method.to_uppercase().parse().expect("a method");
            let description = operation["description"].as_str().expect("a description").to_owned();
            Operation { method, path: path.clone(), description }
        })
    });
    operations.collect()
}
