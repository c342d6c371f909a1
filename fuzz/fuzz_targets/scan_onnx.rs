//! ONNX's protobuf wire.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    mvault_fuzz::scan_both_ways(&["model.onnx", "weights"], data);
});
