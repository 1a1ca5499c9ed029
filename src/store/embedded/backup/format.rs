//! The format of a backup: every record as of one commit, in one file with its own checksums.
//!
//! Job: encode a backup in chunks ([`BackupEncoder`]), and read and verify one ([`read`]).
//!
//! ```text
//! header, 64 bytes                             then the records, storage keys ascending
//!  0 magic "ODOBCKP1"                           0 key length    u16   at most 65534
//!  8 store id  16 bytes                         2 record length u16
//! 24 seq       u64  CommitSeq of the last       4 key, record         as in sled, see
//!                   commit in it                                      codec/record.rs
//! 32 crc       u32  crc of that frame          then the end
//! 36 created   u64  seconds since 1970          0 FFFF FFFF
//! 44 zeros                                      4 count   u64         number of records
//! 60 crc       u32  CRC32C over 0 .. 60        12 SHA-256             over everything before it
//! ```
//! All integers are big-endian. The frame's crc tells whether a journal continues where the backup
//! ends: the commit with the next number may be one of another history.
//! Invariant: what [`read`] accepts is, byte for byte, what a [`BackupEncoder`] encoded.
//! Must never: accept a file with data after its end.

use std::fmt;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};
use thiserror::Error;

use crate::failpoint::failpoint;
use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::reader::DecodeError;
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition, StoreId};

/// Size of the header in bytes.
pub const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"ODOBCKP1";
const END: [u8; 4] = [0xFF; 4];
const SHA_BYTES: usize = 32;

/// The header at the start of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The store that was backed up.
    pub store: StoreId,
    /// The last commit in the backup: every commit up to it is included, and no later one.
    pub position: LogPosition,
    /// When the backup was made, in seconds since 1970.
    pub created_unix_s: u64,
}

/// Summary of a complete, verified backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its header.
    pub header: Header,
    /// The number of records.
    pub records: u64,
    /// The size of the file in bytes.
    pub bytes: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seq, records, bytes) = (self.header.position.seq, self.records, self.bytes);
        write!(f, "every commit up to {seq}, {records} records, {bytes} bytes, verified")
    }
}

/// Why a backup file cannot be used.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The operating system returned an error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is not a complete, intact backup.
    #[error("not a whole backup: {problem} (at byte {offset})")]
    Bad {
        /// What is wrong.
        problem: String,
        /// The offset in the file, in bytes.
        offset: u64,
    },
    /// The record visitor aborted; its reason.
    #[error("{0}")]
    Aborted(String),
}

impl Header {
    /// The encoded header.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.store);
        bytes[24..32].copy_from_slice(&self.position.seq.0.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.position.crc.to_be_bytes());
        bytes[36..44].copy_from_slice(&self.created_unix_s.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[0..60]);
        bytes[60..64].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Decodes a header; `None` if the bytes are not a valid one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let header = Self {
            store: bytes[8..24].try_into().ok()?,
            position: LogPosition {
                seq: CommitSeq(u64::from_be_bytes(bytes[24..32].try_into().ok()?)),
                crc: u32::from_be_bytes(bytes[32..36].try_into().ok()?),
            },
            created_unix_s: u64::from_be_bytes(bytes[36..44].try_into().ok()?),
        };
        let is_valid = header.position.seq <= CommitSeq::MAX && header.encode() == *bytes;
        is_valid.then_some(header)
    }
}

/// Encodes a backup; its bytes are taken in chunks.
pub struct BackupEncoder {
    sha: Context,
    records: u64,
    buffer: Vec<u8>,
}

impl BackupEncoder {
    /// An encoder that starts with the header.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        Self { sha: Context::new(&SHA256), records: 0, buffer: header.encode().to_vec() }
    }

    /// Adds a record; storage keys must be added in ascending order.
    ///
    /// # Panics
    /// If the key or the record is longer than 64 KiB, which no key or record of this store is.
    pub fn add(&mut self, storage_key: &[u8], record: &[u8]) {
        for part in [storage_key, record] {
            let length = u16::try_from(part.len());
            let length = length.unwrap_or_else(|_| unreachable!("keys and records are shorter"));
            self.buffer.extend_from_slice(&length.to_be_bytes());
        }
        self.buffer.extend_from_slice(storage_key);
        self.buffer.extend_from_slice(record);
        self.records += 1;
    }

    /// Takes the bytes that were added since the last call.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.sha.update(&self.buffer);
        std::mem::take(&mut self.buffer)
    }

    /// Takes the remaining bytes, which include the end of the backup.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.buffer.extend_from_slice(&END);
        self.buffer.extend_from_slice(&self.records.to_be_bytes());
        let mut rest = std::mem::take(&mut self.buffer);
        self.sha.update(&rest);
        rest.extend_from_slice(self.sha.finish().as_ref());
        rest
    }
}

/// Called with the storage key and the bytes of each record; an error aborts the reading.
pub type RecordVisitor<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), String>;

