//! The API as an OpenAPI 3.1 document, for people, client generators and test tools.
//!
//! ```text
//! handlers/*.rs  an operation's attributes ──► routes.rs  utoipa collects ──► mod.rs  finishes
//! resources.rs   schemas of responses          schema.rs  values, bodies
//! error_responses.rs  error responses          operations.rs  the operations of a path
//! ```
//! Job: [`description`] is the document without operations; [`finish`] adds what all operations
//! have in common: the three media types of a body, shared headers and parameters, the
//! authentication requirement, a command to try it.
//! Invariant: this module names no single operation. `openapi.json` at the root of the repository
//! is the finished document, byte for byte: a test compares them, and writes the file if
//! `ODOMETER_WRITE_OPENAPI=1`.
//! Must never: describe anything that differs from the server's behavior.

pub(crate) mod error_responses;
pub mod operations;
pub(crate) mod resources;
pub(crate) mod schema;

use std::collections::BTreeMap;

use serde_json::Value as Json;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Components;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ContactBuilder, Content, ContentBuilder, HeaderBuilder, HttpMethod, InfoBuilder,
    LicenseBuilder, OpenApi, OpenApiBuilder, OpenApiVersion, Ref, RefOr, Required, Response,
    Schema, ServerBuilder,
};

use self::error_responses::component_name;
use self::operations::operations;
use self::schema::{
    Media, body_example, body_variant, exactly, form_example, simplify, string, whole,
};
use crate::domain::counter::CounterName;
use crate::http::extract::body::{BODY_TIMEOUT, MAX_BODY_BYTES};
use crate::http::extract::idempotency::MAX_KEY_CHARS;

const ABOUT: &str = include_str!("about.md");
const ABOUT_KEY: &str = "`Authorization: Bearer odo_…`. A key has one or more scopes: `read` (read \
    and list counters), `increment` (increment counters), `manage` (create, set and delete \
    counters; create, list and revoke keys). No scope contains another.";
const ABOUT_PASSWORD: &str = "`Authorization: Basic` with the tenant's name and password, for the \
    routes of keys and of the tenant itself only, so that a lost key can be replaced. Attempts are \
    limited per address, failed ones per name too.";
const ABOUT_IDEMPOTENCY: &str = "Makes the request safe to retry: for at least 24 hours, the same \
    request with the same key gets the stored response of the first one, with \
    `Idempotency-Replayed: true`. 1 to 255 visible ASCII characters. Another request with the same \
    key is refused. Refused requests are not stored.";
const ABOUT_IF_MATCH: &str = "The request is carried out only if the counter has this `ETag`, or \
    one of several, or exists (`*`). Otherwise the response is 412, and nothing is changed.";
const ABOUT_ETAG: &str = "The version of the counter: it changes with every update and is never \
    reused, not even by a counter of the same name that is created after a deletion.";

// The numbers in the descriptions above, in about.md, and in the texts of error_detail.rs and
// error_reference.rs.
const _: () = assert!(
    MAX_BODY_BYTES == 4096
        && BODY_TIMEOUT.as_secs() == 5
        && MAX_KEY_CHARS == 255
        && CounterName::MAX_BYTES == 128
);

/// The tag of routes that the document leaves out.
pub const INTERNAL: &str = "internal";
/// The extension with additional curl arguments of an operation's command.
const CURL: &str = "x-curl";

/// The document without operations.
pub fn description() -> OpenApi {
    let contact = ContactBuilder::new().name(Some("The operator of this server"));
    let license =
        LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0"));
    let info = InfoBuilder::new()
        .title("Odometer")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT.trim_end()));
    let info = info.contact(Some(contact.build())).license(Some(license.build()));
    let tags = [
        (
            "integer",
            "The tenant's counter `default`, as the application that Odometer replaces had it.",
        ),
        ("counters", "Named counters, each with a start, a step and bounds."),
        ("keys", "API keys: several per tenant, with scopes and an optional expiry."),
        ("tenants", "The owners of counters and keys."),
        ("service", "Probes and documentation."),
    ];
    let tags =
        tags.map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build());
    let server = ServerBuilder::new().url("/").description(Some("This server."));
    OpenApiBuilder::new()
        .openapi(OpenApiVersion::Version31)
        .info(info.build())
        .servers(Some([server.build()]))
        .components(Some(components()))
        .tags(Some(tags))
        .build()
}

