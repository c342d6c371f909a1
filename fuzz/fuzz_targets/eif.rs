//! An enclave image of any bytes, its checksum put right so that the fuzzer gets behind it: reading neither panics nor
//! follows a length that is not there, and what is measured is all of the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mvault_tests::forge::eif::{HEADER_LEN, check_again};
use vault_attest::eif::measure;

fuzz_target!(|data: &[u8]| {
    let data = if data.len() < HEADER_LEN { data.to_vec() } else { check_again(data.to_vec()) };
    let Ok(image) = measure(&data, data.len() as u64) else { return };
    let sections: u64 = image.sections().iter().map(|s| 12 + s.len).sum();
    assert_eq!(HEADER_LEN as u64 + sections, data.len() as u64);
    assert_eq!(image.pcrs().contains_key(&8), image.certificate().is_some());
});
