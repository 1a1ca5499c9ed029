//! One operation, described line by line.
//!
//! Job: [`Op`] collects what an operation takes, answers and refuses; [`Op::finish`] makes the entry of the document from it. Invariant: each refusal
//! stands under its status, with its code; a response that many operations share stands once, in the components.
//! Method, path and what the caller must prove come from the route table. Must never: know a particular route.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::Value as Json;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::{AllOf, Components};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{
    Content, ContentBuilder, HeaderBuilder, ObjectBuilder, Paths, Ref, RefOr, Required, Response, ResponseBuilder,
    Schema,
};

use super::refusals;
use super::schema::{self, Media, Param, exactly, named};
use crate::api::error::Row;
use crate::api::route::{self, Route};
use crate::auth::Needs;

/// Security schemes, by their names in the document.
pub(super) const KEY: &str = "key";
pub(super) const PASSWORD: &str = "password";

const JSON_API: &str = "application/vnd.api+json";

/// An operation that is being described.
pub(super) struct Op {
    method: HttpMethod,
    path: &'static str,
    builder: OperationBuilder,
    about: String,
    needs: Option<Needs>,
    words: &'static str,
    answers: Vec<(StatusCode, ResponseBuilder)>,
    refusals: Vec<Row>,
}

impl Op {
    /// The operation of a row of the route table; `None` if OpenAPI has no such method.
    pub(super) fn of((path, method, route): route::Row) -> Option<Self> {
        let method = match method {
            "GET" => HttpMethod::Get,
            "POST" => HttpMethod::Post,
            "PUT" => HttpMethod::Put,
            "DELETE" => HttpMethod::Delete,
            _ => return None,
        };
        let needs = match route {
            Route::Guarded(_, needs) => Some(needs),
            Route::Open(_) => None,
        };
        let refusals = refusals::always().into_iter().chain(needs.into_iter().flat_map(refusals::caller)).collect();
        let (builder, about, words) = (OperationBuilder::new(), String::new(), "");
        Some(Self { method, path, builder, about, needs, words, answers: vec![], refusals })
    }

    /// Its name for generated clients, and what it does in a few words.
    pub(super) fn named(mut self, tag: &str, id: &str, summary: &str) -> Self {
        self.builder = self.builder.operation_id(Some(id)).tag(tag).summary(Some(summary));
        self
    }

    /// What it does, in whole sentences.
    pub(super) fn about(mut self, text: &str) -> Self {
        text.clone_into(&mut self.about);
        self
    }

    /// What a command has to send beside the key, as curl takes it.
    pub(super) fn sending(mut self, words: &'static str) -> Self {
        self.words = words;
        self
    }

    pub(super) fn parameter(mut self, place: ParameterIn, param: &Param) -> Self {
        self.builder = self.builder.parameter(parameter(place, param));
        self
    }

    /// A parameter that stands in the components.
    pub(super) fn shared_parameter(mut self, name: &str) -> Self {
        self.builder = self.builder.parameter_ref(Ref::new(format!("#/components/parameters/{name}")));
        self
    }

    /// Parameters in the body. `open`: others are ignored, else they are refused.
    pub(super) fn body(mut self, resource: &str, params: &[Param], open: bool) -> Self {
        let mut body = RequestBody::builder();
        for media in Media::ALL {
            let content = ContentBuilder::new().schema(Some(schema::parameters(params, media, open)));
            body = body.content(media.name(), content.example(Some(schema::example(params, media, resource))).build());
        }
        if params.iter().any(|param| param.required) {
            body = body.required(Some(Required::True));
        }
        self.builder = self.builder.request_body(Some(body.build()));
        self.refusals.extend(refusals::body());
        self
    }

    /// Answers a JSON:API document.
    pub(super) fn answers(self, status: StatusCode, about: &str, schema: &str, example: Json) -> Self {
        let content = ContentBuilder::new().schema(Some(named(schema))).example(Some(example)).build();
        self.answers_with(status, ResponseBuilder::new().description(about).content(JSON_API, content))
    }

    /// Answers without a body.
    pub(super) fn answers_nothing(self, about: &str) -> Self {
        self.answers_with(StatusCode::NO_CONTENT, ResponseBuilder::new().description(about))
    }

    /// Answers in another media type.
    pub(super) fn answers_with(mut self, status: StatusCode, response: ResponseBuilder) -> Self {
        self.answers.push((status, response));
        self
    }

    /// Adds a header of the components to the answer that was described last.
    pub(super) fn header(mut self, name: &str) -> Self {
        self.answers = self.last(|response| response.header_ref(name, shared_header(name)));
        self
    }

    /// From the answer that was described last, `part` of its resource is the path parameter of these operations.
    pub(super) fn leads_to<const N: usize>(mut self, parameter: &str, part: &str, operations: [&str; N]) -> Self {
        for operation in operations {
            let link = LinkBuilder::new().operation_id(operation).parameter(parameter, part);
            self.answers = self.last(|response| response.link(operation, link.build()));
        }
        self
    }

    fn last(&mut self, change: impl FnOnce(ResponseBuilder) -> ResponseBuilder) -> Vec<(StatusCode, ResponseBuilder)> {
        let mut answers = std::mem::take(&mut self.answers);
        if let Some((status, response)) = answers.pop() {
            answers.push((status, change(response)));
        }
        answers
    }

    pub(super) fn refuses(mut self, rows: Vec<Row>) -> Self {
        self.refusals.extend(rows);
        self
    }

