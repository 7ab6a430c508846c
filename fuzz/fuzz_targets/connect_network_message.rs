#![no_main]
//! Any bytes for `kith_connect::fuzz::fuzz_network_message`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| kith_connect::fuzz::fuzz_network_message(data));
