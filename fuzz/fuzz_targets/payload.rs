//! A payload of any bytes, or a valid one that was edited: what comes out of a stream is the original's beginning,
//! and only the original opens.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mvault_tests::fuzz::{self, Base};
use std::sync::LazyLock;
use vault_core::recipient::xwing::XWingIdentity;

static BASE: LazyLock<(Base, XWingIdentity)> = LazyLock::new(|| (Base::new(), fuzz::identity()));

fuzz_target!(|data: &[u8]| {
    let (base, identity) = &*BASE;
    let Some(bytes) = base.payload(data) else { return };
    let read = fuzz::read(&bytes, identity);
    assert!(base.data().starts_with(&read.released), "bytes came out that were not sealed");
    assert_eq!(read.opened(), bytes == base.bytes(), "what opens is the original, and it does");
});
