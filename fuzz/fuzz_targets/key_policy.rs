//! A key policy of any bytes: neither reading nor judging it panics, and every finding has its texts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_attest::key_policy::{Document, lint};

fuzz_target!(|data: &[u8]| {
    let Ok(document) = Document::parse(data) else { return };
    for finding in lint(&document, None) {
        assert!(!finding.why.is_empty() && !finding.fix.is_empty(), "{}", finding.id);
    }
});
