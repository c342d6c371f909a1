use super::*;
use crate::recipient::keyfile::{decode_broker, encode_broker};

struct Counting(u64);

impl rand_core::TryRng for Counting {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Self::Error> {
        Ok(u32::try_from(self.try_next_u64()? & 0xFFFF_FFFF).unwrap_or(0))
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Self::Error> {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Ok(self.0)
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> std::result::Result<(), Self::Error> {
        for chunk in dest.chunks_mut(8) {
            let bytes = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Counting {}

fn dek() -> Dek {
    Dek::from_secret(Secret::take(&mut [9; 32])).unwrap()
}

#[test]
fn only_its_key_opens_a_stanza_and_only_unchanged() {
    let mut rng = Counting(1);
    let (key, other) = (BrokerKey::generate(&mut rng), BrokerKey::generate(&mut rng));
    let recipient = BrokerRecipient::new(key.public().clone(), "prod", Some([5; 32])).unwrap();
    let salt = [7; 32];
    let section = recipient.wrap_dek(&salt, &dek(), &mut rng).unwrap();
    let stanza = Stanza::parse(&section).unwrap();
    assert_eq!((stanza.policy, stanza.digest), ("prod", Some([5; 32])));
    assert!(key.unwrap_dek(&salt, &section).is_some_and(|d| d.expose() == dek().expose()));
    assert!(other.unwrap_dek(&salt, &section).is_none());
    assert!(key.unwrap_dek(&[8; 32], &section).is_none(), "a stanza moved to another artifact");
    for at in 0..section.body.len() {
        let mut changed = section.clone();
        changed.body[at] ^= 1;
        assert!(key.unwrap_dek(&salt, &changed).is_none(), "byte {at}");
    }
    assert!(recipient.is_for(&salt, &section));
    let unpinned = BrokerRecipient::new(key.public().clone(), "prod", None).unwrap();
    assert!(!unpinned.is_for(&salt, &section));
}

/// [F-47]: the form, to the last byte.
#[test]
fn other_forms_are_no_stanza() {
    let body = |name: &[u8], tail: usize| {
        let len = u8::try_from(name.len()).unwrap_or(255);
        [&vec![1; 8 + CIPHERTEXT_SIZE][..], &[len], name, &vec![2; tail]].concat()
    };
    let parses = |kind, body| Stanza::parse(&Section { kind, body }).is_some();
    assert!(parses(4, body(b"prod", 80)));
    assert!(parses(4, body(&[b'a'; 64], 80)));
    for bad in [body(b"", 80), body(&[b'a'; 65], 80), body(b"Prod", 80), body(b"pr\0d", 80), body(&[0xFF], 80)] {
        assert!(!parses(4, bad));
    }
    for bad in [body(b"prod", 79), body(b"prod", 81), vec![], vec![1; 8 + CIPHERTEXT_SIZE]] {
        assert!(!parses(4, bad));
    }
    assert!(!parses(2, body(b"prod", 80)));
}

#[test]
fn lines_are_read_back_and_damage_is_named() {
    let key = BrokerKey::generate(&mut Counting(3));
    let line = encode_broker(key.public());
    let with = |tail: &str| decode_broker(&format!("{line}{tail}"));
    assert!(with("/prod").unwrap() == BrokerRecipient::new(key.public().clone(), "prod", None).unwrap());
    let pinned = with(&format!("/prod@sha256:{}", "05".repeat(32))).unwrap();
    assert!(pinned == BrokerRecipient::new(key.public().clone(), "prod", Some([5; 32])).unwrap());
    for bad in ["", "/", "/Prod", "/a/b", "/prod@", "/prod@sha256:05", "/prod@sha512:00", "x/prod"] {
        assert!(with(bad).is_err(), "{bad}");
    }
    assert!(with(&format!("/prod@sha256:{}", "00".repeat(32))).is_err());
}

#[test]
fn a_released_key_is_for_its_stanza_alone() {
    let section = |byte| Section { kind: section::BROKER, body: vec![byte; 8] };
    let released = Released::new(section(1), dek());
    assert!(released.unwrap_dek(&[0; 32], &section(1)).unwrap().is_some());
    assert!(released.unwrap_dek(&[0; 32], &section(2)).unwrap().is_none());
}
