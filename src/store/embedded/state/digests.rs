//! Bucket digests: checksums kept beside sled that detect stale or corrupt records in it.
//!
//! Job: keep one digest for each bucket of records in a file of its own. A flipped bit in sled's
//! file can make sled return an older version of a record without an error: its checksum matches,
//! and it is stale. The digest of its bucket then does not match.
//!
//! ```text
//! digest of a bucket = sum over its records of SHA-256(storage key, record), 64 bits, wrapping.
//! A checkpoint from c0 to c1 costs two hashes for each changed record:
//!   1  new = table - hash(each record that will be replaced)
//!      save (checkpointed c0, target c1, new)
//!   2  sled: write the records, sync, record c1;  new += hash(each new record)
//!   3  save (checkpointed c1, target c1, new)
//! ```
//! A crash between 1 and 3 leaves sled with some of the new records. The saved table is then the
//! digest of all *other* records, and the journal has the changed ones from c0 on: their keys are
//! *in flight*, which means excluded from the sums and overlaid by the memtable until the next
//! checkpoint.
//!
//! Invariant: a bucket whose digest matched at its first use holds exactly what the last checkpoint
//! wrote, keys in flight excluded.
//! Must never: be computed anew from what sled holds.

use std::collections::HashSet;

use aws_lc_rs::digest::{Context, SHA256};

use crate::failpoint::failpoint;
use crate::store::embedded::codec::key::{BUCKETS, bucket_of_storage_key};
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition};

const MAGIC: [u8; 8] = *b"ODOSEAL1";
const HEADER_BYTES: usize = 32;
const TABLE_BYTES: usize = BUCKETS as usize * 8;

/// One digest for each bucket.
pub type DigestTable = Vec<u64>;

/// The digest table with the checkpoint that it belongs to.
pub struct BucketDigests {
    /// The last complete checkpoint.
    pub checkpointed: LogPosition,
    /// The checkpoint that was started last; equal to `checkpointed` when none is in progress.
    pub target: LogPosition,
    /// The digest that each bucket must have, keys in flight excluded.
    pub table: DigestTable,
    /// Storage keys whose records in sled may be those of `checkpointed` or those of `target`.
    pub in_flight: HashSet<Vec<u8>>,
    verified: Vec<bool>,
}

