//! The fuzzer of the target `bootinfo`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| firn_fuzz::bootinfo::run(data));
