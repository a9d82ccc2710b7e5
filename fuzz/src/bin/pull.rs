//! libFuzzer on [`bennu_fuzz::images::pull`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bennu_fuzz::images::pull(data));
