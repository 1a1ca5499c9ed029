//! The target `digests`, for libFuzzer. What it does and what must hold stands in `targets`; this
//! must never do anything else.

#![no_main]

mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    targets::digests(input);
});
