//! The AEAD seam: AES-256-GCM by three vetted implementations that give the same bytes.
//!
//! `aes-gcm` is the portable reference and always there; [`Engine::fastest`] picks for bulk data by
//! the CPU's features. Nonces come from the caller (FORMAT.md section 5); nothing here repeats or
//! invents one. On an authentication failure the output buffer is wiped, never left half-decrypted.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use aws_lc_rs::aead as lc;
use ring::aead as rg;
use std::fmt;
use zeroize::Zeroize;

/// Bytes of a tag.
pub const TAG_LEN: usize = 16;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;

/// A chunk that does not open under its key and nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAuthentic;

/// An implementation of AES-256-GCM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// RustCrypto `aes-gcm`: portable, the reference.
    AesGcm,
    /// `ring`: fastest with VAES but without AVX-512, and on Arm.
    Ring,
    /// `aws-lc-rs`: fastest with AVX-512 and VAES.
    AwsLc,
}

impl Engine {
    /// All engines in this build.
    pub const ALL: [Self; 3] = [Self::AesGcm, Self::Ring, Self::AwsLc];

    /// The engine for bulk data on this CPU.
    pub fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("vaes")
            && std::is_x86_feature_detected!("vpclmulqdq")
        {
            return Self::AwsLc;
        }
        Self::Ring
    }

    /// Whether the CPU has AES instructions; without them sealing is ten times slower.
    pub fn hardware_aes() -> bool {
        #[cfg(target_arch = "x86_64")]
        return std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        return std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return false;
    }

    /// The engine's name, as `mvault bench` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AesGcm => "aes-gcm",
            Self::Ring => "ring",
            Self::AwsLc => "aws-lc",
        }
    }

    /// A key ready for use. Each implementation wipes its own key schedule, or cannot (see
    /// THREAT_MODEL.md).
    ///
    /// # Panics
    /// If `key` is not 32 bytes.
    pub fn key(self, key: &[u8]) -> AeadKey {
        AeadKey(match self {
            Self::AesGcm => Inner::AesGcm(Box::new(Aes256Gcm::new_from_slice(key).expect("a 32-byte key"))),
            Self::Ring => {
                let key = rg::UnboundKey::new(&rg::AES_256_GCM, key).expect("a 32-byte key");
                Inner::Ring(rg::LessSafeKey::new(key))
            }
            Self::AwsLc => {
                let key = lc::UnboundKey::new(&lc::AES_256_GCM, key).expect("a 32-byte key");
                Inner::AwsLc(lc::LessSafeKey::new(key))
            }
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An expanded AES-256-GCM key.
pub struct AeadKey(Inner);

#[expect(clippy::large_enum_variant)] // one key a worker; a pointer less on the way to each chunk
enum Inner {
    AesGcm(Box<Aes256Gcm>),
    Ring(rg::LessSafeKey),
    AwsLc(lc::LessSafeKey),
}

impl AeadKey {
    /// Encrypts `in_out` and returns its tag. `(key, nonce)` must never be used twice.
    ///
    /// # Panics
    /// If `in_out` is longer than AES-GCM allows (64 GiB), far above any chunk.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        match &self.0 {
            Inner::AesGcm(key) => {
                let t = key.encrypt_inout_detached(&nonce.into(), aad, in_out.into());
                tag.copy_from_slice(&t.expect("a chunk is shorter than 64 GiB"));
            }
            Inner::Ring(key) => {
                let nonce = rg::Nonce::assume_unique_for_key(nonce);
                let t = key.seal_in_place_separate_tag(nonce, rg::Aad::from(aad), in_out);
                tag.copy_from_slice(t.expect("a chunk is shorter than 64 GiB").as_ref());
            }
            Inner::AwsLc(key) => {
                let nonce = lc::Nonce::assume_unique_for_key(nonce);
                let t = key.seal_in_place_separate_tag(nonce, lc::Aad::from(aad), in_out);
                tag.copy_from_slice(t.expect("a chunk is shorter than 64 GiB").as_ref());
            }
        }
        tag
    }

    /// Encrypts `plain` into `sealed` (ciphertext || tag), 16 bytes longer. `(key, nonce)` must never be used twice.
    ///
    /// # Panics
    /// If `sealed` has another length, or is longer than AES-GCM allows.
    pub fn seal_into(&self, nonce: [u8; NONCE_LEN], aad: &[u8], plain: &[u8], sealed: &mut [u8]) {
        assert_eq!(sealed.len(), plain.len() + TAG_LEN);
        if let Inner::AwsLc(key) = &self.0 {
            // A copy less: what is "extra" to it is read from where it is.
            let nonce = lc::Nonce::assume_unique_for_key(nonce);
            let done = key.seal_in_place_scatter(nonce, lc::Aad::from(aad), &mut [], plain, sealed);
            return done.expect("a chunk is shorter than 64 GiB");
        }
        let (text, tag) = sealed.split_at_mut(plain.len());
        text.copy_from_slice(plain);
        tag.copy_from_slice(&self.seal(nonce, aad, text));
    }

    /// Verifies `sealed` (ciphertext || tag) and decrypts it into `plain`, 16 bytes shorter.
    /// On failure `plain` is all zero.
    pub fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        let opened = self.open_inner(nonce, aad, sealed, plain);
        if opened.is_err() {
            plain.zeroize();
        }
        opened
    }

    fn open_inner(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        let (text, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(NotAuthentic)?;
        if text.len() != plain.len() {
            return Err(NotAuthentic);
        }
        match &self.0 {
            Inner::AesGcm(key) => {
                plain.copy_from_slice(text);
                key.decrypt_inout_detached(&nonce.into(), aad, plain.into(), tag.into()).map_err(|_| NotAuthentic)
            }
            Inner::Ring(key) => {
                plain.copy_from_slice(text);
                let nonce = rg::Nonce::assume_unique_for_key(nonce);
                let tag = rg::Tag::from(*tag);
                key.open_in_place_separate_tag(nonce, rg::Aad::from(aad), tag, plain, 0..)
                    .map(|_| ())
                    .map_err(|_| NotAuthentic)
            }
            Inner::AwsLc(key) => {
                let nonce = lc::Nonce::assume_unique_for_key(nonce);
                key.open_separate_gather(nonce, lc::Aad::from(aad), text, tag, plain).map_err(|_| NotAuthentic)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic bytes without a dependency.
    fn bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut x = seed | 1;
        (0..len)
            .map(|_| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                x.to_be_bytes()[0]
            })
            .collect()
    }

    #[test]
    fn engines_give_the_same_bytes() {
        for len in [0, 1, 15, 16, 17, 255, 256, 257, 1024, 4095, 4096, 65_535, 65_536, 1 << 20] {
            let (key, text) = (bytes(7, 32), bytes(len as u64 + 3, len));
            let (nonce, aad) = (<[u8; 12]>::try_from(bytes(9, 12)).unwrap(), bytes(11, len % 40));
            let mut outputs = Vec::new();
            for engine in Engine::ALL {
                let mut sealed = text.clone();
                let tag = engine.key(&key).seal(nonce, &aad, &mut sealed);
                sealed.extend_from_slice(&tag);
                outputs.push(sealed);
            }
            assert!(outputs.iter().all(|o| *o == outputs[0]), "engines differ at {len} bytes");
            for engine in Engine::ALL {
                let mut plain = vec![0; len];
                engine.key(&key).open(nonce, &aad, &outputs[0], &mut plain).unwrap();
                assert_eq!(plain, text, "{engine}");
            }
        }
    }

    #[test]
    fn flipped_bit_leaves_no_plaintext() {
        for engine in Engine::ALL {
            let key = engine.key(&[3; 32]);
            for len in [1_usize, 64, 4096, 65_536] {
                let mut sealed = vec![0x55; len];
                let tag = key.seal([0; 12], b"", &mut sealed);
                sealed.extend_from_slice(&tag);
                for at in [0, len / 2, len - 1, len, len + 15] {
                    sealed[at] ^= 0x40;
                    let mut plain = vec![0xAA; len];
                    assert_eq!(key.open([0; 12], b"", &sealed, &mut plain), Err(NotAuthentic));
                    assert!(plain.iter().all(|b| *b == 0), "{engine} left bytes of {len}");
                    sealed[at] ^= 0x40;
                }
            }
        }
    }
}
