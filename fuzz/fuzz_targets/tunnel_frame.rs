#![no_main]
//! Any bytes for `kith_tunnel::fuzz::fuzz_frame`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| kith_tunnel::fuzz::fuzz_frame(data));
