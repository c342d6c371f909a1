//! Keys in AWS KMS: FORMAT.md section 4.3, without the network. KMS makes a data key and a blob of it; the data key
//! wraps the DEK. Asking KMS is for vault-store; here are the stanza, its encryption context and the derivation.
//!
//! A parsed stanza is untrusted: its ARN says which key to ask, never that the answer is right.

use super::{WRAPPED_LEN, unwrap, wrap};
use crate::error::{Error, Result};
use crate::header::{Section, hex, section};
use crate::keys::Dek;
use crate::secret::Secret;
use hkdf::Hkdf;
use sha2::Sha512;
use std::fmt;

/// Bytes of a data key.
pub const DATA_KEY_LEN: usize = 32;
/// Most stanzas of a header that are brought to KMS `[F-40]`: each is a request, which costs.
pub const MAX_ASKED: usize = 16;
const ARN_LEN: std::ops::RangeInclusive<usize> = 20..=2048;
const BLOB_LEN: std::ops::RangeInclusive<usize> = 1..=6144;

/// `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`: the name of one key, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyArn(String);

impl KeyArn {
    /// A key's ARN; `None` for aliases and whatever else it is `[F-40]`.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.splitn(6, ':').collect();
        let [arn, partition, service, region, account, resource] = *parts else { return None };
        let label = |s: &str| {
            (1..=63).contains(&s.len())
                && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !s.starts_with('-')
                && !s.ends_with('-')
        };
        let id = resource.strip_prefix("key/")?;
        let ok = ARN_LEN.contains(&text.len())
            && (arn, service) == ("arn", "kms")
            && label(partition)
            && label(region)
            && account.len() == 12
            && account.bytes().all(|b| b.is_ascii_digit())
            && !id.is_empty()
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        ok.then(|| Self(text.into()))
    }

    /// The whole of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `aws`, `aws-cn`, `aws-us-gov`.
    pub fn partition(&self) -> &str {
        self.part(1)
    }

    /// Where the key is.
    pub fn region(&self) -> &str {
        self.part(3)
    }

    /// The key's id, without account and region.
    pub fn id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    fn part(&self, n: usize) -> &str {
        self.0.split(':').nth(n).unwrap_or_default()
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The encryption context of the artifact with this salt, for GenerateDataKey and Decrypt.
pub fn context(salt: &[u8; 32]) -> [(&'static str, String); 2] {
    [("mvault", "v1".into()), ("mvault-artifact", hex(salt))]
}

/// The fields of an aws-kms stanza.
pub struct Stanza<'a> {
    /// The key that KMS is to be asked about.
    pub arn: KeyArn,
    /// The data key as KMS encrypted it.
    pub blob: &'a [u8],
    body: &'a [u8],
}

impl<'a> Stanza<'a> {
    /// `None` if it is of another type, or does not have the form `[F-40]`.
    pub fn parse(stanza: &'a Section) -> Option<Self> {
        if stanza.kind != section::AWS_KMS {
            return None;
        }
        let (arn, rest) = counted(&stanza.body)?;
        let (blob, wrapped) = counted(rest)?;
        let arn = KeyArn::parse(std::str::from_utf8(arn).ok()?)?;
        let ok = BLOB_LEN.contains(&blob.len()) && wrapped.len() == WRAPPED_LEN;
        ok.then_some(Self { arn, blob, body: &stanza.body })
    }

    /// The DEK, if this is the data key.
    pub fn unwrap_dek(&self, salt: &[u8; 32], data_key: &Secret) -> Option<Dek> {
        let kek = kek(salt, &self.arn, data_key)?;
        unwrap(&kek, section::AWS_KMS, salt, self.body).and_then(Dek::from_secret)
    }
}

/// The stanza for a data key that KMS made, with the context of `salt`, under the key `arn`.
pub fn wrap_dek(salt: &[u8; 32], dek: &Dek, arn: &KeyArn, blob: &[u8], data_key: &Secret) -> Result<Section> {
    let kek = kek(salt, arn, data_key).filter(|_| BLOB_LEN.contains(&blob.len()));
    let kek =
        kek.ok_or_else(|| Error::Usage(format!("{arn}: not a data key of {DATA_KEY_LEN} bytes with its blob")))?;
    let mut before = Vec::new();
    for part in [arn.as_str().as_bytes(), blob] {
        before.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes()); // [F-40]: under 6145
        before.extend_from_slice(part);
    }
    let body = wrap(&kek, section::AWS_KMS, salt, &before, dek.expose());
    Ok(Section { kind: section::AWS_KMS, body })
}

