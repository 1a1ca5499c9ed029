//! What is answered: the attributes of each resource, and the documents that hold them.
//!
//! Job: types that serde writes and utoipa describes. Invariant: members stand in the order of
//! their fields; what is always there is required, and there is no other member.
//! Must never: show a secret, but a key in the response to its creation.

use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::counter::{MAX_COUNT, Step};
use crate::domain::time_format::{date, rfc3339};
use crate::http::extract::values::{AnyValue, Whole};
use crate::http::jsonapi::Attributes;
use crate::http::openapi::resources::{Document, PageDocument, ResourceSchema};
use crate::http::openapi::schema::string;
use crate::store::{CounterState, Issued, KeyRecord};

/// A count of integers.
pub(crate) type Count = Whole<1, { MAX_COUNT as u64 }>;
/// By how much an increment raises a counter.
pub(crate) type StepSize = Whole<{ Step::ONE.get() }, { Step::MAX.get() }>;
type Number = Whole<0, { u32::MAX as u64 }>;

macro_rules! resources {
    ($($name:ident: $type:literal, $id:ident, $document:literal, $resource:expr;)+) => {$(
        impl Attributes for $name {
            const TYPE: &'static str = $type;
        }
        impl ResourceSchema for $name {
            const ID: crate::http::openapi::resources::Id = crate::http::openapi::resources::Id::$id;
            const DOCUMENT: &'static str = $document;
            const RESOURCE: Option<&'static str> = $resource;
        }
    )+};
}

resources! {
    Integer: "user_integer", Tenant, "Integer", None;
    IncrementedInteger: "user_integer", Tenant, "IncrementedInteger", None;
    IssuedRange: "counter", Counter, "Range", None;
    Counter: "counter", Counter, "Counter", Some("CounterResource");
    Key: "key", Key, "Key", Some("KeyResource");
    NewKey: "key", Key, "NewKey", None;
    User: "user", Tenant, "User", None;
    NewTenant: "tenant", Tenant, "NewTenant", None;
    Tenant: "tenant", Tenant, "Tenant", None;
}

/// Documents by the names that the OpenAPI document gives them.
pub(crate) type IntegerDocument = Document<Integer>;
/// The old route's answer to an increment.
pub(crate) type IncrementedIntegerDocument = Document<IncrementedInteger>;
/// Issued integers.
pub(crate) type RangeDocument = Document<IssuedRange>;
/// A counter.
pub(crate) type CounterDocument = Document<Counter>;
/// Counters.
pub(crate) type CountersDocument = PageDocument<Counter>;
/// Keys.
pub(crate) type KeysDocument = PageDocument<Key>;
/// A key that was just made.
pub(crate) type NewKeyDocument = Document<NewKey>;
/// A tenant of the old route.
pub(crate) type UserDocument = Document<User>;
/// A tenant that just registered.
pub(crate) type NewTenantDocument = Document<NewTenant>;
/// A tenant.
pub(crate) type TenantDocument = Document<Tenant>;

/// The counter `default`, as the old application answered it.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Integer {
    /// The value issued last, or that was set.
    #[schema(inline)]
    pub(crate) value: AnyValue,
}

/// Integers of the counter `default`: the value alone, unless a count was asked for.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IncrementedInteger {
    /// The value after the increment: the integer that was issued, or the last of them.
    #[schema(inline)]
    value: AnyValue,
    /// With `count`: the first integer that was issued.
    #[schema(inline, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<AnyValue>,
    /// With `count`: the last one; it is `value`.
    #[schema(inline, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<AnyValue>,
    /// With `count`: how many they are.
    #[schema(inline, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<Count>,
}

impl IncrementedInteger {
    /// `with_range`: a count was asked for.
    pub(crate) fn new(issued: &Issued, with_range: bool) -> Self {
        let IssuedRange { value, first, last, count } = IssuedRange::from(issued);
        let of_range = |value| with_range.then_some(value);
        Self {
            value,
            first: of_range(first),
            last: of_range(last),
            count: with_range.then_some(count),
        }
    }
}

/// Integers of a counter.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuedRange {
    /// The counter's value after the increment.
    #[schema(inline)]
    value: AnyValue,
    /// The first integer that was issued.
    #[schema(inline)]
    first: AnyValue,
    /// The last one; it is `value`. Between them are all that are a step apart.
    #[schema(inline)]
    last: AnyValue,
    /// How many they are.
    #[schema(inline)]
    count: Count,
}

impl From<&Issued> for IssuedRange {
    fn from(Issued { range, .. }: &Issued) -> Self {
        let last = range.last.into();
        Self { value: last, first: range.first.into(), last, count: Whole(range.count.into()) }
    }
}

