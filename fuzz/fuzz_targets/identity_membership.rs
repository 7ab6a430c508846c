#![no_main]
//! Any bytes for `kith_identity::fuzz::fuzz_membership`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| kith_identity::fuzz::fuzz_membership(data));
