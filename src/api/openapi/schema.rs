//! Schemas: of plain values, of the parameters of a request in each of its media types, and of JSON:API documents.
//!
//! Job: [`Kind`] and [`Param`] describe a parameter once and give its schema for JSON and for a form; [`document()`] and [`closed`] build answers.
//! Invariant: a schema takes what the parser takes. In JSON a whole number may be a text of digits, and `null` is the same as not given, so the
//! schemas say so.
//! Must never: repeat a limit as a literal that has a constant elsewhere.

use serde_json::{Map, Value as Json, json};
use utoipa::openapi::schema::{AdditionalProperties, AnyOf, Array, KnownFormat, SchemaFormat, SchemaType};
use utoipa::openapi::{Object, ObjectBuilder, Ref, RefOr, Schema, Type};

/// A media type that a body may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    JsonApi,
    Form,
}

impl Media {
    pub(super) const ALL: [Self; 3] = [Self::Json, Self::JsonApi, Self::Form];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonApi => "application/vnd.api+json",
            Self::Form => "application/x-www-form-urlencoded",
        }
    }
}

/// What kind of value a parameter has.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A whole number within these bounds, in digits.
    Whole(u64, u64),
    /// A text of so many characters that matches a pattern, if there is one.
    Text(usize, usize, Option<&'static str>),
    /// Any text.
    Any,
    /// A text that nobody should look over a shoulder at, of so many bytes.
    Secret(usize, usize),
    /// True or false.
    Flag,
    /// One or more scopes.
    Scopes,
    /// A moment, RFC 3339 in UTC.
    Moment,
}

/// A parameter of a body.
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
    pub(super) about: String,
    pub(super) example: Option<Json>,
}

impl Param {
    pub(super) fn required(name: &'static str, kind: Kind, about: impl Into<String>, example: impl Into<Json>) -> Self {
        Self { name, kind, required: true, about: about.into(), example: Some(example.into()) }
    }

    pub(super) fn optional(name: &'static str, kind: Kind, about: impl Into<String>) -> Self {
        Self { name, kind, required: false, about: about.into(), example: None }
    }

    /// With a value in the examples.
    pub(super) fn such_as(mut self, example: impl Into<Json>) -> Self {
        self.example = Some(example.into());
        self
    }

    /// The schema outside a body, where everything is a text.
    pub(super) fn bare_schema(&self) -> RefOr<Schema> {
        plain(self.kind).into()
    }

    fn schema(&self, media: Media) -> RefOr<Schema> {
        let about = Some(self.about.clone());
        let one = |types: SchemaType| {
            let mut object = plain(self.kind);
            object.schema_type = types;
            object.description.clone_from(&about);
            RefOr::from(object)
        };
        let base = plain(self.kind).schema_type;
        match (media, self.kind) {
            (Media::Form, Kind::Scopes) => scopes_text().description(about).into(),
            (Media::Form, _) => one(base),
            (_, Kind::Whole(..) | Kind::Flag | Kind::Scopes) => {
                let mut any = AnyOf::builder().description(about).item(self.as_itself()).item(self.as_text());
                if !self.required {
                    any = any.item(Object::with_type(Type::Null));
                }
                any.into()
            }
            _ if self.required => one(base),
            _ => match base {
                SchemaType::Type(base) => one([base, Type::Null].into_iter().collect()),
                other => one(other),
            },
        }
    }

    fn as_itself(&self) -> Schema {
        match self.kind {
            Kind::Scopes => Array::builder().items(scope()).min_items(Some(1)).build().into(),
            kind => plain(kind).into(),
        }
    }

    /// The same as a text, as a form has it.
    fn as_text(&self) -> Object {
        match self.kind {
            Kind::Whole(min, max) => {
                // As many digits as are always within the bound; a pattern for the exact one would say less to a reader.
                let (zero, more) = (if min == 0 { "0|" } else { "" }, max.to_string().len().saturating_sub(2));
                string().pattern(Some(format!("^({zero}[1-9][0-9]{{0,{more}}})$"))).build()
            }
            Kind::Scopes => scopes_text().build(),
            _ => string().enum_values(Some(["true", "false"])).build(),
        }
    }
}

