#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringd::testing::fuzz::entry("session")(input));
