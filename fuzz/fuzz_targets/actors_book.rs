#![no_main]
//! Any bytes for `kith_actors::fuzz::fuzz_book`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| kith_actors::fuzz::fuzz_book(data));
