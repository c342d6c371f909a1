//! Table and manifest of any bytes, sealed under right keys, so that they reach CBOR, limits and layout.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mvault_tests::fuzz::{self, Base};
use std::sync::LazyLock;
use vault_core::recipient::xwing::XWingIdentity;

static BASE: LazyLock<(Base, XWingIdentity)> = LazyLock::new(|| (Base::new(), fuzz::identity()));

fuzz_target!(|data: &[u8]| {
    let (base, identity) = &*BASE;
    let Some(bytes) = base.manifest(data) else { return };
    let read = fuzz::read(&bytes, identity);
    // A range reader takes what a whole reader refuses for its digests or padding; never the other way round.
    assert!(!read.opened() || read.ranges.is_ok(), "ranges: {:?}", read.ranges);
});
