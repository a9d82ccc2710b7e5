//! libFuzzer on [`bennu_fuzz::images::record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bennu_fuzz::images::record(data));
