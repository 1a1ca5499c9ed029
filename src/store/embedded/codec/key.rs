//! What records are filed under, and where.
//!
//! Job: [`RecordKey`], encoded and decoded; its *stored key*, under which sled and backups file the record: the number of its bucket, then the key.
//! Integers are big-endian.
//!
//! ```text
//! meta     01                         name     03 folded name        counter  05 tenant:u64 name
//! tenant   02 tenant:u64              api key  04 id:8               member   06 tenant:u64 01 counter's name | 02 key's id:8 | 03 doomed:u64
//! holdings 07 tenant:u64              answers  08 page:u64
//! ```
//! A bucket is a few hundred neighbours at most even where there are millions of records, so that one can be read as a whole and proved, see
//! seals.rs. Most keys are filed by their hash. The members of a tenant are filed together, so that they can be listed in order; pages of
//! answers are filed in [`IDEMPOTENCY_BUCKETS`] of all buckets, so that a start finds them without reading everything.
//!
//! Invariant: a key has one spelling, and one place. Must never: guess. Bytes that do not fit are an error.

use crate::domain::api_key::KeyId;
use crate::domain::counter::CounterName;
use crate::domain::tenant::{TenantId, TenantName};
use crate::store::embedded::codec::reader::{DecodeError, Reader};

/// The number of buckets; a bucket's number is two bytes, big-endian.
pub const BUCKETS: u16 = 1 << 14;
/// How many of them hold pages of answers.
pub const IDEMPOTENCY_BUCKETS: u16 = 64;

/// A page's largest number, which no store reaches.
const LAST_PAGE: u64 = u64::MAX / 2;

/// What a record is filed under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKey {
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
    /// That a tenant has something, so that it can be listed.
    IndexEntry(TenantId, IndexEntry),
    /// How much a tenant has.
    Usage(TenantId),
    /// A page of answers that are to be given again, by number.
    IdempotencyPage(u64),
}

/// Whose members are those of the store itself.
pub const SYSTEM_TENANT: TenantId = TenantId(0);

/// What a tenant has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IndexEntry {
    /// A counter.
    Counter(CounterName),
    /// An API key.
    ApiKey(KeyId),
    /// A tenant whose deletion is not finished; a member of [`SYSTEM_TENANT`].
    Deleting(TenantId),
}

/// A kind of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// Counters, by name.
    Counters = 1,
    /// API keys, by id.
    ApiKeys = 2,
    /// Tenants whose deletion is not finished.
    Deleting = 3,
}

impl IndexEntry {
    /// Its kind.
    #[must_use]
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

    /// Reads a key back.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a key.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bad = |problem| DecodeError { kind: "key", problem };
        let (&kind, rest) = bytes.split_first().ok_or(bad("empty"))?;
        let mut rest = Reader::new("key", rest);
        let counter_name = |text| CounterName::parse(text).map_err(|_| bad("not a counter name"));
        let key = match kind {
            1 => Self::Tenants,
            2 => Self::Tenant(TenantId(rest.u64()?)),
            3 => {
                let name = TenantName::parse(rest.string()?).map_err(|_| bad("not a tenant name"))?;
                // Two spellings would be two records of one key.
                Some(name.normalized())
                    .filter(|folded| folded == name.as_str())
                    .map(Self::Name)
                    .ok_or(bad("not folded"))?
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
                    _ => return Err(bad("unknown kind of member")),
                };
                Self::IndexEntry(tenant, entry)
            }
            7 => Self::Usage(TenantId(rest.u64()?)),
            // A start counts on from the largest number, so none is taken that leaves no room.
            8 => Some(rest.u64()?)
                .filter(|page| *page <= LAST_PAGE)
                .map(Self::IdempotencyPage)
                .ok_or(bad("no page's number"))?,
            _ => return Err(bad("unknown kind")),
        };
        rest.finish()?;
        Ok(key)
    }

    /// The key's bytes behind the number of its bucket.
    #[must_use]
    pub fn to_storage_key(&self) -> Vec<u8> {
        let mut bytes = vec![0; 2];
        self.encode(&mut bytes);
        let bucket = bucket_of(bytes.get(2..).unwrap_or_default());
        bytes[..2].copy_from_slice(&bucket.to_be_bytes());
        bytes
    }

    /// Reads a key back from what [`RecordKey::to_storage_key`] made.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a key, or are in another bucket than theirs.
    pub fn from_storage_key(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bad = |problem| DecodeError { kind: "key", problem };
        let (bucket, key) = bytes.split_first_chunk::<2>().ok_or(bad("too short"))?;
        if *bucket != bucket_of(key).to_be_bytes() {
            return Err(bad("in another bucket"));
        }
        Self::decode(key)
    }

    /// What the record's errors call it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Tenant(_) => "tenant",
            Self::Name(_) => "name",
            Self::ApiKey(_) => "api key",
            Self::Counter(..) => "counter",
            Self::IndexEntry(..) => "member",
            Self::Usage(_) => "holdings",
            Self::IdempotencyPage(_) => "answers",
        }
    }
}

