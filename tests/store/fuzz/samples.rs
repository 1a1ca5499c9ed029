//! The corpus files that are real encodings.
//!
//! Job: make them, from a store's point of view: a record of each kind, segments that follow one
//! another, a backup, digests.
//! Invariant: they are the same bytes at every time.
//! Must never: be the whole corpus; texts, and what a fuzzer found, stand in it as files only.

use odometer::domain::api_key::{KeyId, KeyLabel, Scopes, SecretHash};
use odometer::domain::counter::{Counter, CounterConfig, CounterName, Range, Value};
use odometer::domain::tenant::{PasswordHash, TenantId, TenantLimit, TenantName};
use odometer::store::embedded::backup::format::{BackupEncoder, Header};
use odometer::store::embedded::codec::idempotency_page::{
    IdempotencyEntry, IdempotencyPage, StoredResult,
};
use odometer::store::embedded::codec::key::{IndexEntry, RecordKey};
use odometer::store::embedded::codec::record::Record;
use odometer::store::embedded::journal::frame::{
    CommitSeq, LogPosition, NextFrame, SegmentHeader, encode_checkpoint, encode_commit,
};
use odometer::store::embedded::state::digests::BucketDigests;
use odometer::store::{CounterState, Issued, KeyRecord, TenantRecord, TenantUsage, Version};

use super::targets::{FOLLOW, MEND};

