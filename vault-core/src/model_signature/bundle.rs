//! The bundle around a statement: SIGNATURES.md sections 1 and 2. All of it is untrusted.

use super::certificate::Leaf;
use super::{Content, Error, MEDIA_TYPE, PAYLOAD_TYPE, Result, Signer, Trust, Verified, hint, pae, refused, require};
use crate::signature::PublisherPublicKey;
use base64ct::{Base64, Encoding};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Largest bundle, in bytes `[M-1]`.
pub const MAX_BUNDLE: usize = 16 * 1024 * 1024;
/// Most certificates `[M-3]`.
const MAX_CERTIFICATES: usize = 8;
/// Largest certificate, in bytes `[M-3]`.
const MAX_CERTIFICATE: usize = 16 * 1024;

/// A well-formed bundle. Nothing in it is verified.
pub struct Bundle {
    material: Material,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

enum Material {
    /// A bare key, and how the bundle names it.
    Key(Option<String>),
    /// The signer's certificate first.
    Chain(Vec<Vec<u8>>),
}

impl Bundle {
    /// Parses a bundle `[M-1]` to `[M-5]`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        require(bytes.len() <= MAX_BUNDLE, 1, || format!("over {} MiB: no model signature", MAX_BUNDLE >> 20))?;
        let object = bytes.trim_ascii_start().first() == Some(&b'{');
        require(object, 1, || "not a JSON object: no model signature".into())?;
        let raw: RawBundle = serde_json::from_slice(bytes).map_err(|e| refused(1, format!("not a bundle: {e}")))?;
        require(raw.media_type == MEDIA_TYPE, 2, || format!("media type {:?}", clip(&raw.media_type)))?;
        let material = raw.verification_material.check()?;
        let envelope = raw.dsse_envelope;
        require(envelope.payload_type == PAYLOAD_TYPE, 4, || format!("payload {:?}", clip(&envelope.payload_type)))?;
        let payload = decode(&envelope.payload).ok_or_else(|| refused(4, "the payload is not base64"))?;
        let [signature] = envelope.signatures.as_slice() else {
            return Err(refused(5, format!("{} signatures; expected one", envelope.signatures.len())));
        };
        let signature = decode(&signature.sig).ok_or_else(|| refused(5, "the signature is not base64"))?;
        Ok(Self { material, payload, signature })
    }

    /// Checks who signed, then parses what was signed `[M-6]` to `[M-13]`.
    pub fn verify(&self, trust: &Trust<'_>) -> Result<Verified> {
        let (key, subject) = match trust {
            Trust::Keys(keys) => (self.named_key(keys)?.clone(), None),
            Trust::Roots { roots, time_s } => {
                let Material::Chain(chain) = &self.material else {
                    return Err(refused(7, "signed with a bare key; a certificate is demanded"));
                };
                let Leaf { key, subject } = roots.verify(chain, *time_s)?;
                (key, Some(subject))
            }
        };
        let verified = key.verifies_der(&pae(&self.payload), &self.signature);
        require(verified, 8, || "the signature does not verify".into())?;
        let content = Content::parse(&self.payload)?;
        Ok(Verified { content, signer: Signer { key_id: key.key_id(), subject } })
    }

    /// What the bundle says was signed; anybody may have written it.
    pub fn unverified_content(&self) -> Result<Content> {
        Content::parse(&self.payload)
    }

    /// The key among `keys` that the bundle names `[M-6]`.
    fn named_key<'k>(&self, keys: &'k [PublisherPublicKey]) -> Result<&'k PublisherPublicKey> {
        match &self.material {
            Material::Key(Some(named)) => {
                let hints = keys.iter().map(hint).collect::<Result<Vec<_>>>()?;
                let found = keys.iter().zip(&hints).find(|(_, hint)| *hint == named).map(|(key, _)| key);
                let short = |hint: &str| hint.chars().take(16).collect::<String>();
                found.ok_or_else(|| {
                    let demanded: Vec<_> = hints.iter().map(|h| short(h)).collect();
                    let named = clip(&short(named));
                    refused(6, format!("signed by the key of hint {named}…, demanded: hint {}…", demanded.join("…, ")))
                })
            }
            Material::Key(None) => {
                let signed = pae(&self.payload);
                let found = keys.iter().find(|key| key.verifies_der(&signed, &self.signature));
                found.ok_or_else(|| refused(8, "the signature does not verify under a key that was named"))
            }
            Material::Chain(chain) => {
                let first = Leaf::unverified(chain)?;
                let found = keys.iter().find(|key| **key == first.key);
                found.ok_or_else(|| {
                    refused(6, format!("signed with a certificate for {}, which has another key", first.subject))
                })
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBundle {
    media_type: String,
    verification_material: RawMaterial,
    dsse_envelope: RawEnvelope,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawMaterial {
    public_key: Option<RawKey>,
    x509_certificate_chain: Option<RawChain>,
    certificate: Option<IgnoredAny>,
    #[serde(rename = "tlogEntries")]
    _tlog_entries: Option<IgnoredAny>,
    #[serde(rename = "timestampVerificationData")]
    _timestamp_verification_data: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawKey {
    hint: Option<String>,
    #[serde(rename = "rawBytes")]
    _raw_bytes: Option<IgnoredAny>,
    #[serde(rename = "keyDetails")]
    _key_details: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChain {
    certificates: Vec<RawCertificate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawCertificate {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawEnvelope {
    payload: String,
    payload_type: String,
    signatures: Vec<RawSignature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignature {
    sig: String,
    #[serde(rename = "keyid")]
    _keyid: Option<IgnoredAny>,
}

impl RawMaterial {
    /// `[M-3]`
    fn check(self) -> Result<Material> {
        match (self.public_key, self.x509_certificate_chain, self.certificate) {
            (Some(key), None, None) => Ok(Material::Key(key.hint.filter(|h| !h.is_empty()))),
            (None, Some(chain), None) => chain.check().map(Material::Chain),
            (None, None, Some(_)) => {
                Err(refused(3, "a keyless signature of Sigstore; keys and certificate chains can be verified here"))
            }
            _ => Err(refused(3, "expected either a public key or a chain of certificates")),
        }
    }
}

impl RawChain {
    fn check(self) -> Result<Vec<Vec<u8>>> {
        let count = self.certificates.len();
        require((1..=MAX_CERTIFICATES).contains(&count), 3, || {
            format!("{count} certificates; expected 1 to {MAX_CERTIFICATES}")
        })?;
        let certificates = self.certificates.iter().enumerate().map(|(i, c)| {
            let der = decode(&c.raw_bytes).filter(|der| der.len() <= MAX_CERTIFICATE);
            der.ok_or_else(|| refused(3, format!("certificate {i} is not base64 of at most 16 KiB")))
        });
        certificates.collect::<Result<_, Error>>()
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text).ok()
}

/// Enough of a stranger's text for a message.
fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
