//! The API as an OpenAPI 3.1 document, for people, generators of clients and testers.
//!
//! ```text
//! counters.rs keys.rs tenants.rs service.rs   the operations, by tag      operation.rs   one operation, line by line
//! resources.rs   what is answered             schema.rs   parameters      refusals.rs    rows of the table of errors
//! ```
//! Job: [`document()`] describes every route of the public listener, and [`json()`] is what is served. Invariant: a route of the table is described, or
//! the code does not compile; refusals come from the table of errors, limits from the constants that the code checks. `openapi.json` at the root
//! of the repository is this document, byte for byte: a test compares them, and writes it when told to.
//! Must never: describe what a request would not find.

mod counters;
mod keys;
mod operation;
mod refusals;
mod resources;
mod schema;
mod service;
mod tenants;

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::Value as Json;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::schema::Components;
use utoipa::openapi::security::{Http, HttpAuthScheme, HttpBuilder};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ContactBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, OpenApiVersion, Paths, RefOr, ServerBuilder,
};

use self::operation::{KEY, Op, PASSWORD, header, parameter};
use self::schema::{Kind, Param, string};
use super::docs::File;
use super::once::MAX_KEY_CHARS;
use super::params::PAGE_SIZES;
use super::payload::MAX_BODY_BYTES;
use super::route::{Guarded, Listener, Open, Route, TABLE};
use crate::counter::CounterName;

const ABOUT: &str = "Odometer hands out integers that go up by one: durable, unique, consecutive, for many tenants.

A tenant registers, gets an API key, and asks for the next integer. Every integer that was answered is on disk, unique, \
consecutive, and safe to ask for again with an `Idempotency-Key`.

**Requests.** Parameters come in a body of at most 4,096 bytes: a JSON object, a JSON:API document with the parameters in \
`data.attributes`, or a form. They may come in the query too; one that is given twice is refused. In JSON a whole number may \
be written as a text of digits, and `null` is the same as not given. `HEAD` is answered like `GET`, without the body. Each \
request may have an `X-Request-Id` of 1 to 128 visible ASCII characters, which comes back (otherwise, and where there is `odo_` \
in it, as in a key, one is made), and a W3C \
`traceparent`, which is carried on.

**Answers** are JSON:API documents. A refusal (4xx, 507, and 503 with another code than `outcome_unknown`) changed nothing; \
its `code` is stable and meant for programs.

**Limits.** A request with a valid key spends from its tenant's limit, any other one from its address's. `RateLimit-Policy` \
and `RateLimit` say how it stands; they are absent where the operator set no limit.

In the examples `KEY` is an API key, and `data/tls/cert.pem` the certificate that the server made for itself.";

// What the texts say in figures.
const _: () = assert!(MAX_BODY_BYTES == 4096 && MAX_KEY_CHARS == 255 && CounterName::MAX_BYTES == 128);

const ABOUT_KEY: &str = "`Authorization: Bearer odo_…`. A key has one or more scopes: `read` (read and list counters), \
    `increment` (take integers), `manage` (create, set and delete counters; make, list and revoke keys). No scope contains \
    another.";

const ABOUT_PASSWORD: &str = "`Authorization: Basic` with the tenant's name and password, for its keys and itself only; so a \
    lost key can be replaced. Failures are throttled for each address and each name.";

const ABOUT_ONCE: &str = "Makes the request safe to send again: the same request with the same key is answered as the first \
    one was, with `Idempotency-Replayed: true`, for at least 24 hours. 1 to 255 visible ASCII characters. Another request with \
    the same key is refused; what was refused is not remembered.";

const ABOUT_MATCH: &str = "Only if the counter still has this `ETag` (or one of several, or `*`: if it exists). Otherwise 412, \
    and nothing is changed.";

const ABOUT_TAG: &str = "The counter's state: different after each change, and never the same again, not for a counter that \
    was deleted and created anew either.";

/// The document.
#[must_use]
pub fn document() -> OpenApi {
    let (mut paths, mut components) = (Paths::new(), components());
    for row in TABLE.iter().filter(|(_, _, route)| Listener::Public.has(*route)) {
        if let Some(operation) = Op::of(*row).and_then(|op| describe(op, row.2)) {
            operation.finish(&mut paths, &mut components);
        }
    }
    let contact = ContactBuilder::new().name(Some("The operator of this server"));
    let license = LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0"));
    let info = InfoBuilder::new().title("Odometer").version(env!("CARGO_PKG_VERSION")).description(Some(ABOUT));
    let info = info.contact(Some(contact.build())).license(Some(license.build()));
    let tags = [
        ("integer", "The tenant's counter `default`, as the application that Odometer replaces had it."),
        ("counters", "Named counters, each with its own start, step and bounds."),
        ("keys", "API keys: several for each tenant, with scopes, and an end if wanted."),
        ("tenants", "Who has counters and keys."),
        ("service", "Whether the server is well, and how to ask it."),
    ];
    let tags = tags.map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build());
    let server = ServerBuilder::new().url("/").description(Some("This server."));
    OpenApiBuilder::new()
        .openapi(OpenApiVersion::Version31)
        .info(info.build())
        .servers(Some([server.build()]))
        .paths(paths)
        .components(Some(components))
        .tags(Some(tags))
        .build()
}

