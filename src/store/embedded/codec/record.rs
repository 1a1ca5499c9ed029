//! Records of the embedded store, as bytes; journal, sled and backups use the same bytes.
//!
//! Job: encode and decode [`Record`]. Integers are big-endian. A record starts with a format
//! version and ends with a CRC32C over key and record, so that a record under another key, a
//! truncated record or a flipped bit does not decode:
//!
//! ```text
//! tenants           v=1 count:u64
//! tenant            v=2 created:u64 memory_kib:u32 passes:u32 lanes:u32 salt:16 hash:32
//!                   flags:u8 limit:u8 count:u32 per_s:u32 burst:u32 key_epoch:u64 name
//!                   flags: 1 suspended, 2 deleting
//!                   limit: 0 default, 1 off, 2 the rate in the three numbers, which are else 0
//! name              v=1 tenant:u64
//! api key           v=2 tenant:u64 secret:32 scopes:u8 created:u64 expires:u64 used:u32
//!                   epoch:u64 label
//!                   expires: 0 never; used: 0 never, else the day + 1
//! counter           v=1 a counter, see counter.rs
//! index entry       v=1
//! usage             v=1 counters:u32 keys:u32 counters_created:u64
//! idempotency page  v=1 a page, see idempotency_page.rs
//! each record is followed by crc:u32 over key and record
//! ```
//! Until format 4 tenants and API keys were of v=1, without an epoch; they are read as of epoch 0.
//! No upgrade rewrites a record: the state, journal segments and backups hold each one in the
//! layout in which it was last written. So a new layout of a kind gets the next version for that
//! kind, `encode` writes it, and `decode` goes on reading every earlier one; a fixture in
//! `tests/fixtures` proves that. To give up an old layout would lose commits, because a frame with
//! a record that does not decode is no valid frame, and at the journal's end that is a torn tail.
//! For the same reason FORMAT is raised together with the layout, see data_dir.rs: it is what makes
//! an older build refuse the directory, before it reads a record that it does not know.
//!
//! Invariant: `decode(key, encode(key, record)) == record`; a record holds absolute values, never
//! differences.
//! Must never: accept bytes that are not exactly a record; the error names the kind of the key.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::api_key::{KeyLabel, Scopes, SecretHash};
use crate::domain::rate_limit::RateLimit;
use crate::domain::tenant::{PasswordHash, TenantId, TenantLimit, TenantName};
use crate::store::embedded::codec::counter::{decode_counter, encode_counter};
use crate::store::embedded::codec::idempotency_page::IdempotencyPage;
use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::reader::{DecodeError, Reader};
use crate::store::{CounterState, KeyRecord, TenantRecord, TenantUsage};

/// The version of the first layout of every kind of record.
const FIRST: u8 = 1;
/// The version of tenants and API keys since they have an epoch.
const WITH_EPOCH: u8 = 2;
const CRC_BYTES: usize = 4;
const SUSPENDED: u8 = 1;
const DELETING: u8 = 2;

/// The record of the [`RecordKey`] variant with the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The number of tenants ever registered.
    Tenants(u64),
    /// A tenant.
    Tenant(Arc<TenantRecord>),
    /// The tenant that has the name.
    Name(TenantId),
    /// An API key.
    ApiKey(Arc<KeyRecord>),
    /// A counter.
    Counter(CounterState),
    /// An index entry; its key says everything.
    IndexEntry,
    /// How many counters and API keys a tenant has.
    Usage(TenantUsage),
    /// A page of stored results.
    IdempotencyPage(Arc<IdempotencyPage>),
}

