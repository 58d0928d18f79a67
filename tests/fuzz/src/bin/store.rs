//! The fuzzer of the target `store`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| firn_fuzz::store::run(data));
