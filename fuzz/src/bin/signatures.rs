//! libFuzzer on [`bennu_fuzz::signatures`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bennu_fuzz::signatures(data));
