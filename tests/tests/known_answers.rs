//! Published answers through the very crates and engines the format is built on: X-Wing's draft, Wycheproof for
//! AES-256-GCM and HKDF-SHA-512, RFC 9106 for Argon2id.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // tests: a panic is the report

use hkdf::Hkdf;
use mvault_tests::shared_vectors;
use sha2::Sha512;
use vault_core::aead::Engine;
use wycheproof::{TestResult, aead, hkdf as hkdf_tests};
use x_wing::kem::{Decapsulate, Decapsulator, KeyExport};
use x_wing::{Ciphertext, DecapsulationKey, EncapsulationKey};

fn unhex(text: &str) -> Vec<u8> {
    let byte = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn x_wing_draft() {
    let Some(folder) = shared_vectors("kem") else { return };
    let text = std::fs::read_to_string(folder.join("xwing-test-vectors.json")).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vectors = vectors.as_array().unwrap();
    for vector in vectors {
        let field = |name: &str| unhex(vector[name].as_str().unwrap());
        let seed: [u8; 32] = field("sk").try_into().unwrap();
        let secret = DecapsulationKey::from(seed);
        assert_eq!(secret.encapsulation_key().to_bytes().to_vec(), field("pk"));
        let public = EncapsulationKey::try_from(&field("pk")[..]).unwrap();
        let randomness: [u8; 64] = field("eseed").try_into().unwrap();
        let (ct, ss) = public.encapsulate_deterministic(&randomness.into());
        assert_eq!((ct.to_vec(), ss.to_vec()), (field("ct"), field("ss")));
        let ct = Ciphertext::try_from(&field("ct")[..]).unwrap();
        assert_eq!(secret.decapsulate(&ct).to_vec(), field("ss"));
    }
    assert_eq!(vectors.len(), 3);
}

#[test]
fn aes_256_gcm_wycheproof() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let ours = |g: &&aead::TestGroup| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128);
    let mut tried = 0;
    for test in set.test_groups.iter().filter(ours).flat_map(|g| &g.tests) {
        let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
        for engine in Engine::ALL {
            let key = engine.key(&test.key);
            let mut plain = vec![0xAA; test.ct.len()];
            let opened = key.open(nonce, &test.aad, &[&test.ct[..], &test.tag].concat(), &mut plain);
            let valid = test.result != TestResult::Invalid;
            assert_eq!(opened.is_ok(), valid, "{engine}: {} {}", test.tc_id, test.comment);
            if valid {
                assert_eq!(plain, test.pt[..], "{engine}: {}", test.tc_id);
                let mut sealed = vec![0; plain.len() + 16];
                key.seal_into(nonce, &test.aad, &plain, &mut sealed);
                let tag = key.seal(nonce, &test.aad, &mut plain);
                assert_eq!(sealed, [plain.as_slice(), &tag].concat());
                assert_eq!((plain, &tag[..]), (test.ct.to_vec(), &test.tag[..]), "{engine}: {}", test.tc_id);
            } else {
                assert!(plain.iter().all(|b| *b == 0), "{engine}: {} left plaintext", test.tc_id);
            }
            tried += 1;
        }
    }
    println!("AES-256-GCM: {tried} answers of three engines");
    assert!(tried >= 3 * 60, "only {tried} tests");
}

#[test]
fn hkdf_sha_512_wycheproof() {
    let set = hkdf_tests::TestSet::load(hkdf_tests::TestName::HkdfSha512).unwrap();
    let mut tried = 0;
    for test in set.test_groups.iter().flat_map(|g| &g.tests) {
        let mut okm = vec![0; test.size];
        let expanded = Hkdf::<Sha512>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut okm);
        assert_eq!(expanded.is_ok(), test.result != TestResult::Invalid, "{}", test.tc_id);
        if expanded.is_ok() {
            assert_eq!(okm, test.okm[..], "{}", test.tc_id);
        }
        tried += 1;
    }
    assert!(tried >= 50, "only {tried} tests");
}

/// RFC 9106, section 5.3.
#[test]
fn argon2id_rfc_9106() {
    let params = argon2::ParamsBuilder::new()
        .m_cost(32)
        .t_cost(3)
        .p_cost(4)
        .output_len(32)
        .data(argon2::AssociatedData::new(&[4; 12]).unwrap())
        .build()
        .unwrap();
    let (secret, version) = ([3; 8], argon2::Version::V0x13);
    let argon2 = argon2::Argon2::new_with_secret(&secret, argon2::Algorithm::Argon2id, version, params).unwrap();
    let mut tag = [0; 32];
    argon2.hash_password_into(&[1; 32], &[2; 16], &mut tag).unwrap();
    let expected = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659";
    assert_eq!(tag.to_vec(), unhex(expected));
}
