//! Release messages and headers without their zeros, of any bytes: what is taken is encoded back to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use vault_attest::Step;
use vault_attest::release::{Challenge, Grant, NonceKey, RefusalMessage, Request, decode, encode};
use vault_attest::tlog::{LogVerifier, verify_log_proof};
use vault_core::header::Header;
use vault_core::secret::Secret;

static LOG: LazyLock<LogVerifier> = LazyLock::new(|| LogVerifier::new("test.example/log", [1; 32]).expect("a name"));

fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = data.split_first() else { return };
    let step = Step::R(1);
    match how % 5 {
        0 => {
            if let Ok(message) = decode::<Challenge>(data, step) {
                assert_eq!(encode(&message), data);
                let key = NonceKey::new(Secret::take(&mut [7; 64])).expect("its length");
                assert!(key.check(&message.nonce, 0).is_err(), "a nonce that nobody made");
            }
        }
        1 => {
            if let Ok(message) = decode::<Request>(data, step) {
                assert_eq!(encode(&message), data);
                if let Ok(header) = Header::parse_unpadded(&message.header) {
                    assert_eq!(header.unpadded(), &message.header[..]);
                }
            }
        }
        2 => {
            if let Ok(message) = decode::<Grant>(data, step) {
                assert_eq!(encode(&message), data);
                assert!(
                    verify_log_proof(&message.entry, &message.proof, &LOG).is_err(),
                    "a signature that nobody made"
                );
            }
        }
        3 => {
            if let Ok(message) = decode::<RefusalMessage>(data, step) {
                assert_eq!(encode(&message), data);
            }
        }
        _ => {
            if let Ok(header) = Header::parse_unpadded(data) {
                assert_eq!(header.unpadded(), data);
            }
        }
    }
});
