//! The fuzzer of the target `blkback`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| firn_fuzz::blkback::run(data));
