//! GGUF; the magic and the version are given, so that the fuzzer starts behind them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    mvault_fuzz::scan_both_ways(&["model.gguf"], data);
});
