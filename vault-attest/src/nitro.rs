//! AWS Nitro Enclaves: from a document to [`VerifiedEvidence`], docs/KEY_RELEASE.md section 2.
//!
//! [`verify`] runs steps V-1 to V-23 in order. Nothing here trusts a length, a depth or a name that the document
//! claims; the clock and the roots are arguments.

mod certificate;
mod chain;
mod document;
pub(crate) mod envelope;
mod outline;
pub(crate) mod reader;

pub use outline::{CertificateContent, CertificateOutline, UnverifiedOutline, unverified_outline};

use crate::evidence::{Pcr, Platform, VerifiedEvidence};
use crate::step::{Refusal, Step};
use certificate::Certificate;
use document::Document;
use envelope::Envelope;
use sha2::{Digest, Sha256};
pub(crate) use vault_core::header::hex;

/// Largest document in bytes `[V-1]`; the NSM's answers have at most 12 KiB.
pub const MAX_DOCUMENT: usize = 16 * 1024;
/// How far a document's time may lie in the verifier's future, in seconds `[V-9]`.
pub const MAX_SKEW_S: u64 = 300;

/// SHA-256 of the DER of AWS's Nitro Enclaves root G1 `[V-14]`.
const AWS_ROOT: [u8; 32] = [
    0x64, 0x1A, 0x03, 0x21, 0xA3, 0xE2, 0x44, 0xEF, 0xE4, 0x56, 0x46, 0x31, 0x95, 0xD6, 0x06, 0x31, 0x7E, 0xD7, 0xCD,
    0xCC, 0x3C, 0x17, 0x56, 0xE0, 0x98, 0x93, 0xF3, 0xC6, 0x8F, 0x79, 0xBB, 0x5B,
];

/// The root certificates that evidence may chain to, by fingerprint.
#[derive(Debug, Clone)]
pub struct Roots(Vec<[u8; 32]>);

impl Roots {
    /// AWS's root and no other.
    pub fn aws() -> Self {
        Self(vec![AWS_ROOT])
    }

    /// Another root beside: whoever holds its key can forge any evidence. For development, behind a flag that says so.
    #[must_use]
    pub fn dangerous_with(mut self, root_der: &[u8]) -> Self {
        self.0.push(Sha256::digest(root_der).into());
        self
    }

    /// Fingerprints: SHA-256 of DER.
    pub fn fingerprints(&self) -> &[[u8; 32]] {
        &self.0
    }
}

/// When certificates must be valid `[V-20]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Now: the evidence is to be acted upon.
    Live {
        /// Seconds since 1970.
        now_s: u64,
    },
    /// At the document's own time: it was genuine then, which says nothing about now.
    Archived,
}

/// Verifies a document. The refusal names the first step that failed.
pub fn verify(document: &[u8], roots: &Roots, mode: Mode) -> Result<VerifiedEvidence, Refusal> {
    if document.is_empty() || document.len() > MAX_DOCUMENT {
        let expected = format!("1 to {MAX_DOCUMENT} bytes");
        return Err(Refusal::new(Step::V(1), "the document", expected, format!("{} bytes", document.len())));
    }
    let envelope = envelope::parse(document)?; // V-2 to V-5
    let fields = document::Fields::parse(envelope.payload)?; // V-6, V-7
    let found = Document::check(&fields, mode)?; // V-8 to V-12
    let certificates = certificate::parse_all(&found)?; // V-13
    let root = root_of(&found, roots)?; // V-14
    chain::check(&certificates, time_s(&found, mode))?; // V-15 to V-20
    chain::check_signatures(&certificates)?; // V-21
    check_signature(&envelope, certificates.last())?; // V-22
    refuse_debug(&found.pcrs)?; // V-23
    let window = chain::window(&certificates);
    Ok(VerifiedEvidence {
        platform: Platform::AwsNitro,
        module_id: found.module_id.to_owned(),
        time_ms: found.timestamp_ms,
        pcrs: found.pcrs,
        public_key: found.public_key.to_vec(),
        user_data: found.user_data.to_vec(),
        nonce: found.nonce.to_vec(),
        valid_from_s: window.0,
        valid_to_s: window.1,
        root,
        digest: Sha256::digest(document).into(),
    })
}

/// The time at which certificates are judged.
fn time_s(document: &Document<'_>, mode: Mode) -> u64 {
    match mode {
        Mode::Live { now_s } => now_s,
        Mode::Archived => document.timestamp_ms / 1000,
    }
}

/// `[V-22]`
fn check_signature(envelope: &Envelope<'_>, leaf: Option<&Certificate<'_>>) -> Result<(), Refusal> {
    if leaf.is_some_and(|leaf| envelope.is_signed_by(&leaf.point)) {
        return Ok(());
    }
    Err(Refusal::new(Step::V(22), "the document's signature", "the leaf key's", "not made by that key"))
}

/// `[V-14]`
fn root_of(document: &Document<'_>, roots: &Roots) -> Result<[u8; 32], Refusal> {
    let first = document.cabundle.first().copied().unwrap_or_default();
    let fingerprint: [u8; 32] = Sha256::digest(first).into();
    if roots.0.contains(&fingerprint) {
        return Ok(fingerprint);
    }
    let expected: Vec<_> = roots.0.iter().map(|r| hex(r)).collect();
    Err(Refusal::new(Step::V(14), "SHA-256 of the root certificate", expected.join(" or "), hex(&fingerprint)))
}

/// `[V-23]`
fn refuse_debug(pcrs: &[Option<Pcr>]) -> Result<(), Refusal> {
    let zero = pcrs.iter().take(3).position(|pcr| pcr.is_none_or(|pcr| pcr == [0; 48]));
    match zero {
        None => Ok(()),
        Some(index) => Err(Refusal::new(Step::V(23), format!("PCR{index}"), "a measurement", "zeros: debug mode")),
    }
}

#[cfg(test)]
mod tests;
