//! Pickles: alone, torch's legacy files, joblib streams, gzip and zlib around them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    mvault_fuzz::scan_both_ways(&["model.pkl", "weights", "notes.txt", "model.joblib", "model.pt"], data);
});
