//! libFuzzer on [`bennu_fuzz::secret`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bennu_fuzz::secret(data));
