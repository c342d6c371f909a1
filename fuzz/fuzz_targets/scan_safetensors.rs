//! safetensors headers, through the scan and through the header parser.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = vault_core::scan::safetensors::parse_header(data, None);
    let _ = vault_core::scan::safetensors::parse_header(data, Some(64));
    mvault_fuzz::scan_both_ways(&["model.safetensors"], data);
});
