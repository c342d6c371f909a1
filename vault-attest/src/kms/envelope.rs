//! The CMS envelope of an answer, steps C-4 to C-17: parsed by `cms`, then every field compared with the one value that
//! KMS uses. An [`Envelope`] has the form; that it opens, and to what, is for whoever has the key.

use super::{ENCRYPTED_KEY_LEN, MAX_ANSWER};
use crate::step::{Refusal, Step};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::enveloped_data::{
    EncryptedContentInfo, EnvelopedData, KeyTransRecipientInfo, RecipientIdentifier, RecipientInfo,
};
use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Any, Decode, EncodingRules, Sequence};
use std::fmt::Display;
use x509_cert::spki::AlgorithmIdentifierOwned;

const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ID_ENVELOPED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.3");
const RSAES_OAEP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const P_SPECIFIED: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.9");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const AES_256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");
const BLOCK_LEN: usize = 16;

/// An answer of the right form.
pub struct Envelope {
    encrypted_key: Box<[u8]>,
    iv: [u8; BLOCK_LEN],
    content: Box<[u8]>,
}

impl Envelope {
    /// `[C-4]` to `[C-17]`.
    pub fn parse(answer: &[u8]) -> Result<Self, Refusal> {
        if !(1..=MAX_ANSWER).contains(&answer.len()) {
            return Err(refuse(4, "CiphertextForRecipient", "1 to 8192 bytes", answer.len()));
        }
        let outer = ContentInfo::from_ber(answer).map_err(|e| refuse(5, "ContentInfo", "one, in BER", e))?;
        expect(6, "content type", ID_ENVELOPED_DATA, outer.content_type)?;
        let data: EnvelopedData = outer
            .content
            .decode_as_encoding(EncodingRules::Ber)
            .map_err(|e| refuse(7, "EnvelopedData", "one, in BER", e))?;
        if data.originator_info.is_some() || data.unprotected_attrs.is_some() {
            let which = if data.originator_info.is_some() { "originatorInfo" } else { "unprotectedAttrs" };
            return Err(refuse(8, "EnvelopedData", "neither originatorInfo nor unprotectedAttrs", which));
        }
        let recipient = only_recipient(&data)?;
        check_versions(data.version, recipient)?;
        let encrypted_key = encrypted_key(recipient)?;
        let (iv, content) = content(data.encrypted_content)?;
        Ok(Self { encrypted_key, iv, content })
    }

    /// RSAES-OAEP of the content's key, 256 bytes.
    pub fn encrypted_key(&self) -> &[u8] {
        &self.encrypted_key
    }

    /// Of AES-256-CBC.
    pub fn iv(&self) -> &[u8; BLOCK_LEN] {
        &self.iv
    }

    /// AES-256-CBC of the data key and its padding: whole blocks, at least one.
    pub fn content(&self) -> &[u8] {
        &self.content
    }
}

/// `[C-9]` and `[C-10]`.
fn only_recipient(data: &EnvelopedData) -> Result<&KeyTransRecipientInfo, Refusal> {
    let [recipient] = data.recip_infos.0.as_slice() else {
        return Err(refuse(9, "recipientInfos", 1, data.recip_infos.0.len()));
    };
    let kind = match recipient {
        RecipientInfo::Ktri(recipient) => return Ok(recipient),
        RecipientInfo::Kari(_) => "KeyAgreeRecipientInfo",
        RecipientInfo::Kekri(_) => "KEKRecipientInfo",
        RecipientInfo::Pwri(_) => "PasswordRecipientInfo",
        RecipientInfo::Ori(_) => "OtherRecipientInfo",
    };
    Err(refuse(10, "recipientInfo", "KeyTransRecipientInfo", kind))
}

/// `[C-11]`
fn check_versions(envelope: CmsVersion, recipient: &KeyTransRecipientInfo) -> Result<(), Refusal> {
    let rid = match recipient.rid {
        RecipientIdentifier::SubjectKeyIdentifier(_) => "subjectKeyIdentifier",
        RecipientIdentifier::IssuerAndSerialNumber(_) => "issuerAndSerialNumber",
    };
    let form = match (envelope, recipient.version, &recipient.rid) {
        (CmsVersion::V2, CmsVersion::V2, RecipientIdentifier::SubjectKeyIdentifier(_))
        | (CmsVersion::V0, CmsVersion::V0, RecipientIdentifier::IssuerAndSerialNumber(_)) => return Ok(()),
        (envelope, recipient, _) => format!("{} and {} with {rid}", envelope as u8, recipient as u8),
    };
    let forms = "2 and 2 with subjectKeyIdentifier, or 0 and 0 with issuerAndSerialNumber";
    Err(refuse(11, "versions of EnvelopedData and recipientInfo", forms, form))
}

