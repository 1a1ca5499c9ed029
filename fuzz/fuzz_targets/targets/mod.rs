//! The bodies of the fuzz targets: the fuzz crate runs them under libFuzzer, `tests/store/fuzz`
//! runs them in `cargo test`.
//!
//! Job: one function for each target, from any bytes to nothing or a panic. It returns whether
//! something was accepted, so that a corpus can be proved to reach behind the first check.
//! Invariant: what the server accepts encodes to the bytes that it was read from, and everything
//! else is refused in an orderly way.
//! Must never: depend on a clock, a random number or a file; the same input must do the same at
//! every time.
//!
//! A checksum stops nearly every mutation. Inputs for formats with checksums therefore start with a
//! byte of flags, which may ask to have them made right before the input is read ([`MEND`]); what
//! is fuzzed then is everything behind the checksum.
#![allow(dead_code, reason = "each binary of the fuzz crate runs one of the targets")]

mod files;
mod frames;
mod memory;
mod texts;

use odometer::store::embedded::codec::key::{BUCKETS, RecordKey};
use odometer::store::embedded::codec::record::Record;

pub(crate) use self::files::{backup, digests};
pub(crate) use self::frames::frame;
pub(crate) use self::texts::{body, key};

/// A target's name, which is also that of its corpus, and its body.
pub(crate) type Target = (&'static str, fn(&[u8]) -> bool);

/// All targets.
pub(crate) const TARGETS: [Target; 6] = [
    ("frame", frame),
    ("record", record),
    ("backup", backup),
    ("digests", digests),
    ("body", body),
    ("key", key),
];

/// Flag of an input: its checksums are made right.
pub(crate) const MEND: u8 = 1;
/// Flag of an input: what must follow something else is made to follow it.
pub(crate) const FOLLOW: u8 = 2;

const CRC_BYTES: usize = 4;

/// Flags, the key's length, the key, the record; and the bytes behind the flags as a stored key.
pub(crate) fn record(input: &[u8]) -> bool {
    let Some((&flags, rest)) = input.split_first() else { return false };
    let mut stored = rest.to_vec();
    if flags & MEND != 0 {
        mend_bucket(&mut stored);
    }
    let mut accepted = check_stored_key(&stored);
    let Some((&length, rest)) = rest.split_first() else { return accepted };
    let (key, record) = rest.split_at(rest.len().min(length.into()));
    let mut record = record.to_vec();
    if flags & MEND != 0 {
        mend_record(key, &mut record);
    }
    accepted |= check_record(key, &record);
    accepted
}

fn check_stored_key(bytes: &[u8]) -> bool {
    let Ok(key) = RecordKey::from_storage_key(bytes) else { return false };
    assert_eq!(key.to_storage_key(), bytes, "the stored key {key:?}");
    true
}

fn check_record(key_bytes: &[u8], bytes: &[u8]) -> bool {
    let Ok(key) = RecordKey::decode(key_bytes) else { return false };
    let mut again = Vec::new();
    key.encode(&mut again);
    assert_eq!(again, key_bytes, "the key {key:?}");
    assert!(RecordKey::from_storage_key(&key.to_storage_key()).is_ok_and(|stored| stored == key));
    let Ok(record) = Record::decode(&key, key_bytes, bytes) else { return false };
    let mut again = Vec::new();
    record.encode(crc32c::crc32c(key_bytes), &mut again);
    // A record of an earlier layout is read, and written in the present one.
    if again.first() == bytes.first() {
        assert_eq!(again, bytes, "the record {record:?}");
    }
    let decoded = Record::decode(&key, key_bytes, &again);
    assert!(decoded.is_ok_and(|decoded| decoded == record), "the record is another one");
    true
}

/// Puts a stored key into its own bucket.
fn mend_bucket(stored: &mut [u8]) {
    let Some((bucket, key)) = stored.split_first_chunk_mut::<2>() else { return };
    let own = crc32c::crc32c(key) % u32::from(BUCKETS);
    *bucket = u16::try_from(own).expect("there are fewer buckets").to_be_bytes();
}

/// Makes the CRC at a record's end right.
fn mend_record(key: &[u8], record: &mut [u8]) {
    let Some((body, crc)) = record.split_last_chunk_mut::<CRC_BYTES>() else { return };
    *crc = crc32c::crc32c_append(crc32c::crc32c(key), body).to_be_bytes();
}

/// Makes a CRC over everything before it right, where a header ends with one.
fn mend_header<const BYTES: usize>(bytes: &mut [u8], magic: [u8; 8]) {
    let Some(header) = bytes.first_chunk_mut::<BYTES>() else { return };
    header[..magic.len()].copy_from_slice(&magic);
    let crc = crc32c::crc32c(&header[..BYTES - CRC_BYTES]);
    header[BYTES - CRC_BYTES..].copy_from_slice(&crc.to_be_bytes());
}
