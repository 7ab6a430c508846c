#![no_main]
//! Any bytes for `kith_actors::fuzz::fuzz_message`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| kith_actors::fuzz::fuzz_message(data));
