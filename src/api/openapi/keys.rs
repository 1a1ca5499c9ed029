//! Operations on API keys.
//!
//! Job: one function for each. Invariant: a key is shown once, when it is made. Must never: show one that works.

use hyper::StatusCode;
use serde_json::{Value as Json, json};

use super::operation::Op;
use super::refusals;
use super::resources::{example, example_page};
use super::schema::{Kind, Param};
use crate::api::keys::LONGEST_LIFE_S;
use crate::tenant::KeyLabel;

const TAG: &str = "keys";

fn attributes() -> Json {
    let created_at = "2026-11-24T09:00:00Z";
    let scopes = ["increment"];
    json!({ "label": "till 7", "scopes": scopes, "created_at": created_at, "expires_at": null, "last_used_on": null })
}

pub(super) fn create(op: Op) -> Op {
    let label = format!("What people call it: up to {} visible ASCII characters and spaces.", KeyLabel::MAX_BYTES);
    let scopes = "What it may do, as a list or separated by commas; all three if not given.";
    let params = [
        Param::optional("label", Kind::Text(0, KeyLabel::MAX_BYTES, Some("^[ -~]*$")), label).such_as("till 7"),
        Param::optional("scopes", Kind::Scopes, scopes).such_as(["increment"].as_slice()),
        Param::optional(
            "expires_at",
            Kind::Moment,
            "From when on it is refused, RFC 3339 in UTC, in the future. Or `expires_in`; neither: never.",
        ),
        Param::optional(
            "expires_in",
            Kind::Whole(1, LONGEST_LIFE_S),
            format!("The same in seconds from now, 1 to {LONGEST_LIFE_S} (ten years)."),
        ),
    ];
    let mut new = attributes();
    new["api_key"] = format!("odo_5fbfa5948d5fa1ea_{}", "0".repeat(72)).into();
    op.named(TAG, "createKey", "Make a key.")
        .about("It is shown in this answer and never again.")
        .sending(r#"-d "label=till 7" -d scopes=increment"#)
        .body("key", &params, false)
        .answers(StatusCode::CREATED, "The new key.", "NewKey", example("key", "5fbfa5948d5fa1ea", new))
        .header("Location")
        .leads_to("id", "$response.body#/data/id", ["revokeKey"])
        .refuses(refusals::invalid(["invalid_parameter", "invalid_value"]))
        .refuses([refusals::parameters(), refusals::quota(), refusals::changing()].concat())
}

pub(super) fn list(op: Op) -> Op {
    op.named(TAG, "listKeys", "List the keys.")
        .about("By id, without the keys themselves; expired ones too.")
        .shared_parameter("PageSize")
        .parameter(utoipa::openapi::path::ParameterIn::Query, &after())
        .answers(
            StatusCode::OK,
            "Keys, and where the list goes on.",
            "Keys",
            example_page("key", "5fbfa5948d5fa1ea", attributes()),
        )
        .refuses(refusals::invalid(["invalid_parameter", "invalid_value"]))
        .refuses([refusals::parameters(), refusals::asking()].concat())
}

fn after() -> Param {
    let id = Kind::Text(16, 16, Some(super::resources::KEY_ID));
    Param::optional(
        "page[after]",
        id,
        "Behind which one to go on: take the whole of `links.next` instead of building this.",
    )
}

pub(super) fn revoke(op: Op) -> Op {
    op.named(TAG, "revokeKey", "Revoke a key.")
        .about("It is refused from the next request on. A key may revoke itself.")
        .shared_parameter("KeyId")
        .answers_nothing("It is refused from now on.")
        .refuses([refusals::parameters(), refusals::body(), refusals::named_key(), refusals::changing()].concat())
}
