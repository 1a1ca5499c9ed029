//! The records of the embedded store and their bytes: the same bytes in the journal and in sled.
//!
//! Job: [`Key`] and [`Record`], encoded and decoded. Integers are big-endian. Every record starts with a format version and
//! ends with a CRC32C over key and record, so that a record under another key, a cut one or a flipped bit does not decode:
//!
//! ```text
//! key     meta     01                         record  tenants   v=1 u64
//!         tenant   02 tenant:u64                      tenant    v=1 created:u64 m:u32 t:u32 p:u32 salt:16 hash:32 name
//!         name     03 folded name                     name      v=1 tenant:u64
//!         api key  04 id:8                            api key   v=1 tenant:u64 secret:32 created:u64
//!         counter  05 tenant:u64 name                 counter   v=1 value:u64 max:u64
//! each record is followed by crc:u32 over key and record
//! ```
//! sled and backups file a record under its *stored key*: the number of its bucket, then the key. A bucket is a few hundred neighbours at most
//! even where there are millions of records, so that one can be read as a whole and proved, see seals.rs.
//!
//! Invariant: `decode(key, encode(key, record)) == record`, and records carry absolute values, never differences.
//! Must never: guess. Bytes that do not fit are an error that names the key's kind, never a default.

use thiserror::Error;

use crate::counter::{Counter, CounterName, Value};
use crate::store::KeyRecord;
use crate::tenant::{KeyId, PasswordHash, SecretHash, TenantId, TenantName};

/// The number of buckets; a bucket's number is two bytes, big-endian.
pub const BUCKETS: u16 = 1 << 14;

const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;

/// What a record is filed under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// How many tenants were registered, which numbers the next.
    Tenants,
    /// A tenant, by number.
    Tenant(TenantId),
    /// A tenant's folded name.
    Name(String),
    /// An API key, by its public half.
    ApiKey(KeyId),
    /// A counter of a tenant.
    Counter(TenantId, CounterName),
}

/// A tenant as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRecord {
    /// The name as it was typed.
    pub name: TenantName,
    /// The password, hashed.
    pub password: PasswordHash,
    /// When it was registered, in seconds since 1970.
    pub created_unix_s: u64,
}

/// What is stored under a [`Key`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// How many tenants were registered.
    Tenants(u64),
    /// A tenant.
    Tenant(Box<TenantRecord>),
    /// Whose name it is.
    Name(TenantId),
    /// An API key.
    ApiKey(std::sync::Arc<KeyRecord>),
    /// A counter.
    Counter(Counter),
}

/// Bytes that are not a record of their key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{kind} record: {problem}")]
pub struct BadRecord {
    kind: &'static str,
    problem: &'static str,
}

impl Key {
    /// Appends the key's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Tenants => out.push(1),
            Self::Tenant(id) => {
                out.push(2);
                out.extend_from_slice(&id.0.to_be_bytes());
            }
            Self::Name(folded) => {
                out.push(3);
                out.extend_from_slice(folded.as_bytes());
            }
            Self::ApiKey(id) => {
                out.push(4);
                out.extend_from_slice(&id.0);
            }
            Self::Counter(tenant, name) => {
                out.push(5);
                out.extend_from_slice(&tenant.0.to_be_bytes());
                out.extend_from_slice(name.as_str().as_bytes());
            }
        }
    }

    /// Reads a key back.
    ///
    /// # Errors
    /// [`BadRecord`] if the bytes are not a key.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let bad = |problem| BadRecord { kind: "key", problem };
        let (&kind, rest) = bytes.split_first().ok_or(bad("empty"))?;
        let mut rest = Reader { kind: "key", rest };
        let key = match kind {
            1 => Self::Tenants,
            2 => Self::Tenant(TenantId(rest.u64()?)),
            3 => {
                let name = TenantName::parse(rest.text()?).map_err(|_| bad("not a tenant name"))?;
                // Two spellings would be two records of one key.
                Some(name.folded()).filter(|folded| folded == name.as_str()).map(Self::Name).ok_or(bad("not folded"))?
            }
            4 => Self::ApiKey(KeyId(rest.array()?)),
            5 => {
                let tenant = TenantId(rest.u64()?);
                Self::Counter(tenant, CounterName::parse(rest.text()?).map_err(|_| bad("not a counter name"))?)
            }
            _ => return Err(bad("unknown kind")),
        };
        rest.end()?;
        Ok(key)
    }

    /// The key's bytes behind the number of its bucket.
    #[must_use]
    pub fn stored(&self) -> Vec<u8> {
        let mut bytes = vec![0; 2];
        self.encode(&mut bytes);
        let bucket = bucket_of(bytes.get(2..).unwrap_or_default());
        bytes[..2].copy_from_slice(&bucket.to_be_bytes());
        bytes
    }

    /// Reads a key back from what [`Key::stored`] made.
    ///
    /// # Errors
    /// [`BadRecord`] if the bytes are not a key, or are in another bucket than theirs.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, BadRecord> {
        let bad = |problem| BadRecord { kind: "key", problem };
        let (bucket, key) = bytes.split_first_chunk::<2>().ok_or(bad("too short"))?;
        if *bucket != bucket_of(key).to_be_bytes() {
            return Err(bad("in another bucket"));
        }
        Self::decode(key)
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Tenant(_) => "tenant",
            Self::Name(_) => "name",
            Self::ApiKey(_) => "api key",
            Self::Counter(..) => "counter",
        }
    }
}

