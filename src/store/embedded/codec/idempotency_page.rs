//! Answers that are to be given again: what an idempotency key stands for.
//!
//! Job: [`IdempotencyPage`], the page of one commit, encoded and decoded. A page is filed under its own number, so a commit of a thousand such requests
//! writes a few records and not a thousand.
//!
//! ```text
//! age:u64  seconds that the store had run when it answered
//! answer   tenant:u64 key:16 request:16 kind:u8 …       1 issued: first:u64 last:u64 count:u32 born:u64 changes:u64
//!                                                       2 state: a counter as in its record
//! ```
//! Invariant: a page that decodes has 1 to [`PAGE_ENTRIES`] answers. Must never: hold an answer of a change that is not in the same commit.

use crate::domain::counter::Range;
use crate::domain::tenant::TenantId;
use crate::store::embedded::codec::counter::{decode_counter, encode_counter};
use crate::store::embedded::codec::reader::{DecodeError, Reader};
use crate::store::{CounterState, Digest128, Issued, Version};

/// The most answers of one page: about 5 KiB.
pub const PAGE_ENTRIES: usize = 64;

/// A page of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyPage {
    /// How long the store had run, in all its processes, in seconds.
    pub store_uptime_s: u64,
    /// The answers.
    pub entries: Vec<IdempotencyEntry>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyEntry {
    /// Whose request it was.
    pub tenant: TenantId,
    /// Of its idempotency key.
    pub key_hash: Digest128,
    /// Of what it asked for.
    pub request_fingerprint: Digest128,
    /// What was answered.
    pub result: StoredResult,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredResult {
    /// Integers.
    Issued(Issued),
    /// The state of a counter that was set or created.
    State(CounterState),
}

impl IdempotencyPage {
    /// Appends the page's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.store_uptime_s.to_be_bytes());
        for answered in &self.entries {
            out.extend_from_slice(&answered.tenant.0.to_be_bytes());
            out.extend_from_slice(&answered.key_hash);
            out.extend_from_slice(&answered.request_fingerprint);
            match &answered.result {
                StoredResult::Issued(Issued { range, version }) => {
                    out.push(1);
                    out.extend_from_slice(&range.first.get().to_be_bytes());
                    out.extend_from_slice(&range.last.get().to_be_bytes());
                    out.extend_from_slice(&range.count.to_be_bytes());
                    out.extend_from_slice(&version.generation.to_be_bytes());
                    out.extend_from_slice(&version.revision.to_be_bytes());
                }
                StoredResult::State(state) => {
                    out.push(2);
                    encode_counter(state, out);
                }
            }
        }
    }

    /// Reads a page back.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub(crate) fn decode(rest: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let store_uptime_s = rest.u64()?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (tenant, key_hash, request_fingerprint) = (TenantId(rest.u64()?), rest.array()?, rest.array()?);
            let [kind] = rest.array()?;
            let result = match kind {
                1 => {
                    let range = Range { first: rest.value()?, last: rest.value()?, count: rest.u32()? };
                    StoredResult::Issued(Issued {
                        range,
                        version: Version { generation: rest.u64()?, revision: rest.u64()? },
                    })
                }
                2 => StoredResult::State(decode_counter(rest)?),
                _ => return Err(rest.bad("unknown answer")),
            };
            entries.push(IdempotencyEntry { tenant, key_hash, request_fingerprint, result });
        }
        if entries.is_empty() || entries.len() > PAGE_ENTRIES {
            return Err(rest.bad("too few or too many answers"));
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
        let issued = Issued { range: Range { first, last, count: 3 }, version: Version { generation: 4, revision: 5 } };
        let answered =
            |result| IdempotencyEntry { tenant: TenantId(3), key_hash: [1; 16], request_fingerprint: [2; 16], result };
        let entries =
            vec![answered(StoredResult::Issued(issued)), answered(StoredResult::State(CounterState::default()))];
        IdempotencyPage { store_uptime_s: 99, entries }
    }
}
