//! Operations on counters: `default` by its old routes, and all of them by name.
//!
//! Job: one function for each. Invariant: what the old routes answer is described as it was; they ignore parameters that they do not know, the new ones refuse them.
//! Must never: promise a value.

use hyper::StatusCode;
use serde_json::json;

use super::operation::Op;
use super::refusals;
use super::resources::{COUNTER_NAME, example, example_counter, example_page};
use super::schema::{Kind, Param};
use crate::counter::{CounterName, MAX_COUNT, Step, Value};

const INTEGER: &str = "integer";
const COUNTERS: &str = "counters";
const ANY_VALUE: Kind = Kind::Whole(0, Value::LARGEST.get());

fn count() -> Param {
    let about = format!("How many integers, 1 to {MAX_COUNT}: a range of them, all or none. Without it one.");
    Param::optional("count", Kind::Whole(1, u64::from(MAX_COUNT)), about)
}

pub(super) fn read_integer(op: Op) -> Op {
    op.named(INTEGER, "readInteger", "Read the value.")
        .about("Never changes anything. What it shows is on disk.")
        .answers(StatusCode::OK, "The value.", "Integer", example("user_integer", "1", json!({ "value": 3 })))
        .header("ETag")
        .refuses(refusals::asking())
}

pub(super) fn set_integer(op: Op) -> Op {
    let max = Value::DEFAULT_MAX.get();
    let value =
        Param::required("value", Kind::Whole(1, max), format!("1 to {max}, higher or lower than before."), 1000);
    op.named(INTEGER, "setInteger", "Set the value.")
        .about("A lower value makes numbers repeat, and a higher one skips some: that is what it is for.")
        .sending("-d value=1000")
        .shared_parameter("IdempotencyKey")
        .shared_parameter("IfMatch")
        .body("user_integer", &[value], true)
        .answers(
            StatusCode::OK,
            "The value that was set.",
            "Integer",
            example("user_integer", "1", json!({ "value": 1000 })),
        )
        .header("ETag")
        .header("Idempotency-Replayed")
        .refuses(refusals::invalid(["invalid_value"]))
        .refuses(refusals::out_of_range())
        .refuses([refusals::changing(), refusals::once(), refusals::conditional()].concat())
}

pub(super) fn increment_integer(op: Op) -> Op {
    let example = example("user_integer", "1", json!({ "value": 2 }));
    op.named(INTEGER, "incrementInteger", "Take the next integer.")
        .about(
            "The value plus one, or with `count` the next so many. \
                A new counter stands at 1, so the first increment answers 2.",
        )
        .shared_parameter("IdempotencyKey")
        .body("user_integer", &[count()], true)
        .answers(StatusCode::OK, "The value after the increment.", "IncrementedInteger", example)
        .header("ETag")
        .header("Idempotency-Replayed")
        .refuses(refusals::invalid(["invalid_value"]))
        .refuses([refusals::exhausted(), refusals::changing(), refusals::once()].concat())
}

pub(super) fn list(op: Op) -> Op {
    let example = example_page("counter", "invoices", example_counter(5));
    op.named(COUNTERS, "listCounters", "List the counters.")
        .about("By name, `default` among them. Each counter is as new as a read of it; together they are no snapshot.")
        .shared_parameter("PageSize")
        .shared_parameter("PageAfter")
        .answers(StatusCode::OK, "Counters, and where the list goes on.", "Counters", example)
        .refuses(refusals::invalid(["invalid_parameter", "invalid_value"]))
        .refuses([refusals::parameters(), refusals::asking()].concat())
}