impl Record {
    /// Appends the record's bytes and its CRC, bound to the key whose bytes have `key_crc` (CRC32C), to `out`.
    pub fn encode(&self, key_crc: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(VERSION);
        match self {
            Self::Tenants(count) => out.extend_from_slice(&count.to_be_bytes()),
            Self::Tenant(tenant) => {
                let password = &tenant.password;
                out.extend_from_slice(&tenant.created_unix_s.to_be_bytes());
                for parameter in [password.memory_kib, password.passes, password.lanes] {
                    out.extend_from_slice(&parameter.to_be_bytes());
                }
                out.extend_from_slice(&password.salt);
                out.extend_from_slice(&password.hash);
                out.extend_from_slice(tenant.name.as_str().as_bytes());
            }
            Self::Name(tenant) => out.extend_from_slice(&tenant.0.to_be_bytes()),
            Self::ApiKey(key) => {
                out.extend_from_slice(&key.tenant.0.to_be_bytes());
                out.extend_from_slice(&key.secret.0);
                out.extend_from_slice(&key.created_unix_s.to_be_bytes());
            }
            Self::Counter(counter) => {
                out.extend_from_slice(&counter.value.get().to_be_bytes());
                out.extend_from_slice(&counter.max.get().to_be_bytes());
            }
        }
        let crc = crc32c::crc32c_append(key_crc, out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_be_bytes());
    }

    /// Reads the record of `key` back; `key_bytes` are the key's own bytes.
    ///
    /// # Errors
    /// [`BadRecord`] if the CRC, the version or a field is not as it was written.
    pub fn decode(key: &Key, key_bytes: &[u8], bytes: &[u8]) -> Result<Self, BadRecord> {
        let kind = key.kind();
        let bad = |problem| BadRecord { kind, problem };
        let split = bytes.len().checked_sub(CRC_BYTES).ok_or(bad("too short"))?;
        let (body, crc) = bytes.split_at(split);
        if crc32c::crc32c_append(crc32c::crc32c(key_bytes), body).to_be_bytes() != crc {
            return Err(bad("checksum does not match"));
        }
        let (&version, rest) = body.split_first().ok_or(bad("empty"))?;
        if version != VERSION {
            return Err(bad("written by a newer build"));
        }
        let mut rest = Reader { kind, rest };
        let value = |raw| Value::new(raw).ok_or(bad("value out of range"));
        let record = match key {
            Key::Tenants => Self::Tenants(rest.u64()?),
            Key::Tenant(_) => {
                let created_unix_s = rest.u64()?;
                let password = PasswordHash {
                    memory_kib: rest.u32()?,
                    passes: rest.u32()?,
                    lanes: rest.u32()?,
                    salt: rest.array()?,
                    hash: rest.array()?,
                };
                let name = TenantName::parse(rest.text()?).map_err(|_| bad("not a tenant name"))?;
                Self::Tenant(Box::new(TenantRecord { name, password, created_unix_s }))
            }
            Key::Name(_) => Self::Name(TenantId(rest.u64()?)),
            Key::ApiKey(_) => {
                let tenant = TenantId(rest.u64()?);
                let secret = SecretHash(rest.array()?);
                Self::ApiKey(KeyRecord { tenant, secret, created_unix_s: rest.u64()? }.into())
            }
            Key::Counter(..) => Self::Counter(Counter { value: value(rest.u64()?)?, max: value(rest.u64()?)? }),
        };
        rest.end()?;
        Ok(record)
    }
}

