//! Faults of the commit path: the counter rule, idempotency keys, replies, quotas, what a tenant
//! sees.

use super::Failpoint;

pub(super) const FAILPOINTS: &[Failpoint] = &[
    Failpoint::new(
        "batch-replay-not-compared",
        "Another request with an idempotency key of the same batch is answered as the first.",
        ("simulation", "batch::a_key_stands_for_one_request"),
    ),
    Failpoint::new(
        "counter-of-another-tenant",
        "A counter is looked up under another tenant.",
        ("it", "api::isolation::somebody_elses_things"),
    ),
    Failpoint::new(
        "counter-quota-not-checked",
        "A tenant may have any number of counters.",
        ("it", "api::counters::no_more_counters_than_the_quota"),
    ),
    Failpoint::new(
        "deleted-counter-listed",
        "The index entry of a deleted counter stays.",
        ("it", "api::lists::counters_are_listed_once_each"),
    ),
    Failpoint::new(
        "idempotency-forgotten-at-start",
        "A start does not index the stored idempotency keys.",
        ("it", "api::idempotency::the_same_request_is_answered_again"),
    ),
    Failpoint::new(
        "idempotency-not-rolled-back",
        "Idempotency keys of a batch that was not committed stay in the table.",
        ("simulation", "batch::a_batch_without_room"),
    ),
    Failpoint::new(
        "increments-counted-before-commit",
        "The increments of a batch that had no room are counted.",
        ("simulation", "batch::a_batch_without_room"),
    ),
    Failpoint::new(
        "key-of-another-tenant-found",
        "An idempotency key is looked up under another tenant.",
        ("store", "contract::every_store_tells_the_story"),
    ),
    Failpoint::new(
        "key-quota-not-checked",
        "A tenant may have any number of API keys.",
        ("it", "api::keys::no_more_than_a_hundred_keys"),
    ),
    Failpoint::new(
        "maximum-not-checked",
        "An increment passes the counter's maximum.",
        ("it", "api::counters::refused_changes"),
    ),
    Failpoint::new(
        "page-expires-early",
        "Each commit removes one page of idempotency keys more than have expired.",
        ("lib", "idempotency::tests::a_key_is_found_until_it_is_a_day_old"),
    ),
    Failpoint::new(
        "revoked-key-valid",
        "Revoking an API key leaves its record.",
        ("it", "api::keys::a_revoked_key_is_refused"),
    ),
    Failpoint::new(
        "rewind-not-asked-for",
        "A counter can be set to a lower value without rewind.",
        ("it", "api::counters::a_counters_day"),
    ),
    Failpoint::new(
        "taken-name-registered",
        "A name that is taken can be registered.",
        ("store", "contract::every_store_tells_the_story"),
    ),
];
