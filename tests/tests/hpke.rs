//! The DEK on its way to an enclave is HPKE as published (RFC 9180, X-Wing): a key schedule written from the RFC, held to vectors,
//! then the other side of vault-attest's.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use hkdf::hmac::EagerHash;
use mvault_tests::{rng, shared_vectors};
use vault_attest::release::{Binding, EnclaveKey};
use vault_core::header::Section;
use x_wing::kem::{Decapsulate, Encapsulate};
use x_wing::{Ciphertext, DecapsulationKey, EncapsulationKey};

/// RFC 9180 5.1, mode base, for a shared secret that is there: key and base nonce.
fn key_schedule<H: EagerHash>(suite: [u16; 3], shared: &[u8], info: &[u8]) -> ([u8; 32], [u8; 12]) {
    let suite_id = [b"HPKE", &suite.map(u16::to_be_bytes).concat()[..]].concat();
    let labelled = |label: &[u8], rest: &[u8]| [b"HPKE-v1", &suite_id[..], label, rest].concat();
    let extract = |salt: &[u8], label: &[u8], ikm: &[u8]| Hkdf::<H>::extract(Some(salt), &labelled(label, ikm));
    let hash = |label: &[u8], ikm: &[u8]| extract(b"", label, ikm).0.to_vec();
    let context = [&[0][..], &hash(b"psk_id_hash", b""), &hash(b"info_hash", info)].concat();
    let (_, secret) = extract(shared, b"secret", b"");
    let (mut key, mut nonce) = ([0; 32], [0; 12]);
    secret.expand(&[&[0, 32], &labelled(b"key", &context)[..]].concat(), &mut key).unwrap();
    secret.expand(&[&[0, 12], &labelled(b"base_nonce", &context)[..]].concat(), &mut nonce).unwrap();
    (key, nonce)
}

/// The key schedule above is that of published vectors, and what it seals in the suite of KEY_RELEASE.md section 4, an enclave
/// opens.
#[test]
fn release_is_hpke_as_published() {
    let Some(folder) = shared_vectors("kem") else { return };
    let text = std::fs::read_to_string(folder.join("rust-hpke-test-vectors-go.json")).unwrap();
    let vectors: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let vector = vectors.iter().find(|v| v["kem_id"] == 0x647A && v["kdf_id"] == 1).unwrap();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let hex = |field: &str| vector[field].as_str().unwrap().as_bytes().chunks(2).map(byte).collect::<Vec<_>>();
    let key = DecapsulationKey::from(<[u8; 32]>::try_from(hex("skRm")).unwrap());
    let shared = key.decapsulate(&Ciphertext::try_from(&hex("enc")[..]).unwrap());
    assert_eq!(shared[..], hex("shared_secret"));
    let made = key_schedule::<sha2::Sha256>([0x647A, 1, 3], &shared, &hex("info"));
    assert_eq!((made.0.to_vec(), made.1.to_vec()), (hex("key"), hex("base_nonce")));

    let enclave = EnclaveKey::generate(&mut rng(1));
    let public = EncapsulationKey::try_from(&enclave.public()[..]).unwrap();
    let (enc, shared) = public.encapsulate_with_rng(&mut rng(2));
    let binding = Binding::new(&[1; 32], &enclave.public(), &[2; 32], &Section { kind: 4, body: vec![3] });
    let info = [b"mvault/v1/release\0", &binding.as_bytes()[..]].concat();
    let (key, nonce) = key_schedule::<sha2::Sha512>([0x647A, 3, 2], &shared, &info);
    let cipher = Aes256Gcm::new_from_slice(&key).unwrap();
    let wrapped = cipher.encrypt(&nonce.into(), Payload { msg: &[9; 32], aad: &[4; 16] }).unwrap();
    assert_eq!(enclave.open(&binding, &[4; 16], &enc, &wrapped).unwrap().expose(), [9; 32]);
}