/// What a route does; nothing for the files of the page, which are no operations of the API.
#[rustfmt::skip]
fn describe(op: Op, route: Route) -> Option<Op> {
    Some(match route {
        Route::Open(open) => match open {
            Open::Register => tenants::register_user(op),
            Open::CreateTenant => tenants::register(op),
            Open::Livez => service::livez(op),
            Open::Readyz => service::readyz(op),
            Open::Openapi => service::openapi(op),
            Open::Docs(File::Page) => service::docs(op),
            Open::Docs(File::Start | File::Style | File::Bundle) | Open::Metrics => return None,
        },
        Route::Guarded(guarded, _) => match guarded {
            Guarded::ReadInteger => counters::read_integer(op),
            Guarded::SetInteger => counters::set_integer(op),
            Guarded::IncrementInteger => counters::increment_integer(op),
            Guarded::ListCounters => counters::list(op),
            Guarded::CreateCounter => counters::create(op),
            Guarded::ReadCounter => counters::read(op),
            Guarded::SetCounter => counters::set(op),
            Guarded::DeleteCounter => counters::delete(op),
            Guarded::IncrementCounter => counters::increment(op),
            Guarded::ListKeys => keys::list(op),
            Guarded::CreateKey => keys::create(op),
            Guarded::RevokeKey => keys::revoke(op),
            Guarded::ShowTenant => tenants::read(op),
            Guarded::DeleteTenant => tenants::delete(op),
            Guarded::ChangePassword => tenants::change_password(op),
        },
    })
}

/// The document as it is served and committed, made once.
#[must_use]
pub fn json() -> Bytes {
    static JSON: OnceLock<Bytes> = OnceLock::new();
    // It has no key that is not a text and no number that JSON lacks, which is all that could fail.
    let made = || {
        serde_json::to_vec_pretty(&document()).map(|json| [json, b"\n".to_vec()].concat().into()).unwrap_or_default()
    };
    JSON.get_or_init(made).clone()
}

fn components() -> Components {
    let mut components = Components::new();
    for (name, schema) in resources::schemas() {
        components.schemas.insert(name.to_owned(), schema);
    }
    for (name, place, param) in shared_parameters() {
        components.parameters.insert(name.to_owned(), parameter(place, &param).into());
    }
    for (name, about, schema, example) in shared_headers() {
        components.headers.insert(name.to_owned(), RefOr::T(header(about, schema, example)));
    }
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("odo_…");
    let bearer = bearer.description(Some(ABOUT_KEY));
    let basic: Http = HttpBuilder::new().scheme(HttpAuthScheme::Basic).description(Some(ABOUT_PASSWORD)).build();
    components.add_security_scheme(KEY, utoipa::openapi::security::SecurityScheme::Http(bearer.build()));
    components.add_security_scheme(PASSWORD, utoipa::openapi::security::SecurityScheme::Http(basic));
    components
}

fn shared_parameters() -> [(&'static str, ParameterIn, Param); 6] {
    let name = Kind::Text(1, CounterName::MAX_BYTES, Some(resources::COUNTER_NAME));
    let key = Kind::Text(16, 16, Some(resources::KEY_ID));
    let once = Param::optional("Idempotency-Key", Kind::Text(1, MAX_KEY_CHARS, Some("^[!-~]+$")), ABOUT_ONCE);
    let matches = Param::optional("If-Match", Kind::Any, ABOUT_MATCH);
    let (most, usual) = PAGE_SIZES;
    let about_size = format!("How many at most, 1 to {most}; {usual} if it is not given.");
    let size = Param::optional("page[size]", Kind::Whole(1, most), about_size);
    let after = Param::optional(
        "page[after]",
        name,
        "Behind which one to go on: take the whole of `links.next` instead of building this.",
    );
    let name = Param::required("name", name, "The counter's name: 1 to 128 of `A-Z a-z 0-9 . _ -`.", "default");
    let id =
        Param::required("id", key, "The key's public half: 16 hexadecimal digits in lower case.", "5fbfa5948d5fa1ea");
    [
        ("IdempotencyKey", ParameterIn::Header, once),
        ("IfMatch", ParameterIn::Header, matches),
        ("PageSize", ParameterIn::Query, size),
        ("PageAfter", ParameterIn::Query, after),
        ("CounterName", ParameterIn::Path, name),
        ("KeyId", ParameterIn::Path, id),
    ]
}

type SharedHeader = (&'static str, &'static str, RefOr<utoipa::openapi::Schema>, Json);

fn shared_headers() -> [SharedHeader; 9] {
    let text = |pattern: &str| string().pattern(Some(pattern)).into();
    let policy = "The limit that the request was taken from: how many at once, refilled in how many seconds.";
    let limit = "How that limit stands: how many are left, and in how many seconds it is full again.";
    [
        (
            "X-Request-Id",
            "The request's id, in the log too: the one that was sent, or a new one.",
            text("^[!-~]{1,128}$"),
            "597b7bbb2606396f0000000000000007".into(),
        ),
        (
            "RateLimit-Policy",
            policy,
            text(r#"^"(tenant|client|name)";q=[0-9]+;w=[0-9]+$"#),
            r#""tenant";q=2000;w=2"#.into(),
        ),
        ("RateLimit", limit, text(r#"^"(tenant|client|name)";r=[0-9]+;t=[0-9]+$"#), r#""tenant";r=1999;t=1"#.into()),
        ("Retry-After", "In how many seconds to try again.", schema::whole(1, u64::from(u32::MAX)).into(), 1.into()),
        ("ETag", ABOUT_TAG, text(resources::ENTITY_TAG), r#""3-17""#.into()),
        ("Location", "Where the new resource is.", text("^/api/v1/"), "/api/v1/counters/invoices".into()),
        (
            "Idempotency-Replayed",
            "An earlier request was the same: nothing was changed this time.",
            schema::exactly("true").into(),
            "true".into(),
        ),
        ("WWW-Authenticate", "What to send instead.", string().into(), r#"Bearer realm="odometer""#.into()),
        ("Allow", "The methods that the path has.", string().into(), "GET, HEAD, PUT".into()),
    ]
}
