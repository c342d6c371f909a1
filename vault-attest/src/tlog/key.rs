//! The log's key: Ed25519 under a name, as c2sp.org/signed-note has it (signature type 0x01).
//!
//! The verifier key is text, `name+id+base64(0x01 || public key)`, fit for a configuration. The signer has no Debug, Clone
//! or Serialize; its seed is handed in as a [`Secret`] and wiped with the key.

use super::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::step::{Refusal, Step};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};
use std::fmt;
use vault_core::secret::Secret;

/// Ed25519 as note signatures name it.
const ED25519_TYPE: u8 = 0x01;
/// Longest name of a log, in bytes.
const MAX_NAME: usize = 256;

/// The public half of a log's key, and the log's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogVerifier {
    name: String,
    key: [u8; 32],
}

impl LogVerifier {
    /// From its text form. A wrong id is a typing error in name or key.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = |wanted, found: &str| Refusal::new(Step::L(3), "log verifier key", wanted, found);
        let (name, rest) = text.split_once('+').ok_or_else(|| refuse("name+id+key", text))?;
        let (id, key) = rest.split_once('+').ok_or_else(|| refuse("name+id+key", text))?;
        let mut typed = [0; 33];
        let key = match Base64::decode(key, &mut typed) {
            Ok([ED25519_TYPE, key @ ..]) if key.len() == 32 => key,
            _ => return Err(refuse("an Ed25519 key (type 1) in base64", key)),
        };
        let key = key.try_into().map_err(|_| refuse("32 bytes", "others"))?;
        let verifier = Self::new(name, key)?;
        let expected = hex_id(verifier.id());
        if id == expected { Ok(verifier) } else { Err(refuse(&format!("id {expected}"), id)) }
    }

    /// A key under a name.
    pub fn new(name: &str, key: [u8; 32]) -> Result<Self, Refusal> {
        if !valid_name(name) {
            let wanted = "1 to 256 bytes without spaces, control characters or '+'";
            return Err(Refusal::new(Step::L(3), "log name", wanted, name));
        }
        Ok(Self { name: name.into(), key })
    }

    /// The log's name, which is the origin of its checkpoints.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first bytes of SHA-256(name || 0x0A || type || public key).
    pub fn id(&self) -> [u8; 4] {
        let named = Sha256::new().chain_update(&self.name).chain_update([b'\n', ED25519_TYPE]);
        let [a, b, c, d, ..] = <[u8; 32]>::from(named.chain_update(self.key).finalize());
        [a, b, c, d]
    }

    /// The checkpoint of a signed note `[L-3]`: signed by this key, and of this log. Signatures of other keys do not count,
    /// but a wrong one of this key does.
    pub fn verify(&self, note: &str) -> Result<Checkpoint, Refusal> {
        let note = SignedCheckpoint::parse(note)?;
        let refuse = |wanted: &str, found: &str| Refusal::new(Step::L(3), "checkpoint", wanted, found);
        let mut signed = false;
        for (_, signature) in
            note.signatures().filter(|(name, bytes)| *name == self.name && bytes.starts_with(&self.id()))
        {
            let key = UnparsedPublicKey::new(&ED25519, self.key);
            let signature = signature.get(4..).unwrap_or_default();
            key.verify(note.text().as_bytes(), signature)
                .map_err(|_| refuse("a signature of the log key", "one that is not"))?;
            signed = true;
        }
        if !signed {
            return Err(refuse(&format!("a signature of {} {}", self.name, hex_id(self.id())), "none"));
        }
        if note.checkpoint().origin() != self.name {
            return Err(refuse(&format!("origin {}", self.name), note.checkpoint().origin()));
        }
        Ok(note.into_checkpoint())
    }
}

impl fmt::Display for LogVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed: Vec<u8> = [ED25519_TYPE].into_iter().chain(self.key).collect();
        write!(f, "{}+{}+{}", self.name, hex_id(self.id()), Base64::encode_string(&typed))
    }
}

/// A log's private key and name. Signs checkpoints and nothing else.
pub struct LogSigner {
    pair: Ed25519KeyPair,
    verifier: LogVerifier,
}

impl LogSigner {
    /// From a seed of 32 bytes.
    pub fn new(name: &str, seed: &Secret) -> Result<Self, Refusal> {
        let refuse = |_| Refusal::new(Step::L(3), "log key", "a seed of 32 bytes", "another");
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(refuse)?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().unwrap_or_default();
        Ok(Self { verifier: LogVerifier::new(name, public)?, pair })
    }

    /// The public half.
    pub fn verifier(&self) -> &LogVerifier {
        &self.verifier
    }

    /// The signed note of a tree's head. The caller never signs a tree that does not go on from the last one it signed.
    pub fn sign(&self, size: u64, root: super::Hash) -> String {
        let text = Checkpoint::text(&self.verifier.name, size, &root);
        let signature = [&self.verifier.id()[..], self.pair.sign(text.as_bytes()).as_ref()].concat();
        format!("{text}\n\u{2014} {} {}\n", self.verifier.name, Base64::encode_string(&signature))
    }
}

/// Names that a note can carry.
pub(super) fn valid_name(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    (1..=MAX_NAME).contains(&name.len()) && !name.contains(bad)
}

fn hex_id(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}
