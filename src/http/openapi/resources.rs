//! The schemas of responses: JSON:API documents around the attributes of resources.
//!
//! Job: [`Document`] and [`PageDocument`], which a route declares as its body.
//! Invariant: objects are closed and members that are always present are required, so a test finds
//! every additional or missing member.
//! Must never: be instantiated; these types are descriptions.

use std::borrow::Cow;
use std::marker::PhantomData;

use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::schema::{closed, exactly, list, named, string, whole};
use crate::domain::counter::{CounterName, Value};
use crate::http::jsonapi::Attributes;

/// The kind of a resource's id.
#[derive(Clone, Copy)]
pub(crate) enum Id {
    /// A tenant's number.
    Tenant,
    /// A counter's name.
    Counter,
    /// The public half of a key.
    Key,
}

impl Id {
    fn schema(self) -> RefOr<Schema> {
        let id = match self {
            Self::Tenant => {
                string().pattern(Some("^[1-9][0-9]*$")).description(Some("The tenant's number."))
            }
            Self::Counter => string()
                .pattern(Some("^[A-Za-z0-9._-]+$"))
                .max_length(Some(CounterName::MAX_BYTES))
                .description(Some("The counter's name.")),
            Self::Key => {
                string().pattern(Some("^[0-9a-f]{16}$")).description(Some("The key's public half."))
            }
        };
        id.into()
    }
}

/// Attributes with a schema of their documents.
pub(crate) trait ResourceSchema: Attributes + PartialSchema {
    /// The kind of the resource's id.
    const ID: Id;
    /// The name of the schema of a document with one resource.
    const DOCUMENT: &'static str;
    /// The name of the resource's schema, if more than one document has it.
    const RESOURCE: Option<&'static str>;

    /// The schema of the resource object.
    fn resource() -> RefOr<Schema> {
        closed([
            ("id", Self::ID.schema()),
            ("type", exactly(Self::TYPE).into()),
            ("attributes", Self::schema()),
        ])
        .into()
    }

    /// The schema of the resource object, or a reference to it.
    fn resource_or_name() -> RefOr<Schema> {
        Self::RESOURCE.map_or_else(Self::resource, named)
    }

    /// Adds the schemas that the document refers to.
    fn add_to(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("Jsonapi".to_owned(), closed([("version", exactly("1.0").into())]).into()));
        schemas.extend(Self::RESOURCE.map(|name| (name.to_owned(), Self::resource())));
    }
}

/// A document with one resource.
pub(crate) struct Document<A>(PhantomData<A>);

impl<A: ResourceSchema> PartialSchema for Document<A> {
    fn schema() -> RefOr<Schema> {
        closed([("data", A::resource_or_name()), ("jsonapi", named("Jsonapi"))]).into()
    }
}

impl<A: ResourceSchema> ToSchema for Document<A> {
    fn name() -> Cow<'static, str> {
        A::DOCUMENT.into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        A::add_to(schemas);
    }
}

/// A document with a page of a list.
pub(crate) struct PageDocument<A>(PhantomData<A>);

impl<A: ResourceSchema> PartialSchema for PageDocument<A> {
    fn schema() -> RefOr<Schema> {
        let next = ObjectBuilder::new().schema_type(
            [Type::String, Type::Null].into_iter().collect::<utoipa::openapi::schema::SchemaType>(),
        );
        let next =
            next.description(Some("The path of the next page; null if this is the last one."));
        closed([
            ("data", list(A::resource_or_name()).into()),
            ("links", closed([("next", next.into())]).into()),
            ("jsonapi", named("Jsonapi")),
        ])
        .into()
    }
}

impl<A: ResourceSchema> ToSchema for PageDocument<A> {
    fn name() -> Cow<'static, str> {
        format!("{}s", A::DOCUMENT).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        A::add_to(schemas);
    }
}

/// The schema of an error document.
pub(crate) fn errors() -> ObjectBuilder {
    let source = ObjectBuilder::new()
        .description(Some("The part of the request that the error refers to, if it is one part."));
    let source = source.property("parameter", string()).property("header", string());
    let id = string()
        .description(Some("The request's id."))
        .examples(["597b7bbb2606396f0000000000000007"]);
    let title =
        string().description(Some("The title, for people.")).examples(["Invalid parameter"]);
    let detail = string().description(Some("What happened, to which input, and what to do."));
    let members = [
        ("id", id.into()),
        ("status", string().pattern(Some("^[45][0-9]{2}$")).into()),
        (
            "code",
            string()
                .description(Some("The stable code, for programs."))
                .pattern(Some("^[a-z0-9_]+$"))
                .into(),
        ),
        ("title", title.into()),
        ("detail", detail.examples(["Value is missing."]).into()),
    ];
    let mut value = whole(Value::ZERO.get(), Value::MAX.get());
    value.description = Some("The counter's value.".to_owned());
    let meta = ObjectBuilder::new()
        .description(Some("With `precondition_failed`: the current state of the counter."));
    let error =
        closed(members).property("source", source).property("meta", meta.property("value", value));
    let mut errors = list(error);
    (errors.min_items, errors.max_items) = (Some(1), Some(1));
    closed([("errors", errors.into()), ("jsonapi", named("Jsonapi"))])
}
