//! What a document says, for people who want to see why it is refused. **Nothing here is verified**: the types say
//! so, and no decision takes them.

use super::certificate::Certificate;
use super::document::Fields;
use super::envelope;
use crate::step::Refusal;

/// What stands in a document that may not be genuine.
#[derive(Debug, Clone, Default)]
pub struct UnverifiedOutline {
    /// The enclave's id.
    pub module_id: Option<String>,
    /// Milliseconds since 1970.
    pub time_ms: Option<u64>,
    /// PCRs, as long as they are.
    pub pcrs: Vec<(u64, Vec<u8>)>,
    /// The attester's public key.
    pub public_key: Vec<u8>,
    /// The attester's data.
    pub user_data: Vec<u8>,
    /// The nonce.
    pub nonce: Vec<u8>,
    /// From the first of the bundle to the leaf; those that could not be parsed are left out.
    pub certificates: Vec<CertificateOutline>,
}

/// What stands in a certificate that may not be genuine.
#[derive(Debug, Clone)]
pub struct CertificateOutline {
    /// Subject, RFC 4514.
    pub subject: String,
    /// Issuer, RFC 4514.
    pub issuer: String,
    /// Serial number in hex.
    pub serial: String,
    /// notBefore and notAfter in seconds since 1970.
    pub validity_s: (u64, u64),
}

/// Reads what can be read. Refuses, with the step, where the form itself is broken (V-2 to V-7).
pub fn unverified_outline(document: &[u8]) -> Result<UnverifiedOutline, Refusal> {
    let bounded = document.get(..document.len().min(super::MAX_DOCUMENT)).unwrap_or_default();
    let fields = Fields::parse(envelope::parse(bounded)?.payload)?;
    let bundle = fields.cabundle.clone().unwrap_or_default();
    let certificates = bundle.into_iter().chain(fields.certificate);
    let owned = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
    Ok(UnverifiedOutline {
        module_id: fields.module_id.map(str::to_owned),
        time_ms: fields.timestamp,
        pcrs: fields.pcrs.iter().flatten().map(|&(index, pcr)| (index, pcr.to_vec())).collect(),
        public_key: owned(fields.public_key),
        user_data: owned(fields.user_data),
        nonce: owned(fields.nonce),
        certificates: certificates.filter_map(CertificateOutline::of).collect(),
    })
}

impl CertificateOutline {
    fn of(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::parse(String::new(), der).ok()?;
        Some(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: super::hex(certificate.serial()),
            validity_s: certificate.validity(),
        })
    }
}
