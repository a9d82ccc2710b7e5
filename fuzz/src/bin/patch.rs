//! libFuzzer on [`bennu_fuzz::images::patch`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bennu_fuzz::images::patch(data));