fn components() -> Components {
    let mut components = Components::new();
    components.schemas.insert("Errors".to_owned(), resources::errors().into());
    for (name, parameter) in shared_parameters() {
        components.parameters.insert(name.to_owned(), parameter.into());
    }
    for (name, about, schema, example) in shared_headers() {
        let header = HeaderBuilder::new()
            .description(Some(about))
            .schema(Some(schema))
            .example(Some(example));
        components.headers.insert(name.to_owned(), RefOr::T(header.build()));
    }
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("odo_…");
    let bearer = bearer.description(Some(ABOUT_KEY));
    let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic).description(Some(ABOUT_PASSWORD));
    components.add_security_scheme("key", SecurityScheme::Http(bearer.build()));
    components.add_security_scheme("password", SecurityScheme::Http(basic.build()));
    components
}

/// Parameters that several operations have. An operation declares the name only.
fn shared_parameters() -> [(&'static str, Parameter); 7] {
    let name = || {
        string()
            .min_length(Some(1))
            .max_length(Some(CounterName::MAX_BYTES))
            .pattern(Some("^[A-Za-z0-9._-]+$"))
    };
    let key_id =
        || string().min_length(Some(16)).max_length(Some(16)).pattern(Some("^[0-9a-f]{16}$"));
    let key =
        string().min_length(Some(1)).max_length(Some(MAX_KEY_CHARS)).pattern(Some("^[!-~]+$"));
    let behind = "The last entry of the previous page. Use the whole of `links.next` instead of \
        building this.";
    let new = |place: ParameterIn, name: &str, about: &str, schema: RefOr<Schema>| {
        let required = if place == ParameterIn::Path { Required::True } else { Required::False };
        let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(required);
        parameter.description(Some(about)).schema(Some(schema))
    };
    let counter = "The counter's name: 1 to 128 characters of `A-Z a-z 0-9 . _ -`.";
    let id = "The key's public half: 16 hexadecimal digits in lower case.";
    let size = "The maximum number of entries, 1 to 100; 20 if absent.";
    use ParameterIn::{Header, Path, Query};
    [
        ("IdempotencyKey", new(Header, "Idempotency-Key", ABOUT_IDEMPOTENCY, key.into()).build()),
        ("IfMatch", new(Header, "If-Match", ABOUT_IF_MATCH, string().into()).build()),
        ("PageSize", new(Query, "page[size]", size, whole(1, 100).into()).build()),
        ("PageAfter", new(Query, "page[after]", behind, name().into()).build()),
        ("KeyPageAfter", new(Query, "page[after]", behind, key_id().into()).build()),
        (
            "CounterName",
            new(Path, "name", counter, name().into()).example(Some("default".into())).build(),
        ),
        (
            "KeyId",
            new(Path, "id", id, key_id().into()).example(Some("5fbfa5948d5fa1ea".into())).build(),
        ),
    ]
}

type SharedHeader = (&'static str, &'static str, RefOr<Schema>, Json);

fn shared_headers() -> [SharedHeader; 9] {
    let text = |pattern: &str| string().pattern(Some(pattern)).into();
    let id = "The request's id, as in the log: the client's, if it sent a valid one, or a new one.";
    let policy = "The rate limit that applies: `q` requests at once, refilled in `w` seconds.";
    let policy_pattern = r#"^"(tenant|client|name)";q=[0-9]+;w=[0-9]+$"#;
    let limit = "The state of the rate limit: `r` requests left, full again in `t` seconds.";
    let limit_pattern = r#"^"(tenant|client|name)";r=[0-9]+;t=[0-9]+$"#;
    let replayed =
        "The response is the stored one of an earlier, identical request; nothing was changed now.";
    let retry = "The number of seconds after which to retry.";
    [
        ("X-Request-Id", id, text("^[!-~]{1,128}$"), "597b7bbb2606396f0000000000000007".into()),
        ("RateLimit-Policy", policy, text(policy_pattern), r#""tenant";q=2000;w=2"#.into()),
        ("RateLimit", limit, text(limit_pattern), r#""tenant";r=1999;t=1"#.into()),
        ("Retry-After", retry, whole(1, u64::from(u32::MAX)).into(), 1.into()),
        ("ETag", ABOUT_ETAG, text("^\"[0-9]+-[0-9]+\"$"), r#""3-17""#.into()),
        (
            "Location",
            "The path of the new resource.",
            text("^/api/v1/"),
            "/api/v1/counters/invoices".into(),
        ),
        ("Idempotency-Replayed", replayed, exactly("true").into(), "true".into()),
        (
            "WWW-Authenticate",
            "The authentication schemes that the route accepts.",
            string().into(),
            r#"Bearer realm="odometer""#.into(),
        ),
        ("Allow", "The methods that the path supports.", string().into(), "GET, HEAD, PUT".into()),
    ]
}

/// Finishes a document that utoipa collected from the routes.
pub fn finish(mut document: OpenApi) -> OpenApi {
    let mut components = document.components.take().unwrap_or_default();
    components.schemas.values_mut().for_each(simplify_all);
    let mut responses = BTreeMap::new();
    document.paths.paths.retain(|path, item| {
        for (method, operation) in operations(item) {
            finish_operation(path, &method, operation, &components);
            hoist_responses(operation, &mut responses);
        }
        operations(item)
            .all(|(_, operation)| !operation.tags.iter().flatten().any(|tag| tag == INTERNAL))
    });
    components.responses.extend(responses);
    // The operations contain their bodies' parameters, in each media type.
    components.schemas.retain(|name, _| !name.ends_with("Params"));
    document.components = Some(components);
    document
}

fn simplify_all(schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::Object(object)) = schema {
        object.properties.values_mut().for_each(simplify_all);
        simplify(object);
    }
}

fn finish_operation(
    path: &str,
    method: &HttpMethod,
    operation: &mut Operation,
    components: &Components,
) {
    operation.operation_id = operation.operation_id.as_deref().map(camel_case);
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(Parameter { name, parameter_in, description: None, .. }) = parameter
            && let Some(shared) = shared_name(path, name, parameter_in, components)
        {
            *parameter = RefOr::Ref(Ref::new(format!("#/components/parameters/{shared}")));
        }
    }
    let example = finish_body(path, operation, components);
    finish_responses(operation);
    let command = command(path, method, operation, &example);
    let about = operation.description.take().unwrap_or_default().replace('\n', " ");
    let requirement = requirement_text(operation.security.take().unwrap_or_default(), operation);
    operation.description = Some(format!("{about}{requirement}\n\n```sh\n{command}\n```"));
    operation.extensions = None;
}

/// The name in the components of an operation's parameter, if it is a shared one.
fn shared_name<'a>(
    path: &str,
    name: &str,
    place: &ParameterIn,
    components: &'a Components,
) -> Option<&'a str> {
    // Both lists have a `page[after]`, with different schemas.
    if name == "page[after]" && path.ends_with("/keys") {
        return Some("KeyPageAfter");
    }
    let is_same = |shared: &RefOr<Parameter>| match shared {
        RefOr::T(shared) => shared.name == name && shared.parameter_in == *place,
        RefOr::Ref(_) => false,
    };
    let mut others = components.parameters.iter().filter(|(shared, _)| *shared != "KeyPageAfter");
    others.find(|(_, shared)| is_same(shared)).map(|(shared, _)| shared.as_str())
}

