//! What a document says, for people who want to see why it is refused. **Nothing here is verified**: the types say
//! so, and no decision takes them. Whatever can be read is read; a broken part is left out.

use super::document::{Fields, MAX_BUNDLE};
use super::envelope;
use crate::evidence::MAX_PCRS;
use der::Decode;
use sha2::{Digest, Sha256};

/// What stands in a document that may not be genuine.
#[derive(Debug, Clone, Default)]
pub struct UnverifiedOutline {
    /// The enclave's id.
    pub module_id: Option<String>,
    /// Milliseconds since 1970.
    pub time_ms: Option<u64>,
    /// The first 32 PCRs, as long as they are.
    pub pcrs: Vec<(u64, Vec<u8>)>,
    /// The attester's public key.
    pub public_key: Vec<u8>,
    /// The attester's data.
    pub user_data: Vec<u8>,
    /// The nonce.
    pub nonce: Vec<u8>,
    /// From the first of the bundle, at most eight of it, to the leaf.
    pub certificates: Vec<CertificateOutline>,
}

/// What stands in a certificate that may not be genuine.
#[derive(Debug, Clone)]
pub struct CertificateOutline {
    /// `cabundle[0]` and so on, and `certificate` for the leaf.
    pub place: String,
    /// SHA-256 of its bytes.
    pub fingerprint: [u8; 32],
    /// What it says; `None` if it is no X.509 certificate.
    pub content: Option<CertificateContent>,
}

/// Names and times of a certificate.
#[derive(Debug, Clone)]
pub struct CertificateContent {
    /// Subject, RFC 4514.
    pub subject: String,
    /// Issuer, RFC 4514.
    pub issuer: String,
    /// Serial number in hex.
    pub serial: String,
    /// notBefore and notAfter in seconds since 1970.
    pub validity_s: (u64, u64),
}

/// Reads what can be read of the first [`super::MAX_DOCUMENT`] bytes, headers and tags aside.
pub fn unverified_outline(document: &[u8]) -> UnverifiedOutline {
    let bounded = document.get(..document.len().min(super::MAX_DOCUMENT)).unwrap_or_default();
    let mut fields = Fields::default();
    if let Some(payload) = envelope::unverified_payload(bounded) {
        let _ = fields.read_all(payload); // what was read before it broke stays
    }
    let bundle = fields.cabundle.iter().flatten().take(MAX_BUNDLE).enumerate();
    let bundle = bundle.map(|(i, der)| (format!("cabundle[{i}]"), *der));
    let leaf = fields.certificate.iter().map(|der| ("certificate".to_owned(), *der));
    let owned = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
    UnverifiedOutline {
        module_id: fields.module_id.map(str::to_owned),
        time_ms: fields.timestamp,
        pcrs: fields.pcrs.iter().flatten().take(MAX_PCRS).map(|&(index, pcr)| (index, pcr.to_vec())).collect(),
        public_key: owned(fields.public_key),
        user_data: owned(fields.user_data),
        nonce: owned(fields.nonce),
        certificates: bundle.chain(leaf).map(|(place, der)| CertificateOutline::of(place, der)).collect(),
    }
}

impl CertificateOutline {
    fn of(place: String, der: &[u8]) -> Self {
        Self { place, fingerprint: Sha256::digest(der).into(), content: CertificateContent::of(der) }
    }
}

impl CertificateContent {
    fn of(der: &[u8]) -> Option<Self> {
        let certificate = x509_cert::Certificate::from_der(der).ok()?;
        let body = certificate.tbs_certificate();
        let validity = body.validity();
        Some(Self {
            subject: body.subject().to_string(),
            issuer: body.issuer().to_string(),
            serial: super::hex(body.serial_number().as_bytes()),
            validity_s: (
                validity.not_before.to_unix_duration().as_secs(),
                validity.not_after.to_unix_duration().as_secs(),
            ),
        })
    }
}
