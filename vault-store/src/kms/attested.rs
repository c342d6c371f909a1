//! Keys that AWS KMS gives to attested machines: KEY_RELEASE.md section 9. Every request carries evidence with an RSA key
//! of its own, and only an answer encrypted to that key is taken: the data key is never in the SDK's memory, nor in that
//! of whoever carries the answer.
//!
//! What is asked is FORMAT.md 4.3's, as without evidence. The KMS key is pinned: a header cannot name another.

use super::{Asked, context_map};
use crate::aws::{Aws, classify};
use crate::error::{Cause, Result, StoreError};
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyEncryptionMechanism, RecipientInfo};
use rand_core::CryptoRng;
use vault_attest::kms::{Answer, RecipientKey};
use vault_attest::nitro::MAX_DOCUMENT;
use vault_attest::step::{Refusal, Step};
use vault_core::header::Section;
use vault_core::keys::Dek;
use vault_core::recipient::aws_kms::{KeyArn, Stanza, wrap_dek};
use vault_core::recipient::{Identity, Recipient};
use vault_core::secret::Secret;

/// Makes evidence: the NSM in an enclave. Closures are attesters, too.
pub trait Attester: Send + Sync {
    /// A document signed by the hardware, whose public_key is this one (SubjectPublicKeyInfo, DER, 294 bytes).
    fn attest(&self, public_key: &[u8]) -> Result<Vec<u8>, String>;
}

impl<F: Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync> Attester for F {
    fn attest(&self, public_key: &[u8]) -> Result<Vec<u8>, String> {
        self(public_key)
    }
}

/// One key in AWS KMS, for a machine that proves what it is: opens with `kms:Decrypt`, seals with `kms:GenerateDataKey`.
///
/// One of these a header: a stanza that KMS does not open is passed over, so that others are tried, at most sixteen;
/// [`Self::failures`] says why.
pub struct AttestedKms {
    aws: Aws,
    key: KeyArn,
    attester: Box<dyn Attester>,
    asked: Asked,
}

impl AttestedKms {
    /// Whatever headers say, only `key` is asked about.
    pub fn new(aws: Aws, key: KeyArn, attester: impl Attester + 'static) -> Self {
        Self { aws, key, attester: Box::new(attester), asked: Asked::default() }
    }

    /// What KMS would not open, and why, in the order of the stanzas.
    pub fn failures(&self) -> Vec<StoreError> {
        self.asked.failures()
    }

    fn decrypt(&self, salt: &[u8; 32], stanza: &Stanza<'_>) -> Result<Secret> {
        let operation = "Decrypt";
        let (own, recipient) = self.recipient(operation)?;
        let request = self.client().decrypt().key_id(self.key.as_str()).ciphertext_blob(Blob::new(stanza.blob));
        let request = request.set_encryption_context(Some(context_map(salt))).recipient(recipient);
        let answer = self.aws.wait(request.send()).map_err(|e| denied(classify(operation, &self.place(), &e)))?;
        self.receive(
            operation,
            own,
            answer.key_id.as_deref(),
            answer.plaintext,
            answer.ciphertext_for_recipient.as_ref(),
        )
    }

    /// A data key for the artifact, and its blob.
    fn generate(&self, salt: &[u8; 32]) -> Result<(Vec<u8>, Secret)> {
        let operation = "GenerateDataKey";
        let (own, recipient) = self.recipient(operation)?;
        let request = self.client().generate_data_key().key_id(self.key.as_str()).key_spec(DataKeySpec::Aes256);
        let request = request.set_encryption_context(Some(context_map(salt))).recipient(recipient);
        let answer = self.aws.wait(request.send()).map_err(|e| denied(classify(operation, &self.place(), &e)))?;
        let blob = answer.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        let key = self.receive(
            operation,
            own,
            answer.key_id.as_deref(),
            answer.plaintext,
            answer.ciphertext_for_recipient.as_ref(),
        )?;
        Ok((blob, key))
    }

    /// A key for one answer, and the evidence that names it `[C-1]`.
    fn recipient(&self, operation: &'static str) -> Result<(RecipientKey, RecipientInfo)> {
        let own = RecipientKey::generate().map_err(|e| self.refused(operation, &e))?;
        let no = |why: String| self.refused(operation, &Refusal::new(Step::C(1), "evidence", "a signed document", why));
        let document = self.attester.attest(own.public_key_der()).map_err(no)?;
        if !(1..=MAX_DOCUMENT).contains(&document.len()) {
            return Err(no(format!("{} bytes", document.len())));
        }
        let recipient = RecipientInfo::builder()
            .key_encryption_algorithm(KeyEncryptionMechanism::RsaesOaepSha256)
            .attestation_document(Blob::new(document));
        Ok((own, recipient.build()))
    }

    /// `[C-2]` to `[C-19]`
    fn receive(
        &self,
        operation: &'static str,
        own: RecipientKey,
        key_id: Option<&str>,
        plaintext: Option<Blob>,
        for_recipient: Option<&Blob>,
    ) -> Result<Secret> {
        // Wiped, though whoever sent it has given it away.
        let plaintext = plaintext.map(|p| Secret::take(&mut p.into_inner()));
        let answer = Answer {
            key_id,
            plaintext: plaintext.as_ref().map(Secret::expose),
            ciphertext_for_recipient: for_recipient.map(AsRef::as_ref),
        };
        own.receive(&self.key, &answer).map_err(|e| self.refused(operation, &e))
    }

    fn client(&self) -> Client {
        Client::from_conf(self.aws.kms(Some(self.key.region())).build())
    }

    fn place(&self) -> String {
        format!("aws-kms:{}", self.key)
    }

    fn refused(&self, operation: &'static str, refusal: &Refusal) -> StoreError {
        StoreError::new(operation, self.place(), Cause::Step(refusal.step), refusal.to_string())
    }
}

impl Recipient for AttestedKms {
    fn wrap_dek(&self, salt: &[u8; 32], dek: &Dek, _: &mut dyn CryptoRng) -> vault_core::Result<Section> {
        let (blob, data_key) = self.generate(salt).map_err(|e| {
            let context = format!("wrap the key for {}", self.place());
            vault_core::Error::Io { context, source: e.into() }
        })?;
        wrap_dek(salt, dek, &self.key, &blob, &data_key)
    }
}

impl Identity for AttestedKms {
    fn unwrap_dek(&self, salt: &[u8; 32], stanza: &Section) -> vault_core::Result<Option<Dek>> {
        let Some(stanza) = Stanza::parse(stanza).filter(|s| s.arn == self.key) else { return Ok(None) };
        if !self.asked.again() {
            return Ok(None);
        }
        match self.decrypt(salt, &stanza) {
            Ok(data_key) => Ok(stanza.unwrap_dek(salt, &data_key)),
            Err(error) => {
                self.asked.failed(error);
                Ok(None)
            }
        }
    }

    fn describe(&self) -> String {
        format!("AWS KMS key {}, attested", self.key)
    }
}

/// With evidence, a refusal is first of all about the evidence.
fn denied(error: StoreError) -> StoreError {
    if error.cause == Cause::AccessDenied { StoreError { cause: Cause::AttestationDenied, ..error } } else { error }
}
