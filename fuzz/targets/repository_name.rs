#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layercache_fuzz::repository_name(bytes));
