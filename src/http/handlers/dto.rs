//! The attributes of resources in responses, and the documents that contain them.
//!
//! Job: types that serde serializes and utoipa describes.
//! Invariant: members have the order of the fields; a member that is always present is required,
//! and there are no other members.
//! Must never: show a secret, except a key in the response to its creation.

use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::counter::{MAX_COUNT, Step};
use crate::domain::time_format::{date, rfc3339};
use crate::http::extract::values::{AnyValue, Whole};
use crate::http::jsonapi::Attributes;
use crate::http::openapi::resources::{Document, Id, PageDocument, ResourceSchema};
use crate::http::openapi::schema::string;
use crate::store::{CounterState, Issued, KeyRecord};

/// The API key in examples.
pub(crate) const EXAMPLE_KEY: &str = "odo_5fbfa5948d5fa1ea_\
    000000000000000000000000000000000000000000000000000000000000000000000000";
/// A number of integers.
pub(crate) type Count = Whole<1, { MAX_COUNT as u64 }>;
/// The amount that an increment adds.
pub(crate) type StepSize = Whole<{ Step::ONE.get() }, { Step::MAX.get() }>;
type Number = Whole<0, { u32::MAX as u64 }>;

macro_rules! resources {
    ($($name:ident: $type:literal, $id:ident, $document:literal, $resource:expr;)+) => {$(
        impl Attributes for $name {
            const TYPE: &'static str = $type;
        }
        impl ResourceSchema for $name {
            const ID: Id = Id::$id;
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

/// The value of the counter `default`.
pub(crate) type IntegerDocument = Document<Integer>;
/// The compatible route's response to an increment.
pub(crate) type IncrementedIntegerDocument = Document<IncrementedInteger>;
/// Issued integers.
pub(crate) type RangeDocument = Document<IssuedRange>;
/// A counter.
pub(crate) type CounterDocument = Document<Counter>;
/// A page of counters.
pub(crate) type CountersDocument = PageDocument<Counter>;
/// A page of keys.
pub(crate) type KeysDocument = PageDocument<Key>;
/// A new key.
pub(crate) type NewKeyDocument = Document<NewKey>;
/// A tenant that registered through the compatible route.
pub(crate) type UserDocument = Document<User>;
/// A new tenant.
pub(crate) type NewTenantDocument = Document<NewTenant>;
/// A tenant.
pub(crate) type TenantDocument = Document<Tenant>;

/// The counter `default`, as the application that Odometer replaces showed it.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Integer {
    /// The value issued last or set.
    #[schema(inline)]
    pub(crate) value: AnyValue,
}

/// Issued integers of the counter `default`: the value alone, unless the request has a count.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IncrementedInteger {
    /// The value after the increment: the issued integer, or the last one.
    #[schema(inline)]
    value: AnyValue,
    /// With `count`: the first issued integer.
    #[schema(inline, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<AnyValue>,
    /// With `count`: the last issued integer, equal to `value`.
    #[schema(inline, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<AnyValue>,
    /// With `count`: the number of issued integers.
    #[schema(inline, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<Count>,
}

impl IncrementedInteger {
    /// `with_range`: the request has a count.
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

/// Issued integers of a counter.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuedRange {
    /// The counter's value after the increment.
    #[schema(inline)]
    value: AnyValue,
    /// The first issued integer.
    #[schema(inline)]
    first: AnyValue,
    /// The last issued integer, equal to `value`. The integers are a step apart.
    #[schema(inline)]
    last: AnyValue,
    /// The number of issued integers.
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
    /// The amount that an increment adds.
    #[schema(inline)]
    step: StepSize,
    /// The smallest value that the counter may be set to.
    #[schema(inline)]
    min: AnyValue,
    /// The largest value that the counter may reach.
    #[schema(inline)]
    max: AnyValue,
    /// Whether the counter may be set to a lower value without `rewind`.
    rewindable: bool,
    /// The time of the creation; null for `default`, which always exists.
    #[schema(required = true, format = DateTime)]
    created_at: Option<String>,
}

impl Counter {
    /// `is_default`: it is the counter `default`.
    pub(crate) fn new(state: &CounterState, is_default: bool) -> Self {
        let config = state.counter.config();
        Self {
            value: state.counter.value().into(),
            start: config.start().into(),
            step: Whole(config.step().get()),
            min: config.min().into(),
            max: config.max().into(),
            rewindable: config.rewindable(),
            created_at: (!is_default).then(|| rfc3339(state.created_unix_s)),
        }
    }
}

/// The schema of a scope's name.
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
    /// The label.
    #[schema(max_length = 100)]
    label: String,
    /// The scopes.
    #[schema(inline, value_type = Vec<Scope>)]
    scopes: Vec<&'static str>,
    /// The time of the creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// When the key expires; null if it never does.
    #[schema(required = true, format = DateTime)]
    expires_at: Option<String>,
    /// The date of the last use, in UTC; null if it was never used.
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

/// A new key.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// The label.
    #[schema(max_length = 100)]
    label: String,
    /// The scopes.
    #[schema(inline, value_type = Vec<Scope>)]
    scopes: Vec<&'static str>,
    /// The time of the creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// When the key expires; null if it never does.
    #[schema(required = true, format = DateTime)]
    expires_at: Option<String>,
    /// The date of the last use, in UTC; null if it was never used.
    #[schema(required = true, format = Date)]
    last_used_on: Option<String>,
    /// The key itself. It is shown once and never again.
    #[schema(pattern = "^odo_[0-9a-f]{16}_[0-9a-f]{72}$")]
    api_key: String,
}

impl NewKey {
    /// `api_key`: the whole key.
    pub(crate) fn new(record: &KeyRecord, api_key: String) -> Self {
        let Key { label, scopes, created_at, expires_at, last_used_on } = record.into();
        Self { label, scopes, created_at, expires_at, last_used_on, api_key }
    }
}

/// A new tenant, as the application that Odometer replaces showed it.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    /// The key itself. It is shown once and never again.
    #[schema(pattern = "^odo_[0-9a-f]{16}_[0-9a-f]{72}$")]
    pub(crate) api_key: String,
}

