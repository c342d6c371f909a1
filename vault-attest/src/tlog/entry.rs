//! One entry of the release log: a decision, as one line of JSON. docs/KEY_RELEASE.md section 6.
//!
//! The members and their order are the format. What is not known at the step that refused is left out. An entry has no
//! secret: digests, ids and measurements.

use crate::step::{Refusal, Step};
use crate::time::rfc3339_ms;
use serde::{Deserialize, Serialize};
use vault_core::header::hex;

/// Longest entry, in bytes.
pub const MAX_ENTRY: usize = 16 << 10;

/// How a decision went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The DEK was released.
    Granted,
    /// It was not.
    Refused,
}

/// A decision. Ids, digests and measurements are lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// The version of this form: 1.
    pub v: u8,
    /// Decision id, 16 bytes.
    pub id: String,
    /// When it was decided: RFC 3339 with milliseconds.
    pub time: String,
    /// How it went.
    pub outcome: Outcome,
    /// The step that refused, such as `P-5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What that step wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What it met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    /// The line of the policy that decided, as it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_line: Option<String>,
    /// What the operator may do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Artifact id, 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// The model's name, from the about block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The model's version, from the about block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_version: Option<u64>,
    /// The obligation that goes with the DEK `[P-10]`: the manifest's version is not below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_model_version: Option<u64>,
    /// The obligation of `[P-11]`, where the policy names signers: id of the key that signed the model, 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Beside `signer`: the payload digest that is signed, 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Broker key id, 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The policy's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// SHA-256 of the policy file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_digest: Option<String>,
    /// The image release that the evidence matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// What made the evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The enclave's id, as the hardware names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Measurement of the image, 48 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcr0: Option<String>,
    /// Measurement of the kernel and boot ramdisk, 48 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcr1: Option<String>,
    /// Measurement of the application, 48 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcr2: Option<String>,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The binding of nonce, enclave key, artifact and stanza, 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// SHA-256 of the evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// SHA-256(enc || wrapped DEK) of a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

impl LogEntry {
    /// An entry that knows nothing but its id and time, and grants.
    pub fn new(id: &[u8; 16], now_ms: u64) -> Self {
        Self {
            v: 1,
            id: hex(id),
            time: rfc3339_ms(now_ms),
            outcome: Outcome::Granted,
            step: None,
            expected: None,
            actual: None,
            policy_line: None,
            fix: None,
            artifact: None,
            model: None,
            model_version: None,
            minimum_model_version: None,
            signer: None,
            payload: None,
            key: None,
            policy: None,
            policy_digest: None,
            release: None,
            platform: None,
            module: None,
            pcr0: None,
            pcr1: None,
            pcr2: None,
            source: None,
            binding: None,
            evidence: None,
            answer: None,
        }
    }

    /// Makes it a refusal: there is no answer then.
    pub fn refuse(&mut self, refusal: &Refusal, fix: Option<String>) {
        self.outcome = Outcome::Refused;
        self.step = Some(refusal.step.to_string());
        self.expected = Some(format!("{}: {}", refusal.what, refusal.expected));
        self.actual = Some(refusal.actual.clone());
        self.fix = fix;
        self.answer = None;
    }

    /// The entry's bytes: one line, without a newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // strings and numbers: nothing of it can fail
    }

    /// Reads an entry back `[L-1]`; nothing but what [`LogEntry::to_bytes`] writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let refuse = |why: &str| Refusal::new(Step::L(1), "log entry", "one line of JSON of version 1", why);
        if bytes.len() > MAX_ENTRY {
            return Err(refuse("more than 16384 bytes"));
        }
        let entry: Self = serde_json::from_slice(bytes).map_err(|e| refuse(&e.to_string()))?;
        match entry.v {
            1 if entry.to_bytes() == bytes => Ok(entry),
            1 => Err(refuse("another order or spelling")),
            v => Err(refuse(&format!("version {v}"))),
        }
    }

    /// The decision id's bytes, if they have its form.
    pub fn id_bytes(&self) -> Option<[u8; 16]> {
        let bytes = u128::from_str_radix(&self.id, 16).ok()?.to_be_bytes();
        (hex(&bytes) == self.id).then_some(bytes)
    }
}