/// The digest of one record.
#[must_use]
pub fn digest(storage_key: &[u8], record: &[u8]) -> u64 {
    let mut context = Context::new(&SHA256);
    // The length separates key and record: ("ab", "c") and ("a", "bc") have different digests.
    context.update(&u64::try_from(storage_key.len()).unwrap_or(u64::MAX).to_be_bytes());
    context.update(storage_key);
    let covered = if failpoint!("digest-of-part-of-a-record") { 8 } else { record.len() };
    context.update(record.get(..covered).unwrap_or(record));
    context.finish().as_ref().first_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// Adds a record to the digest of its bucket.
pub fn add(table: &mut DigestTable, storage_key: &[u8], record: &[u8]) {
    update(table, storage_key, |sum| sum.wrapping_add(digest(storage_key, record)));
}

/// Subtracts a record from the digest of its bucket.
pub fn subtract(table: &mut DigestTable, storage_key: &[u8], record: &[u8]) {
    update(table, storage_key, |sum| sum.wrapping_sub(digest(storage_key, record)));
}

fn update(table: &mut DigestTable, storage_key: &[u8], change: impl FnOnce(u64) -> u64) {
    if let Some(sum) = table.get_mut(usize::from(bucket_of_storage_key(storage_key))) {
        *sum = change(*sum);
    }
}

impl BucketDigests {
    /// The digests of an empty state.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(LogPosition::default(), LogPosition::default(), vec![0; BUCKETS.into()])
    }

    fn new(checkpointed: LogPosition, target: LogPosition, table: DigestTable) -> Self {
        let verified = vec![false; BUCKETS.into()];
        Self { checkpointed, target, table, in_flight: HashSet::new(), verified }
    }

    /// Finishes a checkpoint: `table` counts every record, and no key is in flight any more.
    pub fn finish_checkpoint(&mut self, checkpointed: LogPosition, table: DigestTable) {
        self.checkpointed = checkpointed;
        self.target = checkpointed;
        self.table = table;
        self.in_flight.clear();
    }

    /// Whether this process has verified the bucket.
    pub fn is_verified(&self, bucket: u16) -> bool {
        self.verified.get(usize::from(bucket)).copied().unwrap_or(false)
    }

    /// Compares `sum`, the sum of the digests of a bucket's records without those in flight, with
    /// the table.
    ///
    /// # Errors
    /// One sentence, if they differ.
    pub fn verify(&mut self, bucket: u16, sum: u64) -> Result<(), String> {
        let index = usize::from(bucket);
        if self.table.get(index) != Some(&sum) && !failpoint!("bucket-digest-not-compared") {
            return Err(format!("sled returned other records than were written (bucket {bucket})"));
        }
        self.verified[index] = true;
        Ok(())
    }

    /// The bytes of the digest file: magic, `checkpointed` and `target` as sequence number and CRC,
    /// the table, and a CRC32C over all of it; integers are big-endian.
    #[must_use]
    pub fn encode(checkpointed: LogPosition, target: LogPosition, table: &DigestTable) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + TABLE_BYTES + 4);
        bytes.extend_from_slice(&MAGIC);
        for position in [checkpointed, target] {
            bytes.extend_from_slice(&position.seq.0.to_be_bytes());
            bytes.extend_from_slice(&position.crc.to_be_bytes());
        }
        table.iter().for_each(|digest| bytes.extend_from_slice(&digest.to_be_bytes()));
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Decodes a digest file; `None` if the bytes are not a valid one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let is_whole = body.len() == HEADER_BYTES + TABLE_BYTES;
        let is_valid = is_whole && crc32c::crc32c(body).to_be_bytes() == *crc;
        let rest = body.strip_prefix(&MAGIC).filter(|_| is_valid)?;
        let (checkpointed, rest) = read_position(rest)?;
        let (target, rest) = read_position(rest)?;
        let (digests, _) = rest.as_chunks::<8>();
        let table = digests.iter().map(|digest| u64::from_be_bytes(*digest)).collect();
        Some(Self::new(checkpointed, target, table))
    }
}

fn read_position(bytes: &[u8]) -> Option<(LogPosition, &[u8])> {
    let (seq, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let seq = CommitSeq(u64::from_be_bytes(*seq));
    let position = LogPosition { seq, crc: u32::from_be_bytes(*crc) };
    (seq <= CommitSeq::MAX).then_some((position, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_decodes_and_corruption_does_not() {
        let position = |seq, crc| LogPosition { seq: CommitSeq(seq), crc };
        let table: DigestTable = (0..u64::from(BUCKETS)).map(|n| n * 77).collect();
        let bytes = BucketDigests::encode(position(5, 6), position(7, 8), &table);
        let decoded = BucketDigests::decode(&bytes).unwrap();
        assert_eq!((decoded.checkpointed, decoded.target), (position(5, 6), position(7, 8)));
        assert_eq!(decoded.table, table);
        for bit in (0..bytes.len() * 8).step_by(997) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(BucketDigests::decode(&flipped).is_none());
        }
        assert!(BucketDigests::decode(&bytes[..bytes.len() - 1]).is_none());
    }

    #[test]
    fn a_bucket_is_verified_by_its_sum_alone() {
        let mut digests = BucketDigests::empty();
        digests.table[3] = digest(b"k", b"v").wrapping_add(digest(b"l", b"w"));
        assert!(digests.verify(3, digest(b"k", b"v")).is_err());
        assert!(!digests.is_verified(3));
        digests.verify(3, digest(b"l", b"w").wrapping_add(digest(b"k", b"v"))).unwrap();
        assert!(digests.is_verified(3));
        assert_ne!(digest(b"ab", b"c"), digest(b"a", b"bc"));
    }

    #[test]
    fn a_digest_covers_every_bit_of_key_and_record() {
        let (key, record) = ([7; 40], [9; 600]);
        let whole = digest(&key, &record);
        for bit in 0..key.len() * 8 {
            let mut other = key;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest(&other, &record), whole, "bit {bit} of the key");
        }
        for bit in 0..record.len() * 8 {
            let mut other = record;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest(&key, &other), whole, "bit {bit} of the record");
        }
        assert_ne!(digest(&key, &record[..599]), whole, "the end of the record");
    }
}
