#![no_main]
//! Any bytes for `kith_dht::fuzz::fuzz_blinded`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| kith_dht::fuzz::fuzz_blinded(data));
