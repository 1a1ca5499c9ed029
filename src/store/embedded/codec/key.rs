//! Keys of records, as bytes, and their placement in buckets.
//!
//! Job: encode and decode [`RecordKey`] and its *storage key*, under which sled and backups have
//! the record: the number of its bucket, then the key. Integers are big-endian.
//!
//! ```text
//! tenants  01                        name     03 normalized name   counter  05 tenant:u64 name
//! tenant   02 tenant:u64             api key  04 id:8
//! index    06 tenant:u64 01 counter's name | 02 key's id:8 | 03 deleting tenant:u64
//! usage    07 tenant:u64             idempotency page  08 page:u64
//! ```
//! A bucket has a few hundred records at most, even in a store of millions, so that a whole bucket
//! can be read to verify its digest, see state/digests.rs. The bucket of most keys is their hash.
//! All index entries of a tenant share a bucket, so that they can be scanned in order. Idempotency
//! pages are in [`IDEMPOTENCY_BUCKETS`] of all buckets, so that a start finds them without reading
//! everything.
//!
//! Invariant: a record has exactly one key, and a key exactly one encoding and one bucket.
//! Must never: accept bytes that are not exactly a key.

use crate::domain::api_key::KeyId;
use crate::domain::counter::CounterName;
use crate::domain::tenant::{TenantId, TenantName};
use crate::store::embedded::codec::reader::{DecodeError, Reader};

/// The number of buckets; a bucket's number is two bytes, big-endian.
pub const BUCKETS: u16 = 1 << 14;
/// The number of buckets that hold idempotency pages.
pub const IDEMPOTENCY_BUCKETS: u16 = 64;

/// The largest number of an idempotency page, which no store reaches.
const LAST_PAGE: u64 = u64::MAX / 2;

/// The key of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKey {
    /// The number of tenants ever registered, from which the next tenant gets its number.
    Tenants,
    /// A tenant, by number.
    Tenant(TenantId),
    /// A tenant's normalized name.
    Name(String),
    /// An API key, by its public half.
    ApiKey(KeyId),
    /// A counter of a tenant.
    Counter(TenantId, CounterName),
    /// An index entry: the tenant has this object, so that its objects can be listed.
    IndexEntry(TenantId, IndexEntry),
    /// How many counters and API keys a tenant has.
    Usage(TenantId),
    /// A page of stored results, by number.
    IdempotencyPage(u64),
}

/// A pseudo tenant that owns the index entries of the store itself.
pub const SYSTEM_TENANT: TenantId = TenantId(0);

/// The object that an index entry stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IndexEntry {
    /// A counter.
    Counter(CounterName),
    /// An API key.
    ApiKey(KeyId),
    /// A tenant that is marked deleted and not yet purged; an entry of [`SYSTEM_TENANT`].
    Deleting(TenantId),
}

/// A kind of index entries; a scan returns entries of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// Counters, by name.
    Counters = 1,
    /// API keys, by id.
    ApiKeys = 2,
    /// Tenants that are marked deleted, by number.
    Deleting = 3,
}

impl IndexEntry {
    /// The kind of this entry.
    pub fn index_kind(&self) -> IndexKind {
        match self {
            Self::Counter(_) => IndexKind::Counters,
            Self::ApiKey(_) => IndexKind::ApiKeys,
            Self::Deleting(_) => IndexKind::Deleting,
        }
    }
}

