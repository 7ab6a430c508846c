#![no_main]
//! Any bytes for `kith_directory::fuzz::fuzz_redis_answer`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| kith_directory::fuzz::fuzz_redis_answer(data));
