//! The bytes of a counter, which counter records and stored results have in common.
//!
//! Job: encode and decode a [`CounterState`]. Integers are big-endian.
//!
//! ```text
//! value:u64 start:u64 step:u64 min:u64 max:u64 flags:u8 generation:u64 revision:u64 created:u64
//! flags: 1 rewindable
//! ```
//! Invariant: decoding what was encoded gives the same counter.
//! Must never: accept a value outside the counter's bounds.

use crate::domain::counter::{Counter, CounterConfig, Step};
use crate::store::embedded::codec::reader::{DecodeError, Reader};
use crate::store::{CounterState, Version};

const REWINDABLE: u8 = 1;

/// Appends a counter's bytes to `out`.
pub(crate) fn encode_counter(state: &CounterState, out: &mut Vec<u8>) {
    let config = state.counter.config();
    for value in [state.counter.value().get(), config.start().get(), config.step().get()] {
        out.extend_from_slice(&value.to_be_bytes());
    }
    out.extend_from_slice(&config.min().get().to_be_bytes());
    out.extend_from_slice(&config.max().get().to_be_bytes());
    out.push(if config.rewindable() { REWINDABLE } else { 0 });
    for number in [state.version.generation, state.version.revision, state.created_unix_s] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Decodes a counter.
///
/// # Errors
/// [`DecodeError`] if a field is missing or out of its range.
pub(crate) fn decode_counter(reader: &mut Reader<'_>) -> Result<CounterState, DecodeError> {
    let (value, start) = (reader.value()?, reader.value()?);
    let step = Step::new(reader.u64()?).ok_or(reader.bad("step out of range"))?;
    let (min, max) = (reader.value()?, reader.value()?);
    let [flags] = reader.array()?;
    if flags & !REWINDABLE != 0 {
        return Err(reader.bad("unknown flags"));
    }
    let config = CounterConfig::new(start, step, min, max, flags & REWINDABLE != 0)
        .map_err(|_| reader.bad("invalid bounds"))?;
    let counter = Counter::from_parts(value, config).ok_or(reader.bad("value out of bounds"))?;
    let version = Version { generation: reader.u64()?, revision: reader.u64()? };
    Ok(CounterState { counter, version, created_unix_s: reader.u64()? })
}
