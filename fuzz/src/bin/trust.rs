//! libFuzzer on [`bennu_fuzz::trust`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bennu_fuzz::trust(data));