pub(super) fn create(op: Op) -> Op {
    let (largest, step) = (Value::LARGEST.get(), Step::LARGEST.get());
    let bound = |about: &str| format!("{about} 0 to {largest}, and `min` <= `start` <= `max`.");
    let name = format!("1 to {} of `A-Z a-z 0-9 . _ -`.", CounterName::MAX_BYTES);
    let max = format!(
        "The largest value that it may reach; {} if not given. {}",
        Value::DEFAULT_MAX,
        bound("More than that is for readers of JSON that keep 64 bits.")
    );
    let params = [
        Param::required("name", Kind::Text(1, CounterName::MAX_BYTES, Some(COUNTER_NAME)), name, "invoices"),
        Param::optional("start", ANY_VALUE, bound("The value before the first increment; `min` if not given."))
            .such_as(0),
        Param::optional(
            "step",
            Kind::Whole(1, step),
            format!("By how much an increment raises it, 1 to {step}; 1 if not given."),
        ),
        Param::optional(
            "min",
            ANY_VALUE,
            bound("The smallest value that it may be set to; 1 if not given, or `start` where that is 0."),
        ),
        Param::optional("max", ANY_VALUE, max),
        Param::optional(
            "rewindable",
            Kind::Flag,
            "Whether it may be set to a lower value without `rewind`; false if not given.",
        ),
    ];
    op.named(COUNTERS, "createCounter", "Create a counter.")
        .about(
            "Its bounds and its step never change. The first increment answers `start` + `step`. \
                `default` always exists.",
        )
        .sending("-d name=invoices -d start=0")
        .shared_parameter("IdempotencyKey")
        .body("counter", &params, false)
        .answers(StatusCode::CREATED, "The new counter.", "Counter", example("counter", "invoices", example_counter(0)))
        .header("Location")
        .header("ETag")
        .header("Idempotency-Replayed")
        .leads_to("name", "$response.body#/data/id", ["readCounter", "setCounter", "incrementCounter", "deleteCounter"])
        .refuses(refusals::invalid(["invalid_name", "invalid_value", "invalid_parameter"]))
        .refuses([refusals::parameters(), refusals::exists(), refusals::out_of_range(), refusals::quota()].concat())
        .refuses([refusals::changing(), refusals::once()].concat())
}

pub(super) fn read(op: Op) -> Op {
    op.named(COUNTERS, "readCounter", "Read a counter.")
        .about("Never changes anything. What it shows is on disk.")
        .shared_parameter("CounterName")
        .answers(StatusCode::OK, "The counter.", "Counter", example("counter", "invoices", example_counter(5)))
        .header("ETag")
        .refuses([refusals::parameters(), refusals::named_counter(), refusals::asking()].concat())
}

pub(super) fn set(op: Op) -> Op {
    let value = Param::required("value", ANY_VALUE, "Within the counter's `min` and `max`.", 1000);
    let rewind = Param::optional(
        "rewind",
        Kind::Flag,
        "Says that a lower value is meant, which makes numbers repeat; false if not given.",
    )
    .such_as(true);
    let after = example("counter", "invoices", example_counter(1000));
    op.named(COUNTERS, "setCounter", "Set a counter.")
        .about(
            "With `If-Match` it is a compare-and-set. A value lower than the counter's needs `rewind`, \
                or a counter that is rewindable.",
        )
        .sending("-d value=1000 -d rewind=true")
        .shared_parameter("CounterName")
        .shared_parameter("IdempotencyKey")
        .shared_parameter("IfMatch")
        .body("counter", &[value, rewind], false)
        .answers(StatusCode::OK, "The counter after that.", "Counter", after)
        .header("ETag")
        .header("Idempotency-Replayed")
        .refuses(refusals::invalid(["invalid_value", "invalid_parameter"]))
        .refuses([refusals::out_of_range(), refusals::rewind(), refusals::parameters()].concat())
        .refuses(refusals::named_counter())
        .refuses([refusals::changing(), refusals::once(), refusals::conditional()].concat())
}

pub(super) fn delete(op: Op) -> Op {
    op.named(COUNTERS, "deleteCounter", "Delete a counter.")
        .about("One of the same name that is created later starts anew. `default` can not be deleted.")
        .shared_parameter("CounterName")
        .shared_parameter("IfMatch")
        .answers_nothing("It is gone.")
        .refuses(
            [refusals::parameters(), refusals::body(), refusals::named_counter(), refusals::default_counter()].concat(),
        )
        .refuses([refusals::changing(), refusals::conditional()].concat())
}

pub(super) fn increment(op: Op) -> Op {
    let example = example("counter", "invoices", json!({ "value": 12, "first": 3, "last": 12, "count": 10 }));
    op.named(COUNTERS, "incrementCounter", "Take the next integers of a counter.")
        .about(
            "The value plus the step, or with `count` the next so many, each a step behind the one before; \
                all of them or none.",
        )
        .sending("-d count=10")
        .shared_parameter("CounterName")
        .shared_parameter("IdempotencyKey")
        .body("counter", &[count().such_as(10)], false)
        .answers(StatusCode::OK, "The integers that were issued.", "Range", example)
        .header("ETag")
        .header("Idempotency-Replayed")
        .refuses(refusals::invalid(["invalid_value"]))
        .refuses([refusals::exhausted(), refusals::parameters(), refusals::named_counter()].concat())
        .refuses([refusals::changing(), refusals::once()].concat())
}
