//! Idempotency pages: the stored results of requests with an idempotency key, up to 64 per page.
//!
//! Job: encode and decode [`IdempotencyPage`]. Pages instead of single entries: a commit of a
//! thousand such requests writes a few records and not a thousand. Integers are big-endian.
//!
//! ```text
//! uptime:u64  seconds that the store had run, in all its processes, when the page was written
//! entry       tenant:u64 key_hash:16 request_fingerprint:16 kind:u8 …
//!             kind 1, issued   first:u64 last:u64 count:u32 generation:u64 revision:u64
//!             kind 2, state    a counter, see counter.rs
//! ```
//! Invariant: a page that decodes has 1 to [`PAGE_ENTRIES`] entries.
//! Must never: hold the result of a change that is not in the same commit.

use crate::domain::counter::Range;
use crate::domain::tenant::TenantId;
use crate::store::embedded::codec::counter::{decode_counter, encode_counter};
use crate::store::embedded::codec::reader::{DecodeError, Reader};
use crate::store::{CounterState, Digest128, Issued, Version};

/// The largest number of entries in a page, which then has about 5 KiB.
pub const PAGE_ENTRIES: usize = 64;

const ISSUED: u8 = 1;
const STATE: u8 = 2;

/// A page of idempotency entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyPage {
    /// How long the store had run when the page was written, in all its processes, in seconds.
    pub store_uptime_s: u64,
    /// The entries.
    pub entries: Vec<IdempotencyEntry>,
}

/// One idempotency key with the result of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyEntry {
    /// The tenant that sent the request.
    pub tenant: TenantId,
    /// The hash of the idempotency key.
    pub key_hash: Digest128,
    /// The hash of what was requested.
    pub request_fingerprint: Digest128,
    /// The result that the tenant got.
    pub result: StoredResult,
}

/// The result of a request, stored for retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredResult {
    /// The integers that were issued.
    Issued(Issued),
    /// The state of a counter that was set or created.
    State(CounterState),
}

impl IdempotencyPage {
    /// Appends the page's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.store_uptime_s.to_be_bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.tenant.0.to_be_bytes());
            out.extend_from_slice(&entry.key_hash);
            out.extend_from_slice(&entry.request_fingerprint);
            match &entry.result {
                StoredResult::Issued(Issued { range, version }) => {
                    out.push(ISSUED);
                    out.extend_from_slice(&range.first.get().to_be_bytes());
                    out.extend_from_slice(&range.last.get().to_be_bytes());
                    out.extend_from_slice(&range.count.to_be_bytes());
                    out.extend_from_slice(&version.generation.to_be_bytes());
                    out.extend_from_slice(&version.revision.to_be_bytes());
                }
                StoredResult::State(state) => {
                    out.push(STATE);
                    encode_counter(state, out);
                }
            }
        }
    }

    /// Decodes a page.
    ///
    /// # Errors
    /// [`DecodeError`] if an entry is not valid, or if there are none or too many.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let store_uptime_s = reader.u64()?;
        let mut entries = Vec::new();
        while !reader.is_empty() {
            let tenant = TenantId(reader.u64()?);
            let (key_hash, request_fingerprint) = (reader.array()?, reader.array()?);
            let [kind] = reader.array()?;
            let result = match kind {
                ISSUED => {
                    let (first, last) = (reader.value()?, reader.value()?);
                    let range = Range { first, last, count: reader.u32()? };
                    let version = Version { generation: reader.u64()?, revision: reader.u64()? };
                    StoredResult::Issued(Issued { range, version })
                }
                STATE => StoredResult::State(decode_counter(reader)?),
                _ => return Err(reader.bad("unknown kind of result")),
            };
            entries.push(IdempotencyEntry { tenant, key_hash, request_fingerprint, result });
        }
        if entries.is_empty() || entries.len() > PAGE_ENTRIES {
            return Err(reader.bad("too few or too many entries"));
        }
        Ok(Self { store_uptime_s, entries })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::counter::Value;

    pub(crate) fn sample() -> IdempotencyPage {
        let [first, last] = [8, 10].map(|raw| Value::new(raw).unwrap());
        let range = Range { first, last, count: 3 };
        let issued = Issued { range, version: Version { generation: 4, revision: 5 } };
        let (tenant, key_hash, request_fingerprint) = (TenantId(3), [1; 16], [2; 16]);
        let results = [StoredResult::Issued(issued), StoredResult::State(CounterState::default())];
        let entries = results.map(|result| IdempotencyEntry {
            tenant,
            key_hash,
            request_fingerprint,
            result,
        });
        IdempotencyPage { store_uptime_s: 99, entries: entries.to_vec() }
    }
}
