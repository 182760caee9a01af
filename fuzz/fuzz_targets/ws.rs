#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mainstem_fuzz::ws::ws(bytes));