impl Record {
    /// Appends the record's bytes and its CRC to `out`. The CRC continues `key_crc`, which is the
    /// CRC32C of the key's bytes.
    pub fn encode(&self, key_crc: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(self.version());
        match self {
            Self::Tenants(count) => out.extend_from_slice(&count.to_be_bytes()),
            Self::Tenant(tenant) => encode_tenant(tenant, out),
            Self::Name(tenant) => out.extend_from_slice(&tenant.0.to_be_bytes()),
            Self::ApiKey(key) => {
                out.extend_from_slice(&key.tenant.0.to_be_bytes());
                out.extend_from_slice(&key.secret.0);
                out.push(key.scopes.bits());
                out.extend_from_slice(&key.created_unix_s.to_be_bytes());
                out.extend_from_slice(&key.expires_unix_s.unwrap_or(0).to_be_bytes());
                let last_used = key.last_used_day.map_or(0, |day| day.saturating_add(1));
                out.extend_from_slice(&last_used.to_be_bytes());
                out.extend_from_slice(&key.epoch.to_be_bytes());
                out.extend_from_slice(key.label.as_str().as_bytes());
            }
            Self::Counter(counter) => encode_counter(counter, out),
            Self::IndexEntry => {}
            Self::Usage(usage) => {
                out.extend_from_slice(&usage.counters.to_be_bytes());
                out.extend_from_slice(&usage.keys.to_be_bytes());
                out.extend_from_slice(&usage.counters_created.to_be_bytes());
            }
            Self::IdempotencyPage(page) => page.encode(out),
        }
        let crc = crc32c::crc32c_append(key_crc, out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_be_bytes());
    }

    /// The version of the layout that [`Record::encode`] writes.
    fn version(&self) -> u8 {
        match self {
            Self::Tenant(_) | Self::ApiKey(_) => WITH_EPOCH,
            _ => FIRST,
        }
    }

    /// Decodes the record of `key`; `key_bytes` are the key's own bytes.
    ///
    /// # Errors
    /// [`DecodeError`] if the CRC does not match, the version is unknown or a field is not valid.
    pub fn decode(key: &RecordKey, key_bytes: &[u8], bytes: &[u8]) -> Result<Self, DecodeError> {
        let kind = key.kind();
        let bad = |problem| DecodeError { kind, problem };
        let split = bytes.len().checked_sub(CRC_BYTES).ok_or(bad("too short"))?;
        let (body, crc) = bytes.split_at(split);
        if crc32c::crc32c_append(crc32c::crc32c(key_bytes), body).to_be_bytes() != crc {
            return Err(bad("checksum does not match"));
        }
        let (&version, rest) = body.split_first().ok_or(bad("empty"))?;
        let has_epoch = matches!(key, RecordKey::Tenant(_) | RecordKey::ApiKey(_));
        let is_known = version == FIRST || (has_epoch && version == WITH_EPOCH);
        if !is_known {
            return Err(bad("of a version that this build does not know"));
        }
        let mut rest = Reader::new(kind, rest);
        let record = match key {
            RecordKey::Tenants => Self::Tenants(rest.u64()?),
            RecordKey::Tenant(_) => Self::Tenant(decode_tenant(&mut rest, version)?.into()),
            RecordKey::Name(_) => Self::Name(TenantId(rest.u64()?)),
            RecordKey::ApiKey(_) => Self::ApiKey(decode_api_key(&mut rest, version)?.into()),
            RecordKey::Counter(..) => Self::Counter(decode_counter(&mut rest)?),
            RecordKey::IndexEntry(..) => Self::IndexEntry,
            RecordKey::Usage(_) => {
                let (counters, keys) = (rest.u32()?, rest.u32()?);
                Self::Usage(TenantUsage { counters, keys, counters_created: rest.u64()? })
            }
            RecordKey::IdempotencyPage(_) => {
                Self::IdempotencyPage(IdempotencyPage::decode(&mut rest)?.into())
            }
        };
        rest.finish()?;
        Ok(record)
    }
}

