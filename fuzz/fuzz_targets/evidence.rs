//! Nitro documents of any bytes, and any payload, certificate or header behind good signatures under a test root.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mvault_tests::fuzz::evidence::EvidenceBase;
use std::sync::LazyLock;

static BASE: LazyLock<EvidenceBase> = LazyLock::new(EvidenceBase::default);

fuzz_target!(|data: &[u8]| {
    if let Some(document) = BASE.document(data) {
        BASE.check(&document);
    }
});
