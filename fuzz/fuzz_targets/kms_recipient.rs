//! A CiphertextForRecipient of any bytes: parsed or refused at one of its steps, and what is parsed has the form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_attest::kms::{Envelope, MAX_ANSWER};
use vault_attest::step::Step;

fuzz_target!(|data: &[u8]| {
    match Envelope::parse(data) {
        Ok(envelope) => {
            assert!(data.len() <= MAX_ANSWER && envelope.encrypted_key().len() == 256);
            assert!(!envelope.content().is_empty() && envelope.content().len().is_multiple_of(16));
            let within = |part: &[u8]| data.windows(part.len()).any(|w| w == part);
            assert!(within(envelope.iv()));
        }
        Err(refusal) => assert!(matches!(refusal.step, Step::C(4..=17))),
    }
});
