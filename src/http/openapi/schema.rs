//! Schemas: values, closed objects, and a body's parameters in each of its media types.
//!
//! Job: what utoipa's derives cannot express: [`whole`] numbers with bounds from constants, closed
//! objects, and [`body_variant`], which turns a derived schema into those of JSON, JSON:API and a
//! form.
//! Invariant: a schema accepts what the parser accepts: in JSON an integer may be a string of
//! digits, and `null` counts as absent.
//! Must never: know a particular resource.

use serde_json::{Value as Json, json};
use utoipa::openapi::schema::{
    AdditionalProperties, AllOf, AnyOf, Array, ArrayItems, KnownFormat, OneOf, SchemaFormat,
    SchemaType,
};
use utoipa::openapi::{Object, ObjectBuilder, Ref, RefOr, Schema, Type};

/// A media type of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    JsonApi,
    Form,
}

impl Media {
    pub(crate) const ALL: [Self; 3] = [Self::Json, Self::JsonApi, Self::Form];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonApi => "application/vnd.api+json",
            Self::Form => "application/x-www-form-urlencoded",
        }
    }
}

/// A string.
pub(crate) fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// An RFC 3339 timestamp.
pub(crate) fn timestamp() -> ObjectBuilder {
    string().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

/// A constant string.
pub(crate) fn exactly(text: &str) -> ObjectBuilder {
    string().enum_values(Some([text]))
}

/// An integer from `min` to `max`.
pub(crate) fn whole(min: u64, max: u64) -> Object {
    let format = if max > u64::from(u32::MAX) { KnownFormat::Int64 } else { KnownFormat::Int32 };
    let object = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(format)));
    object.minimum(Some(min)).maximum(Some(max)).build()
}

/// An object with these members, all of them required, and no others.
pub(crate) fn closed<const N: usize>(members: [(&str, RefOr<Schema>); N]) -> ObjectBuilder {
    let object =
        ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(false)));
    members
        .into_iter()
        .fold(object, |object, (name, schema)| object.property(name, schema).required(name))
}

/// An array of these items.
pub(crate) fn list(items: impl Into<RefOr<Schema>>) -> Array {
    Array::builder().items(items.into()).build()
}

/// A reference to a schema in the components.
pub(crate) fn named(schema: &str) -> RefOr<Schema> {
    Ref::from_schema_name(schema).into()
}

/// Merges what a derive expresses in two schemas: an inlined type and its description, or a type
/// and null. Descriptions get one line, however the source wraps them.
pub(crate) fn simplify(object: &mut Object) {
    for schema in object.properties.values_mut() {
        unwrap_description(schema);
        let simple = match schema {
            RefOr::T(Schema::AllOf(AllOf { items, .. })) => match &items[..] {
                [RefOr::T(Schema::Object(plain)), RefOr::T(Schema::Object(about))] => {
                    Some(described(plain.clone(), about.description.clone()))
                }
                _ => None,
            },
            RefOr::T(Schema::OneOf(OneOf { items, description, .. })) => match &items[..] {
                [RefOr::T(Schema::Object(plain)), RefOr::T(Schema::Object(null))]
                    if null.schema_type == SchemaType::Type(Type::Null) =>
                {
                    let SchemaType::Type(of) = plain.schema_type.clone() else { continue };
                    let mut or_null = described(plain.clone(), description.clone());
                    or_null.schema_type = [of, Type::Null].into_iter().collect();
                    Some(or_null)
                }
                _ => None,
            },
            RefOr::T(Schema::Object(inner)) => {
                simplify(inner);
                None
            }
            _ => None,
        };
        if let Some(simple) = simple {
            *schema = simple.into();
        }
    }
}

fn unwrap_description(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else { return };
    let description = match schema {
        Schema::Object(object) => &mut object.description,
        Schema::Array(array) => &mut array.description,
        Schema::OneOf(one_of) => &mut one_of.description,
        Schema::AllOf(all_of) => {
            all_of.items.iter_mut().for_each(unwrap_description);
            &mut all_of.description
        }
        _ => return,
    };
    if let Some(description) = description {
        *description = description.replace('\n', " ");
    }
}

fn described(mut object: Object, description: Option<String>) -> Object {
    object.description = description;
    object
}

