//! Release messages, log entries and log proofs of any bytes: what is taken is encoded back to the same bytes, and nothing
//! is allocated that was only claimed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use vault_attest::Step;
use vault_attest::release::{Challenge, Grant, NonceKey, RefusalMessage, Request, decode, encode};
use vault_attest::tlog::{LogEntry, LogProof, LogVerifier, parse_consistency, verify_log_proof};
use vault_core::header::Header;
use vault_core::secret::Secret;

static LOG: LazyLock<LogVerifier> = LazyLock::new(|| LogVerifier::new("test.example/log", [1; 32]).expect("a name"));

fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = data.split_first() else { return };
    let step = Step::R(1);
    match how % 7 {
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
                assert!(verify_log_proof(&message.entry, &message.proof, &LOG).is_err(), "a signature that nobody made");
            }
        }
        3 => {
            if let Ok(message) = decode::<RefusalMessage>(data, step) {
                assert_eq!(encode(&message), data);
            }
        }
        4 => {
            if let Ok(entry) = LogEntry::parse(data) {
                assert_eq!(entry.to_bytes(), data);
            }
        }
        5 => {
            let text = String::from_utf8_lossy(data);
            if let Ok(proof) = LogProof::parse(&text) {
                assert_eq!(LogProof::parse(&proof.to_string()), Ok(proof));
            }
            let _ = parse_consistency(&text);
        }
        _ => {
            if let Ok(header) = Header::parse_unpadded(data) {
                assert_eq!(header.unpadded(), data);
            }
        }
    }
});
