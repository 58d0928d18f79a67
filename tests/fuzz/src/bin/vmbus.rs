//! The fuzzer of the target `vmbus`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| firn_fuzz::vmbus::run(data));
