//! Faults of the server: credentials, trust in proxies, preconditions, admin socket, drain.

use super::Failpoint;

pub(super) const FAILPOINTS: &[Failpoint] = &[
    Failpoint::new(
        "admin-socket-open-to-all",
        "The admin socket has mode 0666.",
        ("it", "admin::the_socket_is_for_the_servers_user_alone"),
    ),
    Failpoint::new(
        "announced-length-not-checked",
        "A body that is announced as too large is asked for and read.",
        ("it", "api::partial_requests::expect_continue_is_answered"),
    ),
    Failpoint::new(
        "body-length-not-checked",
        "A body without an announced length may have any length.",
        ("it", "api::refusals::a_body_has_4096_bytes_at_most"),
    ),
    Failpoint::new(
        "drain-cuts-http1-requests",
        "A drain drops HTTP/1.1 connections instead of letting their requests end.",
        ("it", "cli::signals::a_request_under_way_is_finished"),
    ),
    Failpoint::new(
        "drain-cuts-http2-requests",
        "A drain drops HTTP/2 connections instead of letting their requests end.",
        ("it", "cli::signals::a_stream_under_way_is_finished"),
    ),
    Failpoint::new(
        "drain-forgets-detached",
        "A drain does not wait for an audited change whose client left.",
        ("slow", "drain::a_change_whose_client_left"),
    ),
    Failpoint::new(
        "drain-waits-for-no-connection",
        "A drain does not wait for requests in flight.",
        ("it", "cli::signals::a_request_under_way_is_finished"),
    ),
    Failpoint::new(
        "forwarded-for-of-any-peer-believed",
        "X-Forwarded-For counts whoever sent it.",
        ("it", "api::observability::a_client_is_believed_to_be_elsewhere"),
    ),
    Failpoint::new(
        "generation-not-compared",
        "If-Match compares the revision alone, so a successor's tag matches.",
        ("it", "api::preconditions::a_tag_of_a_deleted_counter"),
    ),
    Failpoint::new(
        "hsts-in-a-plain-400",
        "The answer to an unreadable head has HSTS in clear.",
        ("it", "api::plain::no_answer_in_clear"),
    ),
    Failpoint::new(
        "hsts-over-plain-http",
        "Every answer has HSTS, those in clear too.",
        ("it", "api::plain::no_answer_in_clear"),
    ),
    Failpoint::new(
        "key-secret-not-compared",
        "The id of an API key is enough.",
        ("it", "api::keys::an_expired_key_is_as_an_unknown_one"),
    ),
    Failpoint::new(
        "key-valid-in-second-of-expiry",
        "An API key is valid for a second too long.",
        ("lib", "store::records::tests::a_key_is_rejected_from_the_second"),
    ),
    Failpoint::new(
        "login-throttle-not-enforced",
        "Passwords of one name can be tried without end.",
        ("it", "api::passwords::ten_wrong_passwords"),
    ),
    Failpoint::new(
        "password-not-compared",
        "Any password is right.",
        ("it", "api::passwords::a_wrong_name_and_a_wrong_password"),
    ),
    Failpoint::new(
        "rate-limit-not-enforced",
        "A request beyond the rate limit is served.",
        ("it", "api::limits::a_tenants_limit_is_its_own"),
    ),
    Failpoint::new(
        "rate-limit-not-spent",
        "A token comes back as soon as it was taken.",
        ("it", "api::limits::a_tenants_limit_is_its_own"),
    ),
    Failpoint::new(
        "rate-limit-per-key",
        "Each API key has the whole rate limit of its tenant.",
        ("it", "api::limits::all_keys_of_a_tenant"),
    ),
    Failpoint::new(
        "scope-not-checked",
        "An API key may do what its scopes do not allow.",
        ("it", "api::scopes::each_key_may_do_what_its_scopes_say"),
    ),
    Failpoint::new(
        "suspended-tenant-allowed",
        "A suspended tenant is served.",
        ("it", "admin::tenants_are_listed_suspended"),
    ),
    Failpoint::new(
        "unknown-parameter-ignored",
        "A mistyped parameter counts as missing.",
        ("it", "api::counters::refused_changes"),
    ),
    Failpoint::new(
        "unsupported-condition-ignored",
        "A condition that the route does not support is ignored.",
        ("it", "api::preconditions::a_condition_that_a_route_does_not_take"),
    ),
];
