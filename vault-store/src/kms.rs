//! Recipients whose key never leaves AWS KMS: FORMAT.md section 4.3. [`KmsRecipient`] asks for a data key with the
//! artifact's encryption context, [`KmsIdentity`] has it decrypted again. Nothing here is called unless a user named
//! KMS, and only about the key they named, if they named one. [`AttestedKms`] is both, for a machine that proves what it is.
//!
//! Data keys go into a `Secret` and the SDK's vector is wiped. Not in reach, and so not wiped: the SDK's buffers of the
//! HTTP answer and of its JSON, and those of TLS.

mod attested;

pub use attested::{AttestedKms, Attester};

use crate::aws::{Aws, classify};
use crate::error::{Cause, Result, StoreError};
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use rand_core::CryptoRng;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vault_core::header::Section;
use vault_core::keys::Dek;
use vault_core::recipient::aws_kms::{DATA_KEY_LEN, KeyArn, MAX_ASKED, Stanza, context, wrap_dek};
use vault_core::recipient::{Identity, Recipient};
use vault_core::secret::Secret;

/// A key as AWS lets users name it: ARN, alias ARN, key id or `alias/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName {
    text: String,
    region: Option<String>,
}

impl KeyName {
    /// `None` if it is no name of a key.
    pub fn parse(text: &str) -> Option<Self> {
        let with = |region: Option<&str>| Self { text: text.into(), region: region.map(str::to_owned) };
        if let Some(arn) = KeyArn::parse(text) {
            return Some(with(Some(arn.region())));
        }
        if let Some((front, alias)) = text.split_once(":alias/") {
            let account = KeyArn::parse(&format!("{front}:key/0"))?;
            return is_alias(alias).then(|| with(Some(account.region())));
        }
        let alias = text.strip_prefix("alias/").is_some_and(is_alias);
        (alias || is_key_id(text)).then(|| with(None))
    }

    /// The key's ARN, if that is how it is named.
    pub fn arn(&self) -> Option<KeyArn> {
        KeyArn::parse(&self.text)
    }

    /// Whether this names the key `arn`; `None` if only AWS knows, as for an alias.
    pub fn names(&self, arn: &KeyArn) -> Option<bool> {
        match self.arn() {
            Some(own) => Some(own == *arn),
            None if self.text.contains("alias/") => None,
            None => Some(self.text == arn.id()),
        }
    }

    /// As the user said it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn is_alias(name: &str) -> bool {
    (1..=250).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b))
}

fn is_key_id(text: &str) -> bool {
    let hex = |s: &str| s.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    text.len() == 36 && hex(text.strip_prefix("mrk-").unwrap_or(text))
}

/// Seals for a key in AWS KMS. Needs `kms:GenerateDataKey`.
pub struct KmsRecipient {
    aws: Aws,
    key: KeyName,
}

impl KmsRecipient {
    /// For this key; AWS is asked when an artifact is sealed.
    pub fn new(aws: Aws, key: KeyName) -> Self {
        Self { aws, key }
    }

    /// A data key for the artifact: its key's ARN, the blob, the data key itself.
    fn generate(&self, salt: &[u8; 32]) -> Result<(KeyArn, Vec<u8>, Secret)> {
        let operation = "GenerateDataKey";
        let region = self.key.region.as_deref().unwrap_or_else(|| self.aws.region());
        let place = match &self.key.region {
            Some(_) => format!("aws-kms:{}", self.key.text),
            None => format!("aws-kms:{} in {region}", self.key.text),
        };
        let client = Client::from_conf(self.aws.kms(Some(region)).build());
        let request = client
            .generate_data_key()
            .key_id(&self.key.text)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(context_map(salt)));
        let answer = self.aws.wait(request.send()).map_err(|e| classify(operation, &place, &e))?;
        let data_key = take(answer.plaintext);
        let arn = answer.key_id.as_deref().and_then(KeyArn::parse);
        let arn = arn.filter(|a| a.region() == region && self.key.names(a) != Some(false));
        match (arn, answer.ciphertext_blob, data_key) {
            (Some(arn), Some(blob), Some(key)) => Ok((arn, blob.into_inner(), key)),
            _ => Err(not_asked_for(operation, place)),
        }
    }
}

impl Recipient for KmsRecipient {
    fn wrap_dek(&self, salt: &[u8; 32], dek: &Dek, _: &mut dyn CryptoRng) -> vault_core::Result<Section> {
        let generated = self.generate(salt);
        let (arn, blob, data_key) = generated.map_err(|e| {
            let context = format!("wrap the key for aws-kms:{}", self.key.text);
            vault_core::Error::Io { context, source: e.into() }
        })?;
        wrap_dek(salt, dek, &arn, &blob, &data_key)
    }
}

