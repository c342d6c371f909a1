use super::*;
use crate::step::Step;
use minicbor::bytes::{ByteArray, ByteVec};
use vault_core::header::section;
use vault_core::keys::Dek;
use vault_core::recipient::broker::Released;
use vault_core::secret::Secret;

/// A stream that is different each time and the same each run.
struct Counting(u64);

impl rand_core::TryRng for Counting {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::try_from(self.try_next_u64()? >> 32).unwrap_or(0))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Ok(self.0)
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in dest.chunks_mut(8) {
            let bytes = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Counting {}

const NOW: u64 = 1_795_000_000;

fn key(byte: u8) -> NonceKey {
    NonceKey::new(Secret::take(&mut [byte; 64])).unwrap()
}

#[test]
fn nonces_of_others_expired_or_changed_are_refused() {
    let nonce = key(1).issue(NOW, &mut Counting(1));
    assert_ne!(nonce, key(1).issue(NOW, &mut Counting(2)));
    assert_eq!(key(1).check(&nonce, NOW), Ok(NOW + NONCE_LIFE_S));
    assert_eq!(key(1).check(&nonce, NOW + NONCE_LIFE_S), Ok(NOW + NONCE_LIFE_S));
    assert_eq!(key(1).check(&nonce, NOW + NONCE_LIFE_S + 1).unwrap_err().step, Step::R(3));
    assert_eq!(key(2).check(&nonce, NOW).unwrap_err().step, Step::R(2));
    for bit in 0..nonce.len() * 8 {
        let mut changed = nonce;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key(1).check(&changed, NOW).unwrap_err().step, Step::R(2), "bit {bit}");
    }
    assert!(NonceKey::new(Secret::take(&mut [1; 32])).is_none());
}

fn stanza() -> Section {
    Section { kind: section::BROKER, body: vec![3; 1220] }
}

/// Every part of what evidence is bound to changes the binding.
#[test]
fn binding_covers_nonce_key_artifact_and_stanza() {
    let base = Binding::new(&[1; 32], &[2; 1216], &[3; 32], &stanza());
    let mut other = stanza();
    other.body[1219] ^= 1;
    let shorter = Section { body: vec![3; 1219], ..stanza() };
    let critical = Section { kind: 0x8004, ..stanza() };
    for changed in [
        Binding::new(&[9; 32], &[2; 1216], &[3; 32], &stanza()),
        Binding::new(&[1; 32], &[9; 1216], &[3; 32], &stanza()),
        Binding::new(&[1; 32], &[2; 1216], &[9; 32], &stanza()),
        Binding::new(&[1; 32], &[2; 1216], &[3; 32], &other),
        Binding::new(&[1; 32], &[2; 1216], &[3; 32], &shorter),
        Binding::new(&[1; 32], &[2; 1216], &[3; 32], &critical),
    ] {
        assert_ne!(changed, base);
    }
}

#[test]
fn only_the_enclave_opens_and_only_this_answer() {
    let mut rng = Counting(5);
    let (enclave, other) = (EnclaveKey::generate(&mut rng), EnclaveKey::generate(&mut rng));
    assert_eq!(enclave.public().len(), PUBLIC_KEY_LEN);
    let binding = Binding::new(&[1; 32], &enclave.public(), &[3; 32], &stanza());
    let dek = || Dek::from_secret(Secret::take(&mut [9; 32])).unwrap();
    let released = Released::new(stanza(), dek());
    let (enc, wrapped) = wrap_dek(released, &enclave.public(), &binding, &[4; 16], &mut rng).unwrap();
    assert_eq!(enc.len(), ENC_LEN);
    let open = |key: &EnclaveKey, binding: &Binding, id: &[u8; 16], enc: &[u8], wrapped: &[u8]| {
        key.open(binding, id, enc, wrapped).map(|secret| secret.expose().to_vec())
    };
    assert_eq!(open(&enclave, &binding, &[4; 16], &enc, &wrapped), Some(vec![9; 32]));
    let elsewhere = Binding::new(&[2; 32], &enclave.public(), &[3; 32], &stanza());
    assert_eq!(open(&other, &binding, &[4; 16], &enc, &wrapped), None);
    assert_eq!(open(&enclave, &elsewhere, &[4; 16], &enc, &wrapped), None);
    assert_eq!(open(&enclave, &binding, &[5; 16], &enc, &wrapped), None);
    let flip =
        |bytes: &[u8]| bytes.iter().enumerate().map(|(i, b)| if i == 7 { b ^ 1 } else { *b }).collect::<Vec<_>>();
    assert_eq!(open(&enclave, &binding, &[4; 16], &flip(&enc), &wrapped), None);
    assert_eq!(open(&enclave, &binding, &[4; 16], &enc, &flip(&wrapped)), None);
    assert_eq!(open(&enclave, &binding, &[4; 16], &enc[1..], &wrapped), None);
    assert!(wrap_dek(Released::new(stanza(), dek()), &[0xFF; PUBLIC_KEY_LEN], &binding, &[4; 16], &mut rng).is_none());
}

