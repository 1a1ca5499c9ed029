//! Operations of the service itself: is it well, and how is it asked?
//!
//! Job: one function for each. Invariant: none of them needs a key or is limited. Must never: describe `/metrics`, which the public listener does not have.

use hyper::StatusCode;
use utoipa::openapi::{Content, ObjectBuilder, ResponseBuilder};

use super::operation::Op;
use super::schema::string;

const TAG: &str = "service";

fn words<const N: usize>(about: &str, words: [&str; N]) -> ResponseBuilder {
    let content = Content::builder()
        .schema(Some(string().enum_values(Some(words))))
        .example(words.first().map(|word| (*word).into()));
    ResponseBuilder::new().description(about).content("text/plain", content.build())
}

pub(super) fn livez(op: Op) -> Op {
    op.named(TAG, "isAlive", "Is the process alive?")
        .about("Always answered at once, without a look at the store. For a supervisor's liveness check.")
        .answers_with(StatusCode::OK, words("It is.", ["alive\n"]))
}

pub(super) fn readyz(op: Op) -> Op {
    let not = words("It does not, and why not.", ["draining\n", "disk_low\n", "overloaded\n", "poisoned\n"]);
    op.named(TAG, "isReady", "Does it take increments?")
        .about("One word. For a load balancer: 503 means that changes would be refused now; reads may go on.")
        .answers_with(StatusCode::OK, words("It does.", ["ready\n"]))
        .answers_with(StatusCode::SERVICE_UNAVAILABLE, not)
}

pub(super) fn openapi(op: Op) -> Op {
    let schema = ObjectBuilder::new().property("openapi", string().pattern(Some("^3\\.1\\."))).required("openapi");
    let schema = schema
        .property("info", ObjectBuilder::new())
        .required("info")
        .property("paths", ObjectBuilder::new())
        .required("paths");
    let response =
        ResponseBuilder::new().description("OpenAPI 3.1.").content("application/json", Content::new(Some(schema)));
    op.named(TAG, "readOpenapi", "This document.")
        .about("The whole API for generators of clients and testers, as of this version.")
        .answers_with(StatusCode::OK, response)
}

pub(super) fn docs(op: Op) -> Op {
    let response = ResponseBuilder::new().description("HTML.").content("text/html", Content::new(Some(string())));
    op.named(TAG, "readDocs", "This document for people.")
        .about("A page to read and to try every operation. Whatever it loads comes from this server.")
        .answers_with(StatusCode::OK, response)
}
