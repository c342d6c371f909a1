//! The four messages, in deterministic CBOR: what decodes but would be encoded otherwise is refused `[R-1]`.

use super::{ENC_LEN, ID_LEN, MAX_HEADER, NONCE_LEN, PUBLIC_KEY_LEN};
use crate::nitro::MAX_DOCUMENT;
use crate::step::{Refusal, Step};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use std::fmt;

/// Longest hint in bytes.
const MAX_HINT: usize = 1024;
/// Longest log entry in bytes.
const MAX_ENTRY: usize = 16 * 1024;
/// Longest log proof in bytes.
const MAX_PROOF: usize = 8 * 1024;
/// Most key ids in a challenge.
const MAX_KEYS: usize = 256;

/// A broker's answer to who wants to ask.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Challenge {
    /// To be used once.
    #[n(0)]
    pub nonce: ByteArray<NONCE_LEN>,
    /// Seconds until it expires.
    #[n(1)]
    pub life_s: u64,
    /// Ids of the broker's keys, newest first.
    #[n(2)]
    pub keys: Vec<ByteArray<32>>,
}

/// An enclave's question.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Request {
    /// The challenge's nonce.
    #[n(0)]
    pub nonce: ByteArray<NONCE_LEN>,
    /// What the hardware signed.
    #[n(1)]
    pub evidence: ByteVec,
    /// The enclave's X-Wing key of this release.
    #[n(2)]
    pub public_key: ByteVec,
    /// The artifact's header to the end of its MAC.
    #[n(3)]
    pub header: ByteVec,
}

/// Yes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    /// The decision's id.
    #[n(0)]
    pub id: ByteArray<ID_LEN>,
    /// HPKE's encapsulated key.
    #[n(1)]
    pub enc: ByteVec,
    /// The DEK under it.
    #[n(2)]
    pub wrapped: ByteArray<48>,
    /// The decision as it stands in the release log.
    #[n(3)]
    pub entry: ByteVec,
    /// That it stands there: c2sp.org/tlog-proof.
    #[n(4)]
    pub proof: String,
}

/// No. Says nothing of measurements or policies.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RefusalMessage {
    /// The decision's id, for `mvault broker why`.
    #[n(0)]
    pub id: ByteArray<ID_LEN>,
    /// The step that refused, such as `P-5`.
    #[n(1)]
    pub step: String,
    /// `never`, `new-challenge` or `later`.
    #[n(2)]
    pub retry: String,
    /// For the log of who asked.
    #[n(3)]
    pub hint: String,
    /// Seconds to wait before asking again.
    #[n(4)]
    pub wait_s: Option<u64>,
}

/// Whether asking again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It cannot.
    Never,
    /// With another nonce, at once.
    NewChallenge,
    /// After a while.
    Later,
}

impl Retry {
    /// The word of a message.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Never, Self::NewChallenge, Self::Later].into_iter().find(|retry| retry.to_string() == text)
    }

    /// What the table of KEY_RELEASE.md section 4 says about a step.
    pub fn after(step: Step) -> Self {
        match step {
            Step::R(2 | 3 | 11) | Step::V(_) => Self::NewChallenge,
            Step::R(6 | 12) => Self::Later,
            _ => Self::Never,
        }
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::NewChallenge => "new-challenge",
            Self::Later => "later",
        })
    }
}

/// A message whose fields have lengths of their own.
pub trait Message {
    /// What to call it in a refusal.
    const NAME: &'static str;

    /// What is wrong with its fields, if anything.
    fn fault(&self) -> Option<String>;
}

impl Message for Challenge {
    const NAME: &'static str = "challenge";

    fn fault(&self) -> Option<String> {
        let good = (1..=MAX_KEYS).contains(&self.keys.len());
        (!good).then(|| format!("{} broker keys", self.keys.len()))
    }
}

impl Message for Request {
    const NAME: &'static str = "request";

    fn fault(&self) -> Option<String> {
        let lengths = [
            ("evidence", self.evidence.len(), 1..=MAX_DOCUMENT),
            ("public key", self.public_key.len(), PUBLIC_KEY_LEN..=PUBLIC_KEY_LEN),
            ("header", self.header.len(), 1..=MAX_HEADER),
        ];
        let wrong = lengths.iter().find(|(_, len, allowed)| !allowed.contains(len));
        let length = wrong.map(|(name, len, _)| format!("a {name} of {len} bytes"));
        length.or_else(|| (!super::wrap::is_key(&self.public_key)).then(|| "no X-Wing key".into()))
    }
}

impl Message for Grant {
    const NAME: &'static str = "grant";

    fn fault(&self) -> Option<String> {
        let lengths = [
            ("encapsulated key", self.enc.len(), ENC_LEN..=ENC_LEN),
            ("log entry", self.entry.len(), 1..=MAX_ENTRY),
            ("log proof", self.proof.len(), 1..=MAX_PROOF),
        ];
        let wrong = lengths.iter().find(|(_, len, allowed)| !allowed.contains(len));
        wrong.map(|(name, len, _)| format!("a {name} of {len} bytes"))
    }
}

impl Message for RefusalMessage {
    const NAME: &'static str = "refusal";

    fn fault(&self) -> Option<String> {
        let good = Step::parse(&self.step).is_some() && Retry::parse(&self.retry).is_some();
        if !good || self.hint.len() > MAX_HINT {
            return Some("an unknown step or retry, or a hint too long".into());
        }
        None
    }
}

/// The message's bytes.
pub fn encode<M: Encode<()>>(message: &M) -> Vec<u8> {
    minicbor::to_vec(message).unwrap_or_default() // writing to a Vec does not fail
}

/// The message, if these are its bytes; else a refusal of `step`. The caller bounds the length of `bytes`.
pub fn decode<'b, M>(bytes: &'b [u8], step: Step) -> Result<M, Refusal>
where
    M: Message + Decode<'b, ()> + Encode<()>,
{
    let refuse = |found: String| Refusal::new(step, M::NAME, "the message of KEY_RELEASE.md 4", found);
    let message: M = minicbor::decode(bytes).map_err(|e| refuse(e.to_string()))?;
    if encode(&message) != bytes {
        return Err(refuse("another encoding".into()));
    }
    message.fault().map_or(Ok(message), |fault| Err(refuse(fault)))
}
