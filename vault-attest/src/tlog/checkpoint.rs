//! Checkpoints (c2sp.org/tlog-checkpoint) in signed notes (c2sp.org/signed-note).
//!
//! A [`Checkpoint`] is had from [`super::LogVerifier::verify`] alone: its signature was that of the log key.

use super::key::valid_name;
use super::{Hash, MAX_TEXT, decimal, hash};
use crate::step::{Refusal, Step};
use base64ct::{Base64, Encoding};

/// Largest tree: positions of its nodes, and its indexes in a database, stay below 2^63.
pub const MAX_SIZE: u64 = 1 << 62;

/// Most signatures read: the log's, and those of witnesses.
const MAX_SIGNATURES: usize = 32;

/// A tree's head: how many entries, and the root over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
}

impl Checkpoint {
    /// The log's name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Entries in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    pub fn root(&self) -> &Hash {
        &self.root
    }

    /// What is signed: three lines.
    pub(super) fn text(origin: &str, size: u64, root: &Hash) -> String {
        format!("{origin}\n{size}\n{}\n", Base64::encode_string(root))
    }

    /// Exactly three lines. Extension lines are refused: this log has none, and nobody would look at them.
    fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = |wanted, found: &str| Refusal::new(Step::L(3), "checkpoint", wanted, found);
        let mut lines = text.split('\n');
        let mut line = || lines.next().unwrap_or_default();
        let (origin, size, root, end) = (line(), line(), line(), line());
        if !valid_name(origin) {
            return Err(refuse("the name of a log", origin));
        }
        let size = decimal(size).filter(|n| *n <= MAX_SIZE).ok_or_else(|| refuse("a tree size below 2^62", size))?;
        let root = hash(root).ok_or_else(|| refuse("a root hash in base64", root))?;
        if !end.is_empty() || lines.next().is_some() {
            return Err(refuse("three lines", "more"));
        }
        Ok(Self { origin: origin.into(), size, root })
    }
}

/// A note that was read and not verified.
pub struct SignedCheckpoint<'a> {
    text: &'a str,
    checkpoint: Checkpoint,
    signatures: Vec<(&'a str, Vec<u8>)>,
}

impl<'a> SignedCheckpoint<'a> {
    /// Reads the form `[L-3]`.
    pub fn parse(note: &'a str) -> Result<Self, Refusal> {
        let refuse = |wanted, found: &str| Refusal::new(Step::L(3), "signed note", wanted, found);
        if note.len() > MAX_TEXT {
            return Err(refuse("at most 131072 bytes", &format!("{} bytes", note.len())));
        }
        if note.contains(|c: char| c < ' ' && c != '\n') {
            return Err(refuse("no control characters", "one"));
        }
        let at = note.rfind("\n\n").ok_or_else(|| refuse("text, an empty line, signatures", note))?;
        let (text, rest) = (note.get(..=at).unwrap_or_default(), note.get(at + 2..).unwrap_or_default());
        let lines = rest.strip_suffix('\n').ok_or_else(|| refuse("signatures that end with a newline", rest))?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == MAX_SIGNATURES {
                return Err(refuse("at most 32 signatures", "more"));
            }
            signatures.push(signature(line).ok_or_else(|| refuse("lines of a dash, a name and a signature", line))?);
        }
        Ok(Self { text, checkpoint: Checkpoint::parse(text)?, signatures })
    }

    /// The text under the signatures.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// What the text says, which nobody has vouched for.
    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// For whoever has verified a signature.
    pub(super) fn into_checkpoint(self) -> Checkpoint {
        self.checkpoint
    }

    /// Names, and key ids with signatures.
    pub(super) fn signatures(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.signatures.iter().map(|(name, bytes)| (*name, &bytes[..]))
    }
}

/// `— name base64(key id || signature)`
fn signature(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = Base64::decode_vec(signature).ok()?;
    (valid_name(name) && bytes.len() > 4).then_some((name, bytes))
}
