//! The fuzzer of the target `scsi`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| firn_fuzz::scsi::run(data));
