//! Faults of the commit path: the counter rule, idempotency keys, replies, quotas, what a tenant
//! sees.

use super::Failpoint;

const SMALL: (&str, &str) = ("store", "counter_rule::small_counters");

const LARGE: (&str, &str) = ("store", "counter_rule::counters_at_the_end");

const VERSIONS: (&str, &str) =
    ("store", "contract::stories::every_store_tells_the_story_of_versions");

pub(super) const FAILPOINTS: &[Failpoint] = &[
    Failpoint::new(
        "credential-not-proved",
        "A change of credentials is made for a password or key that was replaced meanwhile.",
        ("store", "contract::stories::every_store_proves"),
    ),
    Failpoint::new(
        "key-epoch-not-compared",
        "Keys that were revoked all at once stay valid until their records are removed.",
        ("store", "contract::stories::keys_are_revoked_before"),
    ),
    Failpoint::new(
        "batch-replay-not-compared",
        "Another request with an idempotency key of the same batch is answered as the first.",
        ("simulation", "turns::a_key_is_used_once"),
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
        ("simulation", "turns::a_batch_without_room"),
    ),
    Failpoint::new(
        "increments-counted-before-commit",
        "The increments of a batch that had no room are counted.",
        ("simulation", "turns::a_batch_without_room"),
    ),
    Failpoint::new(
        "key-of-another-tenant-found",
        "An idempotency key is looked up under another tenant.",
        ("store", "contract::stories::every_store_tells_the_story"),
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
        ("store", "contract::stories::every_store_tells_the_story"),
    ),
    Failpoint::new(
        "start-below-minimum-accepted",
        "A counter may start one below its minimum.",
        SMALL,
    ),
    Failpoint::new(
        "start-above-maximum-accepted",
        "A counter may start one above its maximum.",
        SMALL,
    ),
    Failpoint::new("range-one-short", "An increment by n adds n - 1 steps.", SMALL),
    Failpoint::new(
        "range-begins-one-too-low",
        "The first integer of a range is one too low.",
        SMALL,
    ),
    Failpoint::new(
        "maximum-never-issued",
        "A counter is exhausted one integer before its maximum.",
        SMALL,
    ),
    Failpoint::new(
        "increment-wraps-around",
        "An increment that exceeds 64 bits is taken for a small one.",
        LARGE,
    ),
    Failpoint::new(
        "set-below-minimum-accepted",
        "A counter may be set to one below its minimum.",
        SMALL,
    ),
    Failpoint::new(
        "set-above-maximum-accepted",
        "A counter may be set to one above its maximum.",
        SMALL,
    ),
    Failpoint::new(
        "set-to-the-same-value-refused",
        "A set to the value that a counter has needs rewind.",
        SMALL,
    ),
    Failpoint::new(
        "precondition-of-a-set-ignored",
        "A counter in another state than If-Match says is set.",
        VERSIONS,
    ),
    Failpoint::new(
        "precondition-of-a-deletion-ignored",
        "A counter in another state than If-Match says is deleted.",
        VERSIONS,
    ),
    Failpoint::new(
        "generation-of-a-deleted-counter-reused",
        "A counter gets the versions of a deleted one of its name.",
        VERSIONS,
    ),
    Failpoint::new(
        "reply-before-its-commit",
        "A change is answered when it was decided.",
        ("simulation", "turns::an_answer_and_a_reader_wait"),
    ),
    Failpoint::new(
        "change-shown-before-its-commit",
        "Readers see a value that is not durable.",
        ("simulation", "turns::an_answer_and_a_reader_wait"),
    ),
    Failpoint::new(
        "increment-from-the-committed-value",
        "An increment overwrites an earlier one of its batch.",
        ("simulation", "turns::changes_of_one_batch"),
    ),
    Failpoint::new(
        "first-record-of-a-batch-not-published",
        "Of a batch only the later records are shown to readers.",
        ("simulation", "turns::changes_of_one_batch"),
    ),
    Failpoint::new(
        "deferred-command-executed-twice",
        "A change that waited for its record is made twice.",
        ("simulation", "turns::a_deferred_change"),
    ),
    Failpoint::new(
        "rolled-back-change-stays-in-the-cache",
        "What a refused batch changed is the base of the next one.",
        ("simulation", "turns::a_batch_without_room"),
    ),
    Failpoint::new(
        "refused-increments-counted-later",
        "The increments of a refused batch are counted with the next one.",
        ("simulation", "turns::a_batch_without_room"),
    ),
    Failpoint::new(
        "replay-answered-by-a-failed-commit",
        "A replay of a change whose frame failed is answered as done.",
        ("simulation", "turns::a_commit_that_failed"),
    ),
    Failpoint::new(
        "page-removed-by-a-read-only-store",
        "A poisoned store goes on to remove expired idempotency keys.",
        ("simulation", "turns::a_poisoned_store"),
    ),
];