/// Reads and verifies a whole backup and passes each record to `visit`. The records must not be
/// used before this returned, because the checksum over all of them is verified last.
///
/// # Errors
/// [`BackupError`]: the file is not what a [`BackupEncoder`] encoded, an I/O error, or the error of
/// `visit`.
pub fn read(from: impl Read, visit: RecordVisitor<'_>) -> Result<Summary, BackupError> {
    let from = io::BufReader::with_capacity(1 << 16, from);
    let mut reader = BackupReader { from, sha: Context::new(&SHA256), offset: 0 };
    let header: [u8; HEADER_BYTES] = reader.array()?;
    let header = Header::decode(&header).ok_or_else(|| reader.bad("the header is not valid"))?;
    let (mut records, mut last_key, mut key, mut record) = (0, Vec::new(), Vec::new(), Vec::new());
    loop {
        let lengths: [u8; 4] = reader.array()?;
        if lengths == END {
            break;
        }
        let [a, b, c, d] = lengths;
        reader.fill(&mut key, u16::from_be_bytes([a, b]))?;
        reader.fill(&mut record, u16::from_be_bytes([c, d]))?;
        if records > 0 && key <= last_key {
            return Err(reader.bad("the keys are not in ascending order"));
        }
        let invalid = |error: DecodeError| reader.bad(&error.to_string());
        let decoded_key = RecordKey::from_storage_key(&key).map_err(invalid)?;
        let key_bytes = key.get(2..).unwrap_or_default();
        Record::decode(&decoded_key, key_bytes, &record).map_err(invalid)?;
        visit(&key, &record).map_err(BackupError::Aborted)?;
        records += 1;
        std::mem::swap(&mut last_key, &mut key);
    }
    if u64::from_be_bytes(reader.array()?) != records {
        return Err(reader.bad("the number of records does not match"));
    }
    // The checksum covers everything before itself, so it is computed before it is read.
    let computed = reader.sha.clone().finish();
    let stored: [u8; SHA_BYTES] = reader.array()?;
    if computed.as_ref() != stored && !failpoint!("backup-digest-not-compared") {
        return Err(reader.bad("the SHA-256 does not match"));
    }
    if reader.from.read(&mut [0])? != 0 && !failpoint!("backup-with-more-accepted") {
        return Err(reader.bad("there is data after the end"));
    }
    Ok(Summary { header, records, bytes: reader.offset })
}

/// Counts and hashes the bytes that it reads.
struct BackupReader<R> {
    from: R,
    sha: Context,
    offset: u64,
}

impl<R: Read> BackupReader<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<(), BackupError> {
        match self.from.read_exact(into) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.bad("the file is truncated here"));
            }
            Err(error) => return Err(error.into()),
        }
        self.sha.update(into);
        self.offset += into.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut Vec<u8>, length: u16) -> Result<(), BackupError> {
        bytes.clear();
        bytes.resize(length.into(), 0);
        self.read(bytes)
    }

    fn bad(&self, problem: &str) -> BackupError {
        BackupError::Bad { problem: problem.to_owned(), offset: self.offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tenant::TenantId;
    use crate::store::embedded::state::KeyValue;

    const HEADER: Header = Header {
        store: [7; 16],
        position: LogPosition { seq: CommitSeq(9), crc: 0xAB },
        created_unix_s: 1_700_000_000,
    };

    fn sample() -> (Vec<u8>, Vec<KeyValue>) {
        let mut entries: Vec<_> = (0..9)
            .map(|n| {
                let (key, mut record) = (RecordKey::Name(format!("n{n}")), Vec::new());
                let storage_key = key.to_storage_key();
                let key_crc = crc32c::crc32c(&storage_key[2..]);
                Record::Name(TenantId(n)).encode(key_crc, &mut record);
                (storage_key, record)
            })
            .collect();
        entries.sort();
        let mut encoder = BackupEncoder::new(&HEADER);
        let mut bytes = Vec::new();
        for (key, record) in &entries {
            encoder.add(key, record);
            bytes.extend(encoder.take());
        }
        bytes.extend(encoder.finish());
        (bytes, entries)
    }

    fn read_all(bytes: &[u8]) -> Result<(Summary, Vec<KeyValue>), BackupError> {
        let mut records = Vec::new();
        let summary = read(bytes, &mut |key, record| {
            records.push((key.to_vec(), record.to_vec()));
            Ok(())
        })?;
        Ok((summary, records))
    }

    #[test]
    fn what_was_encoded_is_read() {
        let (bytes, entries) = sample();
        let (summary, records) = read_all(&bytes).unwrap();
        assert_eq!(summary, Summary { header: HEADER, records: 9, bytes: bytes.len() as u64 });
        assert_eq!(records, entries);
    }

    #[test]
    fn every_flipped_bit_every_truncation_and_every_addition_is_rejected() {
        let (bytes, _) = sample();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read_all(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(read_all(&bytes[..length]).is_err(), "length {length}");
        }
        assert!(read_all(&[bytes.as_slice(), b"\0"].concat()).is_err());
    }
}
