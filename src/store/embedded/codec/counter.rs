//! The bytes of a counter, which its record and a stored result have in common.
//!
//! Job: encode and decode a [`CounterState`].
//! Invariant: decoding what was encoded gives the same counter.
//! Must never: accept a value outside the counter's bounds.

use crate::domain::counter::{Counter, CounterConfig, Step};
use crate::store::embedded::codec::reader::{DecodeError, Reader};
use crate::store::{CounterState, Version};

const REWINDABLE: u8 = 1;

/// Appends a counter's bytes, which answers have too.
pub(crate) fn encode_counter(state: &CounterState, out: &mut Vec<u8>) {
    let shape = state.counter.config();
    for value in [state.counter.value().get(), shape.start().get(), shape.step().get()] {
        out.extend_from_slice(&value.to_be_bytes());
    }
    out.extend_from_slice(&shape.min().get().to_be_bytes());
    out.extend_from_slice(&shape.max().get().to_be_bytes());
    out.push(if shape.rewindable() { REWINDABLE } else { 0 });
    for number in [state.version.generation, state.version.revision, state.created_unix_s] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Reads them back.
pub(crate) fn decode_counter(rest: &mut Reader<'_>) -> Result<CounterState, DecodeError> {
    let value = rest.value()?;
    let start = rest.value()?;
    let step = Step::new(rest.u64()?).ok_or(rest.bad("step out of range"))?;
    let (min, max) = (rest.value()?, rest.value()?);
    let [flags] = rest.array()?;
    if flags & !REWINDABLE != 0 {
        return Err(rest.bad("unknown flags"));
    }
    let shape =
        CounterConfig::new(start, step, min, max, flags & REWINDABLE != 0).map_err(|_| rest.bad("not bounds"))?;
    let counter = Counter::from_parts(value, shape).ok_or(rest.bad("value out of bounds"))?;
    let version = Version { generation: rest.u64()?, revision: rest.u64()? };
    Ok(CounterState { counter, version, created_unix_s: rest.u64()? })
}
