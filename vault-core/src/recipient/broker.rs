//! Key brokers: FORMAT.md section 4.4. A stanza names the policy under which its broker may release the DEK; name and
//! digest are authenticated by the wrapped DEK, so only who knows the DEK can change them.
//!
//! Only a broker's key opens a stanza. An enclave gets the DEK through the release protocol (KEY_RELEASE.md) as [`Released`].

use super::xwing::{PUBLIC_LEN, XWingIdentity, XWingRecipient};
use super::{Identity, Recipient, WRAPPED_LEN, unwrap, wrap};
use crate::error::{Error, Result};
use crate::header::{Section, section};
use crate::keys::Dek;
use crate::secret::Secret;
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256, Sha512};
use x_wing::CIPHERTEXT_SIZE;

const TAG_LEN: usize = 8;
const DIGEST_LEN: usize = 32;
/// Longest name of a policy in bytes.
pub const MAX_POLICY: usize = 64;

/// Whether a policy may have this name: 1 to 64 of `a-z 0-9 . _ -` `[F-47]`.
pub fn is_policy_name(name: &str) -> bool {
    (1..=MAX_POLICY).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

/// What names a broker's key everywhere: in challenges, policies, logs.
pub fn key_id(public: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(b"mvault/v1/broker key\0").chain_update(public).finalize().into()
}

/// What a stanza for the key `id` begins with, in the artifact with this salt.
fn tag(id: &[u8; 32], salt: &[u8; 32]) -> [u8; TAG_LEN] {
    let digest = Sha256::new().chain_update(b"mvault/v1/broker tag\0").chain_update(salt).chain_update(id).finalize();
    let mut tag = [0; TAG_LEN];
    tag.copy_from_slice(&digest[..TAG_LEN]);
    tag
}

/// A broker's public key, and the policy under which it may release what is sealed for it.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerRecipient {
    key: XWingRecipient,
    policy: String,
    digest: Option<[u8; DIGEST_LEN]>,
}

impl BrokerRecipient {
    /// `digest` pins one exact policy file; without it the broker may give the policy new releases.
    pub fn new(key: XWingRecipient, policy: &str, digest: Option<[u8; DIGEST_LEN]>) -> Result<Self> {
        if !is_policy_name(policy) {
            let shown: String = policy.chars().filter(|c| !c.is_control()).take(80).collect();
            return Err(Error::Usage(format!("'{shown}' is no policy's name: 1 to 64 of a-z 0-9 . _ -")));
        }
        if digest == Some([0; DIGEST_LEN]) {
            return Err(Error::Usage("a policy's digest is not zeros".into()));
        }
        Ok(Self { key, policy: policy.to_owned(), digest })
    }

    /// The broker key's id.
    pub fn key_id(&self) -> [u8; 32] {
        key_id(self.key.as_bytes())
    }

    /// Whether a stanza says it is for this broker and policy.
    pub fn is_for(&self, salt: &[u8; 32], section: &Section) -> bool {
        Stanza::parse(section).is_some_and(|stanza| {
            stanza.is_for(&self.key_id(), salt) && stanza.policy == self.policy && stanza.digest == self.digest
        })
    }
}

impl Recipient for BrokerRecipient {
    fn wrap_dek(&self, salt: &[u8; 32], dek: &Dek, rng: &mut dyn CryptoRng) -> Result<Section> {
        let (ct, shared) = self.key.encapsulate(rng);
        let kek = kek(salt, &shared, &ct, self.key.as_bytes());
        let mut before = tag(&self.key_id(), salt).to_vec();
        before.extend_from_slice(&ct);
        before.push(u8::try_from(self.policy.len()).unwrap_or(u8::MAX)); // at most 64
        before.extend_from_slice(self.policy.as_bytes());
        before.extend_from_slice(&self.digest.unwrap_or_default());
        Ok(Section { kind: section::BROKER, body: wrap(&kek, section::BROKER, salt, &before, dek.expose()) })
    }
}

fn kek(salt: &[u8; 32], shared: &Secret, ct: &[u8], public: &[u8]) -> Secret {
    let mut kek = Secret::zeroed(32);
    let info = [b"mvault/v1/broker\0", ct, public];
    let hkdf = Hkdf::<Sha512>::new(Some(salt), shared.expose());
    hkdf.expand_multi_info(&info, kek.expose_mut()).expect("32 bytes are derived");
    kek
}

