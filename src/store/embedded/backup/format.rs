//! A backup: every record as of one commit, in one file that proves itself.
//!
//! Job: the bytes of a backup file, written piece by piece ([`BackupEncoder`]) and read back ([`read`]).
//!
//! ```text
//! header, 64 bytes                             then the records, stored keys ascending
//!  0 magic "ODOBCKP1"                           0 key length    u16   at most 65534
//!  8 store id  16 bytes                         2 record length u16
//! 24 seq       u64  CommitSeq of the cut        4 key, record         as in sled, see record.rs
//! 32 chain     u32  crc of that frame          then the end
//! 36 created   u64  seconds since 1970          0 FFFF FFFF
//! 44 zeros                                      4 count   u64         how many records there were
//! 60 crc       u32  CRC32C over 0 .. 60        12 SHA-256             over everything before it
//! ```
//! All integers are big-endian. The chain tells whether a journal goes on where the backup ends: not every commit with the next number does.
//! Invariant: what [`read`] accepts is, byte for byte, what an [`BackupEncoder`] made. Must never: accept a file that goes on after its end.

use std::fmt;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};
use thiserror::Error;

use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition, StoreId};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"ODOBCKP1";
const END: [u8; 4] = [0xFF; 4];
const SHA_BYTES: usize = 32;

/// What stands at the start of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The store that it is of.
    pub store: StoreId,
    /// The cut: every commit up to this one is in it, and none behind.
    pub position: LogPosition,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
}

/// What a whole backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its header.
    pub header: Header,
    /// How many records it holds.
    pub records: u64,
    /// How long the file is.
    pub bytes: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seq, records, bytes) = (self.header.position.seq, self.records, self.bytes);
        write!(f, "every commit up to {seq}, {records} records, {bytes} bytes, verified")
    }
}

/// Why a file is not a backup to rely on.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not those of a backup.
    #[error("not a whole backup: {problem} (at byte {offset})")]
    Bad {
        /// What is wrong.
        problem: String,
        /// Where, in bytes.
        offset: u64,
    },
    /// Whoever took the records gave up.
    #[error("{0}")]
    Aborted(String),
}

impl Header {
    /// The header's bytes.
    #[must_use]
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

    /// Reads a header; `None` if the bytes are not one.
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
        (header.position.seq <= CommitSeq::MAX && header.encode() == *bytes).then_some(header)
    }
}

/// Makes a backup's bytes, to be taken in pieces.
pub struct BackupEncoder {
    sha: Context,
    records: u64,
    buffer: Vec<u8>,
}

impl BackupEncoder {
    /// Begins with the header.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        Self { sha: Context::new(&SHA256), records: 0, buffer: header.encode().to_vec() }
    }

    /// Adds a record; its stored key must follow the one before.
    ///
    /// # Panics
    /// If key or record are longer than any of this store are.
    pub fn add(&mut self, stored_key: &[u8], record: &[u8]) {
        for part in [stored_key, record] {
            let length =
                u16::try_from(part.len()).unwrap_or_else(|_| unreachable!("keys and records are under 600 bytes"));
            self.buffer.extend_from_slice(&length.to_be_bytes());
        }
        self.buffer.extend_from_slice(stored_key);
        self.buffer.extend_from_slice(record);
        self.records += 1;
    }

    /// How many bytes wait to be taken.
    #[must_use]
    pub fn buffered_len(&self) -> usize {
        self.buffer.len()
    }

    /// What was added since the last call, to be written.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.sha.update(&self.buffer);
        std::mem::take(&mut self.buffer)
    }

    /// The rest, with the end.
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

/// Takes a record, as stored key and record; an error ends the reading.
pub type RecordVisitor<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), String>;

/// Reads a backup from its first byte to its last and hands each record to `visit`, as stored key and record. Nothing that was handed over
/// may be believed before the whole was read.
///
/// # Errors
/// [`BackupError`]: where the file is not what an [`BackupEncoder`] made, what the system or `visit` said.
pub fn read(from: impl Read, visit: RecordVisitor<'_>) -> Result<Summary, BackupError> {
    let mut source =
        BackupReader { from: io::BufReader::with_capacity(1 << 16, from), sha: Context::new(&SHA256), offset: 0 };
    let head: [u8; HEADER_BYTES] = source.array()?;
    let header = Header::decode(&head).ok_or_else(|| source.bad("the header is not one"))?;
    let (mut records, mut last_key, mut key, mut record) = (0, Vec::new(), Vec::new(), Vec::new());
    loop {
        let lengths: [u8; 4] = source.array()?;
        if lengths == END {
            break;
        }
        let [a, b, c, d] = lengths;
        source.fill(&mut key, u16::from_be_bytes([a, b]))?;
        source.fill(&mut record, u16::from_be_bytes([c, d]))?;
        if records > 0 && key <= last_key {
            return Err(source.bad("a key does not follow the one before"));
        }
        let parsed = RecordKey::from_storage_key(&key).map_err(|error| source.bad(&error.to_string()))?;
        let plain = key.get(2..).unwrap_or_default();
        Record::decode(&parsed, plain, &record).map_err(|error| source.bad(&error.to_string()))?;
        visit(&key, &record).map_err(BackupError::Aborted)?;
        records += 1;
        std::mem::swap(&mut last_key, &mut key);
    }
    if u64::from_be_bytes(source.array()?) != records {
        return Err(source.bad("the count of records is another"));
    }
    let proved = source.sha.clone().finish();
    let sha: [u8; SHA_BYTES] = source.array()?;
    if proved.as_ref() != sha {
        return Err(source.bad("the SHA-256 is another"));
    }
    if source.from.read(&mut [0])? != 0 {
        return Err(source.bad("there is more behind the end"));
    }
    Ok(Summary { header, records, bytes: source.offset })
}

struct BackupReader<R> {
    from: R,
    sha: Context,
    offset: u64,
}

impl<R: Read> BackupReader<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<(), BackupError> {
        match self.from.read_exact(into) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.bad("the file ends here")),
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
                let stored = key.to_storage_key();
                Record::Name(TenantId(n)).encode(crc32c::crc32c(&stored[2..]), &mut record);
                (stored, record)
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
        let mut found = Vec::new();
        let summary = read(bytes, &mut |key, record| {
            found.push((key.to_vec(), record.to_vec()));
            Ok(())
        })?;
        Ok((summary, found))
    }

    #[test]
    fn what_was_encoded_is_read() {
        let (bytes, entries) = sample();
        let (summary, found) = read_all(&bytes).unwrap();
        assert_eq!(summary, Summary { header: HEADER, records: 9, bytes: bytes.len() as u64 });
        assert_eq!(found, entries);
    }

    #[test]
    fn every_flipped_bit_every_cut_and_every_addition_is_refused() {
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
