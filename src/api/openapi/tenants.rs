//! Operations on tenants: registering, and what only the tenant itself may do.
//!
//! Job: one function for each. Invariant: a password is taken in a body or as Basic, and is never answered. Must never: say whether a name or a password was wrong.

use hyper::StatusCode;
use serde_json::json;

use super::operation::Op;
use super::refusals;
use super::resources::{TENANT_NAME, example};
use super::schema::{Kind, Param};
use crate::auth::password::MAX_BYTES;
use crate::tenant::TenantName;

const TAG: &str = "tenants";
const NEW_PASSWORD: Kind = Kind::Secret(8, MAX_BYTES);

fn credentials() -> [Param; 2] {
    let name = format!(
        "1 to {} of `A-Z a-z 0-9 . _ % + @ -`. Two that differ only in case are the same.",
        TenantName::MAX_BYTES
    );
    [
        Param::required("username", Kind::Text(1, TenantName::MAX_BYTES, Some(TENANT_NAME)), name, "alice"),
        Param::required("password", NEW_PASSWORD, password(), "correct-horse-battery"),
    ]
}

fn password() -> String {
    format!(
        "8 to {MAX_BYTES} bytes of UTF-8, not among the most common passwords. The operator may ask for more or less."
    )
}

fn api_key() -> String {
    format!("odo_5fbfa5948d5fa1ea_{}", "0".repeat(72))
}

pub(super) fn register_user(op: Op) -> Op {
    let new = example("user", "1", json!({ "api_key": api_key() }));
    op.named(TAG, "registerUser", "Register a tenant, as before.")
        .about(
            "The route of the application that Odometer replaces. The key can do everything, \
                and is shown in this answer and never again.",
        )
        .sending("-d username=alice -d password=correct-horse-battery")
        .body("user", &credentials(), true)
        .answers(StatusCode::OK, "The new tenant and its key.", "User", new)
        .refuses(refusals::invalid(["invalid_username", "invalid_password", "invalid_parameter", "username_taken"]))
        .refuses([refusals::limited(), refusals::changing()].concat())
}

pub(super) fn register(op: Op) -> Op {
    let attributes = json!({ "username": "bob", "created_at": "2026-11-24T09:00:00Z", "api_key": api_key() });
    let [mut name, password] = credentials();
    name.example = Some("bob".into());
    op.named(TAG, "registerTenant", "Register a tenant.")
        .about("The key can do everything, and is shown in this answer and never again.")
        .sending("-d username=bob -d password=correct-horse-battery")
        .body("tenant", &[name, password], false)
        .answers(
            StatusCode::CREATED,
            "The new tenant and its first key.",
            "NewTenant",
            example("tenant", "2", attributes),
        )
        .refuses(refusals::invalid(["invalid_username", "invalid_password", "invalid_parameter"]))
        .refuses(
            [refusals::parameters(), refusals::username_taken(), refusals::limited(), refusals::changing()].concat(),
        )
}

pub(super) fn read(op: Op) -> Op {
    let attributes = json!({
        "username": "alice", "created_at": "2026-11-24T09:00:00Z",
        "counters": { "count": 1, "limit": 1000 }, "keys": { "count": 2, "limit": 100 },
        "rate_limit": "1000/s:2000",
    });
    op.named(TAG, "readTenant", "Read what is known of the tenant.")
        .about("The tenant is whoever the key or the name says.")
        .answers(StatusCode::OK, "The tenant.", "Tenant", example("tenant", "1", attributes))
        .refuses([refusals::parameters(), refusals::asking()].concat())
}

pub(super) fn change_password(op: Op) -> Op {
    let params = [
        Param::required("new_password", NEW_PASSWORD, password(), "staple-battery-horse"),
        Param::optional(
            "revoke_keys",
            Kind::Flag,
            "Whether every key of the tenant is revoked with it; false if not given.",
        )
        .such_as(false),
    ];
    op.named(TAG, "changePassword", "Change the password.")
        .about("The old one is refused from the next request on.")
        .sending("-u bob:correct-horse-battery -d new_password=staple-battery-horse")
        .body("tenant", &params, false)
        .answers_nothing("It is changed.")
        .refuses(refusals::invalid(["invalid_password", "invalid_parameter"]))
        .refuses([refusals::parameters(), refusals::changing()].concat())
}

pub(super) fn delete(op: Op) -> Op {
    op.named(TAG, "deleteTenant", "Delete the tenant.")
        .about(
            "Its keys are refused from then on, its counters are gone, and its name is free again. \
                There is no way back.",
        )
        .sending("-u bob:staple-battery-horse")
        .answers_nothing("It is gone.")
        .refuses([refusals::parameters(), refusals::body(), refusals::changing()].concat())
}
