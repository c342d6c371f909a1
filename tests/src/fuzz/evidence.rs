//! Nitro evidence from a fuzzer's bytes: as the document, or behind good signatures of a test root.

use crate::evidence::{Chain, Envelope, Evidence, NOW_S, TestRoot, encode};
use coset::cbor::value::Value;
use vault_attest::nitro::{Mode, unverified_outline, verify};

/// Signs what a fuzzer makes up.
pub struct EvidenceBase {
    root: TestRoot,
    chain: Chain,
}

impl Default for EvidenceBase {
    fn default() -> Self {
        let root = TestRoot::new();
        Self { chain: root.chain(NOW_S), root }
    }
}

impl EvidenceBase {
    /// A document whose first byte says what the others are: the document, its payload, the payload's fields behind
    /// good ones, its leaf, the last of its bundle, or its protected header.
    pub fn document(&self, data: &[u8]) -> Option<Vec<u8>> {
        let (how, data) = data.split_first()?;
        let mut fields = Evidence::at(NOW_S).fields(&self.chain);
        let payload = match how % 6 {
            0 => return Some(data.to_vec()),
            1 => data.to_vec(),
            2 => [&encode(fields)[..], data].concat(),
            3 => {
                fields[4].1 = Value::Bytes(data.to_vec());
                encode(fields)
            }
            4 => {
                let mut bundle = self.chain.bundle().to_vec();
                *bundle.last_mut()? = data.to_vec();
                fields[5].1 = Value::Array(bundle.into_iter().map(Value::Bytes).collect());
                encode(fields)
            }
            _ => return Some(Envelope::new(&self.chain, &encode(fields)).with_protected(&self.chain, data).document()),
        };
        Some(self.chain.sign_payload(payload))
    }

    /// What is accepted has the form that was promised, and is the same in both modes.
    pub fn check(&self, document: &[u8]) {
        let outline = unverified_outline(document);
        let roots = self.root.roots();
        let archived = verify(document, &roots, Mode::Archived);
        let live = verify(document, &roots, Mode::Live { now_s: NOW_S });
        let Ok(verified) = archived else { return assert!(live.is_err() || outline.time_ms.is_some()) };
        assert_eq!(Some(verified.module_id()), outline.module_id.as_deref());
        assert_eq!(Some(verified.time_ms()), outline.time_ms);
        assert!((0..3).all(|index| verified.pcr(index).is_some_and(|pcr| *pcr != [0; 48])));
        let (from, to) = verified.validity_s();
        assert!((from..=to).contains(&(verified.time_ms() / 1000)));
        let data = [verified.nonce(), verified.user_data(), verified.public_key()];
        assert!(data.iter().all(|data| data.len() <= 1024));
        assert!(live.is_err() || live == Ok(verified));
    }

    /// Where a fuzzer starts: for each way, what good evidence has there.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let evidence = Evidence::at(NOW_S).with_nonce(&[7; 32]).with_user_data(&[8; 32]);
        let payload = encode(evidence.fields(&self.chain));
        let seed = |how: u8, data: &[u8]| [&[how], data].concat();
        vec![
            seed(0, &evidence.sign(&self.chain)),
            seed(1, &payload),
            seed(2, b"\x65extra\xF6"),
            seed(3, self.chain.leaf()),
            seed(4, self.chain.bundle().last().unwrap()),
            seed(5, &[0xA1, 0x01, 0x38, 0x22]),
        ]
    }
}