impl RecordKey {
    /// Appends the key's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Tenants => out.push(1),
            Self::Tenant(id) => {
                out.push(2);
                out.extend_from_slice(&id.0.to_be_bytes());
            }
            Self::Name(normalized) => {
                out.push(3);
                out.extend_from_slice(normalized.as_bytes());
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
            Self::IndexEntry(tenant, entry) => {
                encode_index_prefix(*tenant, entry.index_kind(), out);
                match entry {
                    IndexEntry::Counter(name) => out.extend_from_slice(name.as_str().as_bytes()),
                    IndexEntry::ApiKey(id) => out.extend_from_slice(&id.0),
                    IndexEntry::Deleting(id) => out.extend_from_slice(&id.0.to_be_bytes()),
                }
            }
            Self::Usage(tenant) => {
                out.push(7);
                out.extend_from_slice(&tenant.0.to_be_bytes());
            }
            Self::IdempotencyPage(page) => {
                out.push(8);
                out.extend_from_slice(&page.to_be_bytes());
            }
        }
    }

    /// Decodes a key.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a key.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bad = |problem| DecodeError { kind: "key", problem };
        let (&kind, rest) = bytes.split_first().ok_or(bad("empty"))?;
        let mut rest = Reader::new("key", rest);
        let counter_name =
            |string| CounterName::parse(string).map_err(|_| bad("invalid counter name"));
        let key = match kind {
            1 => Self::Tenants,
            2 => Self::Tenant(TenantId(rest.u64()?)),
            3 => {
                let name = TenantName::parse(rest.string()?);
                let name = name.map_err(|_| bad("invalid tenant name"))?;
                // Two spellings of a name would be two records of one key.
                let normalized = name.normalized();
                if normalized != name.as_str() {
                    return Err(bad("name not normalized"));
                }
                Self::Name(normalized)
            }
            4 => Self::ApiKey(KeyId(rest.array()?)),
            5 => Self::Counter(TenantId(rest.u64()?), counter_name(rest.string()?)?),
            6 => {
                let tenant = TenantId(rest.u64()?);
                let [index_kind] = rest.array()?;
                let entry = match index_kind {
                    1 => IndexEntry::Counter(counter_name(rest.string()?)?),
                    2 => IndexEntry::ApiKey(KeyId(rest.array()?)),
                    3 => IndexEntry::Deleting(TenantId(rest.u64()?)),
                    _ => return Err(bad("unknown kind of index entry")),
                };
                Self::IndexEntry(tenant, entry)
            }
            7 => Self::Usage(TenantId(rest.u64()?)),
            // A start continues after the largest number, so every accepted number has a successor.
            8 => match rest.u64()? {
                number @ ..=LAST_PAGE => Self::IdempotencyPage(number),
                _ => return Err(bad("page number too large")),
            },
            _ => return Err(bad("unknown kind")),
        };
        rest.finish()?;
        Ok(key)
    }

    /// The storage key: the number of the bucket, then the key's bytes.
    #[must_use]
    pub fn to_storage_key(&self) -> Vec<u8> {
        let mut bytes = vec![0; 2];
        self.encode(&mut bytes);
        set_bucket(&mut bytes);
        bytes
    }

    /// Decodes a storage key.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a key, or the bucket is not the key's own.
    pub fn from_storage_key(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bad = |problem| DecodeError { kind: "key", problem };
        let (bucket, key) = bytes.split_first_chunk::<2>().ok_or(bad("too short"))?;
        if *bucket != bucket_of(key).to_be_bytes() {
            return Err(bad("in another bucket"));
        }
        Self::decode(key)
    }

    /// The name of the key's kind in errors.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Tenant(_) => "tenant",
            Self::Name(_) => "name",
            Self::ApiKey(_) => "api key",
            Self::Counter(..) => "counter",
            Self::IndexEntry(..) => "index entry",
            Self::Usage(_) => "usage",
            Self::IdempotencyPage(_) => "idempotency page",
        }
    }
}

fn encode_index_prefix(tenant: TenantId, index_kind: IndexKind, out: &mut Vec<u8>) {
    out.push(6);
    out.extend_from_slice(&tenant.0.to_be_bytes());
    out.push(index_kind as u8);
}

/// The common prefix of the storage keys of a tenant's index entries of one kind.
#[must_use]
pub fn index_prefix(tenant: TenantId, index_kind: IndexKind) -> Vec<u8> {
    let mut bytes = vec![0; 2];
    encode_index_prefix(tenant, index_kind, &mut bytes);
    set_bucket(&mut bytes);
    bytes
}