/// The number of the bucket that a stored key names.
#[must_use]
pub fn bucket_of_stored(stored_key: &[u8]) -> u16 {
    stored_key.first_chunk().copied().map_or(0, u16::from_be_bytes)
}

fn bucket_of(key_bytes: &[u8]) -> u16 {
    u16::try_from(crc32c::crc32c(key_bytes) % u32::from(BUCKETS)).unwrap_or_else(|_| unreachable!("BUCKETS fits"))
}

struct Reader<'a> {
    kind: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadRecord> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(BadRecord { kind: self.kind, problem: "too short" })?;
        self.rest = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, BadRecord> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, BadRecord> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<&'a str, BadRecord> {
        let bytes = std::mem::take(&mut self.rest);
        std::str::from_utf8(bytes).map_err(|_| BadRecord { kind: self.kind, problem: "not text" })
    }

    fn end(&self) -> Result<(), BadRecord> {
        if self.rest.is_empty() { Ok(()) } else { Err(BadRecord { kind: self.kind, problem: "too long" }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<(Key, Record)> {
        let password = PasswordHash { memory_kib: 19456, passes: 2, lanes: 1, salt: [7; 16], hash: [9; 32] };
        let tenant = TenantRecord { name: TenantName::parse("Alice").unwrap(), password, created_unix_s: 5 };
        let key = KeyRecord { tenant: TenantId(3), secret: SecretHash([1; 32]), created_unix_s: 6 };
        vec![
            (Key::Tenants, Record::Tenants(4)),
            (Key::Tenant(TenantId(3)), Record::Tenant(Box::new(tenant))),
            (Key::Name("alice".into()), Record::Name(TenantId(3))),
            (Key::ApiKey(KeyId([2; 8])), Record::ApiKey(key.into())),
            (Key::Counter(TenantId(3), CounterName::default_counter()), Record::Counter(Counter::default())),
        ]
    }

    fn bytes(key: &Key, record: &Record) -> (Vec<u8>, Vec<u8>) {
        let (mut key_bytes, mut record_bytes) = (Vec::new(), Vec::new());
        key.encode(&mut key_bytes);
        record.encode(crc32c::crc32c(&key_bytes), &mut record_bytes);
        (key_bytes, record_bytes)
    }

    #[test]
    fn what_was_encoded_decodes() {
        for (key, record) in samples() {
            let (key_bytes, record_bytes) = bytes(&key, &record);
            assert_eq!(Key::decode(&key_bytes).unwrap(), key);
            assert_eq!(Record::decode(&key, &key_bytes, &record_bytes).unwrap(), record);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for (key, record) in samples() {
            let (key_bytes, record_bytes) = bytes(&key, &record);
            for bit in 0..record_bytes.len() * 8 {
                let mut flipped = record_bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Record::decode(&key, &key_bytes, &flipped).is_err());
            }
            for length in 0..record_bytes.len() {
                assert!(Record::decode(&key, &key_bytes, &record_bytes[..length]).is_err());
            }
        }
    }

    #[test]
    fn a_name_is_a_key_in_one_spelling_only() {
        assert_eq!(Key::decode(b"\x03alice"), Ok(Key::Name("alice".into())));
        assert!(Key::decode(b"\x03Alice").is_err());
    }

    #[test]
    fn a_stored_key_comes_back_and_only_from_its_own_bucket() {
        for (key, _) in samples() {
            let mut stored = key.stored();
            assert_eq!(Key::from_stored(&stored).unwrap(), key);
            stored[1] ^= 1;
            assert!(Key::from_stored(&stored).is_err());
        }
    }

    #[test]
    fn a_record_under_another_key_is_noticed() {
        let name = CounterName::default_counter();
        let (_, record_bytes) = bytes(&Key::Counter(TenantId(1), name.clone()), &Record::Counter(Counter::default()));
        let other = Key::Counter(TenantId(2), name);
        let mut other_bytes = Vec::new();
        other.encode(&mut other_bytes);
        assert!(Record::decode(&other, &other_bytes, &record_bytes).is_err());
    }
}