    /// Puts it into the document.
    pub(super) fn finish(self, paths: &mut Paths, components: &mut Components) {
        let Self { method, path, mut builder, about, needs, words, answers, refusals } = self;
        let limited = refusals.iter().any(|row| row.status == StatusCode::TOO_MANY_REQUESTS);
        for (status, mut response) in answers {
            response = response.header_ref("X-Request-Id", shared_header("X-Request-Id"));
            for name in ["RateLimit-Policy", "RateLimit"].into_iter().filter(|_| limited) {
                response = response.header_ref(name, shared_header(name));
            }
            builder = builder.response(status.as_str(), response.build());
        }
        for (status, rows) in by_status(refusals) {
            let codes: Vec<&str> = rows.iter().map(|row| row.code).collect();
            let name = format!("{}-{}", status.as_str(), codes.join("-"));
            components.responses.entry(name.clone()).or_insert_with(|| RefOr::T(refusal(status, &rows)));
            builder = builder.response(status.as_str(), Ref::from_response_name(name));
        }
        let command = command(&method, path, needs, words);
        let needed = needs.map(needed).unwrap_or_default();
        let about = format!("{about}{needed}\n\n```sh\n{command}\n```");
        let operation = builder.description(Some(about)).securities(Some(security(needs))).build();
        paths.add_path_operation(path, vec![method], operation);
    }
}

/// A command that runs as it stands, after the first of the tour in README, with a key in `KEY` and the id of one in `KEY_ID`.
fn command(method: &HttpMethod, path: &str, needs: Option<Needs>, words: &str) -> String {
    let mut command = "curl -sS --cacert data/tls/cert.pem".to_owned();
    match method {
        HttpMethod::Put => command.push_str(" -X PUT"),
        HttpMethod::Delete => command.push_str(" -X DELETE"),
        _ => {}
    }
    if needs.is_some_and(Needs::takes_key) {
        command.push_str(r#" -H "Authorization: Bearer $KEY""#);
    }
    for part in [words, "https://localhost:8443"].into_iter().filter(|part| !part.is_empty()) {
        command.push(' ');
        command.push_str(part);
    }
    command.push_str(&path.replace("{name}", "invoices").replace("{id}", "$KEY_ID"));
    command
}

fn security(needs: Option<Needs>) -> Vec<SecurityRequirement> {
    let Some(needs) = needs else { return vec![] };
    // Scopes stand in the description: for a key of HTTP, linters take a list of them for a mistake.
    let one = |name| SecurityRequirement::new(name, None::<&str>);
    let key = needs.takes_key().then(|| one(KEY));
    let password = needs.takes_password().then(|| one(PASSWORD));
    key.into_iter().chain(password).collect()
}

fn needed(needs: Needs) -> String {
    let key = match needs.scopes() {
        Some(scopes) => format!("an API key with the scope `{scopes}`"),
        None => "an API key, whatever its scopes".to_owned(),
    };
    let password = "the tenant's name and password (`Authorization: Basic`)";
    match (needs.takes_key(), needs.takes_password()) {
        (true, true) => format!(" Needs {key}, or {password}."),
        (true, false) => format!(" Needs {key}."),
        _ => format!(" Needs {password}; no key will do."),
    }
}

/// A parameter of path, query or header, as it stands in the document.
pub(super) fn parameter(place: ParameterIn, param: &Param) -> Parameter {
    let required = if param.required { Required::True } else { Required::False };
    let builder = ParameterBuilder::new().name(param.name).parameter_in(place).required(required);
    let builder = builder.description(Some(param.about.clone())).schema(Some(param.bare_schema()));
    builder.example(param.example.clone()).build()
}

fn shared_header(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

/// The rows by status, each code once, in the order of their names.
fn by_status(rows: Vec<Row>) -> BTreeMap<StatusCode, Vec<Row>> {
    let mut all: BTreeMap<StatusCode, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let rows = all.entry(row.status).or_default();
        if let Err(place) = rows.binary_search_by(|other| other.code.cmp(row.code)) {
            rows.insert(place, row);
        }
    }
    all
}

/// The response to a refusal: a document of errors with one of these codes.
fn refusal(status: StatusCode, rows: &[Row]) -> Response {
    let codes = schema::string().enum_values(Some(rows.iter().map(|row| row.code)));
    let member = ObjectBuilder::new().property("status", exactly(status.as_str())).property("code", codes);
    let narrowed = ObjectBuilder::new().property("errors", schema::list(member.build()));
    let schema: Schema = AllOf::builder().item(named("Errors")).item(narrowed).build().into();
    let meanings: Vec<String> = rows.iter().map(|row| format!("`{}`: {}", row.code, row.title)).collect();
    let content = Content::new(Some(schema));
    let mut response = Response::builder().description(format!("{}.", meanings.join(". "))).content(JSON_API, content);
    let special: &[&str] = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => &["WWW-Authenticate"],
        StatusCode::METHOD_NOT_ALLOWED => &["Allow"],
        StatusCode::PRECONDITION_FAILED => &["ETag"],
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => {
            &["Retry-After"]
        }
        _ => &[],
    };
    for name in special.iter().chain(&["X-Request-Id", "RateLimit-Policy", "RateLimit"]) {
        response = response.header_ref(*name, shared_header(name));
    }
    response.build()
}

/// A header of the components.
pub(super) fn header(about: &str, schema: impl Into<RefOr<Schema>>, example: Json) -> utoipa::openapi::header::Header {
    HeaderBuilder::new().description(Some(about)).schema(Some(schema)).example(Some(example)).build()
}