/// The parts of a stanza; untrusted until its DEK is unwrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stanza<'a> {
    tag: [u8; TAG_LEN],
    ct: &'a [u8],
    /// The policy's name.
    pub policy: &'a str,
    /// The policy file's digest, if it is pinned.
    pub digest: Option<[u8; DIGEST_LEN]>,
    body: &'a [u8],
}

impl<'a> Stanza<'a> {
    /// `None` if it is not for a broker, or not of the form `[F-47]`.
    pub fn parse(stanza: &'a Section) -> Option<Self> {
        if stanza.kind != section::BROKER {
            return None;
        }
        let (tag, rest) = stanza.body.split_first_chunk::<TAG_LEN>()?;
        let (ct, rest) = rest.split_at_checked(CIPHERTEXT_SIZE)?;
        let (len, rest) = rest.split_first()?;
        let (policy, rest) = rest.split_at_checked(usize::from(*len))?;
        let (digest, wrapped) = rest.split_first_chunk::<DIGEST_LEN>()?;
        let policy = std::str::from_utf8(policy).ok().filter(|name| is_policy_name(name))?;
        let digest = (*digest != [0; DIGEST_LEN]).then_some(*digest);
        (wrapped.len() == WRAPPED_LEN).then_some(Self { tag: *tag, ct, policy, digest, body: &stanza.body })
    }

    /// Whether it says it is for the broker key of this id.
    pub fn is_for(&self, id: &[u8; 32], salt: &[u8; 32]) -> bool {
        self.tag == tag(id, salt)
    }

    /// The tag, which tells stanzas of one artifact apart.
    pub fn tag(&self) -> &[u8] {
        &self.tag
    }
}

/// A broker's secret key.
pub struct BrokerKey {
    identity: XWingIdentity,
    id: [u8; 32],
}

impl BrokerKey {
    /// From an X-Wing key.
    pub fn new(identity: XWingIdentity) -> Self {
        let id = key_id(identity.recipient().as_bytes());
        Self { identity, id }
    }

    /// A new key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self::new(XWingIdentity::generate(rng))
    }

    /// From a seed of 32 bytes; `None` if it has another length.
    pub fn from_seed(seed: Secret) -> Option<Self> {
        XWingIdentity::from_seed(seed).map(Self::new)
    }

    /// The seed, to be stored sealed.
    pub fn seed(&self) -> &Secret {
        self.identity.seed()
    }

    /// Its id.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Its public half: someone to seal for.
    pub fn public(&self) -> &XWingRecipient {
        self.identity.recipient()
    }

    /// The DEK of a stanza; `None` if the stanza is for another key or was changed.
    pub fn unwrap_dek(&self, salt: &[u8; 32], section: &Section) -> Option<Dek> {
        let stanza = Stanza::parse(section).filter(|s| s.is_for(&self.id, salt))?;
        let shared = self.identity.decapsulate(stanza.ct)?;
        let kek = kek(salt, &shared, stanza.ct, self.public().as_bytes());
        unwrap(&kek, section::BROKER, salt, stanza.body).and_then(Dek::from_secret)
    }
}

/// A DEK for exactly one stanza: what a release gives, as an identity.
pub struct Released {
    stanza: Section,
    dek: Dek,
}

impl Released {
    /// The DEK that belongs to this stanza.
    pub fn new(stanza: Section, dek: Dek) -> Self {
        Self { stanza, dek }
    }

    /// The DEK's bytes, to be wrapped for someone who may have it.
    pub fn into_secret(self) -> Secret {
        self.dek.into_secret()
    }
}

impl Identity for Released {
    fn unwrap_dek(&self, _salt: &[u8; 32], stanza: &Section) -> Result<Option<Dek>> {
        Ok((*stanza == self.stanza).then(|| self.dek.duplicate()))
    }

    fn describe(&self) -> String {
        "the released key".into()
    }
}

/// A broker's public key of 1216 bytes.
pub const BROKER_PUBLIC_LEN: usize = PUBLIC_LEN;

#[cfg(test)]
mod tests;
