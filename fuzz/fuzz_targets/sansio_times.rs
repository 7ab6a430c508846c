#![no_main]
//! Any bytes for `kith_sansio::fuzz::fuzz_times`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| kith_sansio::fuzz::fuzz_times(data));
