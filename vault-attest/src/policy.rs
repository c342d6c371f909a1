//! Appraisal policies, docs/KEY_RELEASE.md section 3: which measurements get a key, for which artifacts, how fresh.
//!
//! [`Policy::parse`] is the only way to a policy, and refuses any that a debug enclave could satisfy.
//! [`Policy::appraise`] and [`Appraised::model`] are the only way to an [`AttestationResult`].

mod appraise;
mod diff;
mod schema;
mod write;

pub use appraise::{Appraised, AttestationResult, Demand, Denial, Model, Signed};
pub use diff::Difference;
pub use write::{Draft, DraftRelease, release_text};

use crate::evidence::{Pcr, Platform};
use crate::step::{Refusal, Step};
use base64ct::{Base64, Encoding};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use vault_core::header::unhex;
use vault_core::signature::PublisherPublicKey;

/// Largest policy file in bytes `[P-1]`.
pub const MAX_FILE: usize = 256 * 1024;
/// Most releases in a policy `[P-1]`.
pub const MAX_RELEASES: usize = 1024;
/// The PCRs a release may name; the first three it must.
pub const PCRS: [u8; 6] = [0, 1, 2, 3, 4, 8];
/// Oldest evidence a policy may allow, in seconds.
pub const MAX_AGE_S: u64 = 86_400;

/// A policy file that obeys the schema.
#[derive(Debug, Clone)]
pub struct Policy {
    name: String,
    digest: [u8; 32],
    platform: Platform,
    max_age_s: u64,
    minimum_model_version: Option<u64>,
    scope: Scope,
    releases: Vec<Release>,
    lines: Lines,
}

/// What a policy is for; an absent list means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Artifact ids.
    pub artifacts: Option<Vec<[u8; 32]>>,
    /// Model names, as in the about block.
    pub models: Option<Vec<String>>,
    /// Broker key ids.
    pub recipients: Option<Vec<[u8; 32]>>,
    /// Publishers' keys.
    pub signers: Option<Vec<Signer>>,
}

/// A publisher whose signature a policy takes `[P-11]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    id: [u8; 32],
    key: PublisherPublicKey,
}

impl Signer {
    /// A publisher's key.
    pub fn new(key: PublisherPublicKey) -> Self {
        Self { id: key.key_id(), key }
    }

    /// From DER SubjectPublicKeyInfo in base64, as a PEM file has it, on one line.
    pub fn parse(text: &str) -> Option<Self> {
        PublisherPublicKey::from_der(&Base64::decode_vec(text).ok()?).ok().map(Self::new)
    }

    /// What [`Signer::parse`] reads.
    pub fn text(&self) -> String {
        Base64::encode_string(&self.key.to_der().unwrap_or_default()) // a key that was read has an encoding
    }

    /// SHA-256 of the DER encoding.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// The key.
    pub fn key(&self) -> &PublisherPublicKey {
        &self.key
    }
}

impl PartialOrd for Signer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Signer {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}

/// One image release whose measurements are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// Its measurements by PCR index; 0, 1 and 2 are there.
    pub pcrs: BTreeMap<u8, Pcr>,
    /// From when it gets keys, in seconds since 1970.
    pub not_before_s: Option<u64>,
    /// Until when it gets keys, in seconds since 1970.
    pub not_after_s: Option<u64>,
}

/// Where things stand in the file, for messages.
#[derive(Debug, Clone, Default)]
struct Lines {
    text: Vec<String>,
    of: BTreeMap<String, usize>,
}

/// Why a file is no policy `[P-1]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    /// The line, from 1; 0 if it is about the whole file.
    pub line: usize,
    /// What was expected and found.
    pub refusal: Refusal,
    /// The next step.
    pub fix: &'static str,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        self.refusal.fmt(f)
    }
}

impl Policy {
    /// Reads a policy file `[P-1]`.
    pub fn parse(file: &[u8]) -> Result<Self, PolicyError> {
        schema::parse(file)
    }

    /// Its name: 1 to 64 of `a-z 0-9 . _ -`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the file.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The hardware it wants.
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// Oldest evidence in seconds.
    pub fn max_age_s(&self) -> u64 {
        self.max_age_s
    }

    /// The least version of a model that is opened.
    pub fn minimum_model_version(&self) -> Option<u64> {
        self.minimum_model_version
    }

    /// What it is for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The releases, in the file's order; at least one.
    pub fn releases(&self) -> &[Release] {
        &self.releases
    }

    /// The line of a key such as `max_age_s`, `scope.models` or `release.1.4.0.pcr1`: its number and text.
    pub fn line(&self, key: &str) -> Option<(usize, &str)> {
        let number = *self.lines.of.get(key)?;
        Some((number, self.lines.text.get(number.checked_sub(1)?)?))
    }
}

/// 32 bytes in 64 lower-case or upper-case hex digits.
pub fn parse_id(text: &str) -> Option<[u8; 32]> {
    unhex(text)?.try_into().ok()
}

/// A PCR in 96 hex digits.
pub fn parse_pcr(text: &str) -> Option<Pcr> {
    unhex(text)?.try_into().ok()
}

fn p1(
    line: usize,
    what: impl Into<String>,
    expected: &str,
    found: impl fmt::Display,
    fix: &'static str,
) -> PolicyError {
    PolicyError { line, refusal: Refusal::new(Step::P(1), what, expected, found), fix }
}

#[cfg(test)]
mod tests;
