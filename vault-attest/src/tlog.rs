//! The release log: proofs that an entry is in it, and that it only grew. docs/KEY_RELEASE.md section 6.
//!
//! Formats are C2SP's: signed-note, tlog-checkpoint, tlog-proof; hashing is RFC 6962's. Whoever reads a proof
//! needs the log's verifier key and nothing else. Everything read here is hostile until its step says otherwise:
//! no panic, no recursion, no allocation by a claimed length.

mod checkpoint;
mod entry;
mod key;
pub mod tree;

pub use checkpoint::{Checkpoint, MAX_SIZE, SignedCheckpoint};
pub use entry::{LogEntry, MAX_ENTRY, Outcome};
pub use key::{LogSigner, LogVerifier};
pub use tree::Hash;

use crate::step::{Refusal, Step};
use base64ct::{Base64, Encoding};
use std::fmt::Write;

/// Longest text of a proof or a checkpoint, in bytes: 16 signatures, post-quantum ones too.
pub const MAX_TEXT: usize = 128 << 10;

/// Most hashes in a proof: a path from the leaf to the root of a tree of [`MAX_SIZE`], and one more.
const MAX_HASHES: usize = 64;
const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// Where an entry was shown to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its index, from 0.
    pub index: u64,
    /// The checkpoint, signed by the log key, of the tree it is in.
    pub checkpoint: Checkpoint,
}

/// Whether a log holds `entry`: the signature of the proof's checkpoint `[L-3]`, and the path to its root `[L-4]`.
pub fn verify_log_proof(entry: &[u8], proof_text: &str, verifier: &LogVerifier) -> Result<Logged, Refusal> {
    let proof = LogProof::parse(proof_text)?;
    let checkpoint = verifier.verify(&proof.checkpoint)?;
    tree::verify_inclusion(&tree::leaf_hash(entry), proof.index, &proof.path, checkpoint.size(), checkpoint.root())
        .map_err(|why| Refusal::new(Step::L(4), "inclusion", "a path from the entry to the root", why))?;
    Ok(Logged { index: proof.index, checkpoint })
}

/// Whether the tree of `old` is a prefix of the tree of `new` `[L-5]`. Both come from [`LogVerifier::verify`].
pub fn verify_consistency(old: &Checkpoint, new: &Checkpoint, proof: &[Hash]) -> Result<(), Refusal> {
    if old.origin() != new.origin() {
        return Err(Refusal::new(Step::L(5), "origin", old.origin(), new.origin()));
    }
    tree::verify_consistency(old.size(), old.root(), new.size(), new.root(), proof).map_err(|why| {
        let wanted = format!("a tree of {} entries that goes on from that of {}", new.size(), old.size());
        Refusal::new(Step::L(5), "consistency", wanted, why)
    })
}

/// The text form of an inclusion proof: index, path, checkpoint. Not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProof {
    /// The entry's index, from 0.
    pub index: u64,
    /// From the leaf's sibling to the root's child.
    pub path: Vec<Hash>,
    /// The signed checkpoint, as the log gave it.
    pub checkpoint: String,
}

impl LogProof {
    /// Reads the form `[L-4]`. A line of extra data is not taken: nothing would sign it.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = |wanted: &str, found: &str| Refusal::new(Step::L(4), "log proof", wanted, found);
        if text.len() > MAX_TEXT {
            return Err(refuse("at most 131072 bytes", &format!("{} bytes", text.len())));
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or_else(|| refuse("an empty line", "none"))?;
        let mut lines = head.split('\n');
        let first = lines.next().unwrap_or_default();
        if first != FIRST_LINE {
            return Err(refuse(FIRST_LINE, first));
        }
        let line = lines.next().unwrap_or_default();
        let index = line.strip_prefix("index ").and_then(decimal);
        let index = index.ok_or_else(|| refuse("index and a number", line))?;
        let path = hashes(lines).map_err(|line| refuse("at most 64 lines of one hash in base64", line))?;
        Ok(Self { index, path, checkpoint: checkpoint.into() })
    }
}

impl std::fmt::Display for LogProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{FIRST_LINE}\nindex {}\n{}\n{}", self.index, lines_of(&self.path), self.checkpoint)
    }
}

/// A consistency proof as text: one hash in base64 a line.
pub fn consistency_text(proof: &[Hash]) -> String {
    lines_of(proof)
}

/// Reads [`consistency_text`] `[L-5]`; every line ends with a newline.
pub fn parse_consistency(text: &str) -> Result<Vec<Hash>, Refusal> {
    let refuse = |found: &str| Refusal::new(Step::L(5), "consistency proof", "at most 64 lines of one hash", found);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let lines = text.strip_suffix('\n').ok_or_else(|| refuse("no newline at the end"))?;
    hashes(lines.split('\n')).map_err(refuse)
}

/// A number without leading zeros, sign or spaces.
fn decimal(text: &str) -> Option<u64> {
    let n: u64 = text.parse().ok()?;
    (n.to_string() == text).then_some(n)
}

/// One hash in base64, with its padding and nothing else.
fn hash(line: &str) -> Option<Hash> {
    let mut out = Hash::default();
    let decoded = Base64::decode(line, &mut out).ok()?;
    (decoded.len() == out.len()).then_some(out)
}

/// All lines' hashes, or the line that is none.
fn hashes<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Hash>, &'a str> {
    let mut out = Vec::new();
    for line in lines {
        if out.len() == MAX_HASHES {
            return Err("more");
        }
        out.push(hash(line).ok_or(line)?);
    }
    Ok(out)
}

fn lines_of(hashes: &[Hash]) -> String {
    hashes.iter().fold(String::new(), |mut text, hash| {
        let _ = writeln!(text, "{}", Base64::encode_string(hash)); // a String takes everything
        text
    })
}

#[cfg(test)]
mod tests;
