#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trustweave_fuzz::webhook::holds(data));
