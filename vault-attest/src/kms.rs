//! AWS KMS's answers to attested machines: docs/KEY_RELEASE.md section 9, steps C-2 to C-19.
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
use vault_core::recipient::aws_kms::{DATA_KEY_LEN, KeyArn};
use vault_core::secret::Secret;

/// Most bytes of a CiphertextForRecipient `[C-4]`.
pub const MAX_ANSWER: usize = 8192;
/// Bytes of an RSA-2048 ciphertext `[C-14]`.
const ENCRYPTED_KEY_LEN: usize = 256;
/// Bytes of the AES-256 key that it holds.
const CONTENT_KEY_LEN: usize = 32;

/// What an answer to Decrypt or GenerateDataKey says, if it says it.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// The ARN of the KMS key.
    pub key_id: Option<&'a str>,
    /// What must not be there.
    pub plaintext: Option<&'a [u8]>,
    /// CMS, in BER or DER.
    pub ciphertext_for_recipient: Option<&'a [u8]>,
}

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

    /// The data key in an answer about the KMS key `asked` `[C-2]` to `[C-19]`. This key is used up, whatever comes of it.
    pub fn receive(self, asked: &KeyArn, answer: &Answer<'_>) -> Result<Secret, Refusal> {
        let refuse = |step, what, expected: &str, actual: &str| Refusal::new(Step::C(step), what, expected, actual);
        if answer.plaintext.is_some_and(|p| !p.is_empty()) {
            return Err(refuse(2, "Plaintext", "none in an answer to a request with Recipient", "a Plaintext"));
        }
        if answer.key_id != Some(asked.as_str()) {
            return Err(refuse(3, "KeyId", asked.as_str(), answer.key_id.unwrap_or("none")));
        }
        let data_key = self.open(answer.ciphertext_for_recipient.unwrap_or_default())?;
        if data_key.expose().len() != DATA_KEY_LEN {
            return Err(Refusal::new(Step::C(19), "length of the data key", DATA_KEY_LEN, data_key.expose().len()));
        }
        Ok(data_key)
    }

    /// What KMS encrypted to this key, of any length `[C-4]` to `[C-18]`.
    fn open(self, ciphertext_for_recipient: &[u8]) -> Result<Secret, Refusal> {
        let envelope = Envelope::parse(ciphertext_for_recipient)?;
        // [C-18]: one error, whatever it was.
        let (expected, actual) = ("an envelope to the evidence's key", "one that does not open");
        self.decrypt(&envelope).map_err(|_| Refusal::new(Step::C(18), "CiphertextForRecipient", expected, actual))
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
