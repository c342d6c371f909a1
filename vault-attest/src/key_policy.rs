//! Key policies of AWS KMS, docs/KEY_RELEASE.md 9.2: written from an appraisal policy, and judged.
//!
//! KMS evaluates a key's own policy on each request, so whoever gets round it gets the data keys without an enclave.
//! [`Access::key_policy`] writes one that has no way round; [`lint()`] finds the ways round others. Nothing here asks AWS:
//! both work on text, and [`lint()`] assumes the worst of what the text does not say.

mod document;
mod lint;
mod request;
mod write;

pub use document::{Document, DocumentError};
pub use lint::{Finding, Severity, lint};
pub use write::{Access, AccessError, Arn, release_conditions};

/// Largest key policy that KMS takes, in bytes.
pub const MAX_KEY_POLICY: usize = 32_768;
/// The condition key of PCR0; the same value as `…:PCR0`.
const IMAGE_SHA384: &str = "kms:RecipientAttestation:ImageSha384";

#[cfg(test)]
mod tests;
