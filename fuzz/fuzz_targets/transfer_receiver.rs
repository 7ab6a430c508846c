#![no_main]
//! Any bytes for `kith_transfer::fuzz::fuzz_receiver`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| kith_transfer::fuzz::fuzz_receiver(data));
