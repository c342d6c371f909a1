//! Zip archives with their members, and npy files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    mvault_fuzz::scan_both_ways(&["model.pt", "arrays.npz"], data);
});