/// A new tenant.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenant {
    /// The name, as registered.
    #[schema(pattern = "^[A-Za-z0-9._%+@-]+$", max_length = 128)]
    pub(crate) username: String,
    /// The time of the registration.
    #[schema(format = DateTime)]
    pub(crate) created_at: String,
    /// The key itself. It is shown once and never again.
    #[schema(pattern = "^odo_[0-9a-f]{16}_[0-9a-f]{72}$")]
    pub(crate) api_key: String,
}

/// A tenant.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tenant {
    /// The name, as registered.
    #[schema(pattern = "^[A-Za-z0-9._%+@-]+$", max_length = 128)]
    pub(crate) username: String,
    /// The time of the registration.
    #[schema(format = DateTime)]
    pub(crate) created_at: String,
    /// The counters, not counting `default`.
    #[schema(inline)]
    pub(crate) counters: QuotaUsage,
    /// The API keys, including expired ones.
    #[schema(inline)]
    pub(crate) keys: QuotaUsage,
    /// The rate limit, such as `1000/s:2000`: 1,000 requests a second, 2,000 at once. Null: no
    /// limit.
    #[schema(required = true)]
    pub(crate) rate_limit: Option<String>,
}

/// The usage of a quota.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotaUsage {
    /// The current number.
    #[schema(inline)]
    count: Number,
    /// The maximum number.
    #[schema(inline)]
    limit: Number,
}

impl QuotaUsage {
    /// `count` of at most `limit`.
    pub(crate) fn new(count: u32, limit: u32) -> Self {
        Self { count: Whole(count.into()), limit: Whole(limit.into()) }
    }
}