/// The schema of the parameters of a body in this media type. `open`: others are ignored, else they are refused.
pub(super) fn parameters(params: &[Param], media: Media, open: bool) -> Schema {
    let mut object = ObjectBuilder::new();
    for param in params {
        object = object.property(param.name, param.schema(media));
        if param.required {
            object = object.required(param.name);
        }
    }
    object = match (open, media) {
        (false, _) => object.additional_properties(Some(AdditionalProperties::FreeForm(false))),
        // A form has each name once, so never a list.
        (true, Media::Form) => object.additional_properties(Some(string())),
        (true, _) => object,
    };
    if media != Media::JsonApi {
        return object.into();
    }
    let data = ObjectBuilder::new()
        .property("type", any("The type of the resource; it is not looked at."))
        .required("attributes");
    let data = data.property("attributes", object);
    let document = ObjectBuilder::new().property("data", data);
    // A document without data has no parameters, which is enough where none is required.
    if params.iter().any(|param| param.required) { document.required("data").into() } else { document.into() }
}

/// An example of such a body.
pub(super) fn example(params: &[Param], media: Media, resource: &str) -> Json {
    let given = params.iter().filter_map(|param| Some((param.name.to_owned(), param.example.clone()?)));
    let given: Map<String, Json> = match media {
        Media::Form => given.map(|(name, value)| (name, form_value(value))).collect(),
        _ => given.collect(),
    };
    if media == Media::JsonApi {
        json!({ "data": { "type": resource, "attributes": given } })
    } else {
        Json::Object(given)
    }
}

fn form_value(value: Json) -> Json {
    match value {
        Json::Array(items) => items.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(",").into(),
        other => other,
    }
}

fn plain(kind: Kind) -> Object {
    match kind {
        Kind::Whole(min, max) => whole(min, max),
        Kind::Text(min, max, pattern) => string().min_length(Some(min)).max_length(Some(max)).pattern(pattern).build(),
        // A schema counts characters, and one may have four bytes.
        Kind::Secret(min, max) => string()
            .min_length(Some(min.div_ceil(4)))
            .max_length(Some(max))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)))
            .build(),
        Kind::Any => string().build(),
        Kind::Flag => Object::with_type(Type::Boolean),
        Kind::Scopes => scopes_text().build(),
        Kind::Moment => moment().build(),
    }
}

/// A text.
pub(super) fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// A moment as it is answered.
pub(super) fn moment() -> ObjectBuilder {
    string().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

/// Exactly this text.
pub(super) fn exactly(text: &str) -> ObjectBuilder {
    string().enum_values(Some([text]))
}

/// A whole number from `min` to `max`.
pub(super) fn whole(min: u64, max: u64) -> Object {
    let format = if max > u64::from(u32::MAX) { KnownFormat::Int64 } else { KnownFormat::Int32 };
    let object = ObjectBuilder::new().schema_type(Type::Integer).format(Some(SchemaFormat::KnownFormat(format)));
    object.minimum(Some(min)).maximum(Some(max)).build()
}

/// Anything.
pub(super) fn any(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(about))
}

/// One scope.
pub(super) fn scope() -> Object {
    string().enum_values(Some(["read", "increment", "manage"])).build()
}

fn scopes_text() -> ObjectBuilder {
    string().pattern(Some(r"^\s*(read|increment|manage)\s*(,\s*(read|increment|manage)\s*)*$"))
}

/// An object with these members, all of them always there, and no other.
pub(super) fn closed<const N: usize>(members: [(&str, RefOr<Schema>); N]) -> ObjectBuilder {
    let object = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(false)));
    members.into_iter().fold(object, |object, (name, schema)| object.property(name, schema).required(name))
}

/// Or null.
pub(super) fn or_null(schema: ObjectBuilder) -> ObjectBuilder {
    let mut object = schema.build();
    if let SchemaType::Type(plain) = object.schema_type {
        object.schema_type = [plain, Type::Null].into_iter().collect();
    }
    object.into()
}

/// A list of these.
pub(super) fn list(items: impl Into<RefOr<Schema>>) -> Array {
    Array::builder().items(items.into()).build()
}

/// A resource object of JSON:API.
pub(super) fn resource(kind: &str, id: ObjectBuilder, attributes: impl Into<RefOr<Schema>>) -> ObjectBuilder {
    closed([("id", id.into()), ("type", exactly(kind).into()), ("attributes", attributes.into())])
}

/// A JSON:API document with this as its data.
pub(super) fn document(data: impl Into<RefOr<Schema>>) -> ObjectBuilder {
    closed([("data", data.into()), ("jsonapi", named("Jsonapi"))])
}

/// A reference to a schema of the components.
pub(super) fn named(schema: &str) -> RefOr<Schema> {
    Ref::from_schema_name(schema).into()
}
