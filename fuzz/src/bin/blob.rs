//! libFuzzer on [`bennu_fuzz::images::blob`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bennu_fuzz::images::blob(data));