fn kek(salt: &[u8; 32], arn: &KeyArn, data_key: &Secret) -> Option<Secret> {
    let data_key = Some(data_key.expose()).filter(|d| d.len() == DATA_KEY_LEN)?;
    let mut kek = Secret::zeroed(32);
    let info = [&b"mvault/v1/aws-kms\0"[..], arn.as_str().as_bytes()];
    Hkdf::<Sha512>::new(Some(salt), data_key).expand_multi_info(&info, kek.expose_mut()).ok()?;
    Some(kek)
}

/// `u16 n || n bytes`, and what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (n, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn only_keys_have_a_key_arn() {
        let arn = KeyArn::parse(ARN).unwrap();
        assert_eq!((arn.partition(), arn.region()), ("aws", "eu-west-1"));
        assert_eq!(arn.id(), "1234abcd-12ab-34cd-56ef-1234567890ab");
        for good in [
            "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1234",
            "arn:aws-cn:kms:cn-north-1:111122223333:key/1",
        ] {
            assert!(KeyArn::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "alias/model",
            "arn:aws:kms:eu-west-1:111122223333:alias/model",
            "arn:aws:s3:eu-west-1:111122223333:key/1",
            "arn:aws:kms:eu-west-1.evil.example/:111122223333:key/1",
            "arn:aws:kms:EU-WEST-1:111122223333:key/1",
            "arn:aws:kms::111122223333:key/1",
            "arn:aws:kms:eu-west-1:11112222333:key/1",
            "arn:aws:kms:eu-west-1:111122223333:key/",
            "arn:aws:kms:eu-west-1:111122223333:key/1:2",
            "arn:aws:kms:eu-west-1:111122223333:key/1\n",
        ] {
            assert!(KeyArn::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn stanza_opens_with_its_data_key_and_salt_only() {
        let of = |byte: u8, len: usize| Secret::take(&mut vec![byte; len]);
        let (salt, dek, arn) = ([7; 32], Dek::from_secret(of(9, 32)).unwrap(), KeyArn::parse(ARN).unwrap());
        let (key, other) = (of(1, 32), of(2, 32));
        let section = wrap_dek(&salt, &dek, &arn, &[1; 184], &key).unwrap();
        let stanza = Stanza::parse(&section).unwrap();
        assert_eq!((stanza.arn.as_str(), stanza.blob), (ARN, &[1; 184][..]));
        assert!(stanza.unwrap_dek(&salt, &key).is_some_and(|d| d.expose() == dek.expose()));
        assert!(stanza.unwrap_dek(&[8; 32], &key).is_none());
        assert!(stanza.unwrap_dek(&salt, &other).is_none());
        assert!(stanza.unwrap_dek(&salt, &of(1, 31)).is_none());
        assert!(wrap_dek(&salt, &dek, &arn, &[], &key).is_err());
        assert!(wrap_dek(&salt, &dek, &arn, &[1; 6145], &key).is_err());
    }

    /// [F-40]: the form, to the last byte.
    #[test]
    fn other_forms_are_no_stanza() {
        let body = |arn: &[u8], blob: usize, tail: usize| {
            let len = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
            [&len(arn.len()), arn, &len(blob), &vec![1; blob], &vec![2; tail]].concat()
        };
        let parses = |kind, body| Stanza::parse(&Section { kind, body }).is_some();
        assert!(parses(3, body(ARN.as_bytes(), 6144, 48)));
        for bad in [
            body(ARN.as_bytes(), 0, 48),
            body(ARN.as_bytes(), 6145, 48),
            body(ARN.as_bytes(), 184, 47),
            body(ARN.as_bytes(), 184, 49),
            body(b"arn:aws:kms:eu-west-1:111122223333:alias/m", 184, 48),
            body(&[0xFF; 75], 184, 48),
            vec![0, 75],
            vec![],
        ] {
            assert!(!parses(3, bad));
        }
        assert!(!parses(2, body(ARN.as_bytes(), 184, 48)));
    }
}
