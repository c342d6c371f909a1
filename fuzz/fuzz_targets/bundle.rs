//! Model signatures of any bytes, any statement behind a good signature, and any certificates around one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mvault_tests::fuzz::bundle::BundleBase;
use std::sync::LazyLock;

static BASE: LazyLock<BundleBase> = LazyLock::new(BundleBase::default);

fuzz_target!(|data: &[u8]| BASE.check(data));
