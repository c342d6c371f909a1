//! Model signatures: signatures of plain files in a file of their own, as OpenSSF Model Signing has them; docs/SIGNATURES.md.
//!
//! A [`Bundle`] is well-formed and nothing more. Its statement is parsed only by [`Bundle::verify`], after the signature was
//! verified, and only that makes a [`Verified`]. Keys, roots and the time are the caller's; files are read by the caller.

mod bundle;
mod certificate;
mod statement;

use crate::header::hex;
use crate::signature::{PublisherKey, PublisherPublicKey};
use base64ct::{Base64, Encoding};
pub use bundle::{Bundle, MAX_BUNDLE};
pub use certificate::{Chain, Roots};
use serde_json::json;
use sha2::{Digest, Sha256};
pub use statement::{Content, Difference, GIT_PATHS, Hash, MAX_IGNORED, MAX_RESOURCES, ONE_FILE, is_at_or_under};
use std::fmt;

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A numbered rule of docs/SIGNATURES.md; displays as `M-8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule(pub u8);

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "M-{}", self.0)
    }
}

/// What went wrong with a model signature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The signature or the files break a rule: not authentic, or not to be shown authentic.
    #[error("{what} [{rule}]")]
    Refused {
        /// The rule.
        rule: Rule,
        /// What was expected and found.
        what: String,
    },
    /// The caller's key, certificate, root or path cannot be used.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// The rule a refusal names.
    pub fn rule(&self) -> Option<Rule> {
        match self {
            Self::Refused { rule, .. } => Some(*rule),
            Self::Usage(_) => None,
        }
    }
}

/// This module's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn refused(rule: u8, what: impl Into<String>) -> Error {
    Error::Refused { rule: Rule(rule), what: what.into() }
}

fn require(ok: bool, rule: u8, what: impl FnOnce() -> String) -> Result<()> {
    if ok { Ok(()) } else { Err(refused(rule, what())) }
}

/// Whom a verifier trusts.
pub enum Trust<'a> {
    /// One of these keys `[M-6]`.
    Keys(&'a [PublisherPublicKey]),
    /// A certificate under one of these roots, valid at a time in seconds since 1970 `[M-7]`.
    Roots {
        /// The roots.
        roots: &'a Roots,
        /// The time.
        time_s: u64,
    },
}

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// SHA-256 of the DER SubjectPublicKeyInfo, as in an artifact's signature.
    pub key_id: [u8; 32],
    /// Subject of the certificate, if that was what was trusted.
    pub subject: Option<String>,
}

/// A statement whose signature was verified; only [`Bundle::verify`] makes it.
#[derive(Debug)]
pub struct Verified {
    content: Content,
    signer: Signer,
}

impl Verified {
    /// What was signed.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// By whom.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }
}

/// Signs `content`: the bundle's JSON.
pub fn sign(content: &Content, key: &PublisherKey, chain: Option<&Chain>) -> Result<String> {
    let statement = content.to_json().to_string();
    let signature = key.sign_der(&pae(statement.as_bytes()));
    let encode = |bytes: &[u8]| Base64::encode_string(bytes);
    let material = match chain {
        None => json!({ "publicKey": { "hint": hint(&key.public())? }, "tlogEntries": [] }),
        Some(chain) => {
            let certificates: Vec<_> = chain.certificates().map(|c| json!({ "rawBytes": encode(c) })).collect();
            json!({ "x509CertificateChain": { "certificates": certificates }, "tlogEntries": [] })
        }
    };
    let bundle = json!({
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": material,
        "dsseEnvelope": {
            "payload": encode(statement.as_bytes()),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{ "sig": encode(&signature), "keyid": "" }],
        },
    });
    let text = format!("{bundle}\n");
    if text.len() > MAX_BUNDLE {
        return Err(Error::Usage(format!("the signature would be over {} MiB: too many files", MAX_BUNDLE >> 20)));
    }
    Ok(text)
}

/// What is signed of a payload: DSSE's pre-authentication encoding.
fn pae(payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// How a bundle names a key.
fn hint(key: &PublisherPublicKey) -> Result<String> {
    let pem = key.to_pem().map_err(|e| Error::Usage(e.to_string()))?;
    Ok(hex(&Sha256::digest(pem)))
}
