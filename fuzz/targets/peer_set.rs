#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layercache_fuzz::peer_set(bytes));