fn encode_tenant(tenant: &TenantRecord, out: &mut Vec<u8>) {
    let password = &tenant.password;
    out.extend_from_slice(&tenant.created_unix_s.to_be_bytes());
    for parameter in [password.memory_kib, password.passes, password.lanes] {
        out.extend_from_slice(&parameter.to_be_bytes());
    }
    out.extend_from_slice(&password.salt);
    out.extend_from_slice(&password.hash);
    let suspended = if tenant.suspended { SUSPENDED } else { 0 };
    let deleting = if tenant.deleting { DELETING } else { 0 };
    out.push(suspended | deleting);
    let (kind, numbers) = match tenant.limit {
        TenantLimit::Default => (0, [0; 3]),
        TenantLimit::Off => (1, [0; 3]),
        TenantLimit::Rate(rate) => {
            let per_s = u32::try_from(rate.per.as_secs());
            let per_s = per_s.unwrap_or_else(|_| unreachable!("a rate is per hour at most"));
            (2, [rate.count.get(), per_s, rate.burst.get()])
        }
    };
    out.push(kind);
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
    out.extend_from_slice(&tenant.key_epoch.to_be_bytes());
    out.extend_from_slice(tenant.name.as_str().as_bytes());
}

fn decode_tenant(rest: &mut Reader<'_>, version: u8) -> Result<TenantRecord, DecodeError> {
    let created_unix_s = rest.u64()?;
    let password = PasswordHash {
        memory_kib: rest.u32()?,
        passes: rest.u32()?,
        lanes: rest.u32()?,
        salt: rest.array()?,
        hash: rest.array()?,
    };
    let [flags, kind] = rest.array()?;
    let numbers = [rest.u32()?, rest.u32()?, rest.u32()?];
    let limit = match (kind, numbers) {
        (0, [0, 0, 0]) => TenantLimit::Default,
        (1, [0, 0, 0]) => TenantLimit::Off,
        (2, [count, per_s, burst]) => {
            let number = |raw| NonZeroU32::new(raw).ok_or(rest.bad("limit of zero"));
            let per = Duration::from_secs(u64::from(number(per_s)?.get()));
            TenantLimit::Rate(RateLimit { count: number(count)?, per, burst: number(burst)? })
        }
        _ => return Err(rest.bad("invalid limit")),
    };
    if flags & !(SUSPENDED | DELETING) != 0 {
        return Err(rest.bad("unknown flags"));
    }
    let key_epoch = decode_epoch(rest, version)?;
    let name = TenantName::parse(rest.string()?).map_err(|_| rest.bad("invalid tenant name"))?;
    let (suspended, deleting) = (flags & SUSPENDED != 0, flags & DELETING != 0);
    Ok(TenantRecord { name, password, created_unix_s, suspended, limit, deleting, key_epoch })
}

fn decode_epoch(rest: &mut Reader<'_>, version: u8) -> Result<u64, DecodeError> {
    if version < WITH_EPOCH { Ok(0) } else { rest.u64() }
}