/// Target, file name and bytes.
pub(crate) type Sample = (&'static str, String, Vec<u8>);

const SYSTEM_TENANT: [u8; 16] = *b"a store's number";
const SEGMENT_BYTES: u64 = 1536;

/// See the module's text.
pub(crate) fn all() -> Vec<Sample> {
    let mut samples: Vec<Sample> =
        records().iter().enumerate().flat_map(|(at, one)| record_samples(at, one)).collect();
    for (name, flags) in [("as-written", 0), ("mended", MEND), ("followed", MEND | FOLLOW)] {
        samples.push(("frame", name.to_owned(), with_flags(flags, &folder())));
        samples.push(("backup", name.to_owned(), with_flags(flags, &backup())));
        samples.push(("digests", name.to_owned(), with_flags(flags, &digests())));
    }
    samples.push(("frame", "lone-frame".to_owned(), with_flags(0, &file(2, &frames(1, 0).0))));
    samples
}

fn with_flags(flags: u8, bytes: &[u8]) -> Vec<u8> {
    [&[flags], bytes].concat()
}

fn records() -> Vec<(RecordKey, Record)> {
    let password =
        PasswordHash { memory_kib: 19456, passes: 2, lanes: 1, salt: [7; 16], hash: [9; 32] };
    let name = TenantName::parse("Alice").unwrap();
    let limit = TenantLimit::Rate("5/m:9".parse().unwrap());
    let tenant = TenantRecord {
        name,
        password,
        created_unix_s: 5,
        suspended: true,
        limit,
        deleting: false,
        key_epoch: 3,
    };
    let key = KeyRecord {
        tenant: TenantId(3),
        secret: SecretHash([1; 32]),
        label: KeyLabel::parse("of the build").unwrap(),
        scopes: Scopes::READ,
        created_unix_s: 6,
        expires_unix_s: Some(7),
        last_used_day: Some(8),
        epoch: 3,
    };
    let value = |raw| Value::new(raw).unwrap();
    let version = Version { generation: 1, revision: 2 };
    let state = CounterState {
        counter: Counter::from_parts(value(41), CounterConfig::DEFAULT).unwrap(),
        version,
        created_unix_s: 9,
    };
    let range = Range { first: value(40), last: value(41), count: 2 };
    let answered = |given| IdempotencyEntry {
        tenant: TenantId(3),
        key_hash: [1; 16],
        request_fingerprint: [2; 16],
        result: given,
    };
    let list = vec![
        answered(StoredResult::Issued(Issued { range, version })),
        answered(StoredResult::State(state)),
    ];
    vec![
        (RecordKey::Tenants, Record::Tenants(4)),
        (RecordKey::Tenant(TenantId(3)), Record::Tenant(tenant.into())),
        (RecordKey::Name("alice".into()), Record::Name(TenantId(3))),
        (RecordKey::ApiKey(KeyId([2; 8])), Record::ApiKey(key.into())),
        (RecordKey::Counter(TenantId(3), CounterName::default_counter()), Record::Counter(state)),
        (RecordKey::IndexEntry(TenantId(3), IndexEntry::ApiKey(KeyId([2; 8]))), Record::IndexEntry),
        (
            RecordKey::Usage(TenantId(3)),
            Record::Usage(TenantUsage { counters: 0, keys: 1, counters_created: 0 }),
        ),
        (
            RecordKey::IdempotencyPage(7),
            Record::IdempotencyPage(IdempotencyPage { store_uptime_s: 99, entries: list }.into()),
        ),
    ]
}

fn encoded(key: &RecordKey, record: &Record) -> (Vec<u8>, Vec<u8>) {
    let (mut key_bytes, mut record_bytes) = (Vec::new(), Vec::new());
    key.encode(&mut key_bytes);
    record.encode(crc32c::crc32c(&key_bytes), &mut record_bytes);
    (key_bytes, record_bytes)
}

fn record_samples(at: usize, (key, record): &(RecordKey, Record)) -> Vec<Sample> {
    let (key_bytes, record_bytes) = encoded(key, record);
    let length = u8::try_from(key_bytes.len()).unwrap();
    let whole = [&[length], key_bytes.as_slice(), &record_bytes].concat();
    vec![
        ("record", format!("{at}-as-written"), with_flags(0, &whole)),
        ("record", format!("{at}-mended"), with_flags(MEND, &whole)),
        ("record", format!("{at}-stored-key"), with_flags(MEND, &key.to_storage_key())),
    ]
}

/// Two commits and a checkpoint from `seq` on, and the CRC of the last.
fn frames(seq: u64, chain: u32) -> (Vec<u8>, u32) {
    let (mut bytes, records) = (Vec::new(), records());
    let expected =
        |at: u64, chain| NextFrame { epoch: seq, seq: CommitSeq(seq + at), prev_crc: chain };
    let some = records.iter().skip(2).map(|(key, record)| (key, Some(record)));
    let chain = encode_commit(&mut bytes, expected(0, chain), some);
    let chain = encode_commit(
        &mut bytes,
        expected(1, chain),
        records.iter().take(1).map(|(key, _)| (key, None)),
    );
    let chain = encode_checkpoint(&mut bytes, expected(2, chain), CommitSeq(seq));
    (bytes, chain)
}

fn segment(seq: u64, chain: u32) -> (Vec<u8>, u32) {
    let header = SegmentHeader {
        store: SYSTEM_TENANT,
        epoch: seq,
        first_seq: CommitSeq(seq),
        prev_crc: chain,
        allocated_bytes: SEGMENT_BYTES,
    };
    let mut bytes = header.encode().to_vec();
    let (frames, chain) = frames(seq, chain);
    bytes.extend(frames);
    bytes.resize(usize::try_from(SEGMENT_BYTES).unwrap(), 0);
    (bytes, chain)
}

fn file(name: u8, bytes: &[u8]) -> Vec<u8> {
    [&[name], u16::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat()
}

/// Two segments and the note of the newest.
fn folder() -> Vec<u8> {
    let (first, chain) = segment(1, 0);
    let (second, _) = segment(4, chain);
    let number = 2u64.to_be_bytes();
    let note = [number.as_slice(), &crc32c::crc32c(&number).to_be_bytes()].concat();
    [file(3, &first), file(4, &second), file(0, &note)].concat()
}

fn backup() -> Vec<u8> {
    let mark = LogPosition { seq: CommitSeq(9), crc: 0xAB };
    let mut encoder = BackupEncoder::new(&Header {
        store: SYSTEM_TENANT,
        position: mark,
        created_unix_s: 1_700_000_000,
    });
    let mut entries: Vec<_> = records()
        .iter()
        .map(|(key, record)| (key.to_storage_key(), encoded(key, record).1))
        .collect();
    entries.sort();
    entries.iter().for_each(|(key, record)| encoder.add(key, record));
    encoder.finish()
}

/// The start of the file; the target fills it up.
fn digests() -> Vec<u8> {
    let mark = |seq, chain| LogPosition { seq: CommitSeq(seq), crc: chain };
    let mut bytes =
        BucketDigests::encode(mark(5, 6), mark(7, 8), &(0..16).map(|bucket| bucket * 77).collect());
    bytes.truncate(bytes.len() - 4);
    bytes
}