/// Replaces the body by one in all media types; returns the example of its parameters.
fn finish_body(path: &str, operation: &mut Operation, components: &Components) -> Json {
    let Some(RefOr::T(body)) = &mut operation.request_body else { return Json::Null };
    let Some(RefOr::T(derived)) = body.content.remove("application/json") else {
        return Json::Null;
    };
    let params = match &derived.schema {
        Some(RefOr::Ref(named)) => {
            named.ref_location.rsplit('/').next().and_then(|name| components.schemas.get(name))
        }
        _ => None,
    };
    let Some(RefOr::T(Schema::Object(params))) = params else { return Json::Null };
    let example = derived.example.clone().unwrap_or_else(|| Json::Object(serde_json::Map::new()));
    for media in Media::ALL {
        let content = ContentBuilder::new().schema(Some(body_variant(params, media)));
        let content = content.example(Some(body_example(&example, media, resource_type(path))));
        body.content.insert(media.name().to_owned(), RefOr::T(content.build()));
    }
    body.required = (!params.required.is_empty()).then_some(Required::True);
    example
}

/// The resource type of a JSON:API body on this path.
fn resource_type(path: &str) -> &'static str {
    match path.trim_start_matches("/api/v1/").split('/').next() {
        Some("integer") => "user_integer",
        Some("counters") => "counter",
        Some("keys") => "key",
        Some("tenants" | "tenant") => "tenant",
        _ => "user",
    }
}