/// `[C-12]` to `[C-14]`.
fn encrypted_key(recipient: &KeyTransRecipientInfo) -> Result<Box<[u8]>, Refusal> {
    expect(12, "key transport", RSAES_OAEP, recipient.key_enc_alg.oid)?;
    check_oaep(recipient.key_enc_alg.parameters.as_ref())?;
    let key = recipient.enc_key.as_bytes();
    expect(14, "length of encryptedKey", ENCRYPTED_KEY_LEN, key.len())?;
    Ok(key.into())
}

/// RSAES-OAEP-params of RFC 8017 A.2.1. Defaults are SHA-1's, so an absent field is another algorithm.
#[derive(Sequence)]
struct OaepParameters {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    hash: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    mask: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    label: Option<AlgorithmIdentifierOwned>,
}

/// `[C-13]`
fn check_oaep(parameters: Option<&Any>) -> Result<(), Refusal> {
    let what = "parameters of RSAES-OAEP";
    let parameters = parameters.ok_or_else(|| refuse(13, what, "present", "none"))?;
    let parameters: OaepParameters =
        parameters.decode_as().map_err(|e| refuse(13, what, "RSAES-OAEP-params in DER", e))?;
    check_sha_256("hash of RSAES-OAEP", parameters.hash.as_ref())?;
    let mask = parameters.mask.as_ref();
    let mask = mask.ok_or_else(|| refuse(13, "mask of RSAES-OAEP", MGF1, "none (the default is of SHA-1)"))?;
    expect(13, "mask of RSAES-OAEP", MGF1, mask.oid)?;
    let of_mask = mask.parameters.as_ref().and_then(|p| p.decode_as().ok());
    check_sha_256("hash of MGF1", of_mask.as_ref())?;
    let Some(label) = parameters.label else { return Ok(()) };
    let text = label.parameters.as_ref().and_then(|p| p.decode_as::<&OctetStringRef>().ok());
    if label.oid != P_SPECIFIED || text.is_none_or(|text| !text.is_empty()) {
        return Err(refuse(13, "label of RSAES-OAEP", "empty", "another"));
    }
    Ok(())
}

/// SHA-256, its parameters absent or NULL, RFC 5754 2.
fn check_sha_256(what: &str, hash: Option<&AlgorithmIdentifierOwned>) -> Result<(), Refusal> {
    let hash = hash.ok_or_else(|| refuse(13, what, SHA_256, "none (the default is SHA-1)"))?;
    expect(13, what, SHA_256, hash.oid)?;
    if hash.parameters.as_ref().is_some_and(|p| *p != Any::null()) {
        return Err(refuse(13, what, "SHA-256 without parameters", "SHA-256 with parameters"));
    }
    Ok(())
}

/// `[C-15]` to `[C-17]`.
fn content(info: EncryptedContentInfo) -> Result<([u8; BLOCK_LEN], Box<[u8]>), Refusal> {
    expect(15, "inner content type", ID_DATA, info.content_type)?;
    expect(16, "content encryption", AES_256_CBC, info.content_enc_alg.oid)?;
    let iv = info.content_enc_alg.parameters.as_ref().map(Any::decode_as::<&OctetStringRef>);
    let iv = match iv {
        Some(Ok(iv)) => iv.as_bytes(),
        Some(Err(e)) => return Err(refuse(16, "IV", "an octet string", e)),
        None => return Err(refuse(16, "IV", "an octet string", "none")),
    };
    let iv = iv.try_into().map_err(|_| refuse(16, "length of the IV", BLOCK_LEN, iv.len()))?;
    let Some(content) = info.encrypted_content else {
        return Err(refuse(17, "encryptedContent", "present", "none"));
    };
    let content = content.into_bytes();
    if content.is_empty() || content.len() % BLOCK_LEN != 0 {
        return Err(refuse(17, "length of encryptedContent", "whole blocks of 16", content.len()));
    }
    Ok((iv, content))
}

fn refuse(step: u8, what: &str, expected: impl Display, actual: impl Display) -> Refusal {
    Refusal::new(Step::C(step), what, expected, actual)
}

fn expect<T: Display + PartialEq>(step: u8, what: &str, expected: T, actual: T) -> Result<(), Refusal> {
    if expected == actual { Ok(()) } else { Err(refuse(step, what, expected, actual)) }
}
