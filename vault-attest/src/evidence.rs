//! Evidence that was verified: what verification (docs/KEY_RELEASE.md section 2) found in it.
//!
//! [`VerifiedEvidence`] has no public constructor. Whoever holds one knows that the hardware signed it.

use std::fmt;

/// One measurement: a SHA-384.
pub type Pcr = [u8; 48];

/// Most PCRs in a document: indexes 0 to 31 `[V-10]`.
pub const MAX_PCRS: usize = 32;

/// What kind of hardware made the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Platform {
    /// An AWS Nitro Enclave.
    AwsNitro,
}

impl Platform {
    /// The name that policies and log entries use.
    pub fn name(self) -> &'static str {
        match self {
            Self::AwsNitro => "aws-nitro",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Evidence whose every verification step passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedEvidence {
    pub(crate) platform: Platform,
    pub(crate) module_id: String,
    pub(crate) time_ms: u64,
    pub(crate) pcrs: [Option<Pcr>; MAX_PCRS],
    pub(crate) public_key: Vec<u8>,
    pub(crate) user_data: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    pub(crate) valid_from_s: u64,
    pub(crate) valid_to_s: u64,
    pub(crate) root: [u8; 32],
    pub(crate) digest: [u8; 32],
}

impl VerifiedEvidence {
    /// What made it.
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// The enclave's id, as the hardware names it.
    pub fn module_id(&self) -> &str {
        &self.module_id
    }

    /// When the hardware signed it, in milliseconds since 1970.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// A PCR, if the document has it.
    pub fn pcr(&self, index: usize) -> Option<&Pcr> {
        self.pcrs.get(index)?.as_ref()
    }

    /// All PCRs of the document, ascending.
    pub fn pcrs(&self) -> impl Iterator<Item = (usize, &Pcr)> {
        self.pcrs.iter().enumerate().filter_map(|(i, pcr)| Some((i, pcr.as_ref()?)))
    }

    /// The attester's public key; empty if it gave none.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The attester's data; empty if it gave none.
    pub fn user_data(&self) -> &[u8] {
        &self.user_data
    }

    /// The nonce; empty if there is none.
    pub fn nonce(&self) -> &[u8] {
        &self.nonce
    }

    /// When every certificate of the chain is valid: from and to, in seconds since 1970.
    pub fn validity_s(&self) -> (u64, u64) {
        (self.valid_from_s, self.valid_to_s)
    }

    /// SHA-256 of the root certificate it chains to.
    pub fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// SHA-256 of the document.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}