fn finish_responses(operation: &mut Operation) {
    let limited = operation.responses.responses.contains_key("429");
    let header = |name: &str| RefOr::Ref(Ref::new(format!("#/components/headers/{name}")));
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if component_name(status, response).is_some() {
            continue;
        }
        // A response with a referenced schema is a JSON:API document, one with an inlined schema is
        // not.
        let is_document = |content: &RefOr<Content>| {
            matches!(content, RefOr::T(Content { schema: Some(RefOr::Ref(_)), .. }))
        };
        if response.content.get("application/json").is_some_and(is_document) {
            let document = response.content.shift_remove("application/json");
            response
                .content
                .extend(document.map(|document| (Media::JsonApi.name().to_owned(), document)));
        }
        response.headers =
            response.headers.keys().map(|name| (name.clone(), header(name))).collect();
        let usual = ["X-Request-Id", "RateLimit-Policy", "RateLimit"];
        for name in usual.into_iter().take(if limited { 3 } else { 1 }) {
            response.headers.insert(name.to_owned(), header(name));
        }
    }
}

/// Moves error responses that operations share to the components.
fn hoist_responses(operation: &mut Operation, responses: &mut BTreeMap<String, RefOr<Response>>) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(error) = &*response else { continue };
        if let Some(name) = component_name(status, error) {
            let named = RefOr::Ref(Ref::from_response_name(&name));
            responses.insert(name, std::mem::replace(response, named));
        }
    }
}

/// Describes the authentication requirement in words. The scopes are moved from `security` into the
/// description, since OpenAPI linters reject a list of scopes for an HTTP bearer key.
fn requirement_text(security: Vec<SecurityRequirement>, operation: &mut Operation) -> String {
    let mut key: Option<Vec<String>> = None;
    let mut password = false;
    for requirement in &security {
        let requirement = serde_json::to_value(requirement).unwrap_or_default();
        key = requirement
            .get("key")
            .and_then(|scopes| serde_json::from_value(scopes.clone()).ok())
            .or(key);
        password |= requirement.get("password").is_some();
    }
    let one = |name| SecurityRequirement::new(name, None::<&str>);
    let bare =
        key.as_ref().map(|_| one("key")).into_iter().chain(password.then(|| one("password")));
    operation.security = Some(bare.collect());
    let by_key = key.map(|scopes| match &scopes[..] {
        [] => "an API key with any scope".to_owned(),
        scopes => format!("an API key with the scope `{}`", scopes.join(" ")),
    });
    let by_password = "the tenant's name and password (`Authorization: Basic`)";
    match (by_key, password) {
        (Some(key), true) => format!(" Requires {key}, or {by_password}."),
        (Some(key), false) => format!(" Requires {key}."),
        (None, true) => format!(" Requires {by_password}; an API key is not accepted."),
        (None, false) => String::new(),
    }
}

/// A curl command for the operation. It runs as it stands after the quick start of README, with an
/// API key in `KEY` and a key's id in `KEY_ID`.
fn command(path: &str, method: &HttpMethod, operation: &Operation, example: &Json) -> String {
    let mut command = "curl -sS --cacert data/tls/cert.pem".to_owned();
    match method {
        HttpMethod::Put => command.push_str(" -X PUT"),
        HttpMethod::Delete => command.push_str(" -X DELETE"),
        _ => {}
    }
    let security = serde_json::to_value(&operation.security).unwrap_or_default();
    if security.as_array().is_some_and(|all| all.iter().any(|one| one.get("key").is_some())) {
        command.push_str(r#" -H "Authorization: Bearer $KEY""#);
    }
    let extension =
        operation.extensions.as_ref().and_then(|extensions| extensions.get(CURL)?.as_str());
    command.extend(extension.map(|words| format!(" {words}")));
    for (name, value) in example.as_object().into_iter().flatten() {
        let value = match form_example(value) {
            Json::String(text) => text,
            other => other.to_string(),
        };
        let quote = if value.contains(' ') { "\"" } else { "" };
        command.push_str(&format!(" -d {quote}{name}={value}{quote}"));
    }
    command.push_str(" https://localhost:8443");
    command.push_str(&path.replace("{name}", "invoices").replace("{id}", "$KEY_ID"));
    command
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &word[..1].to_ascii_uppercase() + &word[1..])
}
