//! What is answered: the resources of JSON:API and the documents that hold them.
//!
//! Job: [`schemas`], by their names in the components, and an example of each. Invariant: objects are closed, and what is always there is required; so a
//! member more or less is a difference that a test finds.
//! Must never: show a key that works.

use serde_json::{Value as Json, json};
use utoipa::openapi::schema::{KnownFormat, SchemaFormat};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use super::schema::{closed, document, exactly, list, moment, named, or_null, resource, scope, string, whole};
use crate::counter::{CounterName, MAX_COUNT, Step, Value};
use crate::tenant::{KeyLabel, TenantName};

pub(super) const COUNTER_NAME: &str = "^[A-Za-z0-9._-]+$";
pub(super) const TENANT_NAME: &str = "^[A-Za-z0-9._%+@-]+$";
pub(super) const KEY_ID: &str = "^[0-9a-f]{16}$";
pub(super) const ENTITY_TAG: &str = "^\"[0-9]+-[0-9]+\"$";
const API_KEY: &str = "^odo_[0-9a-f]{16}_[0-9a-f]{72}$";

/// Schemas of the components, by name.
pub(super) fn schemas() -> Vec<(&'static str, RefOr<Schema>)> {
    vec![
        ("Jsonapi", closed([("version", exactly("1.0").into())]).into()),
        ("Errors", errors().into()),
        (
            "Integer",
            document(resource(
                "user_integer",
                tenant_id(),
                closed([("value", value("The value issued last, or that was set."))]),
            ))
            .into(),
        ),
        ("IncrementedInteger", document(resource("user_integer", tenant_id(), incremented_integer())).into()),
        ("Range", document(resource("counter", counter_name(), range())).into()),
        ("CounterResource", resource("counter", counter_name(), counter()).into()),
        ("Counter", document(named("CounterResource")).into()),
        ("Counters", page("CounterResource").into()),
        ("KeyResource", resource("key", key_id(), key()).into()),
        ("Keys", page("KeyResource").into()),
        ("NewKey", document(resource("key", key_id(), with_api_key(key()))).into()),
        ("User", document(resource("user", tenant_id(), with_api_key(ObjectBuilder::new()))).into()),
        ("NewTenant", document(resource("tenant", tenant_id(), with_api_key(tenant_names()))).into()),
        ("Tenant", document(resource("tenant", tenant_id(), tenant())).into()),
    ]
}

fn errors() -> ObjectBuilder {
    let source = ObjectBuilder::new().description(Some("Where the fault is, if it is in one place."));
    let source = source.property("parameter", string()).property("header", string());
    let members = [
        ("id", string().description(Some("The request's id.")).examples(["597b7bbb2606396f0000000000000007"]).into()),
        ("status", string().pattern(Some("^[45][0-9]{2}$")).into()),
        ("code", string().description(Some("Stable, for programs.")).pattern(Some("^[a-z0-9_]+$")).into()),
        ("title", string().description(Some("The same for people.")).examples(["A parameter is not valid"]).into()),
        (
            "detail",
            string()
                .description(Some("What happened, to which input, and what to do."))
                .examples(["Value is missing."])
                .into(),
        ),
    ];
    let meta = ObjectBuilder::new().description(Some("With `precondition_failed`: the counter as it is."));
    let error =
        closed(members).property("source", source).property("meta", meta.property("value", value("Its value.")));
    let mut errors = list(error);
    (errors.min_items, errors.max_items) = (Some(1), Some(1));
    closed([("errors", errors.into()), ("jsonapi", named("Jsonapi"))])
}

fn value(about: &str) -> RefOr<Schema> {
    let mut value = whole(Value::ZERO.get(), Value::LARGEST.get());
    value.description = Some(about.to_owned());
    value.into()
}

fn tenant_id() -> ObjectBuilder {
    string().pattern(Some("^[1-9][0-9]*$")).description(Some("The tenant's number."))
}

fn counter_name() -> ObjectBuilder {
    string()
        .pattern(Some(COUNTER_NAME))
        .max_length(Some(CounterName::MAX_BYTES))
        .description(Some("The counter's name."))
}

fn key_id() -> ObjectBuilder {
    string().pattern(Some(KEY_ID)).description(Some("The key's public half."))
}

