//! Key files: hybrid X25519 + ML-KEM-768 (X-Wing), FORMAT.md section 4.2. The stanza's tag only helps an
//! identity to find its stanza; the wrapped DEK decides.

use super::{Identity, Recipient, unwrap, wrap};
use crate::error::{Error, Result};
use crate::header::{Section, section};
use crate::keys::Dek;
use crate::secret::Secret;
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256, Sha512};
use x_wing::kem::{Decapsulate, Encapsulate, KeyExport};
use x_wing::{CIPHERTEXT_SIZE, Ciphertext, DecapsulationKey, ENCAPSULATION_KEY_SIZE, EncapsulationKey};

/// Bytes of the stanza's body.
pub const BODY_LEN: usize = TAG_LEN + CIPHERTEXT_SIZE + super::WRAPPED_LEN;
/// Bytes of a public key.
pub const PUBLIC_LEN: usize = ENCAPSULATION_KEY_SIZE;
/// Bytes of a secret seed.
pub const SEED_LEN: usize = 32;
const TAG_LEN: usize = 8;

/// A public key: someone to seal for.
#[derive(Clone, PartialEq, Eq)]
pub struct XWingRecipient {
    key: EncapsulationKey,
    bytes: Vec<u8>,
}

impl XWingRecipient {
    /// From 1216 bytes; refuses what is not an ML-KEM-768 key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let key = EncapsulationKey::try_from(bytes)
            .map_err(|_| Error::Usage("the recipient's bytes are not an X-Wing public key".into()))?;
        Ok(Self { key, bytes: bytes.to_vec() })
    }

    /// The 1216 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The tag its stanzas carry in the artifact with this salt.
    pub fn tag(&self, salt: &[u8; 32]) -> [u8; TAG_LEN] {
        let digest = Sha256::new().chain_update(b"mvault/v1/x-wing tag\0").chain_update(salt).chain_update(&self.bytes);
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&digest.finalize()[..TAG_LEN]);
        tag
    }

    /// Whether a stanza says it is for this recipient.
    pub fn is_tagged(&self, salt: &[u8; 32], stanza: &Section) -> bool {
        stanza.kind == section::XWING && stanza.body.starts_with(&self.tag(salt))
    }

    /// A fresh ciphertext and the secret in it.
    pub(crate) fn encapsulate(&self, rng: &mut dyn CryptoRng) -> (Ciphertext, Secret) {
        let (ct, mut shared) = self.key.encapsulate_with_rng(rng);
        (ct, Secret::take(&mut shared))
    }

    fn kek(&self, shared: &[u8], ct: &[u8], salt: &[u8; 32]) -> Secret {
        let hkdf = Hkdf::<Sha512>::new(Some(salt), shared);
        let mut kek = Secret::zeroed(32);
        let info = [b"mvault/v1/x-wing\0", ct, &self.bytes];
        hkdf.expand_multi_info(&info, kek.expose_mut()).expect("32 bytes are derived");
        kek
    }
}

impl Recipient for XWingRecipient {
    fn wrap_dek(&self, salt: &[u8; 32], dek: &Dek, rng: &mut dyn CryptoRng) -> Result<Section> {
        let (ct, shared) = self.encapsulate(rng);
        let kek = self.kek(shared.expose(), &ct, salt);
        let before = [&self.tag(salt)[..], &ct].concat();
        let body = wrap(&kek, section::XWING, salt, &before, dek.expose());
        Ok(Section { kind: section::XWING, body })
    }
}

/// A secret key: 32 bytes from which everything is derived.
pub struct XWingIdentity {
    seed: Secret,
    recipient: XWingRecipient,
}

impl XWingIdentity {
    /// A new key.
    ///
    /// # Panics
    /// Never: a seed has 32 bytes.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self::from_seed(Secret::random(SEED_LEN, rng)).expect("a seed has 32 bytes")
    }

    /// From a seed; `None` if it is not 32 bytes.
    pub fn from_seed(seed: Secret) -> Option<Self> {
        let key = secret_key(&seed)?;
        let key = x_wing::kem::Decapsulator::encapsulation_key(&key).clone();
        let bytes = key.to_bytes().to_vec();
        Some(Self { seed, recipient: XWingRecipient { key, bytes } })
    }

    /// Its public half.
    pub fn recipient(&self) -> &XWingRecipient {
        &self.recipient
    }

    pub(crate) fn seed(&self) -> &Secret {
        &self.seed
    }

    /// The secret in a ciphertext; `None` if it has another length than one.
    pub(crate) fn decapsulate(&self, ct: &[u8]) -> Option<Secret> {
        let ct = Ciphertext::try_from(ct).ok()?;
        Some(Secret::take(&mut secret_key(&self.seed)?.decapsulate(&ct)))
    }
}

fn secret_key(seed: &Secret) -> Option<DecapsulationKey> {
    let mut bytes: [u8; SEED_LEN] = seed.expose().try_into().ok()?;
    let key = DecapsulationKey::from(bytes);
    zeroize::Zeroize::zeroize(&mut bytes);
    Some(key)
}

impl Identity for XWingIdentity {
    fn unwrap_dek(&self, salt: &[u8; 32], stanza: &Section) -> Result<Option<Dek>> {
        let ct = stanza.body.get(TAG_LEN..TAG_LEN + CIPHERTEXT_SIZE);
        let Some(ct) = ct.filter(|_| self.recipient.is_tagged(salt, stanza)) else { return Ok(None) };
        let Some(shared) = self.decapsulate(ct) else { return Ok(None) };
        let kek = self.recipient.kek(shared.expose(), ct, salt);
        Ok(unwrap(&kek, stanza.kind, salt, &stanza.body).and_then(Dek::from_secret)) // [F-17]
    }

    fn describe(&self) -> String {
        "a key file".into()
    }
}
