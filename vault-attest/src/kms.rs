//! AWS KMS's answers to attested machines: docs/KEY_RELEASE.md section 9, steps C-4 to C-18.
//!
//! [`RecipientKey`] is the RSA key whose public half goes into the evidence. It opens one answer and is gone: so nobody
//! can use it as a decryption oracle, and nothing that fails says why. The network is vault-store's.
//!
//! RSA-OAEP and AES-CBC are aws-lc's. It draws its own randomness (from the system, which in an enclave has the NSM's),
//! and wipes what it frees; the key's memory is not locked.

mod envelope;
#[cfg(test)]
mod tests;

pub use envelope::Envelope;

use crate::step::{Refusal, Step};
use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use vault_core::secret::Secret;

/// Most bytes of a CiphertextForRecipient `[C-4]`.
pub const MAX_ANSWER: usize = 8192;
/// Bytes of an RSA-2048 ciphertext `[C-14]`.
const ENCRYPTED_KEY_LEN: usize = 256;
/// Bytes of the AES-256 key that it holds.
const CONTENT_KEY_LEN: usize = 32;

/// An RSA-2048 key of one request.
pub struct RecipientKey {
    private: OaepPrivateDecryptingKey,
    public: Vec<u8>,
}

impl RecipientKey {
    /// A new one, `[C-1]`. Takes tens of milliseconds.
    pub fn generate() -> Result<Self, Refusal> {
        let made = PrivateDecryptingKey::generate(KeySize::Rsa2048).and_then(Self::of);
        made.map_err(|_| Refusal::new(Step::C(1), "RSA key", "a new key", "a failure of the generator"))
    }

    fn of(key: PrivateDecryptingKey) -> Result<Self, Unspecified> {
        let public = key.public_key().as_der()?.as_ref().to_vec();
        Ok(Self { private: OaepPrivateDecryptingKey::new(key)?, public })
    }

    #[cfg(test)]
    fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        Self::of(PrivateDecryptingKey::from_pkcs8(pkcs8).ok()?).ok()
    }

    /// SubjectPublicKeyInfo in DER, for the evidence's public_key.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public
    }

    /// What KMS encrypted to this key, of any length. The key is used up, whether it opens or not.
    pub fn open(self, ciphertext_for_recipient: &[u8]) -> Result<Secret, Refusal> {
        let envelope = Envelope::parse(ciphertext_for_recipient)?;
        // [C-18]: one error, whatever it was.
        self.decrypt(&envelope).map_err(|_| {
            Refusal::new(
                Step::C(18),
                "CiphertextForRecipient",
                "an envelope to the evidence's key",
                "one that does not open",
            )
        })
    }

    fn decrypt(&self, envelope: &Envelope) -> Result<Secret, Unspecified> {
        let mut space = Secret::zeroed(ENCRYPTED_KEY_LEN);
        let key = self.private.decrypt(&OAEP_SHA256_MGF1SHA256, envelope.encrypted_key(), space.expose_mut(), None)?;
        if key.len() != CONTENT_KEY_LEN {
            return Err(Unspecified);
        }
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, key)?)?;
        let mut content = Secret::zeroed(envelope.content().len());
        content.expose_mut().copy_from_slice(envelope.content());
        let iv = DecryptionContext::Iv128(envelope.iv().into());
        Ok(Secret::take(key.decrypt(content.expose_mut(), iv)?))
    }
}