fn encode_index_prefix(tenant: TenantId, index_kind: IndexKind, out: &mut Vec<u8>) {
    out.push(6);
    out.extend_from_slice(&tenant.0.to_be_bytes());
    out.push(index_kind as u8);
}

/// What the stored keys of a tenant's members of one kind start with.
#[must_use]
pub fn index_prefix(tenant: TenantId, index_kind: IndexKind) -> Vec<u8> {
    let mut bytes = vec![0; 2];
    encode_index_prefix(tenant, index_kind, &mut bytes);
    let bucket = bucket_of(bytes.get(2..).unwrap_or_default());
    bytes[..2].copy_from_slice(&bucket.to_be_bytes());
    bytes
}

/// The buckets that hold pages of answers.
pub fn idempotency_buckets() -> impl Iterator<Item = u16> {
    (0..BUCKETS).step_by(usize::from(BUCKETS / IDEMPOTENCY_BUCKETS))
}

/// The number of the bucket that a stored key names.
#[must_use]
pub fn bucket_of_storage_key(stored_key: &[u8]) -> u16 {
    stored_key.first_chunk().copied().map_or(0, u16::from_be_bytes)
}

fn bucket_of(key_bytes: &[u8]) -> u16 {
    /// Kind and tenant, which all members of a tenant have in common.
    const OWNER_BYTES: usize = 9;
    let of_hash = |bytes| as_u16(u64::from(crc32c::crc32c(bytes)) % u64::from(BUCKETS));
    match key_bytes {
        [6, ..] => of_hash(key_bytes.get(..OWNER_BYTES).unwrap_or(key_bytes)),
        [8, page @ ..] => {
            let page = page.first_chunk().map_or(0, |page| u64::from_be_bytes(*page));
            as_u16(page % u64::from(IDEMPOTENCY_BUCKETS)) * (BUCKETS / IDEMPOTENCY_BUCKETS)
        }
        _ => of_hash(key_bytes),
    }
}

fn as_u16(bucket: u64) -> u16 {
    u16::try_from(bucket).unwrap_or_else(|_| unreachable!("a remainder of BUCKETS at most"))
}

/// A part of a list.
#[derive(Debug)]
pub struct IndexScan {
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub index_kind: IndexKind,
    /// From the first one behind this on.
    pub after: Option<IndexEntry>,
    /// So many at most.
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
    fn a_stored_key_comes_back_and_only_from_its_own_bucket() {
        for (key, _) in samples() {
            let mut to_storage_key = key.to_storage_key();
            assert_eq!(RecordKey::from_storage_key(&to_storage_key).unwrap(), key);
            to_storage_key[1] ^= 1;
            assert!(RecordKey::from_storage_key(&to_storage_key).is_err());
        }
    }

    #[test]
    fn members_are_filed_together_and_pages_where_a_start_looks() {
        let tenant = TenantId(77);
        let index_kind = index_prefix(tenant, IndexKind::Counters);
        for name in ["a", "b.c", "zzz"] {
            let entry = IndexEntry::Counter(CounterName::parse(name).unwrap());
            assert!(RecordKey::IndexEntry(tenant, entry).to_storage_key().starts_with(&index_kind));
        }
        let key = RecordKey::IndexEntry(tenant, IndexEntry::ApiKey(KeyId([0; 8]))).to_storage_key();
        assert!(bucket_of_storage_key(&key) == bucket_of_storage_key(&index_kind) && !key.starts_with(&index_kind));
        let buckets: Vec<u16> = idempotency_buckets().collect();
        assert_eq!(buckets.len(), usize::from(IDEMPOTENCY_BUCKETS));
        for page in 0..1000 {
            assert!(buckets.contains(&bucket_of_storage_key(&RecordKey::IdempotencyPage(page).to_storage_key())));
        }
    }
}