fn request() -> Request {
    let public_key = ByteVec::from(EnclaveKey::generate(&mut Counting(7)).public());
    let (evidence, header) = (ByteVec::from(vec![1; 5000]), ByteVec::from(vec![2; 1400]));
    Request { nonce: ByteArray::from([1; 32]), evidence, public_key, header }
}

#[test]
fn messages_are_read_back() {
    let challenge = Challenge { nonce: ByteArray::from([1; 32]), life_s: 120, keys: vec![ByteArray::from([2; 32])] };
    assert_eq!(decode::<Challenge>(&encode(&challenge), Step::R(20)), Ok(challenge));
    assert_eq!(decode::<Request>(&encode(&request()), Step::R(1)), Ok(request()));
    let grant = Grant {
        id: ByteArray::from([1; 16]),
        enc: ByteVec::from(vec![2; ENC_LEN]),
        wrapped: ByteArray::from([3; 48]),
        entry: ByteVec::from(vec![4; 800]),
        proof: "proof".into(),
    };
    assert_eq!(decode::<Grant>(&encode(&grant), Step::R(21)), Ok(grant));
    for wait_s in [None, Some(30)] {
        let (step, retry, hint) = ("R-12".into(), Retry::Later.to_string(), "wait".into());
        let refusal = RefusalMessage { id: ByteArray::from([1; 16]), step, retry, hint, wait_s };
        assert_eq!(decode::<RefusalMessage>(&encode(&refusal), Step::R(21)), Ok(refusal));
    }
}

#[test]
fn other_encodings_and_lengths_are_refused() {
    let refused = |bytes: &[u8]| decode::<Request>(bytes, Step::R(1)).map(|_| ()).unwrap_err().step == Step::R(1);
    let good = encode(&request());
    let trailing = [&good[..], &[0]].concat();
    let indefinite = [&[0xBF], &good[1..], &[0xFF]].concat();
    let unknown_key = [&[0xA5], &good[1..], &[0x04, 0x00]].concat();
    let long_key = [&[0xA4, 0x18, 0x00], &good[2..]].concat();
    for bytes in [&[][..], &good[..good.len() - 1], &trailing, &indefinite, &unknown_key, &long_key, &[0xA0], &[0xA4]] {
        assert!(refused(bytes));
    }
    let huge = [&[0xA4, 0x00, 0x5B][..], &[0xFF; 8]].concat();
    assert!(refused(&huge));
    assert!(refused(&vec![0x81; 90_000]), "depth");
    let with = |change: &dyn Fn(&mut Request)| {
        let mut request = request();
        change(&mut request);
        encode(&request)
    };
    assert!(refused(&with(&|r| r.public_key = ByteVec::from(vec![0xFF; PUBLIC_KEY_LEN]))));
    assert!(refused(&with(&|r| r.public_key = ByteVec::from(vec![1; 1217]))));
    assert!(refused(&with(&|r| r.evidence = ByteVec::from(vec![]))));
    assert!(refused(&with(&|r| r.evidence = ByteVec::from(vec![1; 16385]))));
    assert!(refused(&with(&|r| r.header = ByteVec::from(vec![1; MAX_HEADER + 1]))));
}
