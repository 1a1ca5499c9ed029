//! Seals: how the store knows that what sled returns is what was written, and the newest of it.
//!
//! Job: a digest for each bucket of records, kept beside sled and not in it. A flipped bit in sled's file can make sled return, without a
//! word, the record that was there before: its checksum is right, and it is old. The bucket's digest is then wrong.
//!
//! ```text
//! digest of a bucket = sum of SHA-256(stored key, record) over its records, 64 bits, wrapping; so a change costs two hashes:
//! a checkpoint from c0 to c1    1  new = table - hash(each old record that will be replaced)     save (covered c0, target c1, new)
//!                               2  sled: put, sync, covered = c1;  new += hash(each new record)
//!                               3                                                                save (covered c1, target c1, new)
//! ```
//! Between 1 and 3 a crash leaves sled with some of the new records. The table is then that of all *other* records, and the journal has
//! the new ones from c0 on: they are *loose*, left out of the sum and laid over sled until the next checkpoint.
//!
//! Invariant: a bucket whose digest was right at its first use holds, loose records aside, exactly what the last checkpoint wrote.
//! Must never: be rebuilt from what sled holds.

use std::collections::HashSet;

use aws_lc_rs::digest::{Context, SHA256};

use crate::store::embedded::codec::key::{BUCKETS, bucket_of_storage_key};
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition};

const MAGIC: [u8; 8] = *b"ODOSEAL1";
const HEADER_BYTES: usize = 32;
const TABLE_BYTES: usize = BUCKETS as usize * 8;

/// One digest for each bucket.
pub type DigestTable = Vec<u64>;

/// See the module's text.
pub struct BucketDigests {
    /// The checkpoint that the table is of.
    pub checkpointed: LogPosition,
    /// The checkpoint that was begun; the same one when none is under way.
    pub target: LogPosition,
    /// What each bucket's digest must be, loose records left out.
    pub table: DigestTable,
    /// Stored keys whose records in sled may be of `checkpointed` or of `target`.
    pub in_flight: HashSet<Vec<u8>>,
    verified: Vec<bool>,
}

/// The digest of one record.
#[must_use]
pub fn digest(stored_key: &[u8], record: &[u8]) -> u64 {
    let mut context = Context::new(&SHA256);
    context.update(&u64::try_from(stored_key.len()).unwrap_or(u64::MAX).to_be_bytes());
    context.update(stored_key);
    context.update(record);
    context.finish().as_ref().first_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// Counts a record into its bucket.
pub fn add(table: &mut DigestTable, stored_key: &[u8], record: &[u8]) {
    change(table, stored_key, |sum| sum.wrapping_add(digest(stored_key, record)));
}

/// Takes a record out of its bucket.
pub fn subtract(table: &mut DigestTable, stored_key: &[u8], record: &[u8]) {
    change(table, stored_key, |sum| sum.wrapping_sub(digest(stored_key, record)));
}

fn change(table: &mut DigestTable, stored_key: &[u8], change: impl FnOnce(u64) -> u64) {
    if let Some(sum) = table.get_mut(usize::from(bucket_of_storage_key(stored_key))) {
        *sum = change(*sum);
    }
}

impl BucketDigests {
    /// The seals of a state that was never written.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(LogPosition::default(), LogPosition::default(), vec![0; BUCKETS.into()])
    }

    fn new(checkpointed: LogPosition, target: LogPosition, table: DigestTable) -> Self {
        Self { checkpointed, target, table, in_flight: HashSet::new(), verified: vec![false; BUCKETS.into()] }
    }

    /// The checkpoint is complete: `table` is of everything.
    pub fn finish_checkpoint(&mut self, checkpointed: LogPosition, table: DigestTable) {
        self.checkpointed = checkpointed;
        self.target = checkpointed;
        self.table = table;
        self.in_flight.clear();
    }

    /// Whether the bucket was proved by this process.
    #[must_use]
    pub fn is_verified(&self, bucket: u16) -> bool {
        self.verified.get(usize::from(bucket)).copied().unwrap_or(false)
    }

    /// Compares the sum of a bucket's records, loose ones left out, with the table.
    ///
    /// # Errors
    /// One sentence, if they differ.
    pub fn verify(&mut self, bucket: u16, sum: u64) -> Result<(), String> {
        let at = usize::from(bucket);
        if self.table.get(at) != Some(&sum) {
            return Err(format!("sled holds other records than were written (bucket {bucket})"));
        }
        self.verified[at] = true;
        Ok(())
    }

    /// The bytes of the seals' file: magic, covered and target as number and chain, the table, a CRC32C; all big-endian.
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

    /// Reads a seals' file; `None` if the bytes are not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let whole = body.len() == HEADER_BYTES + TABLE_BYTES && crc32c::crc32c(body).to_be_bytes() == *crc;
        let rest = body.strip_prefix(&MAGIC).filter(|_| whole)?;
        let (checkpointed, rest) = read_position(rest)?;
        let (target, rest) = read_position(rest)?;
        let (digests, _) = rest.as_chunks::<8>();
        Some(Self::new(checkpointed, target, digests.iter().map(|digest| u64::from_be_bytes(*digest)).collect()))
    }
}

fn read_position(bytes: &[u8]) -> Option<(LogPosition, &[u8])> {
    let (seq, rest) = bytes.split_first_chunk()?;
    let (chain, rest) = rest.split_first_chunk()?;
    let position = LogPosition { seq: CommitSeq(u64::from_be_bytes(*seq)), crc: u32::from_be_bytes(*chain) };
    (position.seq <= CommitSeq::MAX).then_some((position, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_decodes_and_damage_does_not() {
        let position = |seq, chain| LogPosition { seq: CommitSeq(seq), crc: chain };
        let table: DigestTable = (0..u64::from(BUCKETS)).map(|n| n * 77).collect();
        let bytes = BucketDigests::encode(position(5, 6), position(7, 8), &table);
        let seals = BucketDigests::decode(&bytes).unwrap();
        assert_eq!((seals.checkpointed, seals.target, &seals.table), (position(5, 6), position(7, 8), &table));
        for bit in (0..bytes.len() * 8).step_by(997) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(BucketDigests::decode(&flipped).is_none());
        }
        assert!(BucketDigests::decode(&bytes[..bytes.len() - 1]).is_none());
    }

    #[test]
    fn a_bucket_is_proved_by_its_sum_alone() {
        let mut seals = BucketDigests::empty();
        seals.table[3] = digest(b"k", b"v").wrapping_add(digest(b"l", b"w"));
        assert!(seals.verify(3, digest(b"k", b"v")).is_err());
        assert!(!seals.is_verified(3));
        seals.verify(3, digest(b"l", b"w").wrapping_add(digest(b"k", b"v"))).unwrap();
        assert!(seals.is_verified(3));
        assert_ne!(digest(b"ab", b"c"), digest(b"a", b"bc"));
    }
}
