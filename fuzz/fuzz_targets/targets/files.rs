//! The targets `backup` and `digests`: files with checksums of their own.
//!
//! Job: read any bytes as such a file, and encode again what was accepted.
//! Invariant: it is the same file, byte for byte.
//! Must never: accept a file only because its checksum was made right; that is the last of many
//! checks.

use aws_lc_rs::digest::{SHA256, digest};
use odometer::store::embedded::backup::format::{BackupEncoder, HEADER_BYTES, Header, read};
use odometer::store::embedded::codec::key::BUCKETS;
use odometer::store::embedded::state::digests::BucketDigests;

use super::{FOLLOW, MEND, mend_bucket, mend_header, mend_record};

const BACKUP_MAGIC: [u8; 8] = *b"ODOBCKP1";
const END: [u8; 4] = [0xFF; 4];
const DIGESTS_MAGIC: [u8; 8] = *b"ODOSEAL1";
const DIGESTS_BYTES: usize = 32 + BUCKETS as usize * 8;

/// Flags and the file; [`FOLLOW`] puts the records in order.
pub(crate) fn backup(input: &[u8]) -> bool {
    let Some((&flags, bytes)) = input.split_first() else { return false };
    let mended = (flags & MEND != 0).then(|| mend_backup(bytes, flags)).flatten();
    let bytes = mended.as_deref().unwrap_or(bytes);
    let mut records = Vec::new();
    let read = read(bytes, &mut |key, record| {
        records.push((key.to_vec(), record.to_vec()));
        Ok(())
    });
    // Whoever takes the records may give up, and that is told.
    let refused =
        odometer::store::embedded::backup::format::read(bytes, &mut |_, _| Err("no".to_owned()));
    assert!(refused.is_err() || records.is_empty());
    let Ok(summary) = read else { return false };
    assert_eq!(Header::decode(bytes), Some(summary.header));
    assert_eq!((summary.records, summary.bytes), (records.len() as u64, bytes.len() as u64));
    let mut encoder = BackupEncoder::new(&summary.header);
    let mut again = Vec::new();
    for (key, record) in &records {
        encoder.add(key, record);
        again.extend(encoder.take());
    }
    again.extend(encoder.finish());
    assert_eq!(again, bytes, "{summary:?}");
    true
}

/// The same header and records, with everything that proves them.
fn mend_backup(bytes: &[u8], flags: u8) -> Option<Vec<u8>> {
    let (header, mut rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let mut mended = header.to_vec();
    mend_header::<HEADER_BYTES>(&mut mended, BACKUP_MAGIC);
    let mut records = Vec::new();
    while let Some((&[a, b, c, d], behind)) = rest.split_first_chunk::<4>() {
        let (key, record) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let Some((key, behind)) = behind.split_at_checked(key.into()) else { break };
        let Some((record, behind)) = behind.split_at_checked(record.into()) else { break };
        let (mut key, mut record) = (key.to_vec(), record.to_vec());
        mend_bucket(&mut key);
        mend_record(key.get(2..).unwrap_or_default(), &mut record);
        records.push((key, record));
        rest = behind;
    }
    if flags & FOLLOW != 0 {
        records.sort();
        records.dedup_by(|one, other| one.0 == other.0);
    }
    for (key, record) in &records {
        for part in [key, record] {
            mended.extend_from_slice(&u16::try_from(part.len()).expect("it was one").to_be_bytes());
        }
        mended.extend_from_slice(key);
        mended.extend_from_slice(record);
    }
    mended.extend_from_slice(&END);
    mended.extend_from_slice(&(records.len() as u64).to_be_bytes());
    let sha = digest(&SHA256, &mended);
    mended.extend_from_slice(sha.as_ref());
    Some(mended)
}

/// Flags and the start of the file. Its table is large and always of one size, so [`FOLLOW`] fills
/// it up with zeros.
pub(crate) fn digests(input: &[u8]) -> bool {
    let Some((&flags, bytes)) = input.split_first() else { return false };
    let mut bytes = bytes.to_vec();
    if flags & FOLLOW != 0 {
        bytes.resize(bytes.len().max(DIGESTS_BYTES), 0);
    }
    if flags & MEND != 0 {
        if let Some(magic) = bytes.first_chunk_mut() {
            *magic = DIGESTS_MAGIC;
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
    }
    let Some(mut decoded) = BucketDigests::decode(&bytes) else { return false };
    assert!(
        BucketDigests::encode(decoded.checkpointed, decoded.target, &decoded.table) == bytes,
        "other bytes than were read"
    );
    for bucket in [0, BUCKETS - 1, BUCKETS, u16::MAX] {
        let wanted = decoded.table.get(usize::from(bucket)).copied();
        assert!(
            !decoded.is_verified(bucket)
                && decoded.verify(bucket, wanted.unwrap_or(0).wrapping_add(1)).is_err()
        );
        assert_eq!(decoded.verify(bucket, wanted.unwrap_or(0)).is_ok(), wanted.is_some());
        assert_eq!(decoded.is_verified(bucket), wanted.is_some());
    }
    true
}