/// Opens what was sealed for keys in AWS KMS. Needs `kms:Decrypt`.
///
/// A stanza that KMS does not open is passed over, so that others are tried; [`Self::failures`] says why.
pub struct KmsIdentity {
    aws: Aws,
    only: Option<KeyArn>,
    asked: Asked,
}

/// What was asked for one header.
#[derive(Default)]
struct Asked(Mutex<Requests>);

#[derive(Default)]
struct Requests {
    times: usize,
    failures: Vec<StoreError>,
}

impl Asked {
    fn failures(&self) -> Vec<StoreError> {
        self.lock().failures.clone()
    }

    fn failed(&self, error: StoreError) {
        self.lock().failures.push(error);
    }

    /// Whether KMS is to be asked once more: at most [`MAX_ASKED`] times `[F-40]`, and not when it is about the caller
    /// or the network that it failed.
    fn again(&self) -> bool {
        let mut asked = self.lock();
        asked.times += 1;
        asked.times <= MAX_ASKED && asked.failures.iter().all(StoreError::is_of_key)
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KmsIdentity {
    /// Whatever key a header names, or `only` this one.
    pub fn new(aws: Aws, only: Option<KeyArn>) -> Self {
        Self { aws, only, asked: Asked::default() }
    }

    /// What KMS would not open, and why, in the order of the stanzas.
    pub fn failures(&self) -> Vec<StoreError> {
        self.asked.failures()
    }

    fn decrypt(&self, salt: &[u8; 32], stanza: &Stanza<'_>) -> Result<Secret> {
        let (operation, place) = ("Decrypt", format!("aws-kms:{}", stanza.arn));
        let client = Client::from_conf(self.aws.kms(Some(stanza.arn.region())).build());
        let request = client
            .decrypt()
            .key_id(stanza.arn.as_str())
            .ciphertext_blob(Blob::new(stanza.blob))
            .set_encryption_context(Some(context_map(salt)));
        let answer = self.aws.wait(request.send()).map_err(|e| classify(operation, &place, &e))?;
        let data_key = take(answer.plaintext).filter(|_| answer.key_id.as_deref() == Some(stanza.arn.as_str()));
        data_key.ok_or_else(|| not_asked_for(operation, place))
    }
}

impl Identity for KmsIdentity {
    fn unwrap_dek(&self, salt: &[u8; 32], stanza: &Section) -> vault_core::Result<Option<Dek>> {
        let Some(stanza) = Stanza::parse(stanza) else { return Ok(None) };
        let meant = self.only.as_ref().is_none_or(|only| *only == stanza.arn);
        if !meant || !self.asked.again() {
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
        self.only.as_ref().map_or_else(|| "AWS KMS".into(), |arn| format!("AWS KMS key {arn}"))
    }
}

fn context_map(salt: &[u8; 32]) -> HashMap<String, String> {
    context(salt).into_iter().map(|(k, v)| (k.into(), v)).collect()
}

/// The data key, taken from the SDK's memory, if it has the right length.
fn take(plaintext: Option<Blob>) -> Option<Secret> {
    let secret = Secret::take(&mut plaintext?.into_inner());
    (secret.expose().len() == DATA_KEY_LEN).then_some(secret)
}

fn not_asked_for(operation: &'static str, place: String) -> StoreError {
    StoreError::new(operation, place, Cause::Malformed, "the answer is not a data key of the key that was asked for")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn keys_are_named_as_aws_does() {
        let region = |text: &str| KeyName::parse(text).map(|k| k.region);
        let eu = Some(Some("eu-west-1".to_owned()));
        assert_eq!(region(ARN), eu);
        assert_eq!(region("arn:aws:kms:eu-west-1:111122223333:alias/team/model_1"), eu);
        for without in ["alias/m", "1234abcd-12ab-34cd-56ef-1234567890ab", "mrk-1234abcd12ab34cd56ef1234567890ab"] {
            assert_eq!(region(without), Some(None), "{without}");
        }
        for bad in ["", "alias/", "m", "alias/ü", "arn:aws:kms:a/b:111122223333:alias/m", "arn:aws:s3:::bucket"] {
            assert_eq!(region(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_an_alias_leaves_open_which_key_it_names() {
        let arn = KeyArn::parse(ARN).unwrap();
        let names = |text: &str| KeyName::parse(text).unwrap().names(&arn);
        assert_eq!(names(ARN), Some(true));
        assert_eq!(names("1234abcd-12ab-34cd-56ef-1234567890ab"), Some(true));
        assert_eq!(names("0034abcd-12ab-34cd-56ef-1234567890ab"), Some(false));
        assert_eq!(names(&ARN.replace("eu-west-1", "eu-west-2")), Some(false));
        assert_eq!(names("alias/m"), None);
        assert_eq!(names("arn:aws:kms:eu-west-1:111122223333:alias/m"), None);
    }
}
