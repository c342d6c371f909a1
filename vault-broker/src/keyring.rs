//! The broker's keys at rest and in memory: docs/KEY_RELEASE.md section 5.
//!
//! The file is a sealed mvault artifact, so whatever can open a model can open a keyring: a passphrase, AWS KMS, a key
//! file. In memory every key is a [`Secret`].

use minicbor::encode::write::Cursor;
use minicbor::{Decoder, Encoder};
use rand_core::CryptoRng;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use std::io::Write;
use vault_attest::release::NonceKey;
use vault_core::header::Header;
use vault_core::io::{Input, Output};
use vault_core::open::{OpenOptions, OrderedSink, Release, open};
use vault_core::recipient::broker::BrokerKey;
use vault_core::recipient::{Identity, Recipient};
use vault_core::seal::{SealOptions, SourceEntry, seal};
use vault_core::secret::Secret;
use zeroize::Zeroize;

/// Most X-Wing keys a keyring holds.
pub const MAX_KEYS: usize = 256;
/// Largest keyring in the clear: 256 keys and the rest.
const MAX_PLAIN: usize = 32 * 1024;
/// The entry's name, and the artifact's.
const ENTRY: &str = "keyring.cbor";
const NAME: &str = "mvault-broker-keys";

/// Why a keyring cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// It cannot be sealed or opened.
    #[error(transparent)]
    Artifact(#[from] vault_core::Error),
    /// It opens, and is no keyring.
    #[error("this artifact is no keyring: {0}")]
    NoKeyring(&'static str),
    /// No room for another key.
    #[error("the keyring holds {MAX_KEYS} keys; seal artifacts anew for a new broker")]
    Full,
    /// The system's random generator or the certificate library failed.
    #[error("no key for the broker's own CA: {0}")]
    Ca(String),
}

/// One X-Wing key and when it was made.
pub struct Aged {
    /// The key.
    pub key: BrokerKey,
    /// Seconds since 1970.
    pub made_s: u64,
}

/// All keys of a broker.
pub struct Keyring {
    keys: Vec<Aged>,
    log_seed: Secret,
    nonce: Secret,
    ca: Secret,
}

impl Keyring {
    /// A new broker's keys.
    pub fn generate(now_s: u64, rng: &mut dyn CryptoRng) -> Result<Self, KeyringError> {
        let ca = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| KeyringError::Ca(e.to_string()))?;
        Ok(Self {
            keys: vec![Aged { key: BrokerKey::generate(rng), made_s: now_s }],
            log_seed: Secret::random(32, rng),
            nonce: Secret::random(NonceKey::LEN, rng),
            ca: Secret::take(&mut ca.serialize_der()),
        })
    }

    /// The keys, newest first; at least one.
    pub fn keys(&self) -> &[Aged] {
        &self.keys
    }

    /// The keys alone.
    pub fn into_keys(self) -> Vec<Aged> {
        self.keys
    }

    /// Adds a key, for which stanzas are made from now on; the others go on opening.
    pub fn rotate(&mut self, now_s: u64, rng: &mut dyn CryptoRng) -> Result<(), KeyringError> {
        if self.keys.len() >= MAX_KEYS {
            return Err(KeyringError::Full);
        }
        self.keys.insert(0, Aged { key: BrokerKey::generate(rng), made_s: now_s });
        Ok(())
    }

    /// The seed of the log's Ed25519 key.
    pub fn log_seed(&self) -> &Secret {
        &self.log_seed
    }

    /// The key of nonces.
    ///
    /// # Panics
    /// Never: the length was checked when the keyring was made or read.
    pub fn nonce_key(&self) -> NonceKey {
        let mut copy = Secret::zeroed(NonceKey::LEN);
        copy.expose_mut().copy_from_slice(self.nonce.expose());
        NonceKey::new(copy).expect("a nonce key has 64 bytes")
    }

    /// The key of the broker's own CA, PKCS#8 DER.
    pub fn ca(&self) -> &Secret {
        &self.ca
    }

    /// The artifact that is stored.
    pub fn seal(&self, recipients: &[&dyn Recipient], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, KeyringError> {
        let plain = self.encode()?;
        let mut input = plain.expose();
        let entry = SourceEntry { path: ENTRY.into(), input: Input::Stream(&mut input) };
        let mut artifact = Vec::new();
        let options = SealOptions { kind: "keyring".into(), ..SealOptions::new(NAME) };
        seal(vec![entry], recipients, &options, rng, Output::Stream(&mut artifact))?;
        Ok(artifact)
    }

    /// Reads what [`Self::seal`] made. `unlock` opens the header with whatever the operator gave.
    pub fn open<E: From<KeyringError>>(
        mut artifact: &[u8],
        unlock: impl FnOnce(&Header) -> Result<vault_core::header::AuthenticatedHeader, E>,
    ) -> Result<Self, E> {
        let header = Header::read(&mut artifact).map_err(KeyringError::from)?;
        let header = unlock(&header)?;
        let mut plain = Plain { secret: Secret::zeroed(MAX_PLAIN), len: 0 };
        let input = Input::Stream(&mut artifact);
        open(input, &header, &OpenOptions::default(), Release::Ordered(&mut plain)).map_err(KeyringError::from)?;
        let bytes = plain.secret.expose().get(..plain.len).unwrap_or_default();
        Self::decode(bytes).map_err(|why| KeyringError::NoKeyring(why).into())
    }

    /// Opens with identities, none of which needs a network.
    pub fn open_with(artifact: &[u8], identities: &[&dyn Identity]) -> Result<Self, KeyringError> {
        Self::open(artifact, |header| Ok::<_, KeyringError>(header.unlock(identities)?))
    }

    /// `{0: 1, 1: [[seed, made], ...], 2: log seed, 3: nonce key, 4: CA key}`
    fn encode(&self) -> Result<Secret, KeyringError> {
        let mut buffer = Secret::zeroed(MAX_PLAIN);
        let mut encoder = Encoder::new(Cursor::new(buffer.expose_mut()));
        let written = (|| {
            encoder.map(5)?.u8(0)?.u8(1)?.u8(1)?.array(self.keys.len() as u64)?;
            for Aged { key, made_s } in &self.keys {
                encoder.array(2)?.bytes(key.seed().expose())?.u64(*made_s)?;
            }
            for (n, secret) in [(2, &self.log_seed), (3, &self.nonce), (4, &self.ca)] {
                encoder.u8(n)?.bytes(secret.expose())?;
            }
            Ok::<_, minicbor::encode::Error<minicbor::encode::write::EndOfSlice>>(())
        })();
        let len = encoder.into_writer().position();
        written.map_err(|_| KeyringError::Full)?;
        let mut plain = Secret::zeroed(len);
        plain.expose_mut().copy_from_slice(buffer.expose().get(..len).unwrap_or_default());
        Ok(plain)
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut decoder = Decoder::new(bytes);
        let keyring = Self::read(&mut decoder).map_err(|_| "its CBOR is not a keyring's")?;
        let keyring = keyring.ok_or("a key has a wrong length, or another version made it")?;
        if decoder.position() == bytes.len() { Ok(keyring) } else { Err("something follows it") }
    }

    /// `None` for well-formed CBOR of another version or with keys of wrong lengths.
    fn read(decoder: &mut Decoder<'_>) -> Result<Option<Self>, minicbor::decode::Error> {
        if decoder.map()? != Some(5) || decoder.u8()? != 0 || decoder.u8()? != 1 || decoder.u8()? != 1 {
            return Ok(None);
        }
        let count = decoder.array()?.unwrap_or(0);
        let mut keys = Vec::new();
        for _ in 0..count {
            if keys.len() >= MAX_KEYS || decoder.array()? != Some(2) {
                return Ok(None);
            }
            let seed = secret(decoder.bytes()?);
            let Some(key) = BrokerKey::from_seed(seed) else { return Ok(None) };
            keys.push(Aged { key, made_s: decoder.u64()? });
        }
        let mut rest = Vec::new();
        for n in 2..=4 {
            if decoder.u8()? != n {
                return Ok(None);
            }
            rest.push(secret(decoder.bytes()?));
        }
        let Ok([log_seed, nonce, ca]) = <[Secret; 3]>::try_from(rest) else { return Ok(None) };
        let lengths = (log_seed.expose().len(), nonce.expose().len());
        let good = !keys.is_empty() && lengths == (32, NonceKey::LEN);
        Ok(good.then_some(Self { keys, log_seed, nonce, ca }))
    }
}

fn secret(bytes: &[u8]) -> Secret {
    let mut secret = Secret::zeroed(bytes.len());
    secret.expose_mut().copy_from_slice(bytes);
    secret
}

/// Takes the one entry into locked memory as it is verified.
struct Plain {
    secret: Secret,
    len: usize,
}

impl OrderedSink for Plain {
    fn begin(&mut self, entries: &[(String, Option<u64>)]) -> std::io::Result<()> {
        match entries {
            [(name, _)] if name == ENTRY => Ok(()),
            _ => Err(std::io::Error::other("this artifact is no keyring")),
        }
    }

    fn write(&mut self, _: usize, _: u64, data: &[u8]) -> std::io::Result<()> {
        let mut space = self.secret.expose_mut().get_mut(self.len..).unwrap_or_default();
        space.write_all(data)?;
        self.len += data.len();
        Ok(())
    }

    fn end(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.secret.expose_mut().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use getrandom::SysRng;
    use getrandom::rand_core::UnwrapErr;
    use vault_core::recipient::xwing::XWingIdentity;

    #[test]
    fn keys_survive_sealing_and_rotation() {
        let mut rng = UnwrapErr(SysRng);
        let (owner, stranger) = (XWingIdentity::generate(&mut rng), XWingIdentity::generate(&mut rng));
        let mut keyring = Keyring::generate(1000, &mut rng).unwrap();
        let first = *keyring.keys()[0].key.id();
        keyring.rotate(2000, &mut rng).unwrap();
        let sealed = keyring.seal(&[owner.recipient()], &mut rng).unwrap();
        let read = Keyring::open_with(&sealed, &[&owner]).unwrap();
        let of = |k: &Keyring| k.keys().iter().map(|a| (*a.key.id(), a.made_s)).collect::<Vec<_>>();
        assert_eq!(of(&read), of(&keyring));
        assert_eq!(of(&read)[1], (first, 1000));
        assert_eq!(read.log_seed().expose(), keyring.log_seed().expose());
        assert_eq!(read.ca().expose(), keyring.ca().expose());
        let nonce = read.nonce_key().issue(5, &mut rng);
        assert!(keyring.nonce_key().check(&nonce, 5).is_ok());
        assert!(Keyring::open_with(&sealed, &[&stranger]).is_err());
        for seed in [keyring.log_seed(), keyring.keys()[0].key.seed()] {
            assert!(!sealed.windows(32).any(|w| w == seed.expose()), "a key in the clear");
        }
    }

    #[test]
    fn a_full_keyring_says_so() {
        let mut rng = UnwrapErr(SysRng);
        let mut keyring = Keyring::generate(0, &mut rng).unwrap();
        for n in 1..MAX_KEYS {
            keyring.rotate(n as u64, &mut rng).unwrap();
        }
        assert!(matches!(keyring.rotate(0, &mut rng), Err(KeyringError::Full)));
        let owner = XWingIdentity::generate(&mut rng);
        let sealed = keyring.seal(&[owner.recipient()], &mut rng).unwrap();
        assert_eq!(Keyring::open_with(&sealed, &[&owner]).unwrap().keys().len(), MAX_KEYS);
    }

    #[test]
    fn other_artifacts_are_no_keyring() {
        let mut rng = UnwrapErr(SysRng);
        let owner = XWingIdentity::generate(&mut rng);
        let plain = Keyring::generate(0, &mut rng).unwrap().encode().unwrap();
        let good = plain.expose().to_vec();
        let artifact = |name: &str, bytes: &[u8], rng: &mut UnwrapErr<SysRng>| {
            let (mut input, mut artifact) = (bytes, Vec::new());
            let entry = SourceEntry { path: name.into(), input: Input::Stream(&mut input) };
            let options = SealOptions::new("x");
            seal(vec![entry], &[owner.recipient()], &options, rng, Output::Stream(&mut artifact)).unwrap();
            artifact
        };
        assert!(Keyring::open_with(&artifact(ENTRY, &good, &mut rng), &[&owner]).is_ok());
        let trailing = [&good[..], &[0]].concat();
        let version = [&[0xA5, 0x00, 0x02], &good[3..]].concat();
        for bytes in [&good[..good.len() - 1], &trailing, &version, &[], &[0xA5], &vec![0x81; MAX_PLAIN + 1]] {
            assert!(Keyring::open_with(&artifact(ENTRY, bytes, &mut rng), &[&owner]).is_err());
        }
        assert!(Keyring::open_with(&artifact("other.cbor", &good, &mut rng), &[&owner]).is_err());
    }
}