fn incremented_integer() -> ObjectBuilder {
    let object =
        closed([("value", value("The value after the increment: the integer that was issued, or the last of them."))]);
    let object = object.property("first", value("With `count`: the first integer that was issued."));
    let object = object.property("last", value("With `count`: the last one; it is `value`."));
    object.property("count", whole(1, u64::from(MAX_COUNT)))
}

fn range() -> ObjectBuilder {
    closed([
        ("value", value("The counter's value after the increment.")),
        ("first", value("The first integer that was issued.")),
        ("last", value("The last one; it is `value`. Between them are all that are a step apart.")),
        ("count", whole(1, u64::from(MAX_COUNT)).into()),
    ])
}

fn counter() -> ObjectBuilder {
    closed([
        ("value", value("The value issued last, or `start` before the first increment.")),
        ("start", value("The value before the first increment, which issues `start` + `step`.")),
        ("step", whole(Step::ONE.get(), Step::LARGEST.get()).into()),
        ("min", value("The smallest value that it may be set to.")),
        ("max", value("The largest value that it may reach.")),
        ("rewindable", ObjectBuilder::new().schema_type(Type::Boolean).into()),
        ("created_at", or_null(moment().description(Some("Null for `default`, which always was."))).into()),
    ])
}

fn key() -> ObjectBuilder {
    let day = string().format(Some(SchemaFormat::KnownFormat(KnownFormat::Date)));
    closed([
        ("label", string().max_length(Some(KeyLabel::MAX_BYTES)).description(Some("What people call it.")).into()),
        ("scopes", list(scope()).into()),
        ("created_at", moment().into()),
        ("expires_at", or_null(moment().description(Some("From when on it is refused; null: never."))).into()),
        ("last_used_on", or_null(day.description(Some("The last day, in UTC, on which it was used."))).into()),
    ])
}

fn with_api_key(object: ObjectBuilder) -> ObjectBuilder {
    let api_key =
        string().pattern(Some(API_KEY)).description(Some("The key itself. It is shown this once and never again."));
    let object = object.property("api_key", api_key).required("api_key");
    object.additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(false)))
}

fn tenant_names() -> ObjectBuilder {
    let name = string().pattern(Some(TENANT_NAME)).max_length(Some(TenantName::MAX_BYTES));
    closed([("username", name.into()), ("created_at", moment().into())])
}

fn tenant() -> ObjectBuilder {
    let tenant = tenant_names();
    let limit = string().description(Some(
        "How many requests it may make, as `1000/s:2000`: 1,000 a second, 2,000 at once. Null: any number.",
    ));
    let tenant = tenant.property("counters", of_how_many("Beside `default`.")).required("counters");
    let tenant = tenant.property("keys", of_how_many("Expired ones among them.")).required("keys");
    tenant.property("rate_limit", or_null(limit)).required("rate_limit")
}

fn of_how_many(about: &str) -> ObjectBuilder {
    let number = || RefOr::from(whole(0, u64::from(u32::MAX)));
    closed([("count", number()), ("limit", number())]).description(Some(about))
}

fn page(of: &str) -> ObjectBuilder {
    let next = or_null(string()).description(Some("Where the list goes on; null: nowhere."));
    closed([
        ("data", list(named(of)).into()),
        ("links", closed([("next", next.into())]).into()),
        ("jsonapi", named("Jsonapi")),
    ])
}

/// A document with this as its data, as an example.
pub(super) fn example(kind: &str, id: &str, attributes: Json) -> Json {
    json!({ "data": { "id": id, "type": kind, "attributes": attributes }, "jsonapi": { "version": "1.0" } })
}

/// A list with this as its only resource, as an example.
pub(super) fn example_page(kind: &str, id: &str, attributes: Json) -> Json {
    let resource = json!({ "id": id, "type": kind, "attributes": attributes });
    json!({ "data": [resource], "links": { "next": null }, "jsonapi": { "version": "1.0" } })
}

/// A counter's attributes, as an example.
pub(super) fn example_counter(value: u64) -> Json {
    let (max, created_at) = (Value::DEFAULT_MAX.get(), "2026-11-24T09:00:00Z");
    json!({
        "value": value, "start": 0, "step": 1, "min": 0, "max": max, "rewindable": false, "created_at": created_at,
    })
}