/// The schema of a body in this media type, from the derived one of its parameters.
pub(crate) fn body_variant(params: &Object, media: Media) -> Schema {
    let mut object = params.clone();
    for (name, schema) in &mut object.properties {
        let required = params.required.contains(name);
        *schema =
            if media == Media::Form { form_value(schema) } else { json_value(schema, required) };
    }
    let is_open = object.additional_properties.is_none();
    if is_open && media == Media::Form {
        // A form has each name once, so its values are strings.
        object.additional_properties = Some(Box::new(AdditionalProperties::RefOr(string().into())));
    }
    if media != Media::JsonApi {
        return object.into();
    }
    let kind = ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some("The type of the resource; it is ignored."));
    let data = ObjectBuilder::new()
        .property("type", kind)
        .property("attributes", object)
        .required("attributes");
    let document = ObjectBuilder::new().property("data", data);
    // A document without data has no parameters, which is valid if none is required.
    if params.required.is_empty() { document.into() } else { document.required("data").into() }
}

/// An example of a body in this media type.
pub(crate) fn body_example(example: &Json, media: Media, resource: &str) -> Json {
    match (media, example) {
        (Media::Form, Json::Object(members)) => {
            members.iter().map(|(name, value)| (name.clone(), form_example(value))).collect()
        }
        (Media::JsonApi, _) => json!({ "data": { "type": resource, "attributes": example } }),
        _ => example.clone(),
    }
}

/// An example value in a form.
pub(crate) fn form_example(value: &Json) -> Json {
    match value {
        Json::Array(items) => {
            items.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(",").into()
        }
        other => other.clone(),
    }
}

fn form_value(schema: &RefOr<Schema>) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::Array(array)) => string_list(array).map_or_else(
            || schema.clone(),
            |list| list.description(array.description.clone()).into(),
        ),
        RefOr::T(Schema::Object(object)) => {
            let mut plain = object.clone();
            plain.schema_type = without_null(&plain.schema_type);
            plain.into()
        }
        other => other.clone(),
    }
}

/// A value in JSON: as itself, as a string, or `null` if it is optional.
fn json_value(schema: &RefOr<Schema>, required: bool) -> RefOr<Schema> {
    let (plain, as_string, about): (Schema, Object, _) = match schema {
        RefOr::T(Schema::Array(array)) => {
            let Some(list) = string_list(array) else { return schema.clone() };
            let mut plain = array.clone();
            let about = plain.description.take();
            (plain.schema_type, plain.min_items) = (Type::Array.into(), Some(1));
            (plain.into(), list.build(), about)
        }
        RefOr::T(Schema::Object(object)) => {
            let mut plain = object.clone();
            plain.schema_type = without_null(&plain.schema_type);
            let about = plain.description.take();
            let as_string = match &plain.schema_type {
                SchemaType::Type(Type::Integer) => digits(&plain),
                SchemaType::Type(Type::Boolean) => {
                    string().enum_values(Some(["true", "false"])).build()
                }
                _ => return schema.clone(),
            };
            (plain.into(), as_string, about)
        }
        other => return other.clone(),
    };
    let mut any = AnyOf::builder().description(about).item(plain).item(as_string);
    if !required {
        any = any.item(Object::with_type(Type::Null));
    }
    any.into()
}

/// An integer as a string. The pattern limits the number of digits, so that every string that it
/// accepts is within the maximum; a pattern for the exact maximum would be unreadable.
fn digits(number: &Object) -> Object {
    let bound = |number: &Option<utoipa::Number>| number.as_ref().map_or(0, number_u64);
    let (min, max) = (bound(&number.minimum), bound(&number.maximum));
    let (zero, more) = (if min == 0 { "0|" } else { "" }, max.to_string().len().saturating_sub(2));
    string().pattern(Some(format!("^({zero}[1-9][0-9]{{0,{more}}})$"))).build()
}

fn number_u64(number: &utoipa::Number) -> u64 {
    serde_json::to_value(number).ok().and_then(|number| number.as_u64()).unwrap_or(0)
}

/// A list of words as one string, separated by commas.
fn string_list(array: &Array) -> Option<ObjectBuilder> {
    let ArrayItems::RefOrSchema(items) = &array.items else { return None };
    let RefOr::T(Schema::Object(item)) = &**items else { return None };
    let words: Vec<&str> = item.enum_values.as_ref()?.iter().filter_map(Json::as_str).collect();
    let word = words.join("|");
    Some(string().pattern(Some(format!(r"^\s*({word})\s*(,\s*({word})\s*)*$"))))
}

fn without_null(types: &SchemaType) -> SchemaType {
    match types {
        SchemaType::Array(types) => match types.iter().find(|one| **one != Type::Null) {
            Some(one) => SchemaType::Type(one.clone()),
            None => SchemaType::Type(Type::Null),
        },
        one => one.clone(),
    }
}
