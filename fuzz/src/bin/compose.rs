//! libFuzzer on [`bennu_fuzz::compose`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bennu_fuzz::compose(data));