/// A counter.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counter {
    /// The value issued last, or `start` before the first increment.
    #[schema(inline)]
    value: AnyValue,
    /// The value before the first increment, which issues `start` + `step`.
    #[schema(inline)]
    start: AnyValue,
    /// By how much an increment raises it.
    #[schema(inline)]
    step: StepSize,
    /// The smallest value that it may be set to.
    #[schema(inline)]
    min: AnyValue,
    /// The largest value that it may reach.
    #[schema(inline)]
    max: AnyValue,
    /// Whether it may be set to a lower value without `rewind`.
    rewindable: bool,
    /// Null for `default`, which always was.
    #[schema(required = true, format = DateTime)]
    created_at: Option<String>,
}

impl Counter {
    /// `is_default`: it is the counter that always was.
    pub(crate) fn new(state: &CounterState, is_default: bool) -> Self {
        let shape = state.counter.config();
        Self {
            value: state.counter.value().into(),
            start: shape.start().into(),
            step: Whole(shape.step().get()),
            min: shape.min().into(),
            max: shape.max().into(),
            rewindable: shape.rewindable(),
            created_at: (!is_default).then(|| rfc3339(state.created_unix_s)),
        }
    }
}

/// The name of a scope, as a schema.
pub(crate) struct Scope;

impl PartialSchema for Scope {
    fn schema() -> RefOr<Schema> {
        string().enum_values(Some(["read", "increment", "manage"])).into()
    }
}

impl ToSchema for Scope {}

/// An API key.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// What people call it.
    #[schema(max_length = 100)]
    label: String,
    /// What it may do.
    #[schema(inline, value_type = Vec<Scope>)]
    scopes: Vec<&'static str>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// From when on it is refused; null: never.
    #[schema(required = true, format = DateTime)]
    expires_at: Option<String>,
    /// The last day, in UTC, on which it was used.
    #[schema(required = true, format = Date)]
    last_used_on: Option<String>,
}

impl From<&KeyRecord> for Key {
    fn from(record: &KeyRecord) -> Self {
        Self {
            label: record.label.as_str().to_owned(),
            scopes: record.scopes.names().collect(),
            created_at: rfc3339(record.created_unix_s),
            expires_at: record.expires_unix_s.map(rfc3339),
            last_used_on: record.last_used_day.map(date),
        }
    }
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// What people call it.
    #[schema(max_length = 100)]
    label: String,
    /// What it may do.
    #[schema(inline, value_type = Vec<Scope>)]
    scopes: Vec<&'static str>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// From when on it is refused; null: never.
    #[schema(required = true, format = DateTime)]
    expires_at: Option<String>,
    /// The last day, in UTC, on which it was used.
    #[schema(required = true, format = Date)]
    last_used_on: Option<String>,
    /// The key itself. It is shown this once and never again.
    #[schema(pattern = "^odo_[0-9a-f]{16}_[0-9a-f]{72}$")]
    api_key: String,
}

impl NewKey {
    /// `api_key` is the whole key.
    pub(crate) fn new(record: &KeyRecord, api_key: String) -> Self {
        let Key { label, scopes, created_at, expires_at, last_used_on } = record.into();
        Self { label, scopes, created_at, expires_at, last_used_on, api_key }
    }
}

/// A tenant, as the old application answered its registration.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    /// The key itself. It is shown this once and never again.
    #[schema(pattern = "^odo_[0-9a-f]{16}_[0-9a-f]{72}$")]
    pub(crate) api_key: String,
}

/// A tenant that just registered.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenant {
    /// Its name, as it was typed.
    #[schema(pattern = "^[A-Za-z0-9._%+@-]+$", max_length = 128)]
    pub(crate) username: String,
    /// When it registered.
    #[schema(format = DateTime)]
    pub(crate) created_at: String,
    /// The key itself. It is shown this once and never again.
    #[schema(pattern = "^odo_[0-9a-f]{16}_[0-9a-f]{72}$")]
    pub(crate) api_key: String,
}

/// A tenant.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tenant {
    /// Its name, as it was typed.
    #[schema(pattern = "^[A-Za-z0-9._%+@-]+$", max_length = 128)]
    pub(crate) username: String,
    /// When it registered.
    #[schema(format = DateTime)]
    pub(crate) created_at: String,
    /// Beside `default`.
    #[schema(inline)]
    pub(crate) counters: QuotaUsage,
    /// Expired ones among them.
    #[schema(inline)]
    pub(crate) keys: QuotaUsage,
    /// How many requests it may make, as `1000/s:2000`: 1,000 a second, 2,000 at once. Null: any number.
    #[schema(required = true)]
    pub(crate) rate_limit: Option<String>,
}

/// How many there are and may be.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotaUsage {
    /// How many there are.
    #[schema(inline)]
    count: Number,
    /// How many there may be.
    #[schema(inline)]
    limit: Number,
}

impl QuotaUsage {
    /// So many of so many.
    pub(crate) fn new(count: u32, limit: u32) -> Self {
        Self { count: Whole(count.into()), limit: Whole(limit.into()) }
    }
}
