#![no_main]
//! Any bytes for `kith_sansio::fuzz::fuzz_wire`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| kith_sansio::fuzz::fuzz_wire(data));