/// The numbers of the buckets that hold idempotency pages.
pub fn idempotency_buckets() -> impl Iterator<Item = u16> {
    (0..BUCKETS).step_by(usize::from(BUCKETS / IDEMPOTENCY_BUCKETS))
}

/// The number of the bucket that a storage key names.
pub fn bucket_of_storage_key(storage_key: &[u8]) -> u16 {
    storage_key.first_chunk().copied().map_or(0, u16::from_be_bytes)
}

/// Writes the bucket of the key at 2 .. into the first two bytes.
fn set_bucket(bytes: &mut [u8]) {
    let bucket = bucket_of(bytes.get(2..).unwrap_or_default());
    bytes[..2].copy_from_slice(&bucket.to_be_bytes());
}

fn bucket_of(key_bytes: &[u8]) -> u16 {
    /// Kind and tenant, which all index entries of a tenant have in common.
    const OWNER_BYTES: usize = 9;
    let of_hash = |bytes| as_u16(u64::from(crc32c::crc32c(bytes)) % u64::from(BUCKETS));
    match key_bytes {
        [6, ..] => of_hash(key_bytes.get(..OWNER_BYTES).unwrap_or(key_bytes)),
        [8, page @ ..] => {
            let page = page.first_chunk().map_or(0, |page| u64::from_be_bytes(*page));
            let nth = as_u16(page % u64::from(IDEMPOTENCY_BUCKETS));
            nth * (BUCKETS / IDEMPOTENCY_BUCKETS)
        }
        _ => of_hash(key_bytes),
    }
}

fn as_u16(bucket: u64) -> u16 {
    u16::try_from(bucket).unwrap_or_else(|_| unreachable!("a remainder is below BUCKETS"))
}

/// A range query over the index of a tenant.
#[derive(Debug)]
pub struct IndexScan {
    /// The owner of the index entries.
    pub tenant: TenantId,
    /// Their kind.
    pub index_kind: IndexKind,
    /// Only entries greater than this one; `None`: from the first one.
    pub after: Option<IndexEntry>,
    /// The largest number of entries to return.
    pub limit: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::codec::record::tests::samples;

    #[test]
    fn a_name_is_a_key_in_one_spelling_only() {
        assert_eq!(RecordKey::decode(b"\x03alice"), Ok(RecordKey::Name("alice".into())));
        assert!(RecordKey::decode(b"\x03Alice").is_err());
    }

    #[test]
    fn a_storage_key_decodes_only_in_its_own_bucket() {
        for (key, _) in samples() {
            let mut bytes = key.to_storage_key();
            assert_eq!(RecordKey::from_storage_key(&bytes).unwrap(), key);
            bytes[1] ^= 1;
            assert!(RecordKey::from_storage_key(&bytes).is_err());
        }
    }

    #[test]
    fn index_entries_share_a_bucket_and_pages_are_where_a_start_looks() {
        let tenant = TenantId(77);
        let prefix = index_prefix(tenant, IndexKind::Counters);
        for name in ["a", "b.c", "zzz"] {
            let entry = IndexEntry::Counter(CounterName::parse(name).unwrap());
            assert!(RecordKey::IndexEntry(tenant, entry).to_storage_key().starts_with(&prefix));
        }
        let key = RecordKey::IndexEntry(tenant, IndexEntry::ApiKey(KeyId([0; 8]))).to_storage_key();
        assert_eq!(bucket_of_storage_key(&key), bucket_of_storage_key(&prefix));
        assert!(!key.starts_with(&prefix));
        let buckets: Vec<u16> = idempotency_buckets().collect();
        assert_eq!(buckets.len(), usize::from(IDEMPOTENCY_BUCKETS));
        for page in 0..1000 {
            let key = RecordKey::IdempotencyPage(page).to_storage_key();
            assert!(buckets.contains(&bucket_of_storage_key(&key)));
        }
    }
}