fn decode_api_key(rest: &mut Reader<'_>, version: u8) -> Result<KeyRecord, DecodeError> {
    let tenant = TenantId(rest.u64()?);
    let secret = SecretHash(rest.array()?);
    let [scopes] = rest.array()?;
    let scopes = Scopes::some_from_bits(scopes).ok_or(rest.bad("unknown scopes"))?;
    let created_unix_s = rest.u64()?;
    let expires_unix_s = Some(rest.u64()?).filter(|time| *time > 0);
    let last_used_day = rest.u32()?.checked_sub(1);
    let epoch = decode_epoch(rest, version)?;
    let label = KeyLabel::parse(rest.string()?).map_err(|_| rest.bad("invalid label"))?;
    Ok(KeyRecord {
        tenant,
        secret,
        label,
        scopes,
        created_unix_s,
        expires_unix_s,
        last_used_day,
        epoch,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::api_key::KeyId;
    use crate::domain::counter::CounterName;
    use crate::store::embedded::codec::idempotency_page;
    use crate::store::embedded::codec::key::IndexEntry;

    pub(crate) fn samples() -> Vec<(RecordKey, Record)> {
        let (salt, hash) = ([7; 16], [9; 32]);
        let password = PasswordHash { memory_kib: 19456, passes: 2, lanes: 1, salt, hash };
        let tenant = |limit: &str, suspended| TenantRecord {
            name: TenantName::parse("Alice").unwrap(),
            password,
            created_unix_s: 5,
            suspended,
            limit: limit.parse().unwrap(),
            deleting: !suspended,
            key_epoch: 1 << 40,
        };
        let key = KeyRecord {
            tenant: TenantId(3),
            secret: SecretHash([1; 32]),
            label: KeyLabel::parse("of the build").unwrap(),
            scopes: Scopes::READ,
            created_unix_s: 6,
            expires_unix_s: Some(9),
            last_used_day: Some(0),
            epoch: 7,
        };
        let name = CounterName::default_counter();
        let usage = TenantUsage { counters: 1, keys: 2, counters_created: 3 };
        let entry = |tenant, entry| RecordKey::IndexEntry(TenantId(tenant), entry);
        let id = KeyId([2; 8]);
        let page = idempotency_page::tests::sample();
        vec![
            (RecordKey::Tenants, Record::Tenants(4)),
            (RecordKey::Tenant(TenantId(3)), Record::Tenant(tenant("5/m:9", true).into())),
            (RecordKey::Tenant(TenantId(4)), Record::Tenant(tenant("off", false).into())),
            (RecordKey::Name("alice".into()), Record::Name(TenantId(3))),
            (RecordKey::ApiKey(id), Record::ApiKey(key.into())),
            (RecordKey::Counter(TenantId(3), name.clone()), Record::Counter(Default::default())),
            (entry(3, IndexEntry::Counter(name)), Record::IndexEntry),
            (entry(3, IndexEntry::ApiKey(id)), Record::IndexEntry),
            (entry(0, IndexEntry::Deleting(TenantId(3))), Record::IndexEntry),
            (RecordKey::Usage(TenantId(3)), Record::Usage(usage)),
            (RecordKey::IdempotencyPage(7), Record::IdempotencyPage(page.into())),
        ]
    }

    fn bytes(key: &RecordKey, record: &Record) -> (Vec<u8>, Vec<u8>) {
        let (mut key_bytes, mut record_bytes) = (Vec::new(), Vec::new());
        key.encode(&mut key_bytes);
        record.encode(crc32c::crc32c(&key_bytes), &mut record_bytes);
        (key_bytes, record_bytes)
    }

    #[test]
    fn what_was_encoded_decodes() {
        for (key, record) in samples() {
            let (key_bytes, record_bytes) = bytes(&key, &record);
            assert_eq!(RecordKey::decode(&key_bytes).unwrap(), key);
            assert_eq!(Record::decode(&key, &key_bytes, &record_bytes).unwrap(), record);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_detected() {
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
    fn a_record_of_an_unknown_version_is_refused_for_that_reason() {
        for (key, record) in samples() {
            for version in [0, record.version() + 1] {
                let (key_bytes, mut record_bytes) = bytes(&key, &record);
                record_bytes.truncate(record_bytes.len() - CRC_BYTES);
                record_bytes[0] = version;
                let crc = crc32c::crc32c_append(crc32c::crc32c(&key_bytes), &record_bytes);
                record_bytes.extend_from_slice(&crc.to_be_bytes());
                let error = Record::decode(&key, &key_bytes, &record_bytes).unwrap_err();
                assert_eq!(error.problem, "of a version that this build does not know");
            }
        }
    }

    #[test]
    fn a_record_under_another_key_is_detected() {
        let name = CounterName::default_counter();
        let counter = Record::Counter(CounterState::default());
        let (_, record_bytes) = bytes(&RecordKey::Counter(TenantId(1), name.clone()), &counter);
        let other = RecordKey::Counter(TenantId(2), name);
        let mut other_bytes = Vec::new();
        other.encode(&mut other_bytes);
        assert!(Record::decode(&other, &other_bytes, &record_bytes).is_err());
    }
}
